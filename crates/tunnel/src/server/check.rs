//! Settings that no server can work with.

use std::{io, net::SocketAddr};

use keepwarm_transport::proxy::Target;
use tokio::sync::Semaphore;

use super::destination::Own;
use crate::config::{Listen, ListenKind, TunnelConfig, UpstreamKind};

/// Whether there is anything to open.
pub(super) fn check_any(config: &TunnelConfig) -> io::Result<()> {
    match config.listen.is_empty() {
        true => wrong("the tunnel has no address to listen on".to_owned()),
        false => Ok(()),
    }
}

/// What can be told before anything is opened.
pub(super) fn check(config: &TunnelConfig) -> io::Result<()> {
    if config.max_clients == 0 || config.max_clients > Semaphore::MAX_PERMITS {
        return wrong(format!("the tunnel cannot serve {} clients", config.max_clients));
    }
    config.listen.iter().try_for_each(|listen| check_listener(listen, config.users.is_empty()))?;
    for user in &config.users {
        let lengths = [user.name.len(), user.password.len()];
        if user.name.contains(':') || !lengths.iter().all(|length| (1..=255).contains(length)) {
            // RFC 1929 section 2 for the lengths, RFC 7617 section 2 for the colon.
            return wrong(format!(
                "user {:?} of the tunnel: name and password have 1 to 255 bytes, and the name no colon",
                user.name
            ));
        }
    }
    Ok(())
}

fn check_listener(listen: &Listen, is_open: bool) -> io::Result<()> {
    let address = listen.address;
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let port = address.port();
    // Users or not: what a forward takes in has no handshake in which it could say who it is.
    if let ListenKind::Forward(target) = &listen.kind {
        return wrong(format!(
            "the forward on {address} to {target} could be used by everyone who reaches it: listen on a loopback address such as \
             127.0.0.1:{port}"
        ));
    }
    if is_open {
        return wrong(format!(
            "the tunnel on {address} could be used by everyone who reaches it: set users, or listen on a loopback address such as \
             127.0.0.1:{port}"
        ));
    }
    Ok(())
}

/// A forward to a listener of ours would be its own client without end, where it is this machine that connects: beyond an upstream the
/// same address is another machine's. Told once the ports are known.
pub(super) fn check_forwards(
    config: &TunnelConfig,
    addresses: &[SocketAddr],
    own: &Own,
    is_direct: impl Fn(&Target) -> bool,
) -> io::Result<()> {
    for (listen, address) in config.listen.iter().zip(addresses) {
        if let ListenKind::Forward(target) = &listen.kind
            && own.is(target)
            && is_direct(target)
        {
            return wrong(format!(
                "the forward on {address} to {target} leads back to the tunnel itself, or to what else this process serves"
            ));
        }
    }
    Ok(())
}

/// An upstream that is a listener of ours would have every tunnel asked for once more, and each spare be a client. Told once the ports are
/// known.
pub(super) fn check_upstreams(config: &TunnelConfig, addresses: &[SocketAddr]) -> io::Result<()> {
    let listeners = Own::new(addresses.to_vec(), &[]);
    for upstream in &config.upstreams {
        let first = match (&upstream.through, &upstream.kind) {
            (Some(proxy), _) | (None, UpstreamKind::Proxy(proxy)) => Target::new(&proxy.host, proxy.port),
            (None, UpstreamKind::Ssh(ssh)) => Target::new(&ssh.host, ssh.port),
            (None, UpstreamKind::Direct) => continue,
        };
        if let Ok(first) = first
            && listeners.is(&first)
        {
            return wrong(format!("upstream {} is reached at {first}, where the tunnel itself listens", upstream.name));
        }
    }
    Ok(())
}

