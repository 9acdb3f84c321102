//! UDP ASSOCIATE (RFC 1928 section 7): datagrams between one client and destinations on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::connection::{Connection, Stop};
use super::site::Site;
use super::socks5::{IPV4, IPV6, NAME, put_ip};
use crate::core::now;

/// The sockets of one association. It ends with its TCP connection.
pub(super) struct Relay {
    site: Arc<Site>,
    inside: UdpSocket,
    outside: UdpSocket,
    /// Without IPv6 on this machine there is none.
    outside6: Option<UdpSocket>,
    address: SocketAddr,
    /// The client's port, or 0 until its first datagram has come.
    declared: u16,
}

/// What is on its way, and when it arrives.
struct Passing {
    due: Instant,
    bytes: Vec<u8>,
    to: SocketAddr,
}

impl Relay {
    /// Binds the relay at the proxy's own address. Counted as open from here.
    pub(super) fn bind(site: &Arc<Site>, declared: u16) -> io::Result<Self> {
        let inside = crate::udp::bind(SocketAddr::new(site.ip, 0))?;
        let outside = crate::udp::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))?;
        let outside6 = crate::udp::bind(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0)).ok();
        let address = inside.local_addr()?;
        site.count(|counters| {
            counters.associations += 1;
            counters.associations_total += 1;
        });
        Ok(Self { site: Arc::clone(site), inside, outside, outside6, address, declared })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes datagrams on until the client ends the connection.
    pub(super) async fn run(self, connection: &mut Connection) -> Result<(), Stop> {
        let ip = connection.tcp.peer_addr().map_err(|_| Stop::Peer)?.ip();
        let (client, mut clients) = mpsc::channel(1);
        let (to_outside, outside) = mpsc::channel(PASSING_MAX);
        let (to_inside, inside) = mpsc::channel(PASSING_MAX);
        let inward = async {
            let client = clients.recv().await.ok_or(Stop::Peer)?;
            tokio::select! {
                () = self.answers(client, &self.outside, &to_inside) => {}
                () = self.answers6(client, &to_inside) => {}
            }
            Ok(())
        };
        tokio::select! {
            stop = control(connection) => Err(stop),
            () = self.requests(ip, client, to_outside) => Err(Stop::Reset),
            result = inward => result,
            () = self.pass(outside, true) => Err(Stop::Reset),
            () = self.pass(inside, false) => Err(Stop::Reset),
        }
    }

    /// Takes the client's datagrams. Only its own: from its address, and from the port that was declared or came first.
    async fn requests(&self, ip: IpAddr, client: mpsc::Sender<SocketAddr>, line: mpsc::Sender<Passing>) {
        let mut port = self.declared;
        let mut known = false;
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            // An ICMP error about an earlier datagram: that client has gone.
            let Ok((length, from)) = self.inside.recv_from(&mut buffer).await else { continue };
            let ours = from.ip() == ip && (port == 0 || port == from.port());
            let passing = ours.then(|| self.parse(&buffer[..length])).flatten();
            let Some(passing) = passing else {
                self.dropped();
                continue;
            };
            port = from.port();
            if !known {
                known = true;
                let _ = client.try_send(from);
            }
            if line.try_send(passing).is_err() {
                self.dropped();
            }
        }
    }

    /// Takes a datagram's header off: RSV, FRAG 0, type, address and port.
    fn parse(&self, datagram: &[u8]) -> Option<Passing> {
        let (head, rest) = datagram.split_at_checked(4)?;
        if head[..3] != [0, 0, 0] {
            return None;
        }
        let (host, rest) = match head[3] {
            IPV4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (Ipv4Addr::from(*ip).to_string(), rest))?,
            IPV6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (Ipv6Addr::from(*ip).to_string(), rest))?,
            NAME => {
                let (length, rest) = rest.split_first()?;
                let (name, rest) = rest.split_at_checked(usize::from(*length))?;
                (String::from_utf8_lossy(name).into_owned(), rest)
            }
            _ => return None,
        };
        let (port, payload) = rest.split_first_chunk::<2>()?;
        let to = self.site.locate(&host, u16::from_be_bytes(*port))?;
        Some(Passing { due: self.site.line.due(now()), bytes: payload.to_vec(), to })
    }

    async fn answers6(&self, client: SocketAddr, line: &mpsc::Sender<Passing>) {
        match &self.outside6 {
            Some(socket) => self.answers(client, socket, line).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the datagrams of destinations, and puts the header before them.
    async fn answers(&self, client: SocketAddr, socket: &UdpSocket, line: &mpsc::Sender<Passing>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let mut bytes = vec![0, 0, 0];
            put_ip(&mut bytes, from.ip());
            bytes.extend_from_slice(&from.port().to_be_bytes());
            bytes.extend_from_slice(&buffer[..length]);
            if line.try_send(Passing { due: self.site.line.due(now()), bytes, to: client }).is_err() {
                self.dropped();
            }
        }
    }

    /// Sends what is due.
    async fn pass(&self, mut line: mpsc::Receiver<Passing>, outward: bool) {
        while let Some(Passing { due, bytes, to }) = line.recv().await {
            self.site.line.until(due).await;
            let socket = match (outward, to, &self.outside6) {
                (false, ..) => &self.inside,
                (true, SocketAddr::V6(_), Some(socket)) => socket,
                (true, ..) => &self.outside,
            };
            // Counted first: whoever has the datagram finds it counted.
            self.site.count(|counters| {
                *(if outward { &mut counters.datagrams_sent } else { &mut counters.datagrams_received }) += 1;
            });
            // Too long with its header, or without a route: lost, as on any way.
            let _ = socket.send_to(&bytes, to).await;
        }
    }

    fn dropped(&self) {
        self.site.count(|counters| counters.datagrams_dropped += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.site.count(|counters| counters.associations -= 1);
    }
}

/// Waits for the end of the TCP connection; what it says meanwhile is nothing to us.
async fn control(connection: &mut Connection) -> Stop {
    loop {
        if let Err(stop) = connection.fill().await {
            return stop;
        }
        connection.buffer.clear();
    }
}

const DATAGRAM_MAX: usize = 65_535;
/// Datagrams on their way in one direction.
const PASSING_MAX: usize = 1024;
