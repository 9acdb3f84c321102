//! Asking the status endpoint of a running daemon, as `keepwarm status`, `pools`, `top`, `query` and the like do.
//!
//! One request a connection: a command asks once and ends, or listens to events until it ends.

mod sse;

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use crate::{Token, events::EventRow, rows::ErrorBody};

/// Where a daemon's endpoint is, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its address.
    pub address: SocketAddr,
    /// The token that it wants; none: it wants none.
    pub token: Option<Token>,
}

impl From<SocketAddr> for Daemon {
    fn from(address: SocketAddr) -> Daemon {
        Daemon { address, token: None }
    }
}

impl From<&Daemon> for Daemon {
    fn from(daemon: &Daemon) -> Daemon {
        daemon.clone()
    }
}

/// Limit for connecting to the daemon, and for its answer where that needs no upstream: 2 s.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Why the daemon did not say what it was asked.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens there, or does not answer in time: the daemon is not running, or has another address.
    NotRunning {
        /// The address that was tried.
        address: SocketAddr,
        /// What happened.
        cause: String,
    },
    /// It wants a token, and none or another one was sent.
    Unauthorized {
        /// The address that was asked.
        address: SocketAddr,
        /// Whether a token was sent.
        sent: bool,
    },
    /// The daemon refused, with its words.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        error: String,
    },
    /// What answers there is not keepwarm, or another version of it.
    Protocol {
        /// The address that was tried.
        address: SocketAddr,
        /// What is wrong with the answer.
        cause: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotRunning { address, cause } => write!(
                f,
                "no keepwarm daemon at {address}: {cause} (start one with `keepwarm run`, or name its [control] listen with --control)"
            ),
            ClientError::Unauthorized { address, sent: false } => write!(
                f,
                "the daemon at {address} wants a token: name the file of its control.token_file with --token-file or KEEPWARM_TOKEN_FILE"
            ),
            ClientError::Unauthorized { address, sent: true } => write!(
                f,
                "the daemon at {address} has another token than the one sent: compare with the file of its control.token_file"
            ),
            ClientError::Refused { status: _, error } => f.write_str(error),
            ClientError::Protocol { address, cause } => write!(f, "what answers at {address} is not keepwarm: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Gets a page of `daemon`.
///
/// # Errors
/// [`ClientError::NotRunning`] after at most 2 s, and what the daemon refuses.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn get<T: DeserializeOwned>(daemon: impl Into<Daemon>, path: &str) -> Result<T, ClientError> {
    ask(&daemon.into(), Method::GET, path, Bytes::new(), Wait::Whole(TIMEOUT)).await
}

/// Posts `body` as JSON to `daemon`; `timeout` limits the wait for the answer.
///
/// # Errors
/// [`ClientError::NotRunning`] after at most 2 s without a connection, and what the daemon refuses.
///
/// # Cancel safety
/// Dropping the future closes the connection; the daemon may still do what was posted.
pub async fn post<T: DeserializeOwned>(
    daemon: impl Into<Daemon>,
    path: &str,
    body: &impl Serialize,
    timeout: Duration,
) -> Result<T, ClientError> {
    ask(&daemon.into(), Method::POST, path, json(body), Wait::Whole(timeout)).await
}

/// Changes something of `daemon` by PATCH.
///
/// # Errors
/// As [`post`] has them.
///
/// # Cancel safety
/// As that of [`post`].
pub async fn patch<T: DeserializeOwned>(
    daemon: impl Into<Daemon>,
    path: &str,
    body: &impl Serialize,
) -> Result<T, ClientError> {
    ask(&daemon.into(), Method::PATCH, path, json(body), Wait::Whole(TIMEOUT)).await
}

/// Posts `body` as JSON and hands each line of the answer to `each`; `timeout` limits the wait for the whole of it.
///
/// # Errors
/// As [`post`] has them.
///
/// # Cancel safety
/// Dropping the future closes the connection, by which the daemon gives up what it does.
pub async fn post_lines<T: DeserializeOwned>(
    daemon: impl Into<Daemon>,
    path: &str,
    body: &impl Serialize,
    timeout: Duration,
    mut each: impl FnMut(T),
) -> Result<(), ClientError> {
    let daemon = daemon.into();
    let read = async |status: u16, body: Incoming| match status {
        200 => read_lines(body, &mut each).await.map(|()| Ok(())),
        _ => whole(body).await.map(|body| Err((status, body))),
    };
    match send(&daemon, Method::POST, path, json(body), Wait::Whole(timeout), read).await? {
        Ok(()) => Ok(()),
        Err((status, body)) => Err(refused(&daemon, status, &body)),
    }
}

/// Listens to the events of `daemon` and hands each look to `each`, about one a second, until the daemon stops or is silent for 10 s.
///
/// # Errors
/// [`ClientError::NotRunning`] without a connection, or with one that went silent; what the daemon refuses.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn events(daemon: impl Into<Daemon>, mut each: impl FnMut(EventRow)) -> Result<(), ClientError> {
    let daemon = daemon.into();
    let read = async |status: u16, body: Incoming| match status {
        200 => read_events(body, &mut each).await.map(Ok),
        _ => whole(body).await.map(|body| Err((status, body))),
    };
    match send(&daemon, Method::GET, "/api/v1/events", Bytes::new(), Wait::Head(TIMEOUT), read).await? {
        Ok(Ended::Closed) => Ok(()),
        Ok(Ended::Silent) => {
            Err(ClientError::NotRunning { address: daemon.address, cause: format!("silent for {SILENCE:?}") })
        }
        Err((status, body)) => Err(refused(&daemon, status, &body)),
    }
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("the status types have no map with keys that are not texts").into()
}

