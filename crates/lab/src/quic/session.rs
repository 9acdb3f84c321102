//! Whether a handshake resumed a session, which quinn does not tell: a ticket that could be read says so. It is read while
//! the session reads the client's first message, on the same thread, which is how the two are brought together.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion};
use quinn::{Connection, ConnectionId, Side};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;

/// The TLS settings of a listener.
pub(crate) struct Sessions(Arc<QuicServerConfig>);

impl Sessions {
    pub(crate) fn new(mut config: ServerConfig) -> io::Result<Self> {
        config.ticketer = Arc::new(Tickets(Arc::clone(&config.ticketer)));
        Ok(Self(Arc::new(config.try_into().map_err(io::Error::other)?)))
    }
}

/// Whether the client had a ticket for its handshake.
pub(crate) fn is_resumed(connection: &Connection) -> bool {
    connection.handshake_data().is_some_and(|data| data.downcast_ref::<Resumed>().is_some_and(|resumed| resumed.0))
}

struct Resumed(bool);

thread_local! {
    static TICKET_READ: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.0.decrypt(cipher);
        TICKET_READ.set(plain.is_some());
        plain
    }
}

impl crypto::ServerConfig for Sessions {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        Box::new(Session { inner: Arc::clone(&self.0).start_session(version, params), resumed: false })
    }
}

struct Session {
    inner: Box<dyn crypto::Session>,
    resumed: bool,
}

impl crypto::Session for Session {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        TICKET_READ.set(false);
        let result = self.inner.read_handshake(buf);
        self.resumed |= TICKET_READ.take();
        result
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data().map(|_| Box::new(Resumed(self.resumed)) as Box<dyn Any>)
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
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

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
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
