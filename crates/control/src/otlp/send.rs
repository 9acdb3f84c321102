//! One connection to the collector, for the posts of one export.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};

pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(super) async fn connect(host: &str, port: u16) -> Result<Connection, String> {
    // As it is written in a URL, an address of IPv6 has brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("connect: {error}"))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
    Ok(Connection { sender, host: format!("{host}:{port}"), driver: driver.abort_handle() })
}

impl Connection {
    /// Posts a message; any success will do (OTLP section 1.2, full and partial success: both are not to be sent again).
    pub(super) async fn post(&mut self, path: &str, message: Vec<u8>) -> Result<(), String> {
        let request = Request::post(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("keepwarm/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(message)))
            .map_err(|error| error.to_string())?;
        let failed = |error: &dyn std::fmt::Display| format!("{path}: {error}");
        self.sender.ready().await.map_err(|error| failed(&error))?;
        let answer = self.sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        // Read to its end, so that the next post can follow.
        Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| failed(&error))?;
        if status.is_success() { Ok(()) } else { Err(failed(&status)) }
    }
}

const ANSWER_MAX: usize = 64 * 1024;