async fn ask<T: DeserializeOwned>(
    daemon: &Daemon,
    method: Method,
    path: &str,
    body: Bytes,
    wait: Wait,
) -> Result<T, ClientError> {
    let read = async |status: u16, body: Incoming| whole(body).await.map(|body| (status, body));
    let (status, body) = send(daemon, method, path, body, wait, read).await?;
    if status != 200 {
        return Err(refused(daemon, status, &body));
    }
    let protocol =
        |error: serde_json::Error| ClientError::Protocol { address: daemon.address, cause: error.to_string() };
    serde_json::from_slice(&body).map_err(protocol)
}

fn refused(daemon: &Daemon, status: u16, body: &[u8]) -> ClientError {
    let address = daemon.address;
    match serde_json::from_slice(body) {
        Ok(ErrorBody { .. }) if status == 401 => ClientError::Unauthorized { address, sent: daemon.token.is_some() },
        Ok(ErrorBody { error }) => ClientError::Refused { status, error },
        Err(_) => ClientError::Protocol { address, cause: format!("http status {status}") },
    }
}

/// What of an answer is waited for no longer than that.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// Its end.
    Whole(Duration),
    /// Its head; the rest may take as long as it takes.
    Head(Duration),
}

/// Sends a request and gives status and body of its answer to `read`.
async fn send<R>(
    daemon: &Daemon,
    method: Method,
    path: &str,
    body: Bytes,
    wait: Wait,
    read: impl AsyncFnOnce(u16, Incoming) -> Result<R, String>,
) -> Result<R, ClientError> {
    let address = daemon.address;
    let not_running = |cause: String| ClientError::NotRunning { address, cause };
    let stream = match tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(not_running(lower_case(&error.to_string()))),
        Err(_) => return Err(not_running(format!("no connection within {TIMEOUT:?}"))),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(token) = &daemon.token {
        request = request.header(header::AUTHORIZATION, sensitive(token));
    }
    let request =
        request.body(Full::new(body)).map_err(|error| ClientError::Protocol { address, cause: error.to_string() })?;
    let late = |limit: Duration| not_running(format!("no answer within {limit:?}"));
    let exchanged = match wait {
        Wait::Whole(limit) => {
            tokio::time::timeout(limit, exchange(stream, request, None, read)).await.map_err(|_| late(limit))?
        }
        Wait::Head(limit) => exchange(stream, request, Some(limit), read).await,
    };
    exchanged.map_err(|cause| ClientError::Protocol { address, cause })
}

/// The value of `Authorization`, which no `Debug` shows.
fn sensitive(token: &Token) -> header::HeaderValue {
    let mut value = header::HeaderValue::try_from(token.authorization()).expect("a token is visible ASCII");
    value.set_sensitive(true);
    value
}

async fn exchange<R>(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    head: Option<Duration>,
    read: impl AsyncFnOnce(u16, Incoming) -> Result<R, String>,
) -> Result<R, String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let answer = async {
        let sent = sender.send_request(request);
        let response = match head {
            Some(limit) => {
                let late = |_| format!("no answer within {limit:?}");
                tokio::time::timeout(limit, sent).await.map_err(late)?
            }
            None => sent.await,
        };
        let response: Response<Incoming> = response.map_err(words)?;
        let status = response.status().as_u16();
        read(status, response.into_body()).await
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is polled here rather than in a task of its own, so that nothing outlives the request.
    tokio::select! {
        answered = answer.as_mut() => answered,
        _ = connection => answer.await,
    }
}

async fn whole(body: Incoming) -> Result<Bytes, String> {
    let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

async fn read_lines<T: DeserializeOwned>(mut body: Incoming, each: &mut impl FnMut(T)) -> Result<(), String> {
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.drain(..=end).collect::<Vec<u8>>();
            each(serde_json::from_slice(&line).map_err(|error| error.to_string())?);
        }
        if rest.len() > LINE_MAX {
            return Err(format!("a line of more than {LINE_MAX} bytes"));
        }
    }
    Ok(())
}

/// How a stream of events ended.
enum Ended {
    /// The daemon closed it.
    Closed,
    /// Nothing came for [`SILENCE`].
    Silent,
}

async fn read_events(mut body: Incoming, each: &mut impl FnMut(EventRow)) -> Result<Ended, String> {
    let mut reader = sse::Reader::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|error| error.to_string())?,
            Ok(None) => return Ok(Ended::Closed),
            Err(_) => return Ok(Ended::Silent),
        };
        let Ok(data) = frame.into_data() else { continue };
        // Only the newest look of what came at once is of use.
        let mut newest = None;
        reader.read(&data, |event| {
            if event.name == "sample" {
                newest = Some(event);
            }
        })?;
        if let Some(event) = newest {
            each(serde_json::from_str(&event.data).map_err(|error| error.to_string())?);
        }
    }
}

fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Largest answer that is read: 64 MiB, as many addresses as an origin can have.
const ANSWER_MAX: usize = 64 << 20;

/// A daemon looks each second; one that says nothing for so long is stuck: 10 s.
const SILENCE: Duration = Duration::from_secs(10);

/// Longest line of an answer that comes in lines.
const LINE_MAX: usize = 64 * 1024;
