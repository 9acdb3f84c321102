//! What quinn does not tell of a handshake: whether the session was resumed, why a certificate was refused, and what the
//! peer's transport parameters are.
//!
//! A session that is resumed shows no certificate, so that the verifier is not asked. It is shared by all connections, since
//! rustls resumes with the verifier that it began with alone; it is called by the session's own thread while the session
//! reads, which is how its word finds the right one.

use std::{any::Any, cell::RefCell, sync::Arc, time::Duration};

use parking_lot::Mutex;
use quinn::{
    ConnectError, ConnectionId, Side,
    crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, rustls::QuicClientConfig},
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What became of one handshake.
#[derive(Debug, Default)]
pub(super) struct Handshake(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    verdict: Option<Verdict>,
    peer: PeerLimits,
}

/// What a certificate was found to be.
type Verdict = Result<(), rustls::Error>;

/// What the peer says of itself (RFC 9000 section 18.2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerLimits {
    pub(super) max_streams: u64,
    pub(super) idle_timeout: Option<Duration>,
}

impl Handshake {
    /// Whether a certificate was shown and found good.
    pub(super) fn verified(&self) -> bool {
        matches!(self.0.lock().verdict, Some(Ok(())))
    }

    /// Why the certificate was refused.
    pub(super) fn refusal(&self) -> Option<rustls::Error> {
        self.0.lock().verdict.clone().and_then(Result::err)
    }

    pub(super) fn peer(&self) -> PeerLimits {
        self.0.lock().peer
    }
}

impl PeerLimits {
    fn of(parameters: &TransportParameters) -> PeerLimits {
        let mut written = Vec::new();
        parameters.write(&mut written);
        PeerLimits::read(&written).unwrap_or_default()
    }

    /// RFC 9000 section 18: id, length, value. quinn has no accessors, but writes what it read.
    fn read(mut bytes: &[u8]) -> Option<PeerLimits> {
        let mut limits = PeerLimits::default();
        while !bytes.is_empty() {
            let id = varint(&mut bytes)?;
            let length = usize::try_from(varint(&mut bytes)?).ok()?;
            let (mut value, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            match id {
                MAX_IDLE_TIMEOUT => {
                    let millis = varint(&mut value)?;
                    limits.idle_timeout = (millis > 0).then(|| Duration::from_millis(millis));
                }
                INITIAL_MAX_STREAMS_BIDI => limits.max_streams = varint(&mut value)?,
                _ => {}
            }
        }
        Some(limits)
    }
}

/// RFC 9000 section 16: the first two bits tell the length.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_at_checked(1 << (bytes.first()? >> 6))?;
    *bytes = rest;
    let value = head.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some(value & ((1 << (head.len() * 8 - 2)) - 1))
}

thread_local! {
    /// The verdict of the handshake that this thread is in the middle of.
    static VERDICT: RefCell<Option<Verdict>> = const { RefCell::new(None) };
}

/// Verifies certificates as rustls does, and leaves word of it.
#[derive(Debug)]
pub(super) struct Verifier(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        VERDICT.set(Some(verified.as_ref().map(|_| ()).map_err(Clone::clone)));
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The TLS settings of one handshake, whose fate is noted.
pub(super) struct Watched {
    inner: Arc<QuicClientConfig>,
    handshake: Arc<Handshake>,
}

impl Watched {
    pub(super) fn new(inner: Arc<QuicClientConfig>, handshake: Arc<Handshake>) -> Watched {
        Watched { inner, handshake }
    }
}

impl crypto::ClientConfig for Watched {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let inner = self.inner.clone().start_session(version, server_name, params)?;
        Ok(Box::new(Session { inner, handshake: self.handshake.clone() }))
    }
}

/// A session of quinn's, listened to.
struct Session {
    inner: Box<dyn crypto::Session>,
    handshake: Arc<Handshake>,
}

impl crypto::Session for Session {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        VERDICT.set(None);
        let result = self.inner.read_handshake(buf);
        if let Some(verdict) = VERDICT.take() {
            self.handshake.0.lock().verdict = Some(verdict);
        }
        result
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let parameters = self.inner.transport_parameters()?;
        if let Some(parameters) = &parameters {
            self.handshake.0.lock().peer = PeerLimits::of(parameters);
        }
        Ok(parameters)
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

const MAX_IDLE_TIMEOUT: u64 = 0x01;
const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_among_other_parameters() {
        let bytes = [0x04, 0x01, 0x05, 0x08, 0x02, 0x40, 0x64, 0x01, 0x04, 0x80, 0x00, 0x75, 0x30, 0x0c, 0x00];
        let limits = PeerLimits { max_streams: 100, idle_timeout: Some(Duration::from_secs(30)) };
        assert_eq!(PeerLimits::read(&bytes), Some(limits));
        assert_eq!(PeerLimits::read(&[]), Some(PeerLimits::default()));
        assert_eq!(PeerLimits::read(&[0x01, 0x01, 0x00]), Some(PeerLimits::default()));
    }

    #[test]
    fn what_is_cut_short_is_no_limit() {
        assert_eq!(PeerLimits::read(&[0x08]), None);
        assert_eq!(PeerLimits::read(&[0x08, 0x02, 0x40]), None);
        assert_eq!(PeerLimits::read(&[0x08, 0x00]), None);
    }
}
