//! UDP ASSOCIATE through a whole server. Each case by itself is tested in the crate.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use keepwarm_transport::resolve::Fixed;
use keepwarm_tunnel::{
    Connector, Server, ServerWatch, UdpDropped,
    config::{Listen, ListenKind, TunnelConfig, User},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    process::Command,
    sync::oneshot,
    task::JoinHandle,
};

struct Running {
    address: SocketAddr,
    watch: ServerWatch,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<usize>,
}

/// A server that knows one user; all names lead to 127.0.0.1.
fn start() -> Running {
    let config = TunnelConfig {
        listen: vec![Listen { address: "127.0.0.1:0".parse().unwrap(), kind: ListenKind::Mixed }],
        users: vec![User { name: "name".into(), password: "word".into() }],
        ..TunnelConfig::default()
    };
    let connector = Connector::new(config, Arc::new(Fixed(vec!["127.0.0.1".parse().unwrap()]))).unwrap();
    let server = Server::bind(connector).unwrap();
    let (address, watch) = (server.addresses()[0], server.watch());
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(server.run(stopped, Duration::from_secs(60)));
    Running { address, watch, stop, ended }
}

/// The port of a destination that sends everything back.
async fn echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn an_association_ends_with_the_server_and_waits_for_no_patience() {
    let (server, port) = (start(), echo().await);
    let mut control = TcpStream::connect(server.address).await.unwrap();
    // All in one piece: greeting, user and password, UDP ASSOCIATE.
    control.write_all(b"\x05\x01\x02\x01\x04name\x04word\x05\x03\0\x01\0\0\0\0\0\0").await.unwrap();
    let mut replies = [0; 2 + 2 + 10];
    control.read_exact(&mut replies).await.unwrap();
    assert_eq!(replies[..12], [5, 2, 1, 0, 5, 0, 0, 1, 127, 0, 0, 1]);
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([replies[12], replies[13]])));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut datagram = vec![0, 0, 0, 1, 127, 0, 0, 1];
    datagram.extend(port.to_be_bytes());
    datagram.extend(b"data");
    let mut fragment = datagram.clone();
    fragment[2] = 1;
    socket.send_to(&fragment, relay).await.unwrap();
    socket.send_to(&datagram, relay).await.unwrap();
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).await.unwrap();
    assert_eq!((&answer[..length], from), (datagram.as_slice(), relay));
    let stats = server.watch.udp();
    assert_eq!((stats.associations, stats.datagrams_sent, stats.dropped(UdpDropped::Fragment)), (1, 1, 1));
    server.stop.send(()).unwrap();
    assert_eq!(control.read(&mut [0; 1]).await.unwrap(), 0);
    drop(control);
    assert_eq!(server.ended.await.unwrap(), 0, "cut off");
    assert_eq!(server.watch.udp().associations, 0);
}

/// PySocks declares its port, with the name `0`.
const SCRIPT: &str = r#"
import socket, socks, sys
proxy, port = map(int, sys.argv[1:])
client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, username="name", password="word")
client.settimeout(20)
for host in ("127.0.0.1", "peer.example"):
    for number in range(20):
        client.sendto(b"%d" % number, (host, port))
        print(*client.recvfrom(65535))
"#;

async fn python(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("python3");
    let output = command.arg("-c").args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = output.output().await.ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn pysocks_logs_in_and_exchanges_datagrams() {
    let Some(version) = python(&["import socks; print(socks.__version__)"]).await else {
        println!("SKIPPED: python3 has no PySocks (PyPI: PySocks)");
        return;
    };
    println!("PySocks {}", version.trim());
    let (server, port) = (start(), echo().await);
    let shown = python(&[SCRIPT, &server.address.port().to_string(), &port.to_string()]).await;
    let answers: String = (0..20).map(|number| format!("b'{number}' ('127.0.0.1', {port})\n")).collect();
    assert_eq!(shown.as_deref(), Some(format!("{answers}{answers}").as_str()));
    let stats = server.watch.udp();
    assert_eq!((stats.opened, stats.datagrams_sent, stats.datagrams_received), (1, 40, 40));
}
