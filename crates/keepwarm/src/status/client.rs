//! Asking the status endpoint of a running daemon, as `keepwarm pools`, `cache` and `query` do.
//!
//! One request a connection: a command asks once and ends.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use super::ErrorBody;

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

async fn ask<T: DeserializeOwned>(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<T, ClientError> {
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
    let exchange = exchange(stream, request);
    let (status, body) = match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(cause)) => return Err(ClientError::Protocol { address, cause }),
        Err(_) => return Err(not_running(format!("no answer within {timeout:?}"))),
    };
    if status != 200 {
        return Err(match serde_json::from_slice(&body) {
            Ok(ErrorBody { error }) => ClientError::Refused { status, error },
            Err(_) => ClientError::Protocol { address, cause: format!("http status {status}") },
        });
    }
    serde_json::from_slice(&body).map_err(|error| ClientError::Protocol { address, cause: error.to_string() })
}

async fn exchange(stream: TcpStream, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let answer = async {
        let response: Response<Incoming> = sender.send_request(request).await.map_err(words)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is polled here rather than in a task of its own, so that nothing outlives the request.
    tokio::select! {
        answered = answer.as_mut() => answered,
        _ = connection => answer.await,
    }
}

fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Largest answer that is read: 4 MiB, some thousands of pools.
const ANSWER_MAX: usize = 4 << 20;
