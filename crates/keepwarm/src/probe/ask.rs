//! One request and its answer to the last byte: what it took, or where it failed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode};
use keepwarm_https::{Body, Client, Error, ErrorKind, RequestOptions, Served};
use keepwarm_transport::error::{Error as TransportError, Phase};
use serde::Serialize;
use tokio::time::Instant;

use super::origin::Url;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) served: Served,
    /// From the call to the end of the body.
    pub(crate) total: Duration,
    /// Bytes of the body that were read.
    pub(crate) bytes: u64,
    /// Whether these are all: a very long body is given up.
    pub(crate) is_whole: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failed {
    /// What it failed in: `dns`, `proxy`, `tcp`, `tls`, `connect` (waiting for a connection), `first_byte`, `http` or `request`.
    pub(crate) phase: &'static str,
    /// The error's kind, as in metrics.
    pub(crate) kind: &'static str,
    /// What happened.
    pub(crate) error: String,
}

/// Sends one request without a body and reads the answer to its end.
///
/// # Errors
/// When there is no answer, or it ended early.
pub(crate) async fn ask(
    client: &Client,
    url: &Url,
    method: &Method,
    options: RequestOptions,
) -> Result<Answer, Failed> {
    let mut request = Request::new(());
    *request.uri_mut() = url.uri().clone();
    *request.method_mut() = method.clone();
    let start = Instant::now();
    let (parts, mut body) = client.request_with(request, options).await?.into_parts();
    let bytes = drain(&mut body).await?;
    let total = start.elapsed();
    let is_whole = bytes < BODY_MAX;
    Ok(Answer { status: parts.status, served: body.served().clone(), total, bytes, is_whole })
}

/// Reads a body, and stops where it is too long.
async fn drain(body: &mut Body) -> Result<u64, Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        if bytes >= BODY_MAX {
            break;
        }
    }
    Ok(bytes)
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let phase = match (error.transport_error(), error.kind()) {
            (Some(transport), _) => phase_name(transport.phase()),
            (None, ErrorKind::NoAddress) => "dns",
            (None, ErrorKind::TimedOut) if error.tries() > 0 => "first_byte",
            (None, ErrorKind::TimedOut | ErrorKind::Exhausted) => "connect",
            (None, _) => "request",
        };
        Failed { phase, kind: error.kind().as_str(), error: error.to_string() }
    }
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Failed {
        Failed { phase: phase_name(error.phase()), kind: error.kind().as_str(), error: error.to_string() }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "dns",
        Phase::Connect => "tcp",
        Phase::Tls => "tls",
        Phase::Proxy => "proxy",
        _ => "http",
    }
}

/// Bytes of a body that are read: 64 MiB.
const BODY_MAX: u64 = 64 << 20;
