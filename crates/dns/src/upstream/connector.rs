//! Dials an endpoint: addresses, socket, TLS, and the driver of the new connection.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_pool::{CloseReason, Connected, Connector, DialPhase, DialPhases, Side, Slot};
use keepwarm_transport::{
    error::{Error as TransportError, Phase, Side as TransportSide},
    http,
    http::HttpVersion,
    tcp,
    tcp::TcpOptions,
    udp,
    udp::UdpOptions,
};
use tokio::time::Instant as Clock;

use super::{
    doh, doq,
    dress::Dress,
    ech,
    endpoint::{Endpoint, EndpointKey, Family, count},
    stream,
    udp::{UdpConnection, UdpOwner},
};
use crate::{
    config::Transport,
    error::{Error, ErrorKind},
    exchange::Pipe,
    server::DialTrace,
};

/// What the pool keeps.
pub(crate) enum Connection {
    /// A connected socket; the worker that it belongs to reads it.
    Udp(UdpOwner),
    /// A connection with a driver of its own: TCP, TLS, HTTPS, QUIC.
    Stream(StreamConnection),
}

/// The owner's end of a driven connection. Dropping it stops the driver.
pub(crate) struct StreamConnection {
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) family: Family,
    pub(crate) peer: SocketAddr,
    pub(crate) dial: DialTrace,
}

impl Drop for StreamConnection {
    fn drop(&mut self) {
        self.pipe.release();
    }
}

impl Connection {
    pub(crate) fn family(&self) -> Family {
        match self {
            Connection::Udp(socket) => socket.family,
            Connection::Stream(stream) => stream.family,
        }
    }

    /// When something came in last; the time of connecting before that.
    pub(crate) fn heard(&self) -> Instant {
        match self {
            Connection::Udp(socket) => socket.opened,
            Connection::Stream(stream) => stream.pipe.heard(),
        }
    }

    /// Whether anything ever came in.
    pub(crate) fn proven(&self) -> bool {
        match self {
            Connection::Udp(_) => false,
            Connection::Stream(stream) => stream.pipe.proven(),
        }
    }

    /// How long the phases of its dial took.
    pub(crate) fn dial(&self) -> DialTrace {
        match self {
            Connection::Udp(socket) => DialTrace { resolve: socket.resolve, ..DialTrace::default() },
            Connection::Stream(stream) => stream.dial,
        }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        match self {
            Connection::Udp(socket) => socket.peer,
            Connection::Stream(stream) => stream.peer,
        }
    }
}

/// Dials endpoints for the pool.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct DnsConnector;

impl Connector for DnsConnector {
    type Key = EndpointKey;
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self, key: &EndpointKey, slot: Slot<DnsConnector>) -> Result<Connected<Connection>, Error> {
        let endpoint = &key.endpoint;
        let now = Clock::now().into_std();
        match dial(endpoint, now, slot).await {
            Ok(connected) => Ok(connected.reusable(endpoint.settings().reuse)),
            Err(error) => {
                tracing::warn!(upstream = &*endpoint.name, side = ?error.side(), "{error}");
                if error.side() == TransportSide::Upstream {
                    // Once a dial, however many queries waited for it.
                    count(&endpoint.counters.failures);
                    endpoint.dial_failed(Clock::now().into_std());
                }
                Err(error)
            }
        }
    }

    /// Asks an idle stream for proof of life, since a middlebox may have forgotten it without a word. A UDP socket has
    /// nothing to prove.
    async fn validate(&self, key: &EndpointKey, connection: &Connection) -> Result<(), Error> {
        match connection {
            Connection::Udp(_) => Ok(()),
            Connection::Stream(stream) => stream::probe(&key.endpoint, &stream.pipe).await,
        }
    }

    /// Without reuse every query has a connection of its own, and their dials need not wait for the first one's word.
    fn capacity_hint(&self, key: &EndpointKey) -> Option<u32> {
        (!key.endpoint.settings().reuse).then_some(1)
    }

    /// An upstream over UDP is asked over TCP now and then: no connection is kept open for that.
    fn keeps_idle(&self, key: &EndpointKey) -> bool {
        !key.endpoint.is_fallback
    }

    fn side(&self, error: &Error) -> Side {
        match error.side() {
            TransportSide::Local => Side::Local,
            TransportSide::Upstream => Side::Upstream,
            TransportSide::Client => Side::Client,
        }
    }

    fn kind(&self, error: &Error) -> &'static str {
        error.dial_kind()
    }

    /// `quad9 tls://dns.quad9.net:853`: the name in the config, which is unique there, and where it leads. The same for all workers.
    fn label(&self, key: &EndpointKey) -> String {
        key.endpoint.label()
    }
}

