//! A request's head: what of the caller's goes on, what the profile adds, and the form that each protocol wants.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request,
    uri::{PathAndQuery, Scheme},
};

use crate::{body::RequestBody, connection::Target, profile::Profile};

/// A request's head, ready to be sent as often as need be.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    path: PathAndQuery,
    headers: Headers,
    /// The profile asks for a compressed answer, and the caller did not.
    #[cfg(feature = "browser")]
    pub(crate) decodes: bool,
}

/// The headers of a request.
#[derive(Debug, Clone)]
enum Headers {
    /// The profile's alone, which all requests without headers of their own share.
    Shared(Arc<HeaderMap>),
    Own(HeaderMap),
}

impl std::ops::Deref for Headers {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        match self {
            Headers::Shared(headers) => headers,
            Headers::Own(headers) => headers,
        }
    }
}

impl Head {
    /// Takes what is sent of a request: no header that is only for one connection (RFC 9110 section 7.6.1), and the profile's headers
    /// where they are missing, in the profile's order.
    pub(crate) fn new(parts: request::Parts, profile: Option<&Arc<HeaderMap>>, body: &RequestBody) -> Head {
        let path = path(parts.uri);
        let mut own = parts.headers;
        if !own.is_empty() {
            strip(&mut own);
            if profile.is_some() && own.contains_key(header::RANGE) {
                // A range of a coded answer cannot be decoded.
                own.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
            }
        }
        let exact = http_body::Body::size_hint(body).exact();
        if own.contains_key(header::CONTENT_LENGTH) {
            true_length(&mut own, exact);
        }
        #[cfg(feature = "browser")]
        let decodes = profile.is_some() && !own.contains_key(header::ACCEPT_ENCODING);
        let length = exact.filter(|length| *length > 0);
        let headers = match profile {
            Some(profile) if own.is_empty() && length.is_none() => Headers::Shared(profile.clone()),
            _ => {
                let mut headers = match profile {
                    Some(profile) if !profile.is_empty() => dress(own, profile),
                    _ => own,
                };
                if let Some(length) = length {
                    headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
                }
                Headers::Own(headers)
            }
        };
        Head {
            method: parts.method,
            path,
            headers,
            #[cfg(feature = "browser")]
            decodes,
        }
    }

    pub(crate) fn http2(&self, target: &Target) -> Request<()> {
        let mut request = Request::new(());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(target.authority().clone());
        uri.path_and_query = Some(self.path.clone());
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are there");
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = HeaderMap::clone(&self.headers);
        request
    }

    /// Names the host in a header, first as browsers do, and leaves only path and query in the request line (RFC 9112 section 3.2.1).
    pub(crate) fn http1(&self, target: &Target) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.method_mut() = self.method.clone();
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        let host = HeaderValue::from_str(target.authority().as_str());
        headers.insert(header::HOST, host.expect("an authority has no character that a header has not"));
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        *request.headers_mut() = headers;
        request
    }
}

/// Path and query, beginning with a slash as HTTP wants it.
fn path(uri: Uri) -> PathAndQuery {
    match uri.into_parts().path_and_query {
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", path.as_str())).expect("a query stays valid behind a slash")
        }
        Some(path) => path,
        None => PathAndQuery::from_static("/"),
    }
}

/// Removes what is about one connection and what the connection says itself.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // `te: trailers` is the one that HTTP/2 allows (RFC 9113 section 8.2.2).
        if *name == header::TE && headers.get(name).is_some_and(|value| value == "trailers") {
            continue;
        }
        headers.remove(name);
    }
}

/// Lets Content-Length say what is sent. A length that is said and not sent would be taken from the next request on the connection.
fn true_length(headers: &mut HeaderMap, exact: Option<u64>) {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let one = said.next().filter(|_| said.next().is_none());
    let said = one.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match exact.or(said) {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
}

/// The caller's headers with those of the profile, which come first and in their order.
fn dress(mut own: HeaderMap, profile: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(own.len() + profile.len());
    for (name, value) in profile {
        match own.entry(name.clone()) {
            header::Entry::Occupied(entry) => {
                for value in entry.remove_entry_mult().1 {
                    headers.append(name.clone(), value);
                }
            }
            header::Entry::Vacant(_) => {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    headers.extend(own);
    headers
}

/// The headers of a profile; those that are none are left out, which the reader of profiles does not let happen.
pub(crate) fn headers_of(profile: &Profile) -> Arc<HeaderMap> {
    let header = |(name, value): &(String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    Arc::new(profile.headers.iter().filter_map(header).collect())
}

/// Headers about one connection, and those that a connection says itself.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::HOST,
];
