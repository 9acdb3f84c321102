//! Redirects that lead back through the gateway: what an origin says about itself, in the words of who asked.
//!
//! What is deliberately not here: redirects to other hosts, and from https to http. They are passed on as they came.

use http::uri::Authority;

use super::route::{Form, PREFIX};

/// The Location (RFC 9110 section 10.2.2) that a client needs in order to arrive at the same resource by the gateway; `None`: as it is.
/// `host` and `path` are what was asked for.
pub(super) fn rewrite(location: &str, form: Form, host: &Authority, path: &str) -> Option<String> {
    match form {
        // Where a client asked for http it goes on asking for http: https would need a tunnel.
        Form::Upgraded => {
            let (other, rest) = split(after_https(location)?);
            is_same(other, host).then(|| format!("http://{}{rest}", host.host()))
        }
        Form::Forward => None,
        Form::Prefixed => prefixed(location, host, path),
    }
}

fn prefixed(location: &str, host: &Authority, path: &str) -> Option<String> {
    if let Some(rest) = after_https(location).or_else(|| location.strip_prefix("//")) {
        let (other, rest) = split(rest);
        if is_same(other, host) {
            return Some(within(host, rest));
        }
        // Relative to the gateway's URL it would become http.
        return location.starts_with("//").then(|| format!("https:{location}"));
    }
    let path_end = location.find(['?', '#']).unwrap_or(location.len());
    let has_scheme = location[..path_end].split('/').next().is_some_and(|first| first.contains(':'));
    if has_scheme || path_end == 0 {
        return None;
    }
    if location.starts_with('/') {
        return Some(within(host, location));
    }
    // RFC 3986 section 5.2.3: everything after the last slash is replaced.
    let directory = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
    Some(within(host, &format!("{directory}{location}")))
}

/// What follows `https://`.
fn after_https(location: &str) -> Option<&str> {
    let (scheme, rest) = location.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

/// Authority and the rest, which may be empty.
fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

fn is_same(other: &str, host: &Authority) -> bool {
    let normal = |authority: &str| authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase();
    normal(other) == normal(host.as_str())
}

/// A path of the origin as one of the gateway. Dots are resolved here: there they would climb out of the origin.
fn within(host: &Authority, path: &str) -> String {
    let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    format!("{PREFIX}{host}{}{rest}", without_dots(path))
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

const SCHEME: &str = "https://";

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(form: Form, location: &str) -> String {
        let host: Authority = "a.example".parse().expect("valid");
        rewrite(location, form, &host, "/x/y").unwrap_or_else(|| location.to_owned())
    }

    #[test]
    fn redirects_to_the_same_host_stay_in_the_gateway() {
        for (location, expected) in [
            ("/z", "/https/a.example/z"),
            ("/z?q=/../r#f", "/https/a.example/z?q=/../r#f"),
            ("z", "/https/a.example/x/z"),
            ("./", "/https/a.example/x/"),
            ("../z", "/https/a.example/z"),
            ("../../../b.example/z", "/https/a.example/b.example/z"),
            ("/../../b.example/..", "/https/a.example/"),
            ("https://a.example", "/https/a.example/"),
            ("HTTPS://A.example:443/z", "/https/a.example/z"),
            ("https://a.example?q", "/https/a.example/?q"),
            ("//a.example/z", "/https/a.example/z"),
            ("//b.example/z", "https://b.example/z"),
        ] {
            assert_eq!(ask(Form::Prefixed, location), expected, "{location}");
        }
    }

    #[test]
    fn others_are_passed_on() {
        let others = [
            "https://b.example/z",
            "http://a.example/z",
            "https://a.example:8443/z",
            "mailto:ann@a.example",
            "?q",
            "#f",
            "",
        ];
        for location in others {
            assert_eq!(ask(Form::Prefixed, location), location);
        }
        for location in ["/z", "z", "https://a.example/z", "//a.example/z"] {
            assert_eq!(ask(Form::Forward, location), location);
        }
    }

    #[test]
    fn who_asked_for_http_is_not_sent_to_https_of_the_same_host() {
        for (location, expected) in [
            ("https://a.example/z", "http://a.example/z"),
            ("https://A.example:443", "http://a.example"),
            ("https://b.example/z", "https://b.example/z"),
            ("https://a.example.evil/z", "https://a.example.evil/z"),
            ("http://a.example/z", "http://a.example/z"),
            ("/z", "/z"),
        ] {
            assert_eq!(ask(Form::Upgraded, location), expected, "{location}");
        }
    }
}
