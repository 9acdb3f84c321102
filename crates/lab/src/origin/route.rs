//! What a request is answered: reads as much of it as its path wants, and plans the answer. Faults come later, in `exchange`.

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::{Body, hex};
use super::exchange::{Exchange, Gone, Place, Reader, text};

/// What `/echo` answers, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Method of the request.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query, empty if there is none.
    pub query: String,
    /// `HTTP/2.0` or `HTTP/1.1`.
    pub version: String,
    /// `:authority`, or Host over HTTP/1.1.
    pub authority: String,
    /// Headers in the order in which their names first came, names in lower case; Host among them over HTTP/1.1.
    pub headers: Vec<(String, String)>,
    /// The name in the client's hello (SNI), empty if there is none.
    pub sni: String,
    /// The address that was asked.
    pub address: String,
    /// The connection, numbered from 1 over all addresses.
    pub connection: u64,
    /// The request, numbered from 1 on its connection.
    pub request: u32,
    /// Length of the body.
    pub length: u64,
    /// SHA-256 of the body.
    pub sha256: String,
    /// The first 65,536 bytes of the body, as UTF-8 as far as they are.
    pub body: String,
    /// Trailers of the request.
    pub trailers: Vec<(String, String)>,
}

/// What `/upload` answers, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Length of the body.
    pub length: u64,
    /// SHA-256 of the body.
    pub sha256: String,
    /// Trailers of the request.
    pub trailers: Vec<(String, String)>,
}

/// An answer that nothing has gone wrong with yet.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) head: Response<()>,
    pub(super) body: Body,
    pub(super) trailers: Option<HeaderMap>,
}

impl Plan {
    fn new(status: StatusCode, kind: &'static str, body: Body) -> Self {
        let mut head = Response::new(());
        *head.status_mut() = status;
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Self { head, body, trailers: None }
    }

    /// That status with its name as the body; 500 if it is no status of a final answer.
    pub(super) fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let name = format!("{} {}\n", status.as_str(), status.canonical_reason().unwrap_or_default());
        Self::new(status, TEXT, Body::Whole(name.into()))
    }

    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new(StatusCode::OK, "application/json", Body::Whole(json.into())),
            Err(_) => Self::status(500),
        }
    }
}

/// Plans the answer to a request.
pub(super) async fn plan<E: Exchange>(
    place: &Place,
    request: &Parts,
    reader: &mut Reader<'_, E>,
) -> Result<Plan, Gone> {
    let path = request.uri.path();
    let (first, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let number = rest.parse::<u64>().ok();
    match (first, number) {
        ("echo", _) => return echo(place, request, reader).await,
        ("upload", _) => return upload(reader).await,
        ("trailers", _) => return trailers(reader).await,
        ("early", _) => return Ok(Plan::status(413)),
        ("expect", Some(417)) if reader.expects => return Ok(Plan::status(417)),
        ("expect", _) => {
            if reader.expects {
                reader.exchange.pause(Some(expect_delay(request))).await?;
            }
            return upload(reader).await;
        }
        _ => reader.discard().await?,
    }
    Ok(match (first, number) {
        ("", _) => Plan::new(StatusCode::OK, TEXT, Body::Whole(Bytes::from_static(b"keepwarm lab\n"))),
        ("bytes", Some(length)) => Plan::new(StatusCode::OK, BYTES, Body::bytes(path, length)),
        ("status", Some(status)) => Plan::status(u16::try_from(status).unwrap_or(0)),
        ("stream", pieces) if pieces.is_some() || rest.is_empty() => {
            Plan::new(StatusCode::OK, BYTES, Body::stream(path, pieces))
        }
        _ => Plan::status(404),
    })
}

async fn echo<E: Exchange>(place: &Place, request: &Parts, reader: &mut Reader<'_, E>) -> Result<Plan, Gone> {
    let read = Read::all(reader, ECHO_MAX).await?;
    let uri = &request.uri;
    let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    Ok(Plan::json(&Echo {
        method: request.method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        version: format!("{:?}", request.version),
        authority: uri.authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default().to_owned(),
        headers: pairs(&request.headers),
        sni: place.sni.to_string(),
        address: place.site.ip.to_string(),
        connection: place.connection,
        request: place.request,
        length: read.length,
        sha256: read.sha256,
        body: String::from_utf8_lossy(&read.start).into_owned(),
        trailers: pairs(&read.trailers),
    }))
}

async fn upload<E: Exchange>(reader: &mut Reader<'_, E>) -> Result<Plan, Gone> {
    let Read { length, sha256, trailers, .. } = Read::all(reader, 0).await?;
    Ok(Plan::json(&Upload { length, sha256, trailers: pairs(&trailers) }))
}

async fn trailers<E: Exchange>(reader: &mut Reader<'_, E>) -> Result<Plan, Gone> {
    let read = Read::all(reader, ECHO_MAX).await?;
    let mut plan = Plan::new(StatusCode::OK, BYTES, Body::Whole(read.start.freeze()));
    let mut trailers = HeaderMap::new();
    trailers.insert("lab-sha256", text(&read.sha256));
    for (name, value) in &read.trailers {
        if let Ok(name) = HeaderName::try_from(format!("echo-{name}")) {
            trailers.append(name, value.clone());
        }
    }
    plan.trailers = Some(trailers);
    Ok(plan)
}

/// A body that was read to its end.
struct Read {
    length: u64,
    sha256: String,
    start: BytesMut,
    trailers: HeaderMap,
}

impl Read {
    /// Keeps at most `keep` bytes from the start.
    async fn all<E: Exchange>(reader: &mut Reader<'_, E>, keep: usize) -> Result<Self, Gone> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut start = BytesMut::new();
        let mut length = 0;
        while let Some(piece) = reader.next().await? {
            hash.update(&piece);
            length += piece.len() as u64;
            start.extend_from_slice(&piece[..piece.len().min(keep - start.len())]);
        }
        let trailers = reader.exchange.trailers().await?;
        Ok(Self { length, sha256: hex(hash.finish().as_ref()), start, trailers })
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(pair).collect()
}

fn expect_delay(request: &Parts) -> Duration {
    let query = request.uri.query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("delay=")).and_then(|text| text.parse().ok());
    asked.map_or(EXPECT_DELAY, Duration::from_millis)
}

const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";
const ECHO_MAX: usize = 65_536;
const EXPECT_DELAY: Duration = Duration::from_millis(50);
