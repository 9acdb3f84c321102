//! An origin as the commands take it.

use hyper::http::uri::Authority;

/// Reads `host`, `host:port` or `https://host[:port]`, whatever path follows, and gives it as it is shown: in lower case, an IPv6 address
/// in brackets, without the port where it is 443.
///
/// # Errors
/// With what would be accepted.
pub(crate) fn parse_origin(text: &str) -> Result<String, String> {
    const ACCEPTED: &str = "accepted: HOST, HOST:PORT or https://HOST, such as tiles.example.com or [2001:db8::1]:8443";
    let lower = text.to_ascii_lowercase();
    let authority = match lower.split_once("://") {
        Some(("https", rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
        Some(_) => return Err(format!("only https is spoken; {ACCEPTED}")),
        None => &*lower,
    };
    let authority = match authority.parse::<std::net::Ipv6Addr>() {
        Ok(bare) => format!("[{bare}]"),
        Err(_) => authority.to_owned(),
    };
    let parsed: Authority = authority.parse().map_err(|_| ACCEPTED.to_owned())?;
    let has_port = parsed.host().len() < authority.len();
    if authority.contains('@')
        || matches!(parsed.host(), "" | ".")
        || (has_port && parsed.port_u16().is_none_or(|port| port == 0))
    {
        return Err(ACCEPTED.to_owned());
    }
    let host = parsed.host().strip_suffix('.').unwrap_or(parsed.host());
    Ok(match parsed.port_u16() {
        None | Some(443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_host_a_host_and_port_or_a_url() {
        for (text, shown) in [
            ("tiles.example.com", "tiles.example.com"),
            ("Tiles.Example.com:443", "tiles.example.com"),
            ("tiles.example.com.:8443", "tiles.example.com:8443"),
            ("tiles.example.com:8443", "tiles.example.com:8443"),
            ("https://tiles.example.com", "tiles.example.com"),
            ("HTTPS://tiles.example.com:8443/0/0?x#y", "tiles.example.com:8443"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("https://[2001:db8::1]:8443/", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(shown), "{text}");
        }
        for text in ["", "http://a", "ann@a", "https://", "a:0", "a:70000", "a:", "a b", ".", "[::1", "a/b", ":443"] {
            assert!(parse_origin(text).is_err(), "{text}: {:?}", parse_origin(text));
        }
    }
}
