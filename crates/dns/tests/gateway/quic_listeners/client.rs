//! A server with a QUIC listener, and clients that quinn and h3 make.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_dns::config::{DnsConfig, Listen, ListenTls, ListenTransport, Transport};
use keepwarm_lab::{Ca, Faults};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint,
    crypto::rustls::QuicClientConfig,
    rustls::{self, RootCertStore},
};
use tempfile::TempDir;

use crate::support::*;

/// A server that listens over QUIC as well, with a certificate for `dns.lab` on the disk.
pub struct QuicBench {
    pub bench: Bench,
    pub address: SocketAddr,
    pub ca: Ca,
    pub folder: TempDir,
}

impl QuicBench {
    /// Over UDP to one lab without faults.
    pub async fn start(transport: ListenTransport, change: impl FnOnce(&mut DnsConfig)) -> QuicBench {
        let (ca, folder) = (Ca::new(), TempDir::new().unwrap());
        issue(&ca, &folder, "dns.lab");
        let tls = ListenTls { certificate: folder.path().join("chain.pem"), key: folder.path().join("key.pem") };
        let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
            config.listen.push(Listen::new((Ipv4Addr::LOCALHOST, 0).into(), transport));
            config.tls = Some(tls);
            change(config);
        })
        .await;
        let address = bench.server.listening()[1].address;
        QuicBench { bench, address, ca, folder }
    }

    pub async fn doq() -> QuicBench {
        QuicBench::start(ListenTransport::Quic, |_| {}).await
    }

    pub async fn h3() -> QuicBench {
        QuicBench::start(ListenTransport::H3, |_| {}).await
    }

    /// A client that comes from this address and speaks this protocol.
    pub fn client(&self, from: IpAddr, alpn: &[u8]) -> Endpoint {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.root()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_early_data = true;
        let mut endpoint = Endpoint::client((from, 0).into()).expect("loopback has ports");
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
        endpoint
    }

    /// A connection of a new client that speaks this protocol.
    pub async fn try_connect(&self, alpn: &[u8], name: &str) -> Result<Connection, ConnectionError> {
        let client = self.client(Ipv4Addr::LOCALHOST.into(), alpn);
        within(client.connect(self.address, name).unwrap()).await
    }

    /// A connection of a new client that speaks DoQ.
    pub async fn connect(&self) -> Connection {
        self.try_connect(b"doq", "dns.lab").await.expect("the server listens")
    }

    pub async fn stop(self) {
        self.bench.stop().await;
    }
}

/// Writes a new certificate for this name, and its key.
pub fn issue(ca: &Ca, folder: &TempDir, name: &str) {
    let (certificate, key) = ca.issue_pem(&[name]).unwrap();
    std::fs::write(folder.path().join("chain.pem"), certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
}

/// Waits, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens within 10 s")
}

/// A query as it goes over QUIC: with id 0.
pub fn query_0(name: &str) -> Vec<u8> {
    let mut query = query(name, 1);
    query[..2].fill(0);
    query
}

/// A message with its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// Sends these bytes on a stream of their own and returns what comes back on it.
pub async fn exchange(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    send.write_all(bytes).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    within(receive.read_to_end(70_000)).await.map_err(|error| error.to_string())
}

/// Asks over DoQ and returns the one message that comes back.
pub async fn ask_doq(connection: &Connection, query: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = exchange(connection, &framed(query)).await?;
    let length = bytes.first_chunk().map(|length| u16::from_be_bytes(*length)).ok_or("no length")?;
    if bytes.len() != 2 + usize::from(length) {
        return Err(format!("{} bytes for a message of {length}", bytes.len()));
    }
    Ok(bytes[2..].to_vec())
}

/// The application's code with which the server closed.
pub async fn closed(connection: &Connection) -> u64 {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("closed with {other}"),
    }
}
