//! QUIC as a client: one client an upstream, one socket a connection.

use crate::tls::{RootsError, TlsRoots};

/// Makes QUIC connections to one upstream.
#[derive(Debug, Clone)]
pub struct QuicClient {
    alpn: Vec<Vec<u8>>,
}

impl QuicClient {
    /// Makes a client that trusts `roots` and offers `alpn`, most wanted first.
    ///
    /// # Errors
    /// When `roots` has no usable certificate.
    pub fn new(roots: &TlsRoots, alpn: &[&[u8]]) -> Result<QuicClient, RootsError> {
        roots.store()?;
        Ok(QuicClient { alpn: alpn.iter().map(|name| name.to_vec()).collect() })
    }
}
