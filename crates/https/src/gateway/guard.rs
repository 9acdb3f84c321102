//! Who may ask: users by name and password, or everyone on this machine but the web pages in its browsers.
//!
//! A page that a browser shows can send requests to loopback addresses too. Without users the gateway must tell it from the user: by the
//! name it asked for (a name of the attacker's that was pointed to 127.0.0.1), and by what browsers say about who asks.

use std::net::IpAddr;

use aws_lc_rs::{constant_time, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request::Parts, uri::Authority};

use super::{options::AUTHORIZATION, refusal::Refusal};
use crate::config::User;

/// Lets requests in.
pub(super) struct Guard {
    /// Of `name:password` in base64; empty: everyone.
    users: Vec<digest::Digest>,
}

impl PartialEq for Guard {
    fn eq(&self, other: &Guard) -> bool {
        self.users.iter().map(AsRef::as_ref).eq(other.users.iter().map(<digest::Digest as AsRef<[u8]>>::as_ref))
    }
}

impl Guard {
    pub(super) fn new(users: &[User]) -> Guard {
        let digest = |user: &User| hash(STANDARD.encode(format!("{}:{}", user.name, user.password)).as_bytes());
        Guard { users: users.iter().map(digest).collect() }
    }

    /// `is_prefixed`: the gateway is asked as if it were the server.
    pub(super) fn check(&self, head: &Parts, is_prefixed: bool) -> Result<(), Refusal> {
        if !self.users.is_empty() {
            return if self.is_user(&head.headers) { Ok(()) } else { Err(unknown_user()) };
        }
        if is_prefixed {
            check_host(head)?;
            check_page(&head.headers)?;
        }
        Ok(())
    }

    /// All users are compared in constant time, whoever it is.
    fn is_user(&self, headers: &HeaderMap) -> bool {
        let names = [header::PROXY_AUTHORIZATION, HeaderName::from_static(AUTHORIZATION)];
        let given = names.iter().filter_map(|name| headers.get(name)).filter_map(basic).map(hash);
        given.fold(false, |known, given| {
            let is =
                |user: &digest::Digest| constant_time::verify_slices_are_equal(user.as_ref(), given.as_ref()).is_ok();
            self.users.iter().fold(known, |known, user| known | is(user))
        })
    }
}

/// The credentials of the Basic scheme (RFC 7617 section 2), as they came.
fn basic(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, credentials) = value.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| credentials.trim().as_bytes())
}

fn hash(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn unknown_user() -> Refusal {
    let text = "this gateway is for its users: give name and password in Proxy-Authorization or keepwarm-authorization (Basic)";
    Refusal::new(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "proxy_auth", text)
}

/// RFC 9110 section 7.4: a request that was meant for somebody else is refused. Here that is DNS rebinding.
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        // HTTP/1.0 knows no Host, and no browser speaks it.
        (None, _) if head.version < Version::HTTP_11 => return Ok(()),
        _ => return Err(Refusal::request("a request of HTTP/1.1 has one Host (RFC 9112 section 3.2)")),
    };
    let authority: Option<Authority> = host.to_str().ok().and_then(|host| host.parse().ok());
    if authority.is_some_and(|authority| is_loopback(authority.host())) {
        return Ok(());
    }
    let text = "Host is not this gateway's: without users it is asked by a loopback address or as localhost";
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", text))
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback())
}

/// Requests that a page made, not the user: Fetch puts Origin into them, and says in Sec-Fetch-Site whose they are. Pages of other local
/// servers count as the same site, so only what the user typed and what comes from the gateway itself is let through.
fn check_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_users = site.is_none_or(|site| matches!(site, b"none" | b"same-origin"));
    if is_users && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let text = "a web page asked for this: without users the gateway answers only what the user asks for, not pages. \
                As the browser's proxy for http:// it serves pages";
    Err(Refusal::new(StatusCode::FORBIDDEN, "cross_site", text))
}

/// Whether a browser asks (Fetch Metadata Request Headers, W3C).
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"].iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::new(());
        for (name, value) in lines {
            request.headers_mut().append(*name, value.parse().expect("valid"));
        }
        request.into_parts().0
    }

    fn status(guard: &Guard, lines: &[(&'static str, &str)], is_prefixed: bool) -> u16 {
        guard.check(&head(lines), is_prefixed).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_name_that_was_pointed_to_loopback_is_misdirected() {
        let guard = Guard::new(&[]);
        for host in ["127.0.0.1:8180", "127.8.8.8", "[::1]:8180", "localhost:8180", "LOCALHOST", "[::ffff:127.0.0.1]:1"]
        {
            assert_eq!(status(&guard, &[("host", host)], true), 200, "{host}");
        }
        for host in
            ["attacker.example:8180", "192.0.2.1", "localhost.attacker.example", "[2001:db8::1]", "127.0.0.1.example"]
        {
            assert_eq!(status(&guard, &[("host", host)], true), 421, "{host}");
            assert_eq!(status(&guard, &[("host", host)], false), 200, "{host}");
        }
        assert_eq!(status(&guard, &[], true), 400);
        assert_eq!(status(&guard, &[("host", "localhost"), ("host", "localhost")], true), 400);
    }

    #[test]
    fn what_pages_ask_for_is_refused() {
        let guard = Guard::new(&[]);
        let ask = |line| status(&guard, &[("host", "localhost"), line], true);
        for site in ["cross-site", "same-site", "unheard-of"] {
            assert_eq!(ask(("sec-fetch-site", site)), 403, "{site}");
        }
        for origin in ["http://localhost:3000", "null"] {
            assert_eq!(ask(("origin", origin)), 403, "{origin}");
        }
        for site in ["none", "same-origin"] {
            assert_eq!(ask(("sec-fetch-site", site)), 200, "{site}");
        }
    }

    #[test]
    fn users_are_known_by_either_header_and_then_may_ask_from_anywhere() {
        let user = |name: &str, password: &str| User { name: name.to_owned(), password: password.to_owned() };
        let guard = Guard::new(&[user("ann", "one"), user("bob", "two:3")]);
        let basic = |text: &str| format!("bAsIc {}", STANDARD.encode(text));
        for credentials in ["ann:one", "bob:two:3"] {
            for name in ["proxy-authorization", "keepwarm-authorization"] {
                let lines = [("host", "a.example"), ("origin", "null"), (name, &basic(credentials)[..])];
                assert_eq!(status(&guard, &lines, true), 200, "{credentials}");
            }
        }
        for credentials in ["ann:two:3", "ann:", "ann", "", "ann:one\0", "bob:one"] {
            assert_eq!(status(&guard, &[("proxy-authorization", &basic(credentials))], false), 407, "{credentials:?}");
        }
        let ask = |name, value: &str| status(&guard, &[(name, value)], true);
        assert_eq!(ask("authorization", &basic("ann:one")), 407);
        assert_eq!(ask("proxy-authorization", "Basic"), 407);
        assert_eq!(ask("proxy-authorization", &format!("Bearer {}", STANDARD.encode("ann:one"))), 407);
        assert_eq!(status(&guard, &[], false), 407);
    }
}
