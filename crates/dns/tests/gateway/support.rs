//! A lab, a server before it, and clients that check every answer.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Listen, Strategy, Transport, UpstreamConfig},
    server::{PoolStatus, Server},
};
use keepwarm_lab::{Ca, Faults, Lab, LabSpec, TransportCounters, answer_matches, build_query};
use keepwarm_transport::tls::TlsRoots;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// All transports, for tests that hold for each of them.
pub const TRANSPORTS: [Transport; 6] =
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic, Transport::H3];

/// The transports with a connection.
pub const STREAMS: [Transport; 5] = [Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic, Transport::H3];

/// The transports with a handshake of TLS.
pub const ENCRYPTED: [Transport; 4] = [Transport::Tls, Transport::Https, Transport::Quic, Transport::H3];

/// A server and the labs that it asks.
pub struct Bench {
    pub labs: Vec<Lab>,
    pub server: Server,
    pub address: SocketAddr,
}

/// A config for these labs; tests change what they are about.
pub fn config(labs: &[Lab], ca: &Ca, transport: Transport) -> DnsConfig {
    DnsConfig {
        listen: vec![Listen::plain((Ipv4Addr::LOCALHOST, 0).into())],
        strategy: Strategy::Sequential,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        cache: CacheSettings { size: 0, ..CacheSettings::default() },
        upstreams: labs.iter().enumerate().map(|(number, lab)| upstream(number, lab, transport)).collect(),
        workers: 2,
        roots: TlsRoots::only([ca.root()]),
        ..DnsConfig::default()
    }
}

pub fn upstream(number: usize, lab: &Lab, transport: Transport) -> UpstreamConfig {
    let address = match transport {
        Transport::Udp => lab.udp_addr(),
        Transport::Tcp => lab.tcp_addr(),
        Transport::Tls => lab.tls_addr(),
        Transport::Https => lab.https_addr(),
        Transport::Quic => lab.quic_addr(),
        Transport::H3 => lab.h3_addr(),
    };
    UpstreamConfig {
        server_name: Some("upstream.lab".into()),
        ..UpstreamConfig::new(&format!("lab{number}"), transport, &address.ip().to_string(), address.port())
    }
}

/// What a lab counted of one transport.
pub fn counted(lab: &Lab, transport: Transport) -> TransportCounters {
    let counters = lab.counters();
    match transport {
        Transport::Udp => counters.udp,
        Transport::Tcp => counters.tcp,
        Transport::Tls => counters.tls,
        Transport::Https => counters.https,
        Transport::Quic => counters.quic,
        Transport::H3 => counters.h3,
    }
}

/// Labs with these faults, one each, all with one CA.
pub async fn labs(faults: impl IntoIterator<Item = Faults>) -> (Vec<Lab>, Ca) {
    let ca = Ca::new();
    let mut labs = Vec::new();
    for faults in faults {
        labs.push(Lab::start_with_ca(LabSpec { faults, ..LabSpec::default() }, &ca).await.expect("loopback"));
    }
    (labs, ca)
}

impl Bench {
    /// One lab without faults.
    pub async fn plain(transport: Transport) -> Bench {
        Bench::with(transport, [Faults::default()], |_| {}).await
    }

    /// A lab for each set of faults, and a server whose config was `changed`.
    pub async fn with(
        transport: Transport,
        faults: impl IntoIterator<Item = Faults>,
        change: impl FnOnce(&mut DnsConfig),
    ) -> Bench {
        let (labs, ca) = labs(faults).await;
        let mut config = config(&labs, &ca, transport);
        change(&mut config);
        let server = Server::start(config).expect("the server starts");
        let address = server.listening()[0].address;
        Bench { labs, server, address }
    }

    /// As [`with`](Self::with), over UDP and with the cache on.
    pub async fn cached(faults: impl IntoIterator<Item = Faults>, change: impl FnOnce(&mut DnsConfig)) -> Bench {
        Bench::with(Transport::Udp, faults, |config| {
            config.cache = CacheSettings::default();
            change(config);
        })
        .await
    }

    /// Asks over UDP and checks the answer.
    pub async fn ask(&self, name: &str) -> Result<(), String> {
        ask(self.address, name).await
    }

    /// The row of upstream `number`.
    pub fn pool(&self, number: usize) -> PoolStatus {
        let name = format!("lab{number}");
        self.server.pools().into_iter().find(|row| row.name == name).expect("each upstream has a row")
    }

    pub async fn stop(self) {
        self.server.stop(Duration::from_secs(2)).await;
        for lab in self.labs {
            lab.stop().await;
        }
    }
}

/// Asks over UDP and checks the answer.
pub async fn ask(server: SocketAddr, name: &str) -> Result<(), String> {
    let query = query(name, 1);
    let answer = exchange_udp(server, &query).await?;
    answer_matches(&query, &answer).map_err(|error| format!("{error}{}", explained(&answer)))
}

/// Why keepwarm has no answer, as it tells the client (RFC 8914).
fn explained(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.find("keepwarm:").map(|at| format!(" ({})", &text[at..])).unwrap_or_default()
}

/// A query with a random id and EDNS.
pub fn query(name: &str, qtype: u16) -> Vec<u8> {
    build_query(rand::random(), name, qtype, Some(1232))
}

/// Sends a query and returns whatever comes back within 6 s.
pub async fn exchange_udp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, String> {
    let socket = client().await;
    socket.send_to(query, server).await.map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 65_535];
    let received = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer)).await;
    let length = received.map_err(|_| "no answer within 6 s".to_owned())?.map_err(|error| error.to_string())?;
    buffer.truncate(length);
    Ok(buffer)
}

pub async fn client() -> UdpSocket {
    UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.expect("loopback has ports")
}

/// A client's TCP connection.
pub struct TcpClient(pub TcpStream);

impl TcpClient {
    pub async fn connect(server: SocketAddr) -> TcpClient {
        TcpClient(TcpStream::connect(server).await.expect("the server listens"))
    }

    pub async fn send(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap();
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
    }

    /// The next message; `None` when the server closed.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let length = self.0.read_u16().await.ok()?;
        let mut message = vec![0; usize::from(length)];
        self.0.read_exact(&mut message).await.ok()?;
        Some(message)
    }
}

/// The response code of an answer.
pub fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

/// Runs `count` queries, `parallel` at a time, and returns the failures.
pub async fn storm(server: SocketAddr, prefix: &str, count: usize, parallel: usize) -> Vec<String> {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let clients = (0..parallel).map(|_| {
        let (next, prefix) = (next.clone(), prefix.to_owned());
        tokio::spawn(async move {
            let mut failures = Vec::new();
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= count {
                    return failures;
                }
                let name = format!("{prefix}{number}.example");
                if let Err(error) = ask(server, &name).await {
                    failures.push(format!("{name}: {error}"));
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.expect("clients do not panic"));
    }
    failures
}
