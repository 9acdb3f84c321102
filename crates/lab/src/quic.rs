//! DNS over QUIC and over HTTP/3: the listener, and what the connections of both have in common.

mod doq;
mod gate;
mod h3;
mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::RandomConnectionIdGenerator;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::gate::{Gate, ResetKey};
use crate::core::{Control, Core, Transport, stopped};
use crate::counters::{ClosedBy, Handshake};
use crate::socket::Meter;
use crate::tls::Identity;
use crate::{CloseKind, TlsVersions, udp};

/// One listener for DNS over QUIC or over HTTP/3.
pub(crate) struct Listener {
    endpoint: Endpoint,
    gate: Arc<Gate>,
    config: ServerConfig,
    transport: Transport,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, transport: Transport, identity: &Identity) -> io::Result<Self> {
        let protocol = if transport == Transport::H3 { "h3" } else { "doq" };
        let tls = identity.config(TlsVersions::Tls13, &[protocol])?;
        let config = ServerConfig::with_crypto(Arc::new(session::Sessions::new(tls)?));
        let socket = TokioRuntime.wrap_udp_socket(udp::bind(address)?.into_std()?)?;
        let key = Arc::new(ResetKey::default());
        let gate = Arc::new(Gate::new(socket, Arc::clone(&key)));
        let mut settings = EndpointConfig::new(key);
        settings.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(gate::ID_LENGTH)));
        let endpoint = Endpoint::new_with_abstract_socket(
            settings,
            Some(config.clone()),
            Arc::<Gate>::clone(&gate),
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { endpoint, gate, config, transport })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Accepts connections until the lab stops, and then ends them all.
    pub(crate) async fn serve(self, core: Arc<Core>) {
        let mut control = core.watch();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut control) => break,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => {
                        connections.spawn(self.open(&core, incoming));
                    }
                    None => break,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        connections.shutdown().await;
        self.endpoint.close(NO_ERROR, b"");
        // Clients are told, as they are of the end of a TCP connection.
        let _ = tokio::time::timeout(STOP_MAX, self.endpoint.wait_idle()).await;
    }

    /// Takes note of a connection; the future serves it.
    fn open(&self, core: &Arc<Core>, incoming: Incoming) -> impl Future<Output = ()> + Send + use<> {
        let peer = incoming.remote_address();
        core.tally(self.transport).accepted(peer);
        let mut control = core.watch();
        let closes = control.borrow_and_update().closes;
        let faults = core.faults();
        let mut config = self.config.clone();
        config.transport_config(Arc::new(settings(faults.h2_max_streams.unwrap_or(STREAMS_MAX))));
        let line = Line {
            core: Arc::clone(core),
            transport: self.transport,
            gate: Arc::clone(&self.gate),
            peer,
            meter: Arc::new(Meter::new(Arc::clone(core), self.transport)),
            control,
            closes,
        };
        run(line, incoming, config)
    }
}

fn settings(streams: u32) -> TransportConfig {
    let mut settings = TransportConfig::default();
    settings
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MAX_MS))));
    settings
}

async fn run(mut line: Line, incoming: Incoming, config: ServerConfig) {
    if line.core.faults().refuse {
        // Counted before the client can see it.
        line.meter.closed(ClosedBy::Lab);
        return incoming.refuse();
    }
    let Ok(connecting) = incoming.accept_with(Arc::new(config)) else {
        return line.failed();
    };
    let connection = tokio::select! {
        connected = connecting => match connected {
            Ok(connection) => connection,
            Err(_) => return line.failed(),
        },
        // quinn ends the handshake when it is dropped.
        _ = line.closed() => return,
    };
    line.core.tally(line.transport).handshake(match session::is_resumed(&connection) {
        true => Handshake::Resumed,
        false => Handshake::Full,
    });
    match line.transport {
        Transport::H3 => Box::pin(h3::serve(line, connection)).await,
        _ => Box::pin(doq::serve(line, connection)).await,
    }
}

/// What is kept for one connection, beside its streams.
pub(crate) struct Line {
    core: Arc<Core>,
    transport: Transport,
    gate: Arc<Gate>,
    peer: SocketAddr,
    meter: Arc<Meter>,
    control: watch::Receiver<Control>,
    /// [`Control::closes`] when the connection began.
    closes: u64,
}

impl Line {
    fn failed(&self) {
        self.core.tally(self.transport).handshake(Handshake::Failed);
        self.meter.closed(ClosedBy::Peer);
    }

    /// How the connection is to end now, if its owner wants so. Waits for a change of mind or of faults.
    async fn changed(&mut self) -> Option<CloseKind> {
        if self.control.changed().await.is_err() {
            return Some(CloseKind::Reset);
        }
        let control = self.control.borrow_and_update();
        (control.closes != self.closes).then_some(control.close_kind)
    }

    /// Waits until the connection is to end.
    async fn closed(&mut self) -> CloseKind {
        loop {
            if let Some(kind) = self.changed().await {
                return kind;
            }
        }
    }

    /// The client ended the connection, or nothing has been heard of it for long.
    fn lost(&self, error: &ConnectionError) {
        let by = if *error == ConnectionError::LocallyClosed { ClosedBy::Lab } else { ClosedBy::Peer };
        self.meter.closed(by);
    }

    /// Ends a connection. `code` is the application's word for an orderly end.
    async fn end(mut self, connection: &Connection, mut kind: CloseKind, code: VarInt) {
        while kind == CloseKind::Silence {
            self.gate.silence(self.peer);
            self.meter.settle();
            self.closes = self.control.borrow().closes;
            kind = tokio::select! {
                kind = self.closed() => kind,
                error = connection.closed() => return self.lost(&error),
            };
        }
        self.meter.closed(ClosedBy::Lab);
        if kind == CloseKind::Reset {
            self.gate.reset(self.peer);
        }
        connection.close(code, b"");
    }
}

const NO_ERROR: VarInt = VarInt::from_u32(0);
const STREAMS_MAX: u32 = 1_000;
/// How long the lab keeps a connection of which nothing is heard.
const IDLE_MAX_MS: u32 = 300_000;
/// How long the end of all connections may take.
const STOP_MAX: Duration = Duration::from_millis(500);
