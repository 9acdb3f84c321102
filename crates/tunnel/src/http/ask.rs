//! What a request asks of the proxy: a tunnel, or an exchange with an origin. RFC 9112 section 3.2 has the forms.

use http::{Method, Uri, uri::Authority};
use keepwarm_transport::proxy::Target;

use super::refusal::Refusal;
use crate::server::destination::{BadDestination, destination};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// A tunnel to there.
    Connect(Target),
    /// An exchange with the server there, which calls itself by the authority.
    Forward(Target, Authority),
}

/// Reads the request line.
pub(super) fn read(method: &Method, uri: &Uri) -> Result<Ask, Refusal> {
    if method == Method::CONNECT {
        return connect(uri);
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => forward(authority),
        (Some("https"), Some(authority)) => Err(Refusal::request(format!(
            "https://{} is not fetched by this proxy, which would have to see what is encrypted: ask it for a tunnel, CONNECT {}:{}",
            authority.host(),
            authority.host(),
            authority.port_u16().unwrap_or(443),
        ))),
        (Some(scheme), _) => Err(Refusal::request(format!("{scheme}:// is not served, only http:// and CONNECT are"))),
        (None, _) => Err(Refusal::request(ORIGIN_FORM)),
    }
}

fn connect(uri: &Uri) -> Result<Ask, Refusal> {
    let (None, Some(authority), None) = (uri.scheme(), uri.authority(), uri.path_and_query()) else {
        return Err(Refusal::request("CONNECT wants HOST:PORT and nothing else (RFC 9112 section 3.2.3)"));
    };
    let (host, port) = split(authority)?;
    let Some(port) = port else {
        return Err(Refusal::request(format!("CONNECT {host} names no port: CONNECT {host}:443 is meant for https")));
    };
    Ok(Ask::Connect(target(host, port)?))
}

fn forward(authority: &Authority) -> Result<Ask, Refusal> {
    let (host, port) = split(authority)?;
    Ok(Ask::Forward(target(host, port.unwrap_or(HTTP))?, authority.clone()))
}

/// Host, with the brackets of an IPv6 address, and port.
fn split(authority: &Authority) -> Result<(&str, Option<u16>), Refusal> {
    let (host, port) = (authority.host(), authority.port_u16());
    // RFC 9110 section 4.2.4: a user and password in a URL are to be taken for an attempt to deceive. A port that is none leaves a rest, too.
    let rest = authority.as_str().strip_prefix(host);
    let is_plain = match (rest, port) {
        (Some(rest), None) => rest.is_empty(),
        (Some(rest), Some(port)) => rest.strip_prefix(':').and_then(|rest| rest.parse().ok()) == Some(port),
        (None, _) => false,
    };
    // Without brackets an IPv6 address and its port could not be told apart.
    let is_bracketed = host.starts_with('[') || !host.contains(':');
    if is_plain && is_bracketed {
        return Ok((host, port));
    }
    Err(Refusal::request("the destination is not HOST or HOST:PORT"))
}

/// By the same rules as for SOCKS.
fn target(host: &str, port: u16) -> Result<Target, Refusal> {
    destination(host, port).map_err(|bad| {
        Refusal::request(match bad {
            BadDestination::Port => "port 0 cannot be connected to",
            BadDestination::Empty | BadDestination::Name => "the destination's host cannot be a host's name",
        })
    })
}

/// The port of `http://`.
const HTTP: u16 = 80;

const ORIGIN_FORM: &str = "this is a proxy, not a server: set it as the HTTP proxy of a program, which then asks for \
                           CONNECT HOST:PORT or for http://HOST/PATH";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<String, u16> {
        let (method, uri) = line.split_once(' ').unwrap();
        let read = read(&method.parse().unwrap(), &uri.parse().unwrap());
        let text = |ask| match ask {
            Ask::Connect(target) => format!("tunnel {target}"),
            Ask::Forward(target, authority) => format!("{target} as {authority}"),
        };
        read.map(text).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn both_forms_name_a_destination() {
        for (line, expected) in [
            ("CONNECT A.example:443", "tunnel a.example:443"),
            ("CONNECT 192.0.2.1:22", "tunnel 192.0.2.1:22"),
            ("CONNECT [2001:db8::1]:443", "tunnel [2001:db8::1]:443"),
            // Rules by network see what it is.
            ("CONNECT [::ffff:192.0.2.1]:22", "tunnel 192.0.2.1:22"),
            ("GET http://A.example", "a.example:80 as A.example"),
            ("GET http://a.example:8080/x?y", "a.example:8080 as a.example:8080"),
            ("PUT http://a.example:80/", "a.example:80 as a.example:80"),
            ("GET HTTP://[::1]/x", "[::1]:80 as [::1]"),
        ] {
            assert_eq!(asked(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_names_none_is_refused() {
        for line in [
            "CONNECT a.example",
            "CONNECT [2001:db8::1]",
            "CONNECT a.example:0",
            "CONNECT a.example:",
            "CONNECT ann@a.example:443",
            "CONNECT ann:pw@a.example:443",
            "CONNECT 127.1:443",
            "CONNECT 2130706433:443",
            "GET http://0x7f000001/",
            "CONNECT /a",
            "CONNECT http://a.example:443/",
            "CONNECT http://a.example:443",
            "CONNECT *",
            "GET /",
            "GET a.example:80",
            "OPTIONS *",
            "GET https://a.example/",
            "GET ftp://a.example/",
            "GET http://ann:pw@a.example/",
            "GET http://a.example:/",
            "GET http://a.example:0/",
            "GET http://[::1%25eth0]/",
            "GET http://a%20b/",
        ] {
            // What the parser itself does not take never gets here.
            if line.split_once(' ').unwrap().1.parse::<Uri>().is_ok() {
                assert_eq!(asked(line), Err(400), "{line}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_would_do() {
        let text = |method: Method, uri: &str| read(&method, &uri.parse().unwrap()).unwrap_err().text;
        assert!(text(Method::GET, "https://a.example/x").ends_with("CONNECT a.example:443"));
        assert!(text(Method::GET, "https://a.example:8443/x").ends_with("CONNECT a.example:8443"));
        assert!(text(Method::GET, "/x").contains("this is a proxy"));
        assert!(!text(Method::GET, "http://ann:secret@a.example/").contains("secret"));
    }
}
