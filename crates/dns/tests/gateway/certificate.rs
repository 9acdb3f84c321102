//! Certificates for listeners, and clients that trust them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use keepwarm_dns::config::{DnsConfig, Listen, ListenTls, ListenTransport};
use keepwarm_lab::Ca;
use keepwarm_transport::tls::{TlsClient, TlsInfo, TlsRoots, TlsStream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// The name in the certificate.
pub const NAME: &str = "dns.example";

/// A CA, and the files of a certificate that it issued.
pub struct Certificate {
    ca: Ca,
    folder: TempDir,
}

impl Certificate {
    pub fn new() -> Certificate {
        let mut certificate = Certificate { ca: Ca::new(), folder: TempDir::new().unwrap() };
        certificate.issue();
        certificate
    }

    /// Another certificate, of another CA, in the same files.
    pub fn renew(&mut self) {
        self.ca = Ca::new();
        self.issue();
    }

    fn issue(&mut self) {
        let (certificate, key) = self.ca.issue_pem(&[NAME, "127.0.0.1"]).unwrap();
        let files = self.files();
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        std::fs::write(self.ca_file(), self.ca.pem()).unwrap();
    }

    pub fn files(&self) -> ListenTls {
        ListenTls { certificate: self.folder.path().join("certificate.pem"), key: self.folder.path().join("key.pem") }
    }

    /// The CA's certificate, for other programs.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Has a server listen on these transports with this certificate.
    pub fn serve(&self, config: &mut DnsConfig, transports: &[ListenTransport]) {
        let listen = |transport: &ListenTransport| Listen::new(([127, 0, 0, 1], 0).into(), *transport);
        config.listen = transports.iter().map(listen).collect();
        config.tls = Some(self.files());
    }

    /// A client that trusts this CA alone.
    pub fn client(&self, alpn: &[&[u8]]) -> TlsClient {
        TlsClient::new(&TlsRoots::only([self.ca.root()]), alpn).unwrap()
    }

    pub async fn connect(&self, server: SocketAddr, alpn: &[&[u8]]) -> Result<(TlsStream, TlsInfo), String> {
        handshake(&self.client(alpn), connect(server).await).await
    }

    /// A DoT client.
    pub async fn dot(&self, server: SocketAddr) -> Messages<TlsStream> {
        Messages(self.connect(server, &[b"dot"]).await.unwrap().0)
    }
}

pub async fn connect(server: SocketAddr) -> TcpStream {
    TcpStream::connect(server).await.expect("the server listens")
}

pub async fn handshake(client: &TlsClient, tcp: TcpStream) -> Result<(TlsStream, TlsInfo), String> {
    let deadline = Instant::now().into_std() + Duration::from_secs(6);
    client.connect(tcp, NAME, deadline).await.map_err(|error| error.to_string())
}

/// DNS messages on a stream.
pub struct Messages<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    pub async fn send(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap();
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next message; `None` when the server closed.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let length = self.0.read_u16().await.ok()?;
            let mut message = vec![0; usize::from(length)];
            self.0.read_exact(&mut message).await.ok()?;
            Some(message)
        };
        tokio::time::timeout(Duration::from_secs(6), read).await.expect("a message or the end within 6 s")
    }

    pub async fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        self.send(query).await;
        self.receive().await.expect("an answer")
    }
}