async fn dial(
    endpoint: &Arc<Endpoint>,
    now: Instant,
    slot: Slot<DnsConnector>,
) -> Result<Connected<Connection>, Error> {
    endpoint.ech.settle(now).await;
    let addresses = endpoint.addresses(now).await?;
    let resolve = Clock::now().into_std().saturating_duration_since(now);
    match endpoint.transport {
        Transport::Udp => dial_udp(endpoint, &addresses, resolve, slot).await,
        Transport::Tcp | Transport::Tls | Transport::Https => {
            dial_stream(endpoint, &addresses, now, resolve, slot).await
        }
        Transport::H3 | Transport::Quic => dial_quic(endpoint, &addresses, now, resolve, slot).await,
    }
}

/// Connects a datagram socket to the first address that the machine has a route to.
async fn dial_udp(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    resolve: Duration,
    slot: Slot<DnsConnector>,
) -> Result<Connected<Connection>, Error> {
    let mut last = None;
    for &peer in addresses {
        match udp::connect(peer, &UdpOptions::default()).await {
            Ok(socket) => {
                let cookies = endpoint.peer_cookies(socket.local_addr().ok().map(|local| local.ip()), peer);
                let connection = UdpConnection::new(socket, peer, slot, Clock::now().into_std(), resolve);
                let connection = connection.with_cookies(cookies);
                let connected = Connected::new(Connection::Udp(UdpOwner(Arc::new(connection))));
                return Ok(connected.capacity(capacity(endpoint)).phases(resolved(endpoint, resolve)));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| no_address(endpoint), Error::from))
}

async fn dial_stream(
    endpoint: &Arc<Endpoint>,
    addresses: &[SocketAddr],
    now: Instant,
    resolve: Duration,
    slot: Slot<DnsConnector>,
) -> Result<Connected<Connection>, Error> {
    if addresses.is_empty() {
        return Err(no_address(endpoint));
    }
    let deadline = now + endpoint.settings().connect_timeout;
    let (tcp, _) = tcp::connect(addresses, &TcpOptions::default(), deadline).await?;
    let mut dial = DialTrace { resolve, ..DialTrace::default() };
    dial.connect = Clock::now().into_std().saturating_duration_since(now + resolve);
    let mut phases = resolved(endpoint, resolve).with(DialPhase::Connect, dial.connect);
    let peer = tcp
        .peer_addr()
        .map_err(|error| TransportError::from_io(error, Phase::Connect, format!("connect to {}", endpoint.url())))?;
    let pipe = Pipe::new(Clock::now().into_std());
    pipe.dress(Dress::of(endpoint, tcp.local_addr().ok().map(|local| local.ip()), peer));
    let mut capacity = capacity(endpoint);
    match &endpoint.tls {
        None => {
            let driver = stream::drive(tcp, pipe.clone(), slot, endpoint.clone());
            tokio::spawn(driver);
        }
        Some(client) => {
            let (tls, info) = ech::connect(endpoint, client, tcp, peer, deadline).await?;
            phases = phases.with(DialPhase::Tls, info.handshake);
            dial.tls = Some(info.handshake);
            dial.ech = Some(endpoint.ech.status());
            dial.resumed = info.resumed;
            count(match info.resumed {
                true => &endpoint.counters.handshakes_resumed,
                false => &endpoint.counters.handshakes_full,
            });
            if endpoint.transport == Transport::Https {
                let start = Clock::now();
                let (http, driver) = http::connect(tls, info.alpn.as_deref(), &doh::authority(endpoint)).await?;
                if http.version() != HttpVersion::Http1 {
                    phases = phases.with(DialPhase::Protocol, start.elapsed());
                }
                // Until this connection's SETTINGS come, the last one's limit is the best guess.
                let seen = endpoint.streams_seen.load(Ordering::Relaxed);
                let streams = if seen == 0 { http.max_streams() } else { seen.min(http.max_streams()) };
                capacity = doh::capacity(endpoint, streams);
                tokio::spawn(doh::drive(http, driver, pipe.clone(), slot, endpoint.clone()));
            } else {
                tokio::spawn(stream::drive(tls, pipe.clone(), slot, endpoint.clone()));
            }
        }
    }
    let connection = StreamConnection { pipe, family: Family::of(peer.ip()), peer, dial };
    Ok(Connected::new(Connection::Stream(connection)).capacity(capacity).phases(phases))
}

async fn dial_quic(
    endpoint: &Arc<Endpoint>,
    addresses: &[SocketAddr],
    now: Instant,
    resolve: Duration,
    slot: Slot<DnsConnector>,
) -> Result<Connected<Connection>, Error> {
    let Some(client) = endpoint.quic.as_ref().filter(|_| !addresses.is_empty()) else {
        return Err(no_address(endpoint));
    };
    let deadline = now + endpoint.settings().connect_timeout;
    let (quic, info) = client.connect(addresses, &endpoint.server_name, deadline).await?;
    count(match info.resumed {
        true => &endpoint.counters.handshakes_resumed,
        false => &endpoint.counters.handshakes_full,
    });
    if let Some(limit) = info.idle_timeout {
        // RFC 9000 section 10.1: it goes without a word, and a query that meets it would be lost.
        slot.idle_limit(limit);
    }
    let peer = quic.peer();
    let pipe = Pipe::new(Clock::now().into_std());
    pipe.dress(Dress::of(endpoint, None, peer));
    let capacity = doq::capacity(endpoint, info.max_streams);
    let mut phases = resolved(endpoint, resolve).with(DialPhase::Quic, info.handshake);
    if endpoint.transport == Transport::H3 {
        let streams = usize::try_from(info.max_streams).unwrap_or(usize::MAX).max(1);
        let authority = doh::authority(endpoint);
        let start = Clock::now();
        let setup = http::connect_quic(quic, streams, &authority);
        let (http, driver) = match tokio::time::timeout_at(deadline.into(), setup).await {
            Ok(result) => result?,
            Err(_) => {
                let after = Clock::now().into_std().saturating_duration_since(now);
                return Err(TransportError::timed_out(Phase::Http, format!("connect to {peer}"), after).into());
            }
        };
        phases = phases.with(DialPhase::Protocol, start.elapsed());
        tokio::spawn(doh::drive(http, driver, pipe.clone(), slot, endpoint.clone()));
    } else {
        tokio::spawn(doq::drive(quic, capacity, pipe.clone(), slot, endpoint.clone()));
    }
    let dial = DialTrace { resolve, tls: Some(info.handshake), resumed: info.resumed, ..DialTrace::default() };
    let connection = StreamConnection { pipe, family: Family::of(peer.ip()), peer, dial };
    Ok(Connected::new(Connection::Stream(connection)).capacity(capacity).phases(phases))
}

/// Where addresses are given there is nothing to look up.
fn resolved(endpoint: &Endpoint, took: Duration) -> DialPhases {
    let phases = DialPhases::default();
    if endpoint.is_named() { phases.with(DialPhase::Resolve, took) } else { phases }
}

pub(super) fn capacity(endpoint: &Endpoint) -> u32 {
    let settings = endpoint.settings();
    if settings.reuse { u32::try_from(settings.max_in_flight).unwrap_or(u32::MAX) } else { 1 }
}

fn no_address(endpoint: &Endpoint) -> Error {
    Error::new(ErrorKind::Connect, format!("connect to {}: the name has no address", endpoint.url()))
}

/// The word for the pool of a connection's end.
pub(super) fn close_reason(error: &std::io::Error) -> CloseReason {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => CloseReason::PeerReset,
        _ => CloseReason::PeerClosed,
    }
}
