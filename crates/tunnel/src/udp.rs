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

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;
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
    port::Port,
};
use crate::{Connector, server::Shared};

/// Answers a UDP ASSOCIATE, success or not, and serves it until it ends: with `control`, idle, or with the server.
///
/// `declared` is DST.ADDR and DST.PORT of the request: where the client says that its datagrams will come from. All zeros: it does
/// not know. A name there (PySocks writes `0`) is to be passed as `0.0.0.0` with its port.
///
/// # Cancel safety
/// Dropping the future ends the association.
pub(crate) async fn associate(control: TcpStream, declared: SocketAddr, shared: &Shared) {
    serve(control, declared, &shared.connector, &shared.udp, shared.closing.subscribe()).await;
}

async fn serve(
    mut control: TcpStream,
    declared: SocketAddr,
    connector: &Connector,
    counters: &Arc<Counters>,
    closing: watch::Receiver<bool>,
) {
    let handshake_timeout = connector.config().handshake_timeout;
    let (association, bound, counted) = match open(&control, declared, connector, counters) {
        Ok(opened) => opened,
        Err(code) => {
            counters.refused();
            return refuse(control, code, handshake_timeout).await;
        }
    };
    let reply = reply(SUCCEEDED, bound);
    if !matches!(timeout(handshake_timeout, control.write_all(&reply)).await, Ok(Ok(()))) {
        return;
    }
    counters.opened();
    let start = Instant::now();
    let why = live(control, association, closing).await;
    drop(counted);
    debug!(%bound, why, after = ?start.elapsed(), "udp association ended");
}

/// Opens the relay's socket; the error is a reply code.
fn open(
    control: &TcpStream,
    declared: SocketAddr,
    connector: &Connector,
    counters: &Arc<Counters>,
) -> Result<(Association, SocketAddr, Counted), u8> {
    let config = &connector.config().udp;
    if !config.enabled {
        return Err(COMMAND_NOT_SUPPORTED);
    }
    let counted = counters.open(config.max_associations).ok_or(GENERAL_FAILURE)?;
    let local = || -> io::Result<_> { Ok((control.local_addr()?, control.peer_addr()?)) };
    let (mut local, peer) = local().map_err(|_| GENERAL_FAILURE)?;
    // The one address of ours that the client is known to reach. A listener for all families tells IPv4 ones as mapped.
    local.set_ip(local.ip().to_canonical());
    local.set_port(0);
    let relay = Port::open(local).map_err(|error| {
        debug!(%error, "udp association without a socket");
        GENERAL_FAILURE
    })?;
    let bound = relay.address();
    debug!(client = %peer, %bound, "udp association opened");
    Ok((Association::new(connector.clone(), counters.clone(), relay, peer, declared), bound, counted))
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

/// Tells the client why not, and waits for it to close: a connection that is closed with something unread is reset, and the answer
/// lost.
async fn refuse(mut control: TcpStream, code: u8, handshake_timeout: Duration) {
    let reply = reply(code, port::unspecified(true, 0));
    let told = async {
        control.write_all(&reply).await?;
        control.shutdown().await
    };
    if matches!(timeout(handshake_timeout, told).await, Ok(Ok(()))) {
        _ = timeout(LINGER, ended(&mut control)).await;
    }
}

/// RFC 1928 section 6.
fn reply(code: u8, bound: SocketAddr) -> SmallVec<[u8; header::SENDER_MAX]> {
    let mut reply = SmallVec::from_slice(&[VERSION, code, 0]);
    header::append_address(&mut reply, bound);
    reply
}

const VERSION: u8 = 5;
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const COMMAND_NOT_SUPPORTED: u8 = 7;

/// For how long a refused client may leave its end open.
const LINGER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
