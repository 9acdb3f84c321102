//! `[https]` as text: origins, where their addresses are from, the gateway's listeners and users.
//!
//! Pure text in, values out; nothing is resolved and no file is read here. No refusal repeats a password.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use hyper::http::uri::PathAndQuery;
use keepwarm_https::config::AddressSource;

use super::{
    address::{host_problem, parse_network, parse_port, parse_socket},
    words::WordsError,
};

const PATH_MAX: usize = 4096;
/// Names are shown in logs.
const USER_MAX: usize = 64;
const PASSWORD_MAX: usize = 1024;
/// Addresses of the largest network that is taken address by address.
const NETWORK_MAX: u32 = 65_536;

const ORIGIN_FORMS: &str = "a host name such as \"tiles.example.com\", with a port where it is not 443: \"tiles.example.com:8443\", \"[2001:db8::1]:8443\"";

/// Reads where the gateway listens: `IP:PORT`.
pub(super) fn parse_gateway(text: &str) -> Result<SocketAddr, WordsError> {
    const FORMS: &str = "an IP address and a port, such as \"127.0.0.1:8180\" or \"[::1]:8180\"";
    if let Some((scheme, rest)) = text.split_once("://") {
        let bare = rest.trim_end_matches('/');
        let accepted = if bare.parse::<SocketAddr>().is_ok() { format!("write \"{bare}\"") } else { FORMS.to_owned() };
        return Err(refuse(format!("has `{scheme}://`, and the gateway speaks HTTP only"), accepted));
    }
    parse_socket(text, None, FORMS)
}

/// Reads `HOST` or `HOST:PORT`; the host comes back in lower case, without brackets and without a dot at its end.
pub(super) fn parse_origin(text: &str) -> Result<(String, Option<u16>), WordsError> {
    // First of all: what else is wrong would be told with parts of the text, and one may be a password.
    if text.contains('@') {
        return Err(refuse("names a user, and an origin is a host", ORIGIN_FORMS));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let usable = !host.contains("://") && parse_origin(host).is_ok();
        let accepted = if usable { format!("write \"{host}\"") } else { ORIGIN_FORMS.to_owned() };
        return Err(refuse("is a URL, and an origin is a host", accepted));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip.to_string(), None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']').ok_or_else(|| refuse("has a `[` without `]`", ORIGIN_FORMS))?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| refuse("has no IPv6 address in its brackets", ORIGIN_FORMS))?;
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(refuse("has something other than a port after `]`", ORIGIN_FORMS));
            }
            (ip.to_string(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            if host.contains('*') {
                return Err(refuse(
                    "is a pattern, and an origin is one host",
                    "the host's name; `any_host` in [https] is for hosts that no origin names",
                ));
            }
            if let Some(problem) = host_problem(host).filter(|_| host.parse::<IpAddr>().is_err()) {
                return Err(refuse(problem, ORIGIN_FORMS));
            }
            (host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(), port)
        }
    };
    Ok((host, port.map(parse_port).transpose()?))
}

/// Reads where addresses are from: an IP, a network, `@FILE`, or `dns`.
pub(super) fn parse_source(text: &str) -> Result<AddressSource, WordsError> {
    const FORMS: &str = "an IP such as \"192.0.2.1\", a network such as \"2001:db8::/64\", a file of them such as \"@ips.txt\", or \"dns\"";
    match text.strip_prefix('@') {
        _ if text == "dns" => return Ok(AddressSource::Dns),
        Some("") => return Err(refuse("names no file", FORMS)),
        Some(file) => return Ok(AddressSource::File(PathBuf::from(file))),
        None => {}
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let ip = socket.ip();
        return Err(refuse("has a port, which belongs to the origin", format!("write \"{ip}\"")));
    }
    let network = parse_network(text).map_err(|error| match error.problem.as_str() {
        "is not a network" => refuse("is neither an address nor a network, a file or \"dns\"", FORMS),
        _ => error,
    })?;
    // Half of IPv6 is no mistake but a pool to draw from; of IPv4, every address is meant.
    if matches!(network.addr(), IpAddr::V4(_)) && network.prefix_len() < 16 {
        return Err(refuse(format!("is a network of more than {NETWORK_MAX} addresses"), "of IPv4 a /16 at most"));
    }
    if network.addr().is_multicast() || (network.addr().is_unspecified() && network.prefix_len() > 0) {
        return Err(refuse("is not an address that a server can have", FORMS));
    }
    Ok(AddressSource::Net(network))
}

/// Reads path and query of a URL.
pub(super) fn parse_path(text: &str) -> Result<String, WordsError> {
    let usable = text.starts_with('/')
        && text.len() <= PATH_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && text.parse::<PathAndQuery>().is_ok();
    match usable {
        true => Ok(text.to_owned()),
        false => Err(refuse(
            "is not a path that a URL can hold",
            format!(
                "a path such as \"/\" or \"/health?full=1\" of up to {PATH_MAX} characters, without `#` and with spaces as %20"
            ),
        )),
    }
}

/// Whether a name can be told in Basic authentication (RFC 7617 section 2) and shown in logs.
pub(super) fn check_user(name: &str) -> Result<(), WordsError> {
    let usable = !name.is_empty() && name.len() <= USER_MAX && !name.contains(|c: char| c == ':' || c.is_control());
    match usable {
        true => Ok(()),
        false => Err(refuse(
            "cannot be told in Basic authentication",
            format!("up to {USER_MAX} bytes without a colon and without control characters"),
        )),
    }
}

/// Whether a password can be told in Basic authentication.
pub(super) fn check_password(password: &str) -> Result<(), WordsError> {
    let problem = match password {
        "" => "is empty",
        long if long.len() > PASSWORD_MAX => "is too long",
        odd if odd.contains(char::is_control) => "has control characters, which Basic authentication cannot tell",
        _ => return Ok(()),
    };
    Err(refuse(problem, format!("a password of 1 to {PASSWORD_MAX} bytes without control characters")))
}

fn refuse(problem: impl Into<String>, accepted: impl Into<String>) -> WordsError {
    WordsError { problem: problem.into(), accepted: accepted.into() }
}

#[cfg(test)]
mod tests;
