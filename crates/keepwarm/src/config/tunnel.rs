//! `[tunnel]` as text: listeners, upstreams' addresses, destinations.
//!
//! Pure text in, values out; nothing is resolved and no file is read here. Each refusal says what would be accepted, and none repeats
//! what may be a password. The patterns of rules are in `tunnel/pattern.rs`.

use std::net::Ipv6Addr;

use keepwarm_transport::proxy::{Credential, Proxy, Target};
use keepwarm_tunnel::config::{Listen, ListenKind};

use super::{
    address::{host_problem, parse_port, parse_socket},
    words::WordsError,
};

mod pattern;

pub(crate) use pattern::show_pattern;
pub(super) use pattern::{covers, parse_pattern};

const LISTEN_FORMS: &str = "an IP address and a port, such as \"127.0.0.1:1080\" (SOCKS and HTTP), \"socks5://127.0.0.1:1080\", \"http://127.0.0.1:8118\", or \"forward://127.0.0.1:5432->db.example.com:5432\"";
const ADDRESS_FORMS: &str =
    "\"socks5://HOST:PORT\", \"http://HOST:PORT\", \"https://HOST:PORT\", \"ssh://USER@HOST:PORT\" or \"direct://\"";
const TARGET_FORMS: &str = "a host and a port, such as \"db.example.com:5432\" or \"[2001:db8::1]:5432\"";
const SSH_PORT: u16 = 22;

/// Where an upstream is, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// This machine itself.
    Direct,
    /// A proxy, with the credential of the URL.
    Proxy(Proxy),
    /// An SSH server.
    Ssh {
        /// Host name, or address without brackets.
        host: String,
        /// Port.
        port: u16,
        /// User, and the password where the URL has one.
        credential: Option<Credential>,
    },
}

/// Where a listener is, and what it speaks: `IP:PORT`, `socks5://IP:PORT`, `http://IP:PORT`, `forward://IP:PORT->HOST:PORT`.
pub(super) fn parse_listen(text: &str) -> Result<Listen, WordsError> {
    if text.contains('@') {
        return Err(refuse("names a user, and users stand in [tunnel.users]", LISTEN_FORMS));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Listen { address: parse_socket(text, None, LISTEN_FORMS)?, kind: ListenKind::Mixed });
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let kind = match scheme {
        "socks5" => ListenKind::Socks,
        "http" => ListenKind::Http,
        "forward" => return parse_forward(rest),
        "socks" | "socks4" | "socks4a" | "socks5h" => {
            let meant = format!("socks5://{rest}");
            let accepted =
                if parse_listen(&meant).is_ok() { format!("write \"{meant}\"") } else { LISTEN_FORMS.into() };
            return Err(refuse(
                format!("has the scheme `{scheme}://`; SOCKS5 and SOCKS4a are served by one listener"),
                accepted,
            ));
        }
        "https" => {
            return Err(refuse("asks for TLS with the clients, which this listener does not speak", LISTEN_FORMS));
        }
        _ => return Err(refuse(format!("has the unknown scheme `{scheme}://`"), LISTEN_FORMS)),
    };
    Ok(Listen { address: parse_socket(rest, None, LISTEN_FORMS)?, kind })
}

fn parse_forward(rest: &str) -> Result<Listen, WordsError> {
    let Some((address, target)) = rest.split_once("->") else {
        return Err(refuse(
            "does not say where to forward to",
            "\"forward://IP:PORT->HOST:PORT\", such as \"forward://127.0.0.1:5432->db.example.com:5432\"",
        ));
    };
    let address = parse_socket(address.trim_end(), None, LISTEN_FORMS)?;
    match parse_target(target.trim_start())? {
        (_, None) => Err(refuse("has no port behind the host that it forwards to", TARGET_FORMS)),
        (host, Some(port)) => Ok(Listen { address, kind: ListenKind::Forward(target_of(&host, port)?) }),
    }
}

