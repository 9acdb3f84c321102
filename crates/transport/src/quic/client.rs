//! QUIC as a client: one client an upstream, one socket a connection.
//!
//! Several connections could share a socket, which would save ports. Here each has its own, and the pool's limit on
//! connections is the limit on ports: the source port is another one for each connection, the system tells by ICMP that
//! nobody listens, and a connection with all that belongs to it lives on the runtime that dialled it.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use rustls::{
    ClientConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::aws_lc_rs,
};

use self::{
    session::{Handshake, Verifier, Watched},
    socket::Socket,
};
use crate::{
    error::{Error, ErrorKind, Phase, Side},
    tcp::{self, ATTEMPT_DELAY, TcpOptions},
    tls::{self, RootsError, TlsRoots},
};

mod session;
mod socket;

/// Makes QUIC connections to one upstream.
///
/// Keep one for each upstream and use it for all its connections: the session cache lives in here, so a new client a
/// connection means a full handshake each time. Certificates are always verified.
#[derive(Clone)]
pub struct QuicClient {
    tls: Arc<quinn::crypto::rustls::QuicClientConfig>,
    transport: Arc<TransportConfig>,
}

/// A QUIC connection, certificate verified. Clones are handles of the same connection, which closes with the last one.
#[derive(Clone)]
pub struct QuicConnection {
    pub(crate) quinn: quinn::Connection,
    pub(crate) socket: Arc<Socket>,
    peer: SocketAddr,
}

/// What a handshake came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicInfo {
    /// Whether an earlier session was resumed: no certificate sent.
    pub resumed: bool,
    /// Time from the first datagram to the end of the handshake.
    pub handshake: Duration,
    /// Streams that the peer lets be open at a time (`initial_max_streams_bidi`, RFC 9000 section 18.2); it gives new ones
    /// as others end.
    pub max_streams: u64,
    /// For how long the peer keeps a connection on which nothing is sent; `None` when it names no limit.
    pub idle_timeout: Option<Duration>,
}

impl QuicClient {
    /// Makes a client that trusts `roots` and offers `alpn`, most wanted first; QUIC wants at least one. A connection on
    /// which nothing came for `idle_timeout` is given up without a word (RFC 9000 section 10.1); no keep-alive is sent.
    ///
    /// The first use of [`TlsRoots::system`] in the process reads certificate files and blocks for some milliseconds.
    ///
    /// # Errors
    /// When `roots` has no usable certificate.
    pub fn new(roots: &TlsRoots, alpn: &[&[u8]], idle_timeout: Duration) -> Result<QuicClient, RootsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.store()?, provider.clone())
            .build()
            .expect("the store has a certificate, and no revocation list is given");
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites for TLS 1.3")
            .dangerous()
            // It verifies as the other one does, and tells what came of it.
            .with_custom_certificate_verifier(Arc::new(Verifier(verifier)))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let tls = config.try_into().expect("the provider has the suite of initial packets");
        Ok(QuicClient { tls: Arc::new(tls), transport: Arc::new(transport(idle_timeout)) })
    }

    /// Connects to the first of `addrs` that completes a handshake, and verifies that the certificate is for
    /// `server_name`, a DNS name or an IP address. The order and the delays are those of [`tcp::connect`].
    ///
    /// # Errors
    /// The most telling failure of all attempts, as for TCP: [`ErrorKind::Certificate`] with the reason in words,
    /// [`ErrorKind::Alpn`], [`ErrorKind::Refused`] when an ICMP message says so, [`ErrorKind::TimedOut`] at `deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future abandons all attempts.
    pub async fn connect(
        &self,
        addrs: &[SocketAddr],
        server_name: &str,
        deadline: Instant,
    ) -> Result<(QuicConnection, QuicInfo), Error> {
        let start = tokio::time::Instant::now();
        let mut waiting = tcp::candidates(addrs, &TcpOptions::default())?;
        let mut trying = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            if let Some(addr) = waiting.pop_front() {
                trying.push(async move { (addr, self.attempt(addr, server_name).await) });
            }
            let next_attempt = tokio::time::sleep(ATTEMPT_DELAY);
            tokio::select! {
                biased;
                Some((peer, result)) = trying.next() => match result {
                    Ok((connection, handshake)) => return Ok((connection, info(&handshake, start.elapsed()))),
                    Err(error) => {
                        failed.push((peer, error));
                        if trying.is_empty() && waiting.is_empty() {
                            return Err(tcp::most_telling(failed));
                        }
                    }
                },
                () = tokio::time::sleep_until(deadline.into()) => {
                    if let Some((_, shortage)) = failed.into_iter().find(|(_, error)| error.side() == Side::Local) {
                        return Err(shortage);
                    }
                    let tried = addrs.first().map_or_else(|| "connect".to_owned(), |addr| tried(*addr));
                    return Err(Error::timed_out(Phase::Quic, tried, start.elapsed()));
                }
                () = next_attempt, if !waiting.is_empty() => {}
            }
        }
    }

    async fn attempt(&self, peer: SocketAddr, server_name: &str) -> Result<(QuicConnection, Arc<Handshake>), Error> {
        let name = tls::parse_name(server_name, &tried(peer))?.to_str().into_owned();
        let socket = Socket::open(peer).await?;
        let fail = |error| Error::from_io(error, Phase::Connect, tried(peer));
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket.clone(), Arc::new(TokioRuntime))
                .map_err(fail)?;
        let handshake = Arc::new(Handshake::default());
        let crypto = Watched::new(self.tls.clone(), handshake.clone());
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let connecting = endpoint.connect_with(config, peer, &name).map_err(|error| {
            Error::new(ErrorKind::Other, Phase::Quic, tried(peer), error.to_string()).with_source(error)
        })?;
        tokio::select! {
            connected = connecting => match connected {
                Ok(quinn) => Ok((QuicConnection { quinn, socket, peer }, handshake)),
                Err(error) => Err(explain_handshake(error, peer, &handshake, server_name)),
            },
            kind = socket.unreachable() => Err(fail(kind.into())),
        }
    }
}

