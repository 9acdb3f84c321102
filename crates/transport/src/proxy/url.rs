//! How a proxy is written: `socks5://user:password@host:port`.

use std::{borrow::Cow, fmt, str::FromStr};

use super::{Credential, Proxy, ProxyProtocol, target};
use crate::resolve::literal;

/// Why the URL of a proxy, or a destination, could not be read. The text never has the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyParseError(Cow<'static, str>);

impl ProxyParseError {
    pub(super) fn new(text: impl Into<Cow<'static, str>>) -> ProxyParseError {
        ProxyParseError(text.into())
    }
}

impl Proxy {
    /// Reads `socks5://user:password@host:port`, `http://user:password@host:port` or `https://user:password@host:port`; the credential may
    /// be left out, and the port of SOCKS5, which is 1080, and of HTTPS, which is 443. User and password are percent-decoded; they have
    /// at most 255 bytes each, and the user of an HTTP proxy no colon (RFC 7617 section 2).
    ///
    /// # Errors
    /// When it is not of that form. `socks5h` and `socks4` are not known: whether the proxy looks names up is up to the
    /// [`Target`](super::Target).
    ///
    /// # Examples
    /// ```
    /// use keepwarm_transport::proxy::Proxy;
    ///
    /// let proxy = Proxy::parse("socks5://ann:p%40ss@[2001:db8::1]:1080")?;
    /// assert_eq!(proxy.to_string(), "socks5://[2001:db8::1]:1080");
    /// assert_eq!(proxy.credential.as_ref().map(|credential| &*credential.password), Some("p@ss"));
    /// # Ok::<(), keepwarm_transport::proxy::ProxyParseError>(())
    /// ```
    pub fn parse(url: &str) -> Result<Proxy, ProxyParseError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(ProxyParseError::new(
                "a proxy is written socks5://host:port, http://host:port or https://host:port",
            ));
        };
        let protocol = protocol(scheme)?;
        let (user_info, rest) = match rest.rsplit_once('@') {
            Some((user_info, rest)) => (Some(user_info), rest),
            None => (None, rest),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(ProxyParseError::new("nothing follows the port of a proxy"));
        }
        let (host, port) = host_and_port(authority)?;
        let port = match (port, protocol) {
            (Some(port), _) => port,
            (None, ProxyProtocol::Socks5) => SOCKS_PORT,
            (None, ProxyProtocol::Https) => HTTPS_PORT,
            (None, ProxyProtocol::Http) => {
                return Err(ProxyParseError::new("an http proxy needs its port, such as http://proxy.example:3128"));
            }
        };
        let credential = user_info.map(|user_info| credential(user_info, protocol)).transpose()?;
        Ok(Proxy { protocol, host, port, credential })
    }

    /// As [`parse`](Self::parse), for users that speak to proxies without TLS.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and when it is an `https://` proxy.
    pub fn parse_plain(url: &str) -> Result<Proxy, ProxyParseError> {
        let proxy = Proxy::parse(url)?;
        match proxy.protocol {
            ProxyProtocol::Https => Err(ProxyParseError::new("proxies are spoken to without tls here; write http")),
            ProxyProtocol::Socks5 | ProxyProtocol::Http => Ok(proxy),
        }
    }
}

fn protocol(scheme: &str) -> Result<ProxyProtocol, ProxyParseError> {
    match &*scheme.to_ascii_lowercase() {
        "socks5" => Ok(ProxyProtocol::Socks5),
        "http" => Ok(ProxyProtocol::Http),
        "socks5h" => {
            Err(ProxyParseError::new("write socks5: whether the proxy looks names up is not part of its address"))
        }
        "https" => Ok(ProxyProtocol::Https),
        _ => Err(ProxyParseError::new("the scheme of a proxy is socks5, http or https")),
    }
}

/// The host, in lower case and without brackets, and the port where there is one.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), ProxyParseError> {
    let bracket = authority.starts_with('[').then(|| authority.find(']')).flatten();
    let (host, port) = match bracket {
        Some(end) => (&authority[..=end], &authority[end + 1..]),
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return Err(ProxyParseError::new("a colon and the port follow the host of a proxy")),
        Some(digits) => Some(number(digits)?),
    };
    // After the port, where an IPv6 address without brackets is found out as one.
    let host = match literal(host) {
        Some(ip) => ip.to_string(),
        None => target::name(host)?,
    };
    Ok((host, port))
}

fn number(digits: &str) -> Result<u16, ProxyParseError> {
    let port = digits.parse().ok().filter(|port| *port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    port.ok_or_else(|| {
        ProxyParseError::new("the port of a proxy is 1 to 65535; an ipv6 address stands in brackets before it")
    })
}

fn credential(user_info: &str, protocol: ProxyProtocol) -> Result<Credential, ProxyParseError> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let credential = Credential { user: decode(user)?, password: decode(password)? };
    if credential.user.is_empty() {
        return Err(ProxyParseError::new("the user of the proxy is empty"));
    }
    // RFC 1929 section 2 has one byte for each length; the same bound does for Basic.
    if credential.user.len() > CREDENTIAL_MAX || credential.password.len() > CREDENTIAL_MAX {
        return Err(ProxyParseError::new("user and password of a proxy have at most 255 bytes each"));
    }
    if protocol != ProxyProtocol::Socks5 && credential.user.contains(':') {
        return Err(ProxyParseError::new("the user of an http proxy has no colon"));
    }
    Ok(credential)
}

