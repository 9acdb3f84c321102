//! Small clients on the h2 and hyper crates, and on bare TLS, so that what the origin does is seen as it is.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use keepwarm_lab::{OriginFaults, OriginLab, OriginSpec, loopback_addresses};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What should happen happens within this; what should not happen is waited for as long.
const SOON: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_millis(200);

pub(crate) type Whole = Response<(Vec<u8>, HeaderMap)>;

pub(crate) async fn origin(addresses: usize) -> OriginLab {
    OriginLab::start(OriginSpec { addresses: loopback_addresses(addresses), ..OriginSpec::default() }).await.unwrap()
}

/// An origin with one address, and that address.
pub(crate) async fn faulty(faults: OriginFaults) -> (OriginLab, IpAddr) {
    let lab = OriginLab::start(OriginSpec { faults, ..OriginSpec::default() }).await.unwrap();
    let ip = lab.addresses()[0];
    (lab, ip)
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

pub(crate) async fn never<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    if let Ok(output) = tokio::time::timeout(NEVER, future).await {
        panic!("unexpected: {output:?}");
    }
}

/// Waits for something that the lab notices by itself.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) async fn tcp(lab: &OriginLab, ip: IpAddr) -> std::io::Result<TcpStream> {
    let stream = soon(TcpStream::connect(SocketAddr::new(ip, lab.port()))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn tls_config(lab: &OriginLab, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(lab.ca_der()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(crate) async fn tls_with(
    config: &Arc<ClientConfig>,
    lab: &OriginLab,
    ip: IpAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(lab.host().to_owned()).unwrap();
    let tcp = tcp(lab, ip).await?;
    soon(TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await
}

pub(crate) async fn tls(lab: &OriginLab, ip: IpAddr, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    tls_with(&tls_config(lab, &[protocol]), lab, ip).await
}

/// An h2 client whose connection runs in a task; the task's output is how the connection ended.
pub(crate) struct H2 {
    pub(crate) send: h2::client::SendRequest<Bytes>,
    pub(crate) ping: h2::PingPong,
    pub(crate) ended: JoinHandle<Result<(), h2::Error>>,
}

impl H2 {
    pub(crate) async fn connect(lab: &OriginLab, ip: IpAddr) -> Self {
        let tls = tls(lab, ip, "h2").await.unwrap();
        let (send, mut connection) = soon(h2::client::handshake(tls)).await.unwrap();
        let ping = connection.ping_pong().unwrap();
        Self { send, ping, ended: tokio::spawn(connection) }
    }

    /// Opens a stream. The body, if there is to be one, is sent by the caller.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let request = Request::builder().method(method).uri(format!("https://tiles.test{path}"));
        self.start(request.body(()).unwrap(), end).await
    }

    pub(crate) async fn start(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let mut send = self.send.clone();
        soon(poll_fn(|cx| send.poll_ready(cx))).await?;
        send.send_request(request, end)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Whole, h2::Error> {
        read(self.open(Method::GET, path, true).await?.0).await
    }

    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> Result<Whole, h2::Error> {
        let (response, mut stream) = self.open(Method::POST, path, false).await?;
        stream.send_data(Bytes::copy_from_slice(body), true)?;
        read(response).await
    }
}

pub(crate) async fn read(response: h2::client::ResponseFuture) -> Result<Whole, h2::Error> {
    soon(async {
        let (head, mut body) = response.await?.into_parts();
        let whole = read_body(&mut body).await;
        if let Some(error) = whole.1 {
            return Err(error);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(Response::from_parts(head, (whole.0, trailers)))
    })
    .await
}

/// What came, and what went wrong after that.
pub(crate) async fn read_body(body: &mut h2::RecvStream) -> (Vec<u8>, Option<h2::Error>) {
    let mut whole = Vec::new();
    while let Some(chunk) = soon(body.data()).await {
        match chunk {
            Ok(chunk) => {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                whole.extend_from_slice(&chunk);
            }
            Err(error) => return (whole, Some(error)),
        }
    }
    (whole, None)
}

/// A hyper client with one HTTP/1.1 connection.
pub(crate) struct H1 {
    pub(crate) send: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    pub(crate) ended: JoinHandle<hyper::Result<()>>,
}

impl H1 {
    pub(crate) async fn connect(lab: &OriginLab, ip: IpAddr) -> Self {
        let tls = tls(lab, ip, "http/1.1").await.unwrap();
        let (send, connection) = soon(hyper::client::conn::http1::handshake(TokioIo::new(tls))).await.unwrap();
        Self { send, ended: tokio::spawn(connection) }
    }

    pub(crate) async fn start(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        let request = Request::builder().method(method).uri(path).header("host", "tiles.test");
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        soon(async {
            self.send.ready().await?;
            self.send.send_request(request).await
        })
        .await
    }

    pub(crate) async fn exchange(&mut self, method: Method, path: &str, body: &[u8]) -> hyper::Result<Whole> {
        let (head, body) = self.start(method, path, body).await?.into_parts();
        let collected = soon(body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Response::from_parts(head, (collected.to_bytes().into(), trailers)))
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Whole> {
        self.exchange(Method::GET, path, b"").await
    }
}

/// Writes by hand and reads until what came ends like that.
pub(crate) async fn talk(stream: &mut TlsStream<TcpStream>, text: &str, end: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// Reads to the end: what came, and how it ended.
pub(crate) async fn read_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> (Vec<u8>, std::io::Result<()>) {
    let mut whole = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match soon(stream.read(&mut buffer)).await {
            Ok(0) => return (whole, Ok(())),
            Ok(count) => whole.extend_from_slice(&buffer[..count]),
            Err(error) => return (whole, Err(error)),
        }
    }
}
