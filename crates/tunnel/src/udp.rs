//! UDP ASSOCIATE (RFC 1928 section 7) for clients: their datagrams go out by the rules, and the answers come back with their sender's
//! address.
//!
//! An association lives as long as the TCP connection that asked for it. It is one task and one socket towards the client, on the
//! address that the client reached us at. Datagrams leave from sockets of their own, so nothing that a client can send reaches
//! another client's association. What is deliberately not here: the handshake before the request, and putting parts of datagrams
//! together (FRAG).

mod association;
mod client;
mod counters;
mod direct;
mod find;
mod header;
mod port;
mod relays;
mod routes;

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tracing::debug;

pub(crate) use self::counters::Counters;
pub use self::counters::{UdpDropped, UdpStats};
use self::{
    association::{Association, End},
    counters::Counted,
    find::Asker,
    port::Port,
};
use crate::{
    Connector, ErrorKind,
    server::{Shared, destination::OwnNow, is_remote, linger::last_word},
    socks::Version,
};

/// Answers a UDP ASSOCIATE, success or not, and serves it until it ends: with `control`, idle, or with the server.
///
/// `declared` is DST.ADDR and DST.PORT of the request: where the client says that its datagrams will come from. All zeros: it does
/// not know. A name there (PySocks writes `0`) is to be passed as `0.0.0.0` with its port.
///
/// # Cancel safety
/// Dropping the future ends the association.
pub(crate) async fn associate(control: TcpStream, declared: SocketAddr, shared: &Shared) {
    serve(control, declared, &shared.connector, shared.own(), &shared.udp, shared.closing.subscribe()).await;
}

async fn serve(
    mut control: TcpStream,
    declared: SocketAddr,
    connector: &Connector,
    own: &OwnNow,
    counters: &Arc<Counters>,
    closing: watch::Receiver<bool>,
) {
    let handshake_timeout = connector.config().handshake_timeout;
    let (association, bound, counted) = match open(&control, declared, connector, own, counters) {
        Ok(opened) => opened,
        Err(why) => {
            counters.refused();
            return last_word(control, &Version::V5.failure(why)).await;
        }
    };
    let reply = Version::V5.success(Some(bound));
    if !matches!(timeout(handshake_timeout, control.write_all(&reply)).await, Ok(Ok(()))) {
        return;
    }
    counters.opened();
    let start = Instant::now();
    let why = live(control, association, closing).await;
    drop(counted);
    debug!(%bound, why, after = ?start.elapsed(), "udp association ended");
}

/// Opens the relay's socket.
fn open(
    control: &TcpStream,
    declared: SocketAddr,
    connector: &Connector,
    own: &OwnNow,
    counters: &Arc<Counters>,
) -> Result<(Association, SocketAddr, Counted), ErrorKind> {
    let config = connector.config().udp.clone();
    if !config.enabled {
        return Err(ErrorKind::Unsupported);
    }
    let counted = counters.open(config.max_associations).ok_or(ErrorKind::Busy)?;
    let local = || -> io::Result<_> { Ok((control.local_addr()?, control.peer_addr()?)) };
    let (mut local, peer) = local().map_err(|_| ErrorKind::Local)?;
    // The one address of ours that the client is known to reach. A listener for all families tells IPv4 ones as mapped.
    local.set_ip(local.ip().to_canonical());
    local.set_port(0);
    let relay = Port::open(local).map_err(|error| {
        debug!(%error, "udp association without a socket");
        ErrorKind::Local
    })?;
    let bound = relay.address();
    debug!(client = %peer, %bound, "udp association opened");
    let asker = Asker { connector: connector.clone(), own: own.clone(), remote: is_remote(peer) };
    Ok((Association::new(asker, counters.clone(), relay, peer, declared), bound, counted))
}

/// Serves an association; tells what it ended with.
async fn live(
    mut control: TcpStream,
    mut association: Association,
    mut closing: watch::Receiver<bool>,
) -> &'static str {
    tokio::select! {
        () = ended(&mut control) => "the client closed",
        _ = closing.wait_for(|closing| *closing) => "the server stops",
        end = poll_fn(|cx| association.poll(cx)) => match end {
            End::Idle => "idle",
            End::Failed => "its socket failed",
        },
    }
}

/// Completes with the end of the control connection. RFC 1928 has nothing that is sent there after the request, so what comes is
/// dropped.
async fn ended(control: &mut TcpStream) {
    let mut ignored = [0; 256];
    while matches!(control.read(&mut ignored).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests;
