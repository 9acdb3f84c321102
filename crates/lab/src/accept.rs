//! Listeners: each accepts connections, shakes hands where TLS is spoken, and owns its connections' tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::core::{Core, Transport, stopped};
use crate::counters::{ClosedBy, Handshake};
use crate::socket::{Connection, Layer, Meter, Shared, Stream};
use crate::{CloseKind, https, stream};

/// Binds a listener whose backlog holds a burst of dials.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the lab stops, and then ends them all.
pub(crate) async fn serve(core: Arc<Core>, transport: Transport, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut control = core.watch();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut control) => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    connections.spawn(run(open(&core, transport, tcp, peer), tls.clone()));
                }
                // Out of file descriptors, most likely. Trying at once again would only spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

fn open(core: &Arc<Core>, transport: Transport, tcp: TcpStream, peer: SocketAddr) -> Connection {
    core.tally(transport).accepted(peer);
    // Without effect on a socket that its peer has reset already.
    let _ = tcp.set_nodelay(true);
    let mut control = core.watch();
    let closes = control.borrow_and_update().closes;
    Connection {
        core: Arc::clone(core),
        transport,
        tcp: Arc::new(tcp),
        meter: Arc::new(Meter::new(Arc::clone(core), transport)),
        control,
        closes,
    }
}

async fn run(mut connection: Connection, tls: Option<TlsAcceptor>) {
    if connection.core.faults().refuse {
        return connection.end((), CloseKind::Reset).await;
    }
    let meter = Arc::clone(&connection.meter);
    let shared = Shared(Arc::clone(&connection.tcp));
    let Some(tls) = tls else {
        return stream::serve(connection, Stream { layer: Layer::Plain(shared), meter }).await;
    };
    let accept = Box::pin(tls.accept(shared));
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_MAX, accept) => accepted,
        kind = connection.closed() => return connection.end((), kind).await,
    };
    let Ok(Ok(tls)) = accepted else {
        connection.core.tally(connection.transport).handshake(Handshake::Failed);
        return meter.closed(ClosedBy::Peer);
    };
    connection.core.tally(connection.transport).handshake(outcome(&tls));
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stream { layer: Layer::Tls(Box::new(tls)), meter };
    match connection.transport {
        Transport::Https if h2 => Box::pin(https::h2::serve(connection, stream)).await,
        Transport::Https => Box::pin(https::h1::serve(connection, stream)).await,
        _ => Box::pin(stream::serve(connection, stream)).await,
    }
}

fn outcome(tls: &TlsStream<Shared>) -> Handshake {
    match tls.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        _ => Handshake::Full,
    }
}

/// Linux lowers it to net.core.somaxconn, which is 4096 by default.
const BACKLOG: i32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// A client that takes longer has failed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
