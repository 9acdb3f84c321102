//! The proxy over real sockets: clients that write what they are told to, origins that do what a test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use keepwarm_transport::resolve::{Fixed, Resolve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::serve;
use crate::{
    Connector,
    config::{TunnelConfig, User},
    server::{ClientInfo, Shared, Terms},
};

mod connect;
mod forward;
mod framing;
mod limits;
mod retry;
mod upgrade;

/// A proxy that listens; its clients end with it.
struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Clients that are being served.
    clients: Arc<AtomicUsize>,
    _accept: JoinSet<()>,
}

impl Proxy {
    async fn start() -> Proxy {
        Proxy::with(TunnelConfig::default()).await
    }

    /// With the user `ann`, whose password is `one`.
    async fn with_user() -> Proxy {
        let users = vec![User { name: "ann".to_owned(), password: "one".to_owned() }];
        Proxy::with(TunnelConfig { users, ..TunnelConfig::default() }).await
    }

    async fn with(config: TunnelConfig) -> Proxy {
        Proxy::resolving(config, Arc::new(Fixed(vec!["127.0.0.1".parse().unwrap()]))).await
    }

    /// As the server does it: the first bytes of a client are read before it is known what it speaks.
    async fn resolving(config: TunnelConfig, resolver: Arc<dyn Resolve>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connector = Connector::new(config, resolver).unwrap();
        let shared = Arc::new(Shared::new(connector, vec![address]));
        let clients = Arc::new(AtomicUsize::new(0));
        let mut accept = JoinSet::new();
        let (served, counter) = (shared.clone(), clients.clone());
        accept.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (mut stream, peer) = listener.accept().await.unwrap();
                let (shared, counter) = (served.clone(), counter.clone());
                counter.fetch_add(1, Ordering::Relaxed);
                clients.spawn(async move {
                    let mut first = vec![0; 2048];
                    let read = stream.read(&mut first).await.unwrap_or(0);
                    first.truncate(read);
                    serve(stream, Bytes::from(first), shared, ClientInfo { peer, listener: 0 }, Arc::default()).await;
                    counter.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Proxy { address, shared, clients, _accept: accept }
    }

    async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `text` and reads to the end of the connection, which the request asks for.
    async fn ask(&self, text: &str) -> String {
        let mut client = self.client().await;
        client.send(text).await;
        client.rest().await
    }

    /// Waits until every client's task has ended.
    async fn idle(&self) {
        while self.clients.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One end of a connection, on which a test speaks by itself.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Up to the empty line.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match self.0.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    async fn exactly(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Waits for the end, which comes without a byte.
    async fn gone(&mut self) {
        assert_eq!(self.rest_or_reset().await.0, b"");
    }

    /// Reads to the end, however the connection ends.
    async fn rest_or_reset(&mut self) -> (Vec<u8>, std::io::Result<usize>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).await;
        (bytes, end)
    }
}

/// A listener whose connections a test takes by itself.
struct Origin(TcpListener);

impl Origin {
    async fn start() -> Origin {
        Origin(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    async fn accept(&self) -> Client {
        Client(self.0.accept().await.unwrap().0)
    }

    /// Whether nobody has come. Only where the proxy has said its last word, so that nobody can be on the way.
    fn is_untouched(&self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.0.poll_accept(&mut cx).is_pending()
    }
}

/// `name: value` lines of a head in lower case, without the one that tells the time.
fn fields(head: &str) -> Vec<String> {
    let lines = head.split("\r\n").skip(1).filter(|line| !line.is_empty()).map(str::to_ascii_lowercase);
    let mut lines: Vec<_> = lines.filter(|line| !line.starts_with("date:")).collect();
    lines.sort();
    lines
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {head:?}"))
}

/// Fails a test that hangs, with a margin for slow machines.
async fn timely<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