/// Percent-decodes (RFC 3986 section 2.1) what is all visible ASCII without the characters that end it.
fn decode(text: &str) -> Result<String, ProxyParseError> {
    let refused = || {
        ProxyParseError::new(
            "user and password of a proxy are percent-encoded utf-8: % and two digits for what is no letter, digit or -._~!$&'()*+,;=",
        )
    };
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or_else(refused)?
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => byte,
            _ => return Err(refused()),
        });
    }
    String::from_utf8(decoded).ok().filter(|text| !text.chars().any(char::is_control)).ok_or_else(refused)
}

impl FromStr for Proxy {
    type Err = ProxyParseError;

    /// See [`Proxy::parse`].
    fn from_str(url: &str) -> Result<Proxy, ProxyParseError> {
        Proxy::parse(url)
    }
}

impl fmt::Display for ProxyParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProxyParseError {}

/// Where SOCKS5 proxies listen (RFC 1928 section 3).
const SOCKS_PORT: u16 = 1080;

/// Where HTTP over TLS is spoken (RFC 9110 section 4.2.2).
const HTTPS_PORT: u16 = 443;

/// Bytes of a user or a password.
const CREDENTIAL_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, Option<(String, String)>) {
        let proxy = Proxy::parse(url).unwrap();
        (proxy.to_string(), proxy.credential.map(|credential| (credential.user, credential.password)))
    }

    #[test]
    fn proxies_are_read_as_written() {
        let known = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (url, shown, credential) in [
            ("socks5://proxy.example", "socks5://proxy.example:1080", None),
            ("SOCKS5://Proxy.Example:9050/", "socks5://proxy.example:9050", None),
            ("http://127.0.0.1:3128", "http://127.0.0.1:3128", None),
            ("https://Proxy.example", "https://proxy.example:443", None),
            ("https://ann:hunter2@[::1]:8443/", "https://[::1]:8443", known("ann", "hunter2")),
            ("socks5://[::1]:1", "socks5://[::1]:1", None),
            ("socks5://[::1]", "socks5://[::1]:1080", None),
            ("socks5://ann:hunter2@host:65535", "socks5://host:65535", known("ann", "hunter2")),
            ("http://ann@host:1", "http://host:1", known("ann", "")),
            ("http://a%40b:p%3aw%2F%25@host:1", "http://host:1", known("a@b", "p:w/%")),
            ("socks5://a%3Ab:c:d@host:1", "", None),
            ("socks5://a%3Ab:%C3%A9@host:1", "socks5://host:1", known("a:b", "é")),
        ] {
            if shown.is_empty() {
                assert!(Proxy::parse(url).is_err(), "{url}");
                continue;
            }
            assert_eq!(parsed(url), (shown.to_owned(), credential), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, expected) in [
            ("proxy.example:1080", "written socks5://host:port"),
            ("", "written socks5://host:port"),
            ("socks4://host:1", "socks5, http or https"),
            ("socks5h://host:1", "write socks5"),
            ("http://host", "needs its port"),
            ("socks5://host:0", "1 to 65535"),
            ("socks5://host:65536", "1 to 65535"),
            ("socks5://host:+80", "1 to 65535"),
            ("socks5://host:", "1 to 65535"),
            ("socks5://2001:db8::1", "brackets"),
            ("socks5://[::1]1080", "a colon and the port"),
            ("socks5://:1080", "\"\" is not a host name"),
            ("socks5://h st:1080", "\"h st\" is not a host name"),
            ("socks5://host:1/path", "nothing follows"),
            ("socks5://ann:secret@host:1?x=secret", "nothing follows"),
            ("socks5://:secret@host:1", "user of the proxy is empty"),
            ("socks5://ann:secret%@host:1", "percent-encoded"),
            ("socks5://ann:secret%4g@host:1", "percent-encoded"),
            ("socks5://ann:secret%+1@host:1", "percent-encoded"),
            ("socks5://ann:secret@secret@host:1", "percent-encoded"),
            ("socks5://ann:secret/@host:1", "percent-encoded"),
            ("socks5://ann:secret%FF@host:1", "percent-encoded"),
            ("socks5://ann:secret%0d%0a@host:1", "percent-encoded"),
            ("http://a%3Ab:secret@host:1", "no colon"),
            ("https://a%3Ab:secret@host:1", "no colon"),
        ] {
            let error = Proxy::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let long = "x".repeat(256);
        assert!(Proxy::parse(&format!("socks5://{long}:y@host:1")).is_err());
        assert!(Proxy::parse(&format!("socks5://y:{long}@host:1")).is_err());
        assert!(Proxy::parse(&format!("socks5://{}:y@host:1", &long[1..])).is_ok());
    }

    #[test]
    fn where_proxies_are_spoken_to_in_the_clear_https_is_refused() {
        let error = Proxy::parse_plain("https://ann:secret@host:1").unwrap_err().to_string();
        assert!(error.contains("without tls") && !error.contains("secret"), "{error}");
        for url in ["http://host:1", "socks5://host"] {
            assert_eq!(Proxy::parse_plain(url), Proxy::parse(url));
        }
    }

    #[test]
    fn a_credential_is_never_shown() {
        let proxy = Proxy::parse("socks5://ann:hunter2@host:1").unwrap();
        assert!(!format!("{proxy} {proxy:?} {:?}", proxy.credential).contains("hunter2"));
    }
}
