//! Accepts the connections of one address, acts on the faults that come before HTTP, and shakes hands.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Connection;
use super::site::Site;
use super::{h1, h2};
use crate::CloseKind;
use crate::counters::ClosedBy;
use crate::socket::Shared;

/// Accepts connections until the lab stops, and then ends them all.
pub(super) async fn serve(site: Arc<Site>) {
    let mut control = site.watch();
    let mut connections = JoinSet::new();
    while !control.borrow_and_update().stopping {
        let listener = site.listener();
        tokio::select! {
            changed = control.changed() => if changed.is_err() {
                break;
            },
            accepted = accept(listener.as_deref()) => match accepted {
                Some(tcp) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(run(Connection::new(Arc::clone(&site), tcp)));
                }
                Some(_) => {}
                // The gate was shut, or there are no file descriptors left. Trying at once again would only spin.
                None => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(tcp, _)| tcp),
        None => std::future::pending().await,
    }
}

async fn run(mut connection: Connection) {
    let (faults, tls) = {
        let control = connection.site.watch();
        let control = control.borrow();
        (Arc::clone(&control.faults), Arc::clone(&control.tls))
    };
    if faults.reset_accept {
        return connection.end((), CloseKind::Reset).await;
    }
    if faults.hang {
        return connection.end((), CloseKind::Silence).await;
    }
    if faults.hang_tls || faults.plain_http {
        let (answer, end) = if faults.hang_tls { (RECORD, CloseKind::Silence) } else { (BAD_REQUEST, CloseKind::Fin) };
        let _ = connection.tcp.readable().await;
        let _ = Shared(Arc::clone(&connection.tcp)).write_all(answer).await;
        return connection.end((), end).await;
    }
    let accept = Box::pin(TlsAcceptor::from(tls).accept(Shared(Arc::clone(&connection.tcp))));
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_MAX, accept) => accepted,
        () = connection.reset() => return connection.end((), CloseKind::Reset).await,
    };
    let Ok(Ok(tls)) = accepted else {
        connection.life.closed(ClosedBy::Peer);
        connection.site.count(|counters| counters.handshakes_failed += 1);
        // An alert may be on its way.
        return connection.end((), CloseKind::Fin).await;
    };
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    count(&connection, &tls, h2);
    connection.sni = tls.get_ref().1.server_name().unwrap_or_default().into();
    if h2 {
        Box::pin(h2::serve(connection, tls)).await;
    } else {
        Box::pin(h1::serve(connection, tls)).await;
    }
}

fn count(connection: &Connection, tls: &TlsStream<Shared>, h2: bool) {
    let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    connection.site.count(|counters| {
        *(if resumed { &mut counters.handshakes_resumed } else { &mut counters.handshakes_full }) += 1;
        *(if h2 { &mut counters.connections_h2 } else { &mut counters.connections_h1 }) += 1;
    });
}

/// The head of a handshake record that never comes.
const RECORD: &[u8] = &[22, 3, 3, 0, 122, 2];
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Connections of one address at a time; one more is closed at once, and not counted.
const CONNECTIONS_MAX: usize = 16_384;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// A client that takes longer has failed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
