//! The socket under QUIC, made so that the lab can silence a connection, or forget it: quinn can do neither.
//!
//! A client is known by its address here, since each connection of a pool has a socket of its own. What was done to one ends
//! with the first packet of a new connection from there.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

pub(crate) struct Gate {
    inner: Arc<dyn AsyncUdpSocket>,
    key: Arc<ResetKey>,
    shut: Mutex<HashMap<SocketAddr, Shut>>,
}

/// What becomes of a client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    /// Dropped.
    Silent,
    /// Answered with a stateless reset (RFC 9000 section 10.3).
    Forgotten,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, key: Arc<ResetKey>) -> Self {
        Self { inner, key, shut: Mutex::default() }
    }

    /// Nothing passes between this client and the lab any more.
    pub(crate) fn silence(&self, peer: SocketAddr) {
        self.shut.lock().insert(peer, Shut::Silent);
    }

    /// The lab knows nothing of this client's connection any more.
    pub(crate) fn reset(&self, peer: SocketAddr) {
        self.shut.lock().insert(peer, Shut::Forgotten);
    }

    /// Whether a packet may come in.
    fn admits(&self, peer: SocketAddr, packet: &[u8]) -> bool {
        let mut shut = self.shut.lock();
        let Some(how) = shut.get(&peer).copied() else { return true };
        if is_initial(packet) {
            shut.remove(&peer);
            return true;
        }
        drop(shut);
        if how == Shut::Forgotten {
            self.send_reset(peer, packet);
        }
        false
    }

    fn send_reset(&self, peer: SocketAddr, packet: &[u8]) {
        // A reset is shorter than what it answers, so that two such peers do not go on for ever. Long headers get none.
        let (Some(id), true) = (packet.get(1..=ID_LENGTH), packet.len() > RESET_MIN && packet[0] & 0x80 == 0) else {
            return;
        };
        let mut token = [0; 32];
        self.key.sign(id, &mut token);
        let padding = (packet.len() - 1).min(RESET_MAX) - TOKEN_LENGTH;
        let mut reset: Vec<u8> = (0..padding).map(|_| rand::random()).collect();
        // It looks like any packet with a short header.
        reset[0] = 0x40 | (reset[0] & 0x3f);
        reset.extend_from_slice(&token[..TOKEN_LENGTH]);
        let transmit = Transmit { destination: peer, ecn: None, contents: &reset, segment_size: None, src_ip: None };
        // What the socket has no room for is lost, as on any network; the client's next packet is answered again.
        let _ = self.inner.try_send(&transmit);
    }
}

/// RFC 9000 section 17.2.2.
fn is_initial(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xb0 == 0x80)
}

impl AsyncUdpSocket for Gate {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.shut.lock().contains_key(&transmit.destination) {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = match ready!(self.inner.poll_recv(cx, bufs, meta)) {
            Ok(count) => count,
            // An ICMP error about an earlier packet: that client has gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if !self.shut.lock().is_empty() {
            for (meta, buffer) in meta.iter_mut().zip(bufs.iter()).take(count) {
                let packet = &buffer[..meta.len.min(meta.stride)];
                if !self.admits(meta.addr, packet) {
                    // Nothing is left of the datagram for quinn.
                    meta.len = 0;
                }
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("shut", &self.shut).finish_non_exhaustive()
    }
}

/// Makes the tokens of stateless resets. Good enough for loopback, where nobody guesses: a seeded hash, no HMAC.
#[derive(Default)]
pub(crate) struct ResetKey(RandomState);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (number, chunk) in signature_out.chunks_mut(8).enumerate() {
            let hash = self.0.hash_one((number, data)).to_be_bytes();
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; 32];
        self.sign(data, &mut expected);
        if expected == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Bytes of the lab's connection ids.
pub(crate) const ID_LENGTH: usize = 8;
const TOKEN_LENGTH: usize = 16;
/// RFC 9000 section 10.3: shorter ones could be told from other packets.
const RESET_MIN: usize = 21;
const RESET_MAX: usize = 42;
