//! HTTP on a server's listeners: what the listeners make of it, and what is shown of it. The proxy itself is tested beside its code.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use keepwarm_transport::resolve::Fixed;
use keepwarm_tunnel::{
    Connector, ErrorKind, HandshakeFailure, Server, ServerWatch,
    config::{Listen, ListenKind, TunnelConfig, User},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// A server that runs until it is told to stop.
struct Running {
    address: SocketAddr,
    watch: ServerWatch,
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

impl Running {
    fn start(kind: ListenKind, config: TunnelConfig) -> Running {
        let listen = vec![Listen { address: "127.0.0.1:0".parse().unwrap(), kind }];
        let resolver = Arc::new(Fixed(vec!["127.0.0.1".parse().unwrap()]));
        let connector = Connector::new(TunnelConfig { listen, ..config }, resolver).unwrap();
        let server = Server::bind(connector).unwrap();
        let (address, watch) = (server.addresses()[0], server.watch());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(stopped, Duration::from_secs(30)));
        Running { address, watch, stop, task }
    }

    async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Tells it to stop, and how many clients were cut off.
    async fn stop(self) -> usize {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }

    /// Waits for its figures to say so.
    async fn until(&self, is_so: impl Fn(&ServerWatch) -> bool) {
        while !is_so(&self.watch) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn origin() -> (TcpListener, u16) {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = origin.local_addr().unwrap().port();
    (origin, port)
}

async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn timely<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

#[tokio::test]
async fn a_tunnel_is_listed_with_its_bytes() {
    timely(async {
        for kind in [ListenKind::Mixed, ListenKind::Http] {
            let (server, (origin, port)) = (Running::start(kind, TunnelConfig::default()), origin().await);
            let mut client = server.connect(&format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\nhello")).await;
            let mut upstream = origin.accept().await.unwrap().0;
            until(&mut client, "\r\n\r\n").await;
            until(&mut upstream, "hello").await;
            upstream.write_all(b"world!").await.unwrap();
            until(&mut client, "world!").await;
            server.until(|watch| watch.tunnels().iter().any(|row| (row.sent, row.received) == (5, 6))).await;
            let rows = server.watch.tunnels();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].target.to_string(), format!("a.example:{port}"));
            assert_eq!(rows[0].client, client.local_addr().unwrap());
            drop((client, upstream));
            server.until(|watch| watch.tunnels().is_empty() && watch.stats().clients == 0).await;
            let stats = server.watch.stats();
            assert_eq!((stats.http, stats.tunnels_opened), (1, 1));
            assert_eq!(server.stop().await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn an_exchange_is_listed_as_long_as_its_connection_is_there() {
    timely(async {
        let (server, (origin, port)) = (Running::start(ListenKind::Mixed, TunnelConfig::default()), origin().await);
        let mut client = server.connect(&format!("GET http://a.example:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let mut upstream = origin.accept().await.unwrap().0;
        let sent = until(&mut upstream, "\r\n\r\n").await.len() as u64;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        upstream.write_all(answer.as_bytes()).await.unwrap();
        until(&mut client, "ok").await;
        let expected = (sent, answer.len() as u64);
        server.until(|watch| watch.tunnels().iter().any(|row| (row.sent, row.received) == expected)).await;
        // It is kept for the client's next request, and ends with the client.
        drop(client);
        assert_eq!(rest(upstream).await, "");
        server.until(|watch| watch.tunnels().is_empty() && watch.stats().clients == 0).await;
        assert_eq!(server.stop().await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_goes_wrong_is_counted() {
    timely(async {
        let (_, closed) = origin().await;
        let users = vec![User { name: "ann".to_owned(), password: "one".to_owned() }];
        let server = Running::start(ListenKind::Mixed, TunnelConfig { users, ..TunnelConfig::default() });
        let connect = format!("CONNECT a.example:{closed} HTTP/1.1\r\nHost: x\r\n");
        for (request, expected) in [
            (format!("{connect}\r\n"), "407"),
            (format!("{connect}Proxy-Authorization: Basic YW5uOm9uZQ==\r\n\r\n"), "502"),
            ("GET / HTTP/1.1\r\nX : 1\r\n\r\n".to_owned(), "400"),
        ] {
            let answer = rest(server.connect(&request).await).await;
            assert_eq!(answer.split(' ').nth(1), Some(expected), "{answer}");
            assert!(!answer.contains("YW5uOm9uZQ"), "{answer}");
        }
        server.until(|watch| watch.stats().clients == 0).await;
        let stats = server.watch.stats();
        assert_eq!(stats.handshakes_failed(HandshakeFailure::User), 1);
        assert_eq!(stats.handshakes_failed(HandshakeFailure::Malformed), 1);
        assert_eq!(stats.handshakes_failed(HandshakeFailure::Gone), 0);
        assert_eq!(stats.tunnels_failed(ErrorKind::Refused), 1);
        assert_eq!(server.stop().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_request_to_the_server_itself_does_not_go_round_in_circles() {
    timely(async {
        let server = Running::start(ListenKind::Mixed, TunnelConfig::default());
        let own = server.address;
        for request in [
            format!("CONNECT {own} HTTP/1.1\r\n\r\n"),
            format!("GET http://{own}/ HTTP/1.1\r\nConnection: close\r\n\r\n"),
        ] {
            let answer = rest(server.connect(&request).await).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
        assert_eq!(server.stop().await, 0);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_exchanges_when_the_server_has_ended() {
    timely(async {
        let listen = vec![Listen { address: "127.0.0.1:0".parse().unwrap(), kind: ListenKind::Http }];
        let resolver = Arc::new(Fixed(vec!["127.0.0.1".parse().unwrap()]));
        let connector = Connector::new(TunnelConfig { listen, ..TunnelConfig::default() }, resolver).unwrap();
        let server = Server::bind(connector.clone()).unwrap();
        let (address, watch, (origin, port)) = (server.addresses()[0], server.watch(), origin().await);
        let (stop, stopped) = oneshot::channel::<()>();
        // What is left is told in the same task, before any other has its turn.
        let left = tokio::spawn(async move {
            let cut_off = server.run(stopped, Duration::ZERO).await;
            (cut_off, watch.tunnels().len(), connector.stats().live)
        });
        let mut ends = Vec::new();
        for _ in 0..5 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = format!("GET http://a.example:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut upstream = origin.accept().await.unwrap().0;
            until(&mut upstream, "\r\n\r\n").await;
            ends.push((client, upstream));
        }
        stop.send(()).unwrap();
        assert_eq!(left.await.unwrap(), (5, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_nothing_ends_with_the_server() {
    timely(async {
        let server = Running::start(ListenKind::Http, TunnelConfig::default());
        let client = server.connect("").await;
        server.until(|watch| watch.stats().http == 1).await;
        assert_eq!(server.stop().await, 0);
        let mut end = Vec::new();
        let ended: io::Result<usize> = { client }.read_to_end(&mut end).await;
        assert_eq!(ended.unwrap(), 0);
    })
    .await;
}
