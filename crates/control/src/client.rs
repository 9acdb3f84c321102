//! Asking the status endpoint of a running daemon, as `keepwarm pools`, `cache`, `query`, `addresses`, `warm` and `tunnels` do.
//!
//! One request a connection: a command asks once and ends.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use crate::rows::ErrorBody;

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
            ClientError::Refused { status: _, error } => f.write_str(error),
            ClientError::Protocol { address, cause } => write!(f, "what answers at {address} is not keepwarm: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Gets a page of the endpoint at `address`.
///
/// # Errors
/// [`ClientError::NotRunning`] after at most 2 s, and what the daemon refuses.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, ClientError> {
    ask(address, Method::GET, path, Bytes::new(), TIMEOUT).await
}

/// Posts `body` as JSON to the endpoint at `address`; `timeout` limits the wait for the answer.
///
/// # Errors
/// [`ClientError::NotRunning`] after at most 2 s without a connection, and what the daemon refuses.
///
/// # Cancel safety
/// Dropping the future closes the connection; the daemon may still do what was posted.
pub async fn post<T: DeserializeOwned>(
    address: SocketAddr,
    path: &str,
    body: &impl Serialize,
    timeout: Duration,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).expect("the status types have no map with keys that are not texts");
    ask(address, Method::POST, path, body.into(), timeout).await
}

/// Sends `body` as JSON to change something of the endpoint at `address`.
///
/// # Errors
/// As [`get`].
///
/// # Cancel safety
/// As [`post`].
pub async fn patch<T: DeserializeOwned>(
    address: SocketAddr,
    path: &str,
    body: &impl Serialize,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).expect("the status types have no map with keys that are not texts");
    ask(address, Method::PATCH, path, body.into(), TIMEOUT).await
}

/// Posts `body` as JSON and hands each line of the answer to `each`; `timeout` limits the wait for the whole of it.
///
/// # Errors
/// As [`post`] has them.
///
/// # Cancel safety
/// Dropping the future closes the connection, by which the daemon gives up what it does.
pub async fn post_lines<T: DeserializeOwned>(
    address: SocketAddr,
    path: &str,
    body: &impl Serialize,
    timeout: Duration,
    mut each: impl FnMut(T),
) -> Result<(), ClientError> {
    let body = serde_json::to_vec(body).expect("the status types have no map with keys that are not texts");
    let read = async |status: u16, body: Incoming| match status {
        200 => read_lines(body, &mut each).await.map(|()| Ok(())),
        _ => whole(body).await.map(|body| Err((status, body))),
    };
    match send(address, Method::POST, path, body.into(), timeout, read).await? {
        Ok(()) => Ok(()),
        Err((status, body)) => Err(refused(address, status, &body)),
    }
}

async fn ask<T: DeserializeOwned>(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<T, ClientError> {
    let read = async |status: u16, body: Incoming| whole(body).await.map(|body| (status, body));
    let (status, body) = send(address, method, path, body, timeout, read).await?;
    if status != 200 {
        return Err(refused(address, status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| ClientError::Protocol { address, cause: error.to_string() })
}

fn refused(address: SocketAddr, status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(ErrorBody { error }) => ClientError::Refused { status, error },
        Err(_) => ClientError::Protocol { address, cause: format!("http status {status}") },
    }
}

/// Sends a request and gives status and body of its answer to `read`.
async fn send<R>(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
    read: impl AsyncFnOnce(u16, Incoming) -> Result<R, String>,
) -> Result<R, ClientError> {
    let not_running = |cause: String| ClientError::NotRunning { address, cause };
    let stream = match tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(not_running(lower_case(&error.to_string()))),
        Err(_) => return Err(not_running(format!("no connection within {TIMEOUT:?}"))),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| ClientError::Protocol { address, cause: error.to_string() })?;
    match tokio::time::timeout(timeout, exchange(stream, request, read)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(cause)) => Err(ClientError::Protocol { address, cause }),
        Err(_) => Err(not_running(format!("no answer within {timeout:?}"))),
    }
}

async fn exchange<R>(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(u16, Incoming) -> Result<R, String>,
) -> Result<R, String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let answer = async {
        let response: Response<Incoming> = sender.send_request(request).await.map_err(words)?;
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

fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Largest answer that is read: 64 MiB, as many addresses as an origin can have.
const ANSWER_MAX: usize = 64 << 20;

/// Longest line of an answer that comes in lines.
const LINE_MAX: usize = 64 * 1024;
