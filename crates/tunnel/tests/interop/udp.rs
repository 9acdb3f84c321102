//! Datagrams through a server and its upstream: the lab's, and dante; what microsocks, which has none, does to them.

use std::{net::SocketAddr, sync::Arc};

use keepwarm_lab::{EchoLab, Tagged};
use keepwarm_transport::resolve::Fixed;
use keepwarm_tunnel::{
    Connector, Server, ServerWatch, UdpDropped,
    config::{Listen, ListenKind, TunnelConfig, UpstreamConfig, UpstreamKind, Via},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
};

use super::{
    MS, SECOND,
    gateway::Gateway,
    modules::python,
    proxies::{dante, microsocks},
    upstream::socks,
};

/// PySocks: by name and by address, each answer printed.
const SCRIPT: &str = r#"
import socket, socks, sys
proxy, name, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, "127.0.0.1", int(proxy))
client.settimeout(20)
for line in sys.stdin:
    client.sendto(bytes.fromhex(line), (name, port))
    print(client.recvfrom(65535)[0].hex())
client.close()
"#;

#[tokio::test]
async fn pysocks_exchanges_datagrams_through_an_upstream() {
    let Some(python) = python().await else { return };
    let gateway = Gateway::open().await;
    exchanges(&python, gateway.address, "echo.test", &gateway.echo).await;
    let counters = gateway.proxy.counters();
    assert_eq!((counters.associations_total, counters.datagrams_sent, counters.datagrams_received), (1, 30, 30));
    let stats = gateway.watch.udp();
    assert_eq!((stats.opened, stats.datagrams_sent, stats.datagrams_received), (1, 30, 30));
    let Some(dante) = dante("").await else { return };
    let (address, watch, _stop) = server(socks(&dante, ""));
    exchanges(&python, address, "127.0.0.1", &gateway.echo).await;
    assert_eq!(watch.udp().datagrams_received, 30);
    assert_eq!(gateway.echo.foreign(), 0);
}

/// 30 datagrams of growing length, in their order.
async fn exchanges(python: &super::program::Program, proxy: SocketAddr, name: &str, echo: &EchoLab) {
    let tag = Tagged::random(echo.addr(0));
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let length = |number: u64| usize::try_from(number).unwrap() * 50;
    let sent: String = (0..30).map(|number| hex(tag.datagram(number, length(number)))).collect();
    let [proxy, port] = [proxy, echo.addr(0)].map(|address| address.port().to_string());
    let answer = python.feed(&["-c", SCRIPT, &proxy, name, &port], sent.as_bytes()).await.text();
    assert_eq!(answer.lines().count(), 30, "{answer}");
    for (line, number) in answer.lines().zip(0..) {
        let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        let bytes: Vec<_> = (0..line.len()).step_by(2).map(byte).collect();
        assert_eq!(tag.check_datagram(&bytes, length(number)), Ok(number));
    }
}

/// A server with one upstream.
fn server(kind: UpstreamKind) -> (SocketAddr, ServerWatch, oneshot::Sender<()>) {
    let config = TunnelConfig {
        listen: vec![Listen { address: "127.0.0.1:0".parse().unwrap(), kind: ListenKind::Mixed }],
        upstreams: vec![UpstreamConfig::new("exit", kind)],
        default: Via::Upstream("exit".into()),
        ..TunnelConfig::default()
    };
    let server = Server::bind(Connector::new(config, Arc::new(Fixed(Vec::new()))).unwrap()).unwrap();
    let (address, watch) = (server.addresses()[0], server.watch());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(stopped, SECOND));
    (address, watch, stop)
}

/// An association of a client of our own.
struct Client {
    _control: TcpStream,
    socket: UdpSocket,
    relay: SocketAddr,
    destination: SocketAddr,
    tag: Tagged,
}

impl Client {
    async fn start(server: SocketAddr, destination: SocketAddr) -> Client {
        let mut control = TcpStream::connect(server).await.unwrap();
        control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").await.unwrap();
        let mut reply = [0; 2 + 10];
        control.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..10], [5, 0, 5, 0, 0, 1, 127, 0, 0, 1]);
        let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Client { _control: control, socket, relay, destination, tag: Tagged::random(destination) }
    }

    async fn send(&self, number: u64) {
        let [high, low] = self.destination.port().to_be_bytes();
        let header = [0, 0, 0, 1, 127, 0, 0, 1, high, low];
        let datagram = [&header[..], &self.tag.datagram(number, 100)].concat();
        self.socket.send_to(&datagram, self.relay).await.unwrap();
    }

    /// The number of the next answer; `None` when none comes for a while. Those of earlier datagrams may be late.
    async fn hears(&self) -> Option<u64> {
        let mut buffer = [0; 2048];
        let (length, from) = tokio::time::timeout(500 * MS, self.socket.recv_from(&mut buffer)).await.ok()?.unwrap();
        assert_eq!(from, self.relay);
        Some(self.tag.check_datagram(&buffer[10..length], 100).unwrap())
    }

    /// Sends until one is answered.
    async fn reaches(&self, from: u64) {
        for number in from..from + 40 {
            self.send(number).await;
            if self.hears().await.is_some_and(|heard| heard >= from) {
                return;
            }
        }
        panic!("no answer");
    }
}

/// UDP has no word for a loss, so an association outlives its upstream: what is sent meanwhile is dropped.
#[tokio::test]
async fn an_association_outlives_a_restart_of_dante() {
    let Some(mut dante) = dante("").await else { return };
    let echo = EchoLab::start(1).await.unwrap();
    let (address, watch, _stop) = server(socks(&dante, ""));
    let client = Client::start(address, echo.addr(0)).await;
    client.reaches(0).await;
    dante.kill();
    for number in 100..103 {
        client.send(number).await;
        assert!(client.hears().await.is_none_or(|heard| heard < 100));
    }
    dante.revive().await;
    client.reaches(200).await;
    let stats = watch.udp();
    assert_eq!((stats.associations, stats.opened), (1, 1), "{stats:?}");
    assert!(stats.dropped(UdpDropped::Failed) > 0, "{stats:?}");
    assert_eq!(echo.foreign(), 0);
}

#[tokio::test]
async fn datagrams_are_dropped_where_the_upstream_has_no_relay() {
    let Some(microsocks) = microsocks("").await else { return };
    let echo = EchoLab::start(1).await.unwrap();
    let (address, watch, _stop) = server(socks(&microsocks, ""));
    let client = Client::start(address, echo.addr(0)).await;
    client.send(0).await;
    super::until("it is dropped", || watch.udp().dropped(UdpDropped::Unsupported) == 1).await;
    assert_eq!((echo.counters(0).datagrams, watch.udp().datagrams_sent), (0, 0));
}
