//! Small clients, on nothing but plain sockets, tokio-rustls and h2, so that what the lab does is seen as it is.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepwarm_lab::{Faults, Lab, LabSpec};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const A: u16 = 1;
pub(crate) const TXT: u16 = 16;

pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// What should happen happens within this; what should not happen is waited for as long.
pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const NEVER: Duration = Duration::from_millis(300);

pub(crate) async fn lab(faults: Faults) -> Lab {
    Lab::start(LabSpec { faults, ..LabSpec::default() }).await.unwrap()
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

pub(crate) async fn udp(lab: &Lab) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(lab.udp_addr()).await.unwrap();
    socket
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = soon(socket.recv(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn tls_config(lab: &Lab, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(lab.ca_root()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(crate) async fn tls_with(config: Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("upstream.lab").unwrap();
    soon(TlsConnector::from(config).connect(name, tcp(address).await)).await
}

pub(crate) async fn tls(lab: &Lab) -> TlsStream<TcpStream> {
    tls_with(tls_config(lab, &[]), lab.tls_addr()).await.unwrap()
}

pub(crate) async fn write_message(stream: &mut dyn ByteStream, message: &[u8]) {
    let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).await.unwrap();
    stream.flush().await.unwrap();
}

pub(crate) async fn read_message(stream: &mut dyn ByteStream) -> std::io::Result<Vec<u8>> {
    soon(async {
        let length = stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        Ok(message)
    })
    .await
}

/// Reads to the end, and says how many bytes came.
pub(crate) async fn read_end(stream: &mut dyn ByteStream) -> std::io::Result<usize> {
    soon(stream.read_to_end(&mut Vec::new())).await
}

/// An h2 client whose connection runs in a task; the task's output is how the connection ended.
pub(crate) struct H2 {
    pub(crate) send: h2::client::SendRequest<Bytes>,
    pub(crate) ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl H2 {
    pub(crate) async fn connect(lab: &Lab) -> Self {
        let tls = tls_with(tls_config(lab, &["h2", "http/1.1"]), lab.https_addr()).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = soon(h2::client::handshake(tls)).await.unwrap();
        Self { send, ended: tokio::spawn(connection) }
    }

    /// Opens a stream with a POST, without waiting for the answer.
    pub(crate) async fn post(&mut self, message: &[u8]) -> Result<h2::client::ResponseFuture, h2::Error> {
        let request = http::Request::post("https://upstream.lab/dns-query")
            .header("content-type", "application/dns-message")
            .body(())
            .unwrap();
        let mut send = self.send.clone();
        soon(std::future::poll_fn(|cx| send.poll_ready(cx))).await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(Bytes::copy_from_slice(message), true)?;
        Ok(response)
    }

    pub(crate) async fn get(&mut self, path: &str) -> http::Response<Vec<u8>> {
        let request = http::Request::get(format!("https://upstream.lab{path}")).body(()).unwrap();
        let mut send = self.send.clone();
        soon(std::future::poll_fn(|cx| send.poll_ready(cx))).await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        read_response(response).await.unwrap()
    }

    pub(crate) async fn exchange(&mut self, message: &[u8]) -> Result<http::Response<Vec<u8>>, h2::Error> {
        read_response(self.post(message).await?).await
    }
}

pub(crate) async fn read_response(response: h2::client::ResponseFuture) -> Result<http::Response<Vec<u8>>, h2::Error> {
    soon(async {
        let (head, mut body) = response.await?.into_parts();
        let mut whole = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            whole.extend_from_slice(&chunk);
        }
        Ok(http::Response::from_parts(head, whole))
    })
    .await
}

/// One HTTP/1.1 exchange by hand: status, head in lower case, body.
pub(crate) async fn h1_exchange(
    stream: &mut dyn ByteStream,
    message: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nhost: upstream.lab\r\ncontent-type: application/dns-message\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await?;
    soon(async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length =
            head.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok((head[9..12].parse().unwrap(), head, body))
    })
    .await
}
