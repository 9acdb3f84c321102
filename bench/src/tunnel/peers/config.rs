//! How each proxy is told what to do.

use std::{net::SocketAddr, path::Path};

use super::Kind;
use crate::tunnel::USER;

/// What a proxy is to do.
pub(in crate::tunnel) struct Setup<'a> {
    pub(in crate::tunnel) listen: SocketAddr,
    /// keepwarm's status endpoint.
    pub(in crate::tunnel) control: SocketAddr,
    /// For its files.
    pub(in crate::tunnel) dir: &'a Path,
    /// Its clients have user and password.
    pub(in crate::tunnel) has_user: bool,
    /// A SOCKS5 proxy with user and password to go through.
    pub(in crate::tunnel) upstream: Option<SocketAddr>,
}

/// The configuration file: name and text.
pub(super) fn file(kind: Kind, setup: &Setup<'_>) -> Option<(&'static str, String)> {
    match kind {
        Kind::Keepwarm => Some((KEEPWARM, keepwarm(setup))),
        Kind::Danted => Some((DANTED, danted(setup))),
        _ => None,
    }
}

/// The arguments after the program.
pub(super) fn arguments(kind: Kind, setup: &Setup<'_>) -> Vec<String> {
    let listen = setup.listen.to_string();
    let [ip, port] = [setup.listen.ip().to_string(), setup.listen.port().to_string()];
    let user = |words: &[&str]| if setup.has_user { words.join(" ") } else { String::new() };
    let line = match kind {
        Kind::Keepwarm => format!("run -c {KEEPWARM}"),
        Kind::Danted => format!("-f {DANTED} -p danted.pid"),
        Kind::Microsocks => format!("-i {ip} -p {port} {}", user(&["-u", USER, "-P", USER])),
        Kind::FastSocks5 => {
            let upstream = setup.upstream.map(|upstream| format!("upstream {upstream}")).unwrap_or_default();
            format!("{listen} {} {upstream}", user(&["user"]))
        }
        Kind::Tokio => format!("tunnel-relay --listen {listen} --how tokio {}", user(&["--user"])),
        Kind::Splice => format!("tunnel-relay --listen {listen} --how splice {}", user(&["--user"])),
        Kind::Copy => format!("tunnel-relay --listen {listen} --how copy {}", user(&["--user"])),
    };
    line.split_whitespace().map(str::to_owned).collect()
}

/// Defaults, but for limits that are meant for one user's machine: the tunnels of a row go to few destinations, and 1,000 of them
/// are open at a time.
fn keepwarm(setup: &Setup<'_>) -> String {
    let Setup { listen, control, has_user, upstream, .. } = setup;
    let users = if *has_user { format!("users = {{ {USER} = \"{USER}\" }}\n") } else { String::new() };
    let upstream = upstream.map(|upstream| {
        format!(
            "\n[[tunnel.upstream]]\nname = \"upstream\"\naddress = \"socks5://{upstream}\"\nusername = \"{USER}\"\npassword = \"{USER}\"\n"
        )
    });
    format!(
        "version = 1\n\n[limits]\nworkers = 1\nmax_connections = 8192\n\n[tunnel]\nlisten = [\"{listen}\"]\n{users}\
         max_tunnels = 4096\nmax_per_destination = 4096\n{upstream}\n[control]\nlisten = \"{control}\"\n",
        upstream = upstream.unwrap_or_default(),
    )
}

fn danted(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    // Its helpers give up root where they have it; without it they stay who they are.
    let users =
        if nix::unistd::geteuid().is_root() { "user.privileged: root\nuser.unprivileged: nobody\n" } else { "" };
    format!(
        "logoutput: stderr\ninternal: {ip} port = {port}\nexternal: {ip}\nclientmethod: none\nsocksmethod: none\n{users}\
         client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 protocol: tcp }}\n"
    )
}

const KEEPWARM: &str = "config.toml";
const DANTED: &str = "danted.conf";

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(has_user: bool, upstream: Option<SocketAddr>) -> Setup<'static> {
        let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Setup { listen: here(1080), control: here(9180), dir: Path::new("/nowhere"), has_user, upstream }
    }

    #[test]
    fn proxies_are_told_by_arguments() {
        let line = |kind, setup: &Setup<'_>| arguments(kind, setup).join(" ");
        let plain = setup(false, None);
        assert_eq!(line(Kind::Microsocks, &plain), "-i 127.0.0.1 -p 1080");
        assert_eq!(line(Kind::Splice, &plain), "tunnel-relay --listen 127.0.0.1:1080 --how splice");
        let full = setup(true, Some(([127, 0, 0, 1], 2080).into()));
        assert_eq!(line(Kind::Microsocks, &full), "-i 127.0.0.1 -p 1080 -u bench -P bench");
        assert_eq!(line(Kind::FastSocks5, &full), "127.0.0.1:1080 user upstream 127.0.0.1:2080");
    }

    #[test]
    fn keepwarm_is_set_up_as_its_reference_says() {
        let config = keepwarm(&setup(true, Some(([127, 0, 0, 1], 2080).into())));
        insta::assert_snapshot!(config);
    }
}
