//! QUIC as a server: an endpoint on a socket of its own, with limits on everything that a client can make it keep.
//!
//! What is deliberately not here: who may connect, and what is spoken on the streams. 0-RTT is off, because a query in it
//! could be replayed, and so is migration: see [`QuicListener`].

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, TransportErrorCode, VarInt, crypto::rustls::QuicServerConfig,
};

use crate::{
    error::{Error, ErrorKind, Phase},
    udp,
};

mod frames;
pub mod h3;

/// What one connection of a client may make the server keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicLimits {
    /// Streams with a request that are open at a time.
    pub streams_max: u32,
    /// Streams in one direction that a client may open; 0 for protocols that have none.
    pub uni_streams_max: u32,
    /// A connection on which nothing at all was heard for so long is forgotten (RFC 9000 section 10.1); clients are told.
    pub idle_timeout: Duration,
}

/// The settings of QUIC listeners of one kind. Clones share them.
#[derive(Debug, Clone)]
pub struct QuicServer {
    config: ServerConfig,
}

/// One socket on which QUIC connections come in. Clones share it.
///
/// Each socket is an endpoint of its own that knows nothing of the others', although they share a port: the kernel chooses the
/// socket by both addresses and ports, so a client that keeps its own stays where it is. One that changes them, behind a NAT
/// that forgot it, might reach an endpoint that does not know its connection; so migration is off, and such a client connects
/// anew. The endpoints share no key for stateless resets, for one of them would tell anybody the token that ends a connection
/// of another (RFC 9000 section 21.11).
#[derive(Debug, Clone)]
pub struct QuicListener {
    endpoint: Endpoint,
}

impl QuicServer {
    /// Makes settings out of TLS settings, whose application protocols clients must offer one of (RFC 9001 section 8.1).
    /// TLS 1.3 has to be among their versions.
    ///
    /// # Errors
    /// When the TLS settings cannot protect QUIC's first packets, which ask for AES-128-GCM.
    pub fn new(tls: Arc<rustls::ServerConfig>, limits: &QuicLimits) -> Result<QuicServer, Error> {
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| {
            Error::new(ErrorKind::Tls, Phase::Listen, "set up quic", "no suite for the first packets")
                .with_source(error)
        })?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(Arc::new(transport(limits)))
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * INCOMING_MAX as u64);
        Ok(QuicServer { config })
    }

    /// Takes connections on this socket, with the tasks of the runtime that it is called on.
    ///
    /// # Errors
    /// What the system reports.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen(&self, socket: std::net::UdpSocket) -> Result<QuicListener, Error> {
        let config = Some(self.config.clone());
        Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))
            .map(|endpoint| QuicListener { endpoint })
            .map_err(|error| Error::from_io(error, Phase::Listen, "listen (quic)"))
    }
}

impl QuicListener {
    /// The next client's first packet; `None` when the listener was closed. Dropping what it returns refuses the client.
    ///
    /// # Cancel safety
    /// No client is lost by dropping the future.
    pub async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// Has connections that come in from now on under these settings. Those that there are keep theirs.
    pub fn set(&self, settings: &QuicServer) {
        self.endpoint.set_server_config(Some(settings.config.clone()));
    }

    /// Lets nobody in any more. Connections that there are live on.
    pub fn stop_listening(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Closes all connections at once, streams included.
    pub fn close(&self, code: VarInt) {
        self.endpoint.close(code, b"");
    }

    /// Waits until the last connection is forgotten, which is some round trips after its end (RFC 9000 section 10.2).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Makes the handshake with a client that came in.
///
/// # Errors
/// [`ErrorKind::TimedOut`] at `deadline`, [`ErrorKind::Alpn`] when the client offers another protocol, and what it broke
/// otherwise. They are for the log: whatever side an error names, here the peer is a client.
///
/// # Cancel safety
/// Dropping the future ends the connection.
pub async fn handshake(incoming: Incoming, deadline: Instant) -> Result<Connection, Error> {
    let start = tokio::time::Instant::now();
    let peer = incoming.remote_address();
    let tried = || format!("accept {peer}");
    match tokio::time::timeout_at(deadline.into(), incoming.into_future()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(explain(error, tried())),
        Err(_) => Err(Error::timed_out(Phase::Tls, tried(), start.elapsed())),
    }
}

/// Opens `count` sockets on the same address, for one [`QuicListener`] each, where the kernel keeps each client on one of them;
/// elsewhere a single one. See [`udp::listen_group`].
///
/// # Errors
/// See [`udp::listen`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen_group(
    addr: SocketAddr,
    count: usize,
    recv_buffer: Option<usize>,
) -> Result<Vec<tokio::net::UdpSocket>, Error> {
    udp::listen_group(addr, if udp::KERNEL_SPREADS { count } else { 1 }, recv_buffer)
}

fn transport(limits: &QuicLimits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(limits.uni_streams_max.into())
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        // Messages are small; looking for a larger packet size costs every connection a few packets.
        .mtu_discovery_config(None);
    transport
}

/// Turns a failed handshake into words.
fn explain(error: ConnectionError, tried: String) -> Error {
    let (kind, happened) = match &error {
        ConnectionError::TransportError(fault) if fault.code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) => {
            (ErrorKind::Alpn, "no common application protocol (alpn)".to_owned())
        }
        ConnectionError::TimedOut => (ErrorKind::TimedOut(Phase::Tls), "the client fell silent".to_owned()),
        ConnectionError::Reset => (ErrorKind::Reset, "reset by the client".to_owned()),
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
            (ErrorKind::Eof, format!("closed by the client: {error}"))
        }
        _ => (ErrorKind::Tls, format!("quic handshake failed: {error}")),
    };
    Error::new(kind, Phase::Tls, tried, happened).with_source(io::Error::other(error))
}

/// The alert `no_application_protocol` as QUIC reports it (RFC 9001 section 4.8).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// First packets that wait to be looked at; more are refused. They are looked at as they come in.
const INCOMING_MAX: usize = 256;

/// Bytes kept of what a client sends before its first packet was looked at.
const INCOMING_BUFFER: u64 = 16 * 1024;

/// What a client may send ahead on one stream: a whole DNS message with its length.
const STREAM_WINDOW: u32 = 2 + u16::MAX as u32;

/// What a client may send ahead on all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Answers that a client has not confirmed, in bytes; more wait in the streams' own buffers.
const SEND_WINDOW: u64 = 256 * 1024;
