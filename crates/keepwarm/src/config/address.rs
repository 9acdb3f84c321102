//! Addresses as text: listeners, upstream URLs, bootstrap resolvers, networks and host names.
//!
//! Pure text in, values out; nothing is resolved and no file is read here. Each refusal says what would be accepted.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use keepwarm_dns::config::{DOH_PATH, Listen, ListenTransport, Transport};

use super::words::WordsError;

/// An upstream's address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// The protocol that the scheme names.
    pub transport: Transport,
    /// Host name, or IP address without brackets.
    pub host: Arc<str>,
    /// The port, or the transport's default.
    pub port: u16,
    /// Path and query of a DoH URL; empty for other transports.
    pub path: Arc<str>,
}

impl UpstreamAddress {
    /// The host, when it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

const LISTEN_FORMS: &str = "an IP address and a port, such as \"127.0.0.1:5300\" (UDP and TCP), \"udp://127.0.0.1:5300\", \"tcp://[::1]:5300\", or encrypted: \"tls://[::]:853\", \"https://0.0.0.0:443/dns-query\", \"quic://[::]:853\", \"h3://[::]:443\"";
const UPSTREAM_FORMS: &str = "\"udp://1.1.1.1\", \"tcp://[2606:4700:4700::1111]:53\", \"tls://dns.quad9.net\", \"https://dns.quad9.net/dns-query\", \"h3://dns.google\" or \"quic://dns.adguard-dns.com\"";

/// Reads an address to listen on: `IP:PORT` for UDP and TCP, `udp://IP:PORT`, `tcp://IP:PORT`, and with optional ports
/// `tls://IP`, `quic://IP`, `https://IP/PATH`, `h3://IP/PATH`.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_listen(text: &str) -> Result<Listen, WordsError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Listen::plain(parse_socket(text, None, LISTEN_FORMS)?));
    };
    // What is spoken, and as which kind of upstream: its port where none is given, and whether it has a path.
    let (transport, like) = match scheme {
        "udp" => (ListenTransport::Udp, Transport::Udp),
        "tcp" => (ListenTransport::Tcp, Transport::Tcp),
        "tls" => (ListenTransport::Tls, Transport::Tls),
        "https" => (ListenTransport::Https, Transport::Https),
        "h3" => (ListenTransport::H3, Transport::H3),
        "quic" => (ListenTransport::Quic, Transport::Quic),
        "http" => return Err(refuse("asks for `http://`, which is not encrypted", LISTEN_FORMS)),
        _ => return Err(refuse(format!("has the unknown scheme `{scheme}://`"), LISTEN_FORMS)),
    };
    let (authority, path) = split_path(rest);
    let default_port = transport.is_encrypted().then(|| like.default_port());
    let address = parse_socket(authority, default_port, LISTEN_FORMS)?;
    let path = upstream_path(like, path)?;
    if path.contains('?') {
        return Err(refuse("has a query, which is the client's part of the URL", "a path such as \"/dns-query\""));
    }
    Ok(Listen { path, ..Listen::new(address, transport) })
}

/// Reads a bootstrap resolver: an IP address with an optional port (53).
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_bootstrap(text: &str) -> Result<SocketAddr, WordsError> {
    const FORMS: &str = "an IP address with an optional port, such as \"9.9.9.9\" or \"[2620:fe::fe]:53\"";
    let address = parse_socket(text, Some(53), FORMS)?;
    if address.port() == 0 {
        return Err(refuse("has port 0", "a port from 1 to 65535"));
    }
    Ok(address)
}

/// Reads a plain `IP:PORT`.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_plain_socket(text: &str) -> Result<SocketAddr, WordsError> {
    parse_socket(text, None, "an IP address and a port, such as \"127.0.0.1:9180\" or \"[::1]:9180\"")
}

/// Reads a network: `192.168.0.0/16`, `fd00::/8`, or a single address.
///
/// # Errors
/// Bits beyond the prefix are refused, because they show that one of the two is not what was meant.
pub fn parse_network(text: &str) -> Result<IpNet, WordsError> {
    const FORMS: &str = "a network such as \"192.168.0.0/16\" or \"fd00::/8\", or a single IP address";
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| refuse("is not a network", FORMS))?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(refuse(
            format!("has address bits beyond its prefix of {} bits", network.prefix_len()),
            format!("\"{}\" for the network, or \"{}\" for the one address", network.trunc(), network.addr()),
        )),
    }
}

/// Reads an IP address without port or brackets.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_ip(text: &str) -> Result<IpAddr, WordsError> {
    text.parse().map_err(|_| {
        let problem = match text.parse::<SocketAddr>() {
            Ok(_) => "has a port, which belongs in `address`",
            Err(_) => "is not an IP address",
        };
        refuse(problem, "an IP address without port or brackets, such as \"9.9.9.9\" or \"2620:fe::fe\"")
    })
}

/// Reads a host name or IP address, as a certificate may name it.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_host(text: &str) -> Result<Arc<str>, WordsError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    host_problem(text).map_or_else(
        || Ok(text.into()),
        |problem| Err(refuse(problem, "a host name such as \"dns.quad9.net\", or an IP address")),
    )
}