/// An upstream's address: `socks5://`, `http://` or `https://`, as [`Proxy::parse`] reads them, `ssh://`, or `direct://`.
pub(super) fn parse_address(text: &str) -> Result<Address, WordsError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let meant = format!("socks5://{text}");
        let accepted = match text {
            "direct" => "write \"direct://\"".to_owned(),
            _ if !text.contains('@') && Proxy::parse(&meant).is_ok() => {
                format!("write \"{meant}\", or \"http://{text}\" for an HTTP proxy")
            }
            _ => ADDRESS_FORMS.to_owned(),
        };
        return Err(refuse("does not say which protocol to speak", accepted));
    };
    match scheme {
        "direct" if rest.is_empty() => Ok(Address::Direct),
        "direct" => Err(refuse("has a host behind direct://, which is this machine itself", "write \"direct://\"")),
        "ssh" => parse_ssh(rest),
        _ => match Proxy::parse(text) {
            Ok(proxy) => Ok(Address::Proxy(proxy)),
            Err(error) => Err(refuse(format!("is not a proxy: {error}"), ADDRESS_FORMS)),
        },
    }
}

/// What follows `ssh://` has the shape of a proxy's URL, with another port where none is given.
fn parse_ssh(rest: &str) -> Result<Address, WordsError> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let with_port = Proxy::parse(&format!("http://{rest}"));
    let server = with_port.or_else(|error| Proxy::parse(&format!("http://{rest}:{SSH_PORT}")).map_err(|_| error));
    match server {
        Ok(Proxy { host, port, credential, .. }) => Ok(Address::Ssh { host, port, credential }),
        Err(_) => Err(refuse(
            "is not an SSH server",
            "\"ssh://USER@HOST\" or \"ssh://USER@HOST:PORT\", an IPv6 address in brackets, special characters as %40",
        )),
    }
}

/// The URL of a proxy on the way to another upstream.
pub(super) fn parse_through(text: &str) -> Result<Proxy, WordsError> {
    const FORMS: &str =
        "the name of another upstream, or a proxy's URL, such as \"socks5://HOST:PORT\" or \"http://HOST:PORT\"";
    Proxy::parse(text).map_err(|error| refuse(format!("is not a proxy: {error}"), FORMS))
}

/// A host in lower case and without brackets, and its port where there is one.
pub(super) fn parse_target(text: &str) -> Result<(String, Option<u16>), WordsError> {
    if text.contains('@') {
        return Err(refuse("names a user, and a destination is a host", TARGET_FORMS));
    }
    if text.contains("://") {
        return Err(refuse("is a URL, and a destination is a host and a port", TARGET_FORMS));
    }
    let (host, port) = split_port(text, TARGET_FORMS)?;
    if let Some(problem) = host_problem(host).filter(|_| host.parse::<std::net::IpAddr>().is_err()) {
        return Err(refuse(problem, TARGET_FORMS));
    }
    Ok((host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(), port.map(parse_port).transpose()?))
}

/// The destination of a host that [`parse_target`] read.
pub(super) fn target_of(host: &str, port: u16) -> Result<Target, WordsError> {
    Target::new(host, port).map_err(|error| refuse(format!("cannot be connected to: {error}"), TARGET_FORMS))
}

/// Host without brackets, and what follows its colon. IPv6 addresses, and networks of them, stand in brackets where a port follows.
fn split_port<'t>(text: &'t str, forms: &str) -> Result<(&'t str, Option<&'t str>), WordsError> {
    let Some(rest) = text.strip_prefix('[') else {
        return match text.split_once(':') {
            Some((_, port)) if port.contains(':') && text.parse::<Ipv6Addr>().is_err() => Err(refuse(
                "has more than one colon",
                "an IPv6 address in brackets where a port follows: \"[2001:db8::1]:443\"",
            )),
            Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
            _ => Ok((text, None)),
        };
    };
    let (host, after) = rest.split_once(']').ok_or_else(|| refuse("has a `[` without `]`", forms))?;
    if !host.contains(':') {
        return Err(refuse("has no IPv6 address in its brackets", forms));
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(refuse("has something other than a port after `]`", forms)),
    }
}

fn refuse(problem: impl Into<String>, accepted: impl Into<String>) -> WordsError {
    WordsError { problem: problem.into(), accepted: accepted.into() }
}

#[cfg(test)]
mod tests;
