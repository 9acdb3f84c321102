//! What a request asks for: the URL behind the two forms that the gateway serves.

use http::{
    Method, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::refusal::Refusal;

/// Where a request goes, and in which form it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `https://HOST[:PORT]/PATH?QUERY`.
    pub(super) uri: Uri,
    pub(super) form: Form,
}

/// How a request names what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `/https/HOST[:PORT]/PATH`, asked of the gateway as if it were the server.
    Prefixed,
    /// `https://HOST/PATH` in the request line, asked of the gateway as a proxy.
    Forward,
    /// `http://HOST/PATH` in the request line, which goes out as https.
    Upgraded,
}

/// Whether the request is for the gateway as if it were a server, and not as a proxy.
pub(super) fn is_prefixed(method: &Method, uri: &Uri) -> bool {
    method != Method::CONNECT && uri.scheme().is_none()
}

/// Reads the request line.
pub(super) fn route(method: &Method, uri: &Uri, upgrade: bool) -> Result<Route, Refusal> {
    if method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "connect", CONNECT));
    }
    match uri.scheme().map(Scheme::as_str) {
        None => prefixed(uri),
        Some("https") => Ok(Route { uri: join(authority(uri)?.as_str(), path(uri))?, form: Form::Forward }),
        Some("http") => upgraded(uri, upgrade),
        Some(other) => Err(Refusal::request(format!("{other}:// is not served, only https:// and http:// are"))),
    }
}

fn prefixed(uri: &Uri) -> Result<Route, Refusal> {
    let whole = path(uri);
    let Some(rest) = whole.strip_prefix(PREFIX) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", NOT_FOUND));
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.is_empty() {
        return Err(Refusal::request(format!("the path names no host: {NOT_FOUND}")));
    }
    // A query may follow the host at once.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Route { uri: join(host, &path)?, form: Form::Prefixed })
}

fn upgraded(uri: &Uri, upgrade: bool) -> Result<Route, Refusal> {
    let authority = authority(uri)?;
    let host = authority.host();
    if !upgrade {
        return Err(Refusal::request(format!(
            "http://{host} is not served, since this is a gateway to https: set upgrade = true in [https], or ask for {PREFIX}{host}/"
        )));
    }
    let checked = join(authority.as_str(), path(uri))?;
    match authority.port_u16() {
        None => Ok(Route { uri: checked, form: Form::Upgraded }),
        Some(80) => Ok(Route { uri: join(host, path(uri))?, form: Form::Upgraded }),
        Some(port) => Err(Refusal::request(format!(
            "http://{host}:{port} is not served: only port 80 is upgraded to https; for https at that port ask for {PREFIX}{host}:{port}/"
        ))),
    }
}

fn authority(uri: &Uri) -> Result<&Authority, Refusal> {
    uri.authority().ok_or_else(|| Refusal::request("the url has no host"))
}

/// Path and query as they came.
fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

fn join(authority: &str, path: &str) -> Result<Uri, Refusal> {
    let wrong = || Refusal::request(format!("{authority:?} is not a host, or host:port"));
    let authority: Authority = authority.parse().map_err(|_| wrong())?;
    let host = authority.host();
    // A user's name and password would be lost on the way, since they are no part of what is sent.
    let is_plain = match authority.port_u16() {
        None => authority.as_str() == host,
        Some(port) => port != 0 && authority.as_str() == format!("{host}:{port}"),
    };
    if !is_plain || !crate::origin::is_host(host.trim_start_matches('[').trim_end_matches(']')) {
        return Err(wrong());
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(path).build();
    uri.map_err(|error| Refusal::request(format!("the url is not valid: {error}")))
}

/// What URLs of the gateway start with.
pub(super) const PREFIX: &str = "/https/";

const NOT_FOUND: &str = "ask this gateway for /https/HOST/PATH, or use it as the proxy of http://HOST/PATH";

const CONNECT: &str = "tunnels (CONNECT) are not served, since a client's own TLS cannot use connections that are open already: ask the \
                       proxy for http://HOST/PATH, which goes out as https, or ask for http://GATEWAY/https/HOST/PATH";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<(String, Form), u16> {
        let (method, uri) = line.split_once(' ').expect("method and uri");
        let uri: Uri = uri.parse().expect("valid");
        let found = route(&method.parse().expect("valid"), &uri, true);
        found.map(|route| (route.uri.to_string(), route.form)).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn both_forms_name_an_https_url() {
        for (line, expected, form) in [
            ("GET /https/a.example/x?y=1", "https://a.example/x?y=1", Form::Prefixed),
            ("GET /https/a.example", "https://a.example/", Form::Prefixed),
            ("GET /https/a.example?y", "https://a.example/?y", Form::Prefixed),
            ("GET /https/a.example:8443//x/../y", "https://a.example:8443//x/../y", Form::Prefixed),
            ("GET /https/[2001:db8::1]:444/x%2Fy", "https://[2001:db8::1]:444/x%2Fy", Form::Prefixed),
            ("GET http://a.example", "https://a.example/", Form::Upgraded),
            ("GET http://a.example:80/x", "https://a.example/x", Form::Upgraded),
            ("PUT https://a.example:8443/x", "https://a.example:8443/x", Form::Forward),
        ] {
            assert_eq!(asked(line), Ok((expected.to_owned(), form)), "{line}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_its_reason() {
        for (line, status) in [
            ("CONNECT a.example:443", 501),
            ("GET /", 404),
            ("GET /http/a.example/", 404),
            ("OPTIONS *", 404),
            ("GET /https/", 400),
            ("GET /https//x", 400),
            ("GET /https/ann:pw@a.example/", 400),
            ("GET /https/a.example:0/", 400),
            ("GET /https/a.example:99999/", 400),
            ("GET /https/a.example:/", 400),
            ("GET /https/a%20b/", 400),
            ("GET http://a.example:8080/", 400),
            ("GET http://ann@a.example/", 400),
            ("GET ftp://a.example/", 400),
        ] {
            assert_eq!(asked(line), Err(status), "{line}");
        }
    }

    #[test]
    fn without_upgrade_http_is_refused_and_https_served() {
        let ask = |uri: &str| route(&Method::GET, &uri.parse().expect("valid"), false);
        assert!(ask("http://a.example/").unwrap_err().text.contains("set upgrade = true in [https],"));
        assert!(ask("https://a.example/").is_ok());
        assert!(ask("/https/a.example/").is_ok());
    }
}