fn wrong(text: String) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepwarm_transport::proxy::Proxy;

    use super::*;
    use crate::config::{UpstreamConfig, User};

    fn listen(address: &str, kind: ListenKind) -> Listen {
        Listen { address: address.parse().unwrap(), kind }
    }

    fn config(listen: Vec<Listen>, users: &[(&str, &str)]) -> TunnelConfig {
        let user =
            |(name, password): &(&str, &str)| User { name: (*name).to_owned(), password: (*password).to_owned() };
        TunnelConfig { listen, users: users.iter().map(user).collect(), ..TunnelConfig::default() }
    }

    fn fault(config: &TunnelConfig) -> String {
        check(config).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_listener_is_needed_and_room_for_clients() {
        assert!(check_any(&config(Vec::new(), &[])).unwrap_err().to_string().contains("no address"));
        let mut none = config(vec![listen("127.0.0.1:0", ListenKind::Mixed)], &[]);
        assert!(check(&none).is_ok());
        none.max_clients = 0;
        assert!(fault(&none).contains("0 clients"));
    }

    #[test]
    fn beyond_loopback_only_with_users_and_never_a_forward() {
        let target = Target::new("db.example", 5432).unwrap();
        for kind in [ListenKind::Mixed, ListenKind::Socks, ListenKind::Http] {
            for address in ["0.0.0.0:1080", "[::]:1080", "192.0.2.1:1080", "[::ffff:192.0.2.1]:1080"] {
                let open = config(vec![listen(address, kind.clone())], &[]);
                assert!(fault(&open).contains("set users"), "{address}");
                let guarded = config(vec![listen(address, kind.clone())], &[("ann", "one")]);
                assert!(check(&guarded).is_ok(), "{address}");
            }
            for address in ["127.8.8.8:1080", "[::1]:1080", "[::ffff:127.0.0.1]:1080"] {
                assert!(check(&config(vec![listen(address, kind.clone())], &[])).is_ok(), "{address}");
            }
        }
        let forward = ListenKind::Forward(target);
        assert!(check(&config(vec![listen("127.0.0.1:5432", forward.clone())], &[])).is_ok());
        let open = config(vec![listen("0.0.0.0:5432", forward)], &[("ann", "one")]);
        assert!(fault(&open).contains("forward on 0.0.0.0:5432 to db.example:5432"));
    }

    #[test]
    fn users_can_be_expressed_in_socks_and_basic() {
        let long = "x".repeat(256);
        for user in [("", "one"), ("ann", ""), ("a:b", "one"), (&long, "one"), ("ann", &long)] {
            let text = fault(&config(vec![listen("127.0.0.1:0", ListenKind::Mixed)], &[user]));
            assert!(text.contains("1 to 255 bytes"), "{text}");
            assert!(!text.contains("\"one\"") && !text.contains(&format!("{:?}", user.1)) || user.1.is_empty());
        }
        let longest = &long[..255];
        assert!(check(&config(vec![listen("127.0.0.1:0", ListenKind::Mixed)], &[(longest, longest)])).is_ok());
    }

    #[test]
    fn a_forward_to_a_listener_of_ours_is_refused() {
        let to = |target: Target| config(vec![listen("127.0.0.1:0", ListenKind::Forward(target))], &[]);
        let addresses = ["127.0.0.1:4000".parse().unwrap()];
        let own = Own::new(addresses.to_vec(), &["127.0.0.1:9180".parse().unwrap()]);
        for (host, port, is_direct, is_right) in [
            ("localhost", 4000, true, false),
            ("127.0.0.1", 4000, true, false),
            ("127.0.0.1", 9180, true, false),
            ("127.0.0.1", 4001, true, true),
            // The far machine's, behind an upstream.
            ("localhost", 4000, false, true),
            ("127.0.0.1", 9180, false, true),
        ] {
            let checked = check_forwards(&to(Target::new(host, port).unwrap()), &addresses, &own, |_| is_direct);
            assert_eq!(checked.is_ok(), is_right, "{host}:{port} {is_direct}");
        }
    }

    #[test]
    fn an_upstream_that_is_a_listener_of_ours_is_refused() {
        let proxy = |url: &str| Arc::new(Proxy::parse(url).unwrap());
        let upstream = |url: &str| UpstreamConfig::new("exit", UpstreamKind::Proxy(proxy(url)));
        let through = |url, first| UpstreamConfig { through: Some(proxy(first)), ..upstream(url) };
        let addresses = ["127.0.0.1:4000".parse().unwrap(), "0.0.0.0:4001".parse().unwrap()];
        for (upstream, is_right) in [
            (upstream("socks5://127.0.0.1:4000"), false),
            (upstream("http://localhost:4000"), false),
            (upstream("socks5://127.8.8.8:4001"), false),
            (through("socks5://exit.example:1080", "socks5://127.0.0.1:4000"), false),
            // The first proxy's loopback is not ours.
            (through("socks5://127.0.0.1:4000", "socks5://first.example:1080"), true),
            (upstream("socks5://127.0.0.1:4002"), true),
            (UpstreamConfig::new("own", UpstreamKind::Direct), true),
        ] {
            let config = TunnelConfig { upstreams: vec![upstream], ..TunnelConfig::default() };
            let checked = check_upstreams(&config, &addresses);
            assert_eq!(checked.is_ok(), is_right, "{:?}", config.upstreams);
        }
    }
}
