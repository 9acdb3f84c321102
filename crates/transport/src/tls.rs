//! TLS as a client: which roots are trusted, one client per upstream, and a handshake under a deadline.
//!
//! What is deliberately not here: a switch that leaves certificates unverified, and TLS as a server.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion, client::Resumption, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream as RustlsStream;

use crate::error::{Error, ErrorKind, Phase};

mod certificate;
mod roots;

pub use roots::{RootsError, TlsRoots};

/// A TCP connection with TLS on it, certificate verified.
pub type TlsStream = RustlsStream<TcpStream>;

/// Makes TLS connections to one upstream.
///
/// Keep one for each upstream and use it for all its connections: the session cache lives in here, so a new client a
/// connection means a full handshake each time. TLS 1.2 and 1.3; certificates are always verified.
#[derive(Debug, Clone)]
pub struct TlsClient {
    connector: Connector,
}

/// [`TlsConnector`] has no `Debug`.
#[derive(Clone)]
struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// What a handshake came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The version agreed on.
    pub version: TlsVersion,
    /// Whether an earlier session was resumed: fewer round trips, no certificate sent.
    pub resumed: bool,
    /// The application protocol agreed on, such as `h2`; `None` when the server chose none.
    pub alpn: Option<Vec<u8>>,
    /// Time from the first byte of the handshake to its end.
    pub handshake: Duration,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// `1.2` or `1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

impl TlsClient {
    /// Makes a client that trusts `roots` and offers `alpn`, most wanted first; an empty list offers none.
    ///
    /// The first use of [`TlsRoots::system`] in the process reads certificate files and blocks for some milliseconds.
    ///
    /// # Errors
    /// When `roots` has no usable certificate.
    pub fn new(roots: &TlsRoots, alpn: &[&[u8]]) -> Result<TlsClient, RootsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .with_root_certificates(roots.store()?)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let connector = Connector(TlsConnector::from(Arc::new(config)));
        Ok(TlsClient { connector })
    }

    /// Makes the handshake on `tcp` and verifies that the certificate is for `server_name`, a DNS name or an IP address.
    ///
    /// # Errors
    /// [`ErrorKind::Certificate`] with the reason in words, [`ErrorKind::Alpn`] when the server refuses all our
    /// protocols, [`ErrorKind::TimedOut`] at `deadline`, and what the socket reports.
    ///
    /// # Cancel safety
    /// Dropping the future closes the TCP connection; nothing else is left behind.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        server_name: &str,
        deadline: Instant,
    ) -> Result<(TlsStream, TlsInfo), Error> {
        let start = tokio::time::Instant::now();
        let tried = match tcp.peer_addr() {
            Ok(peer) => format!("connect to {peer}"),
            Err(_) => format!("connect to {server_name}"),
        };
        let name = parse_name(server_name, &tried)?;
        let handshake = self.connector.0.connect(name, tcp);
        let stream = match tokio::time::timeout_at(deadline.into(), handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(explain(error, tried, server_name)),
            Err(_) => return Err(Error::timed_out(Phase::Tls, tried, start.elapsed())),
        };
        let info = TlsInfo::of(&stream, start.elapsed());
        Ok((stream, info))
    }
}

impl TlsInfo {
    fn of(stream: &TlsStream, handshake: Duration) -> TlsInfo {
        let (_, connection) = stream.get_ref();
        TlsInfo {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            handshake,
        }
    }
}

/// A trailing dot and the brackets of an IPv6 literal are how names are written elsewhere; certificates have neither.
pub(crate) fn parse_name(server_name: &str, tried: &str) -> Result<ServerName<'static>, Error> {
    let bare = server_name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(server_name);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned()).map_err(|error| {
        let happened = format!("{server_name:?} is neither a DNS name nor an IP address");
        Error::new(ErrorKind::Other, Phase::Tls, tried, happened).with_source(error)
    })
}

/// Turns a failed handshake into words. rustls hides its own error inside an [`io::Error`].
fn explain(error: io::Error, tried: String, server_name: &str) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let happened = "connection closed by peer during the tls handshake";
            return Error::new(ErrorKind::Eof, Phase::Tls, tried, happened).with_source(error);
        }
        return Error::from_io(error, Phase::Tls, tried);
    };
    let (kind, happened) = words(tls, server_name);
    Error::new(kind, Phase::Tls, tried, happened).with_source(error)
}

/// What an error of rustls means, and the words for it.
pub(crate) fn words(error: &rustls::Error, server_name: &str) -> (ErrorKind, String) {
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            (ErrorKind::Certificate, certificate::explain(reason, server_name))
        }
        rustls::Error::NoCertificatesPresented => {
            (ErrorKind::Certificate, format!("no certificate presented for {server_name}"))
        }
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            (ErrorKind::Alpn, "no common application protocol (alpn)".to_owned())
        }
        rustls::Error::AlertReceived(alert) => {
            (ErrorKind::Tls, format!("tls handshake refused by peer: alert {alert:?}"))
        }
        rustls::Error::InvalidMessage(_) => (ErrorKind::Tls, "peer does not speak tls".to_owned()),
        other => (ErrorKind::Tls, format!("tls handshake failed: {other}")),
    }
}

/// TLS 1.3 keeps up to eight tickets for each name; a client has one name, rarely a few.
const SESSIONS_MAX: usize = 32;

#[cfg(test)]
mod tests;