/// Reads an upstream's URL: `udp://`, `tcp://`, `tls://`, `https://`, `h3://`, `quic://`, host, optional port, and for
/// `https://` and `h3://` a path.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_upstream(text: &str) -> Result<UpstreamAddress, WordsError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let shown = if text.parse::<Ipv6Addr>().is_ok() { format!("[{text}]") } else { text.to_owned() };
        let usable = !text.is_empty() && parse_upstream(&format!("udp://{shown}")).is_ok();
        return Err(refuse(
            "does not say which protocol to speak",
            match usable {
                true => {
                    format!("write \"udp://{shown}\" (plain), or \"tls://{shown}\" (encrypted) if the server speaks it")
                }
                false => UPSTREAM_FORMS.to_owned(),
            },
        ));
    };
    let transport = match scheme {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" => Transport::Tls,
        "https" => Transport::Https,
        "h3" => Transport::H3,
        "quic" => Transport::Quic,
        "http" => {
            return Err(refuse("asks for `http://`, which is not encrypted and not DNS over HTTPS", UPSTREAM_FORMS));
        }
        _ => return Err(refuse(format!("has the unknown scheme `{scheme}://`"), UPSTREAM_FORMS)),
    };
    let (authority, path) = split_path(rest);
    if authority.contains('@') {
        return Err(refuse("holds a user name, which no transport of this version sends", UPSTREAM_FORMS));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(refuse(
            "has an IPv6 address without brackets",
            format!("write \"{scheme}://[{authority}]{path}\""),
        ));
    }
    let (host, port) = split_authority(authority)?;
    let port = match port {
        None => transport.default_port(),
        Some(port) => parse_port(port)?,
    };
    Ok(UpstreamAddress { transport, host, port, path: upstream_path(transport, path)? })
}

fn split_path(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

fn upstream_path(transport: Transport, path: &str) -> Result<Arc<str>, WordsError> {
    match (transport, path) {
        (Transport::Https | Transport::H3, "") => Ok(DOH_PATH.into()),
        (Transport::Https | Transport::H3, _) => {
            let usable =
                path.starts_with('/') && !path.contains('#') && path.parse::<hyper::http::uri::PathAndQuery>().is_ok();
            match usable {
                true => Ok(path.into()),
                false => Err(refuse(
                    "has a path that a URL cannot hold",
                    "a path such as \"/dns-query\", without `#` and with spaces as %20",
                )),
            }
        }
        (_, "") => Ok("".into()),
        (_, _) => Err(refuse(
            format!("has a path, which `{}://` does not use", transport.as_str()),
            "the address without it (a path belongs to https:// and h3://)",
        )),
    }
}

fn split_authority(authority: &str) -> Result<(Arc<str>, Option<&str>), WordsError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(refuse("has a `[` without `]`", UPSTREAM_FORMS));
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(refuse("has no IPv6 address in its brackets", UPSTREAM_FORMS));
        }
        return match (after.is_empty(), after.strip_prefix(':')) {
            (true, _) => Ok((host.into(), None)),
            (false, Some(port)) => Ok((host.into(), Some(port))),
            (false, None) => Err(refuse("has something other than a port after `]`", UPSTREAM_FORMS)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.parse::<IpAddr>().is_err()
        && let Some(problem) = host_problem(host)
    {
        return Err(refuse(problem, UPSTREAM_FORMS));
    }
    Ok((host.into(), port))
}

pub(super) fn host_problem(host: &str) -> Option<&'static str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_is_usable = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.is_empty() {
        Some("has no host")
    } else if name.len() > 253 {
        Some("has a host name longer than 253 characters")
    } else if !name.split('.').all(label_is_usable) {
        Some("has a host name that DNS cannot hold")
    } else if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        // No top-level domain is a number (RFC 3696 section 2): this is an IPv4 address with a slip in it.
        Some("has a host that is neither a name nor a complete IPv4 address")
    } else {
        None
    }
}

pub(super) fn parse_port(text: &str) -> Result<u16, WordsError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(refuse(format!("has `{text}` as its port"), "a port from 1 to 65535")),
    }
}

pub(super) fn parse_socket(text: &str, default_port: Option<u16>, forms: &str) -> Result<SocketAddr, WordsError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return default_port.map(|port| SocketAddr::new(address, port)).ok_or_else(|| refuse("has no port", forms));
    }
    let problem = match text.rsplit_once(':') {
        Some((host, port))
            if port.parse::<u16>().is_err() && host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() =>
        {
            return Err(refuse(format!("has `{port}` as its port"), "a port from 0 to 65535 (0: the system chooses)"));
        }
        Some(("localhost" | "*", _)) => {
            "names a host; only IP addresses can be listened on and nothing is resolved here"
        }
        _ => "is not an IP address and a port",
    };
    Err(refuse(problem, forms))
}

fn refuse(problem: impl Into<String>, accepted: impl Into<String>) -> WordsError {
    WordsError { problem: problem.into(), accepted: accepted.into() }
}

#[cfg(test)]
mod tests;
