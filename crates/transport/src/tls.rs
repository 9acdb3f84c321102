//! TLS as a client: which roots are trusted, one client per upstream, and a handshake under a deadline. And as a server: the
//! certificate that listeners show.
//!
//! What is deliberately not here: a switch that leaves certificates unverified.

use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, PeerIncompatible, ProtocolVersion, SignatureScheme,
    client::{
        ClientSessionMemoryCache, EchMode, ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::ServerCertVerifier,
    },
    crypto::aws_lc_rs,
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream as RustlsStream;

use crate::error::{Error, ErrorKind, Phase};

mod certificate;
mod ech;
mod peer;
mod roots;
mod server;
mod verifier;

pub use ech::{EchKeys, EchKeysError, EchRejection, EchStatus};
pub use peer::{PeerName, PeerVerifier, explain_alert};
pub use roots::{RootsError, TlsRoots};
pub use server::{CertificateError, CertificateFault, CertificateInfo, Reload, TlsServer};

/// A TCP connection with TLS on it, certificate verified.
pub type TlsStream = RustlsStream<TcpStream>;

/// Makes TLS connections to one upstream.
///
/// Keep one for each upstream and use it for all its connections: the session cache lives in here, so a new client a
/// connection means a full handshake each time. TLS 1.2 and 1.3; certificates are always verified.
#[derive(Debug, Clone)]
pub struct TlsClient {
    connector: Connector,
    parts: Arc<Parts>,
}

/// What a client shares with those derived from it. rustls resumes a session only under the verifier and the client
/// certificates that it began with.
#[derive(Debug)]
struct Parts {
    verifier: Arc<dyn ServerCertVerifier>,
    certificates: Arc<NoCertificate>,
    sessions: Arc<ClientSessionMemoryCache>,
    alpn: Vec<Vec<u8>>,
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
    /// What was done to hide the server's name.
    pub ech: EchStatus,
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
        Ok(TlsClient::with_verifier(usual_verifier(roots)?, alpn))
    }

    /// Makes a client as [`new`](Self::new) does, whose servers must have a certificate for `address` as well as for their
    /// name: the proof that a resolver is the one that the resolver at `address` designates (RFC 9462 section 4.2).
    ///
    /// # Errors
    /// When `roots` has no usable certificate.
    pub fn designated(roots: &TlsRoots, alpn: &[&[u8]], address: IpAddr) -> Result<TlsClient, RootsError> {
        let verifier = verifier::AlsoFor::new(usual_verifier(roots)?, address);
        Ok(TlsClient::with_verifier(Arc::new(verifier), alpn))
    }

    fn with_verifier(verifier: Arc<dyn ServerCertVerifier>, alpn: &[&[u8]]) -> TlsClient {
        let parts = Parts {
            verifier,
            certificates: Arc::default(),
            sessions: Arc::new(ClientSessionMemoryCache::new(SESSIONS_MAX)),
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        };
        TlsClient { connector: parts.connector(None), parts: Arc::new(parts) }
    }

    /// The same client, with the server's name encrypted for `keys`. TLS 1.3 alone, as RFC 9849 demands. Sessions are
    /// shared with this client. A handshake that the server rejects fails with what [`EchRejection::of`] reads.
    pub fn with_keys(&self, keys: &EchKeys) -> TlsClient {
        self.derived(keys.mode())
    }

    /// The same client, with random bytes in the place of an encrypted name, so that servers and networks stay used to
    /// them (RFC 9849 section 6.2). TLS 1.3 alone: only for servers that are known to speak it.
    pub fn with_grease(&self) -> TlsClient {
        ech::grease().map_or_else(|| self.clone(), |mode| self.derived(mode))
    }

    fn derived(&self, mode: EchMode) -> TlsClient {
        TlsClient { connector: self.parts.connector(Some(mode)), parts: self.parts.clone() }
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
        let tried = match tcp.peer_addr() {
            Ok(peer) => format!("connect to {peer}"),
            Err(_) => format!("connect to {server_name}"),
        };
        self.connect_over(tcp, server_name, tried, deadline).await
    }

    /// As [`connect`](Self::connect), on any connection. `tried` begins the text of an error.
    pub(crate) async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        server_name: &str,
        tried: String,
        deadline: Instant,
    ) -> Result<(RustlsStream<S>, TlsInfo), Error> {
        let start = tokio::time::Instant::now();
        let name = parse_name(server_name, &tried)?;
        let handshake = self.connector.0.connect(name, stream);
        let stream = match tokio::time::timeout_at(deadline.into(), handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(explain(error, tried, server_name)),
            Err(_) => return Err(Error::timed_out(Phase::Tls, tried, start.elapsed())),
        };
        let info = TlsInfo::of(&stream, start.elapsed());
        Ok((stream, info))
    }
}

impl Parts {
    fn connector(&self, ech: Option<EchMode>) -> Connector {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = match ech {
            Some(mode) => builder.with_ech(mode),
            None => builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]),
        };
        let mut config = builder
            .expect("the provider has suites for both versions")
            // The word is for verifiers that check less than rustls' own; these check that, or that and more.
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(self.certificates.clone());
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = Resumption::store(self.sessions.clone());
        Connector(TlsConnector::from(Arc::new(config)))
    }
}

/// We have no certificate of our own to show. rustls' way of saying so makes a new one each time, under which no session
/// of another client resumes.
#[derive(Debug, Default)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The chain must lead to one of `roots`, and the name must be in the certificate.
fn usual_verifier(roots: &TlsRoots) -> Result<Arc<WebPkiServerVerifier>, RootsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.store()?, provider).build();
    Ok(verifier.expect("the store has a root, and no revocation list is given"))
}

impl TlsInfo {
    fn of<S>(stream: &RustlsStream<S>, handshake: Duration) -> TlsInfo {
        let (_, connection) = stream.get_ref();
        TlsInfo {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            handshake,
            ech: EchStatus::of(connection.ech_status()),
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
        rustls::Error::InvalidCertificate(
            reason @ rustls::CertificateError::NotValidForNameContext { expected, .. },
        ) => {
            // Not always the name asked for: a rejected client hello is answered in the public name.
            (ErrorKind::Certificate, certificate::explain(reason, &expected.to_str()))
        }
        rustls::Error::InvalidCertificate(reason) => {
            (ErrorKind::Certificate, certificate::explain(reason, server_name))
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(_)) => {
            (ErrorKind::Tls, "encrypted client hello rejected: the server does not have the published key".to_owned())
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

/// Reads a PEM file. One that is larger than any bundle is a device, or something else by mistake.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    let read = File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut pem)?;
    if read as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    Ok(pem)
}

const FILE_MAX: u64 = 4 << 20;

/// TLS 1.3 keeps up to eight tickets for each name; a client has one name, rarely a few.
const SESSIONS_MAX: usize = 32;

#[cfg(test)]
mod tests;
