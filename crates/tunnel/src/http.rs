//! The HTTP proxy: tunnels by CONNECT, and plain `http://` requests in absolute form (RFC 9110 section 9.3.6, RFC 9112 section 3.2).
//!
//! What a request asks for is in `ask`, one request in `exchange`, one client's connection in `connection`, the connection to an origin in
//! `origin`. What is deliberately not here: HTTP/2 from clients, caching, `https://` in absolute form (it would have to be decrypted), and
//! Via, which would tell origins of this proxy.

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::server::{ClientInfo, Shared, Terms};
use connection::Changed;

mod answer;
mod ask;
mod client_io;
mod connection;
mod driver;
mod exchange;
mod fields;
mod hops;
mod origin;
mod refusal;
mod stage;
mod tunnel;
mod upload;

/// Serves a client that speaks HTTP, until it goes, its listener is gone or the server stops. `first` was read from it already.
///
/// # Cancel safety
/// Dropping the future closes the connection and its tunnel.
pub(crate) async fn serve(stream: TcpStream, first: Bytes, shared: Arc<Shared>, client: ClientInfo, terms: Arc<Terms>) {
    let session = Arc::new(Session {
        shared: shared.clone(),
        client,
        terms,
        stage: stage::Stage::new(),
        keeper: origin::Keeper::default(),
        drivers: driver::Drivers::default(),
        unknown: AtomicUsize::new(0),
    });
    // Boxed, so that a tunnel does not keep the room that HTTP took.
    let changed = Box::pin(connection::serve(stream, first, &shared, session)).await;
    if let Some(Changed { client, rest, next }) = changed {
        next(client, rest).await;
    }
}

/// What the requests of one client's connection have in common.
struct Session {
    shared: Arc<Shared>,
    client: ClientInfo,
    terms: Arc<Terms>,
    stage: stage::Stage,
    /// The connection to the origin of the last request. Of this client alone.
    keeper: origin::Keeper,
    /// What drives the connections to origins.
    drivers: driver::Drivers,
    /// Requests of nobody who is known.
    unknown: AtomicUsize,
}

#[cfg(test)]
mod tests;
