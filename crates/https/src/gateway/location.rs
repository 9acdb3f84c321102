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
    let reference = &location[..path_end(location)];
    let has_scheme = reference.split(SLASHES).next().is_some_and(|first| first.contains(':'));
    if has_scheme || reference.is_empty() {
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
    let (path, rest) = path.split_at(path_end(path));
    format!("{PREFIX}{host}{}{rest}", without_dots(path))
}

/// RFC 3986 section 5.2.4, and what browsers read the same way (WHATWG URL section 4.4): `\` as `/`, `%2e` as a dot, and a tab as nothing.
fn without_dots(path: &str) -> String {
    let path = path.replace('\t', "");
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix(SLASHES).unwrap_or(&path).split(SLASHES).peekable();
    while let Some(segment) = segments.next() {
        match dots(segment) {
            None => kept.push(segment),
            Some(count) => {
                if count == 2 {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
        }
    }
    format!("/{}", kept.join("/"))
}

/// How many dots a segment is that means a directory: one or two.
fn dots(segment: &str) -> Option<usize> {
    let (mut rest, mut count) = (segment, 0);
    while !rest.is_empty() {
        let is_encoded = rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2e"));
        rest = if is_encoded { &rest[3..] } else { rest.strip_prefix('.')? };
        count += 1;
    }
    (1..=2).contains(&count).then_some(count)
}

/// Where query or fragment begin.
fn path_end(location: &str) -> usize {
    location.find(['?', '#']).unwrap_or(location.len())
}

const SCHEME: &str = "https://";

/// What separates segments to browsers.
const SLASHES: [char; 2] = ['/', '\\'];

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
            ("/%2e%2e/%2E./b.example/.%2e", "/https/a.example/"),
            ("%2E%2e/..%2f/z", "/https/a.example/..%2f/z"),
            ("..\\..\\b.example\\z", "/https/a.example/b.example/z"),
            ("..\\..\\b.example:1/z", "/https/a.example/b.example:1/z"),
            ("/\\b.example\\z", "/https/a.example//b.example/z"),
            ("/.\t./.\t%2e/b.example/z", "/https/a.example/b.example/z"),
            ("/.../%2e%2e%2e/%2/..%", "/https/a.example/.../%2e%2e%2e/%2/..%"),
            ("/x\\..\\z?q=\\..\\r", "/https/a.example/z?q=\\..\\r"),
            ("https://a.example/%2e%2e/b.example/", "/https/a.example/b.example/"),
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
