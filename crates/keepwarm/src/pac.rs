//! The proxy auto-configuration file: tells browsers and systems to use the listeners of `[tunnel]`.
//!
//! Pure: listeners in, JavaScript out. Serving it is the status endpoint's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use keepwarm_tunnel::config::{Listen, ListenKind};

/// The content type of what [`pac`] returns.
pub const CONTENT_TYPE: &str = "application/x-ns-proxy-autoconfig";

/// A `FindProxyForURL` that leads to these listeners, each at the address and port that it really has, in their order. Plain host names,
/// `localhost` and loopback addresses go direct; everything else goes to the listeners alone, so that nothing leaves beside the tunnels
/// when they are down.
///
/// `reached` is the address of ours at which the client asked for the file: it stands for listeners at an unspecified address, and
/// listeners on loopback are left out for a client that is elsewhere. With `has_users` only HTTP is offered: browsers authenticate to
/// HTTP proxies, and to SOCKS5 ones they do not.
///
/// `None` where no listener is left that a browser could use.
pub fn pac(listeners: &[Listen], has_users: bool, reached: IpAddr) -> Option<String> {
    let mut ways: Vec<String> = Vec::new();
    for Listen { address, kind } in listeners {
        let Some(address) = as_seen(*address, reached) else { continue };
        let (socks, http) = match kind {
            ListenKind::Mixed => (!has_users, true),
            ListenKind::Socks => (!has_users, false),
            ListenKind::Http => (false, true),
            ListenKind::Forward(_) => continue,
        };
        ways.extend(socks.then(|| format!("SOCKS5 {address}")));
        ways.extend(http.then(|| format!("PROXY {address}")));
    }
    // Addresses and ports only: nothing in it could end the string.
    (!ways.is_empty()).then(|| TEMPLATE.replace("WAYS", &ways.join("; ")))
}

/// The address at which a client finds a listener; `None` where it cannot.
fn as_seen(listener: SocketAddr, reached: IpAddr) -> Option<SocketAddr> {
    let reached = reached.to_canonical();
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => Some(ip).filter(|ip| !ip.to_canonical().is_loopback() || reached.is_loopback()),
        ip if ip.is_ipv4() == reached.is_ipv4() => Some(reached),
        IpAddr::V4(_) => reached.is_loopback().then_some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => reached.is_loopback().then_some(Ipv6Addr::LOCALHOST.into()),
    };
    ip.map(|ip| SocketAddr::new(ip, listener.port()))
}

/// Without the functions that browsers add for such files, which differ.
const TEMPLATE: &str = r#"function FindProxyForURL(url, host) {
  var name = host.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "");
  var plain = name.indexOf(".") < 0 && name.indexOf(":") < 0;
  var local = /\.localhost$/.test(name) || /^127(\.[0-9]{1,3}){3}$/.test(name) || name === "::1" || /^::ffff:7f[0-9a-f]{2}:/.test(name);
  return plain || local ? "DIRECT" : "WAYS";
}
"#;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use keepwarm_transport::proxy::Target;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn listen(address: &str, kind: ListenKind) -> Listen {
        Listen { address: address.parse().unwrap(), kind }
    }

    /// What the file answers for a destination that is not local.
    fn ways(listeners: &[Listen], has_users: bool, reached: &str) -> Option<String> {
        let text = pac(listeners, has_users, reached.parse().unwrap())?;
        Some(text.split("\"DIRECT\" : \"").nth(1).unwrap().split('"').next().unwrap().to_owned())
    }

    fn forward(address: &str) -> Listen {
        listen(address, ListenKind::Forward(Target::new("db.example", 5432).unwrap()))
    }

    #[test]
    fn each_listener_is_offered_as_what_it_speaks() {
        let listeners = [
            listen("127.0.0.1:1080", ListenKind::Mixed),
            listen("[::1]:1081", ListenKind::Socks),
            listen("127.0.0.1:8118", ListenKind::Http),
            forward("127.0.0.1:5432"),
        ];
        let all = "SOCKS5 127.0.0.1:1080; PROXY 127.0.0.1:1080; SOCKS5 [::1]:1081; PROXY 127.0.0.1:8118";
        assert_eq!(ways(&listeners, false, "127.0.0.1").as_deref(), Some(all));
        let with_password = "PROXY 127.0.0.1:1080; PROXY 127.0.0.1:8118";
        assert_eq!(ways(&listeners, true, "127.0.0.1").as_deref(), Some(with_password));
    }

    #[test]
    fn no_file_is_better_than_one_that_leads_nowhere() {
        assert_eq!(pac(&[], false, HERE), None);
        assert_eq!(pac(&[forward("127.0.0.1:5432")], false, HERE), None);
        assert_eq!(pac(&[listen("127.0.0.1:1", ListenKind::Socks)], true, HERE), None);
        assert_eq!(ways(&[listen("127.0.0.1:1", ListenKind::Mixed)], false, "192.0.2.1"), None);
    }

    #[test]
    fn a_listener_everywhere_is_named_as_the_client_reached_us() {
        for (listener, reached, seen) in [
            ("0.0.0.0:1", "192.0.2.1", "192.0.2.1:1"),
            ("0.0.0.0:1", "::ffff:192.0.2.1", "192.0.2.1:1"),
            ("[::]:1", "2001:db8::1", "[2001:db8::1]:1"),
            ("0.0.0.0:1", "::1", "127.0.0.1:1"),
            ("[::]:1", "127.0.0.1", "[::1]:1"),
            ("192.0.2.7:1", "127.0.0.1", "192.0.2.7:1"),
        ] {
            let listeners = [listen(listener, ListenKind::Http)];
            assert_eq!(ways(&listeners, false, reached), Some(format!("PROXY {seen}")), "{listener} {reached}");
        }
        assert_eq!(ways(&[listen("0.0.0.0:1", ListenKind::Http)], false, "2001:db8::1"), None);
    }

    #[test]
    fn javascript_reads_it_and_keeps_what_is_local_off_the_tunnels() {
        let cases = [
            ("example.com", false),
            ("EXAMPLE.com.", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("127.0.0.1.example.com", false),
            ("127.example.com", false),
            ("notlocalhost.example", false),
            ("nas", true),
            ("LocalHost", true),
            ("a.localhost", true),
            ("a.localhost.", true),
            ("127.0.0.1", true),
            ("127.255.1.2", true),
            ("::1", true),
            ("[::1]", true),
            ("::ffff:7f00:1", true),
        ];
        let text = pac(&[listen("127.0.0.1:1080", ListenKind::Mixed)], false, HERE).unwrap();
        let hosts = cases.map(|(host, _)| format!("\"{host}\"")).join(",");
        let script = format!(
            "{text}; console.log([{hosts}].map(function (host) {{ return FindProxyForURL(\"http://\" + host + \"/\", host) }}).join(\"\\n\"))"
        );
        let Ok(output) = Command::new("node").arg("-e").arg(&script).output() else {
            println!("SKIPPED: node is not installed (Debian: nodejs)");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers = String::from_utf8(output.stdout).unwrap();
        let way = |is_local| if is_local { "DIRECT" } else { "SOCKS5 127.0.0.1:1080; PROXY 127.0.0.1:1080" };
        let answers: Vec<_> = cases.iter().map(|(host, _)| *host).zip(answers.lines()).collect();
        assert_eq!(answers, cases.map(|(host, is_local)| (host, way(is_local))));
    }
}