impl QuicConnection {
    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection with an error code of the application protocol. What is under way is lost.
    pub fn close(&self, code: u32) {
        self.quinn.close(VarInt::from_u32(code), b"");
    }

    pub(crate) fn tried(&self) -> String {
        format!("quic exchange with {}", self.peer)
    }

    /// The error of what was under way when the connection ended.
    pub(crate) fn lost(&self, error: &ConnectionError) -> Error {
        let (kind, happened) = match words(error) {
            // No time-out of the exchange, which may go elsewhere.
            (ErrorKind::TimedOut(_), happened) => (ErrorKind::Eof, happened),
            words => words,
        };
        Error::new(kind, Phase::Read, self.tried(), happened).with_source(error.clone())
    }
}

impl fmt::Debug for QuicClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicClient").finish_non_exhaustive()
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

fn transport(idle_timeout: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let longest = IdleTimeout::from(VarInt::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(idle_timeout).unwrap_or(longest)))
        // RFC 9250 section 4.2: the server opens no stream. HTTP/3 has its control stream and two of QPACK, and may have
        // others that mean nothing (RFC 9114 section 6.2.3).
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(SERVER_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        // Messages are small: probes for larger packets cost more than these would save.
        .mtu_discovery_config(None);
    transport
}

fn tried(peer: SocketAddr) -> String {
    format!("connect to {peer}")
}

fn info(handshake: &Handshake, took: Duration) -> QuicInfo {
    let peer = handshake.peer();
    QuicInfo {
        resumed: !handshake.verified(),
        handshake: took,
        max_streams: peer.max_streams,
        idle_timeout: peer.idle_timeout,
    }
}

/// Turns a failed handshake into words. quinn passes on the text of rustls' error alone, so the verifier kept its own.
fn explain_handshake(error: ConnectionError, peer: SocketAddr, handshake: &Handshake, server_name: &str) -> Error {
    let (kind, happened) = match handshake.refusal() {
        Some(refusal) => tls::words(&refusal, server_name),
        None => words(&error),
    };
    Error::new(kind, Phase::Quic, tried(peer), happened).with_source(error)
}

fn words(error: &ConnectionError) -> (ErrorKind, String) {
    match error {
        ConnectionError::TransportError(inner) if is_alpn(inner.code.into()) => (ErrorKind::Alpn, NO_ALPN.to_owned()),
        ConnectionError::ConnectionClosed(close) if is_alpn(close.error_code.into()) => {
            (ErrorKind::Alpn, NO_ALPN.to_owned())
        }
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == CONNECTION_REFUSED => {
            (ErrorKind::Refused, "connection refused by the server".to_owned())
        }
        ConnectionError::ConnectionClosed(close) if is_alert(close.error_code.into()) => {
            (ErrorKind::Tls, format!("tls handshake refused by peer: {}", close.error_code))
        }
        ConnectionError::ConnectionClosed(close) => {
            (ErrorKind::Quic, format!("quic connection ended by peer: {}", close.error_code))
        }
        ConnectionError::ApplicationClosed(close) => {
            (ErrorKind::Eof, format!("connection closed by peer (code {})", close.error_code))
        }
        ConnectionError::TransportError(inner) if is_alert(inner.code.into()) => {
            (ErrorKind::Tls, format!("tls handshake failed: {}", inner.reason))
        }
        ConnectionError::Reset => (ErrorKind::Reset, "connection reset by peer".to_owned()),
        ConnectionError::TimedOut => {
            (ErrorKind::TimedOut(Phase::Quic), "nothing came for the idle time-out".to_owned())
        }
        ConnectionError::LocallyClosed => (ErrorKind::Cancelled, "the connection was closed on this side".to_owned()),
        ConnectionError::VersionMismatch => (ErrorKind::Quic, "no common version of quic".to_owned()),
        other => (ErrorKind::Quic, format!("quic failed: {other}")),
    }
}

/// RFC 9001 section 4.8: alerts of TLS are the codes from 0x100 on.
fn is_alert(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

/// RFC 9001 section 8.1: `no_application_protocol`, alert 120.
fn is_alpn(code: u64) -> bool {
    code == 0x100 + 120
}

const NO_ALPN: &str = "no common application protocol (alpn)";

/// RFC 9000 section 20.1.
const CONNECTION_REFUSED: u64 = 0x2;

/// Sessions that are kept for resumption; a client has one name, rarely a few.
const SESSIONS_MAX: usize = 32;

/// Unidirectional streams that the server may open.
const SERVER_STREAMS: u32 = 8;

/// A stream's window: the largest DNS message fits without an update, with what HTTP/3 puts before it.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The connection's window: enough for a burst of many small answers.
const CONNECTION_WINDOW: u32 = 1 << 20;
