//! Over loopback, with a SOCKS5 client's side of RFC 1928 section 7 of its own.

mod ends;
mod isolation;
mod limits;
mod relays;
mod ways;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use keepwarm_transport::resolve::{Fixed, Resolve};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinHandle,
};

use super::{header, *};
use crate::config::TunnelConfig;

/// A listener whose clients have said all but their UDP ASSOCIATE.
struct Rig {
    listener: TcpListener,
    connector: Connector,
    counters: Arc<Counters>,
    closing: watch::Sender<bool>,
    own: OwnNow,
}

const VERSION: u8 = 5;
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const COMMAND_NOT_SUPPORTED: u8 = 7;

/// One association's client.
struct Socks {
    control: TcpStream,
    socket: UdpSocket,
    /// BND of the reply.
    relay: SocketAddr,
    served: JoinHandle<()>,
}

/// A destination.
struct Peer(UdpSocket);

impl Rig {
    async fn new(local: &str, config: TunnelConfig, resolver: impl Resolve + 'static) -> Rig {
        Rig {
            listener: TcpListener::bind((local, 0)).await.unwrap(),
            connector: Connector::new(config, Arc::new(resolver)).unwrap(),
            counters: Arc::default(),
            closing: watch::Sender::new(false),
            own: OwnNow::default(),
        }
    }

    /// On 127.0.0.1, with names that all lead there.
    async fn usual() -> Rig {
        Rig::new("127.0.0.1", TunnelConfig::default(), Fixed(vec![Ipv4Addr::LOCALHOST.into()])).await
    }

    /// Connects and asks; the reply is still to be read.
    async fn ask(&self, declared: SocketAddr) -> (TcpStream, JoinHandle<()>) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (control, _) = self.listener.accept().await.unwrap();
        let (connector, counters) = (self.connector.clone(), self.counters.clone());
        let (closing, own) = (self.closing.subscribe(), self.own.clone());
        let served = tokio::spawn(async move { serve(control, declared, &connector, &own, &counters, closing).await });
        (client, served)
    }

    /// An association that declares nothing.
    async fn client(&self) -> Socks {
        self.client_that_declares(port::unspecified(true, 0)).await
    }

    async fn client_that_declares(&self, declared: SocketAddr) -> Socks {
        let (mut control, served) = self.ask(declared).await;
        let (code, relay) = read_reply(&mut control).await;
        assert_eq!(code, SUCCEEDED);
        let socket = UdpSocket::bind((control.local_addr().unwrap().ip(), 0)).await.unwrap();
        Socks { control, socket, relay, served }
    }

    fn dropped(&self, reason: UdpDropped) -> u64 {
        self.counters.stats().dropped(reason)
    }
}

/// A reply of RFC 1928 section 6.
fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut reply = vec![VERSION, code, 0];
    crate::socks::address::append(&mut reply, bound);
    reply
}

async fn read_reply(control: &mut TcpStream) -> (u8, SocketAddr) {
    let mut start = [0; 4];
    control.read_exact(&mut start).await.unwrap();
    assert_eq!((start[0], start[2]), (VERSION, 0));
    let ip: IpAddr = match start[3] {
        1 => {
            let mut octets = [0; 4];
            control.read_exact(&mut octets).await.unwrap();
            octets.into()
        }
        4 => {
            let mut octets = [0; 16];
            control.read_exact(&mut octets).await.unwrap();
            octets.into()
        }
        other => panic!("address type {other}"),
    };
    (start[1], SocketAddr::new(ip, control.read_u16().await.unwrap()))
}

/// A datagram for `name`.
fn to_name(name: &str, port: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0, 0, 0, 3, u8::try_from(name.len()).unwrap()];
    datagram.extend(name.as_bytes());
    datagram.extend(port.to_be_bytes());
    datagram.extend(data);
    datagram
}

/// A datagram for an address.
fn to(address: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = header::of_sender(address).to_vec();
    datagram.extend(data);
    datagram
}

impl Socks {
    async fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.relay).await.unwrap();
    }

    /// The next datagram: who is said to have sent it, and its data.
    async fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = vec![0; 65_535];
        let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, self.relay);
        let (header, data) = header::parse(&buffer[..length]).unwrap();
        let header::Host::Ip(ip) = header.host else { panic!("{header:?}") };
        assert_eq!(header.fragment, 0);
        (SocketAddr::new(ip, header.port), data.to_vec())
    }

    /// Sends to `peer`, which echoes; by then all that was sent to the relay before has been looked at.
    async fn round_trip(&self, peer: &Peer) {
        self.send(&to(peer.address(), b"round")).await;
        peer.echo().await;
        assert_eq!(self.receive().await, (peer.address(), b"round".to_vec()));
    }

    /// Closes the control connection and waits until the association is gone.
    async fn close(self) {
        drop(self.control);
        self.served.await.unwrap();
    }
}

impl Peer {
    async fn new(ip: &str) -> Peer {
        Peer(UdpSocket::bind((ip, 0)).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        let (length, from) = self.0.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }

    /// Sends the next datagram back; tells where it came from.
    async fn echo(&self) -> SocketAddr {
        let (datagram, from) = self.receive().await;
        self.0.send_to(&datagram, from).await.unwrap();
        from
    }
}
