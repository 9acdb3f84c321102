//! Reads datagrams: clients' on the listeners, answers on the upstream sockets. One task a socket.

use std::{rc::Rc, sync::Arc};

use tokio::{net::UdpSocket, time::Instant as Clock};

use super::{flight::Client, worker::Worker};
use crate::upstream::UdpConnection;

/// Reads a listener until the worker stops listening.
pub(crate) async fn read_clients(worker: Rc<Worker>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; DATAGRAM_MAX];
    while worker.listening.get() {
        tokio::select! {
            ready = socket.readable() => if ready.is_err() {
                return;
            },
            () = worker.stop_listening.notified() => return,
        }
        // Bounded, so that other sockets of this worker have their turn.
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, peer)) => {
                    let client = Client::Udp { socket: socket.clone(), peer };
                    let allowed = worker.shared.access.allows(peer.ip());
                    worker.ask(&buffer[..length], client, allowed, Clock::now().into_std());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier answer: that client is gone, the listener is not.
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Reads an upstream socket until its pool lets it go.
pub(crate) async fn read_upstream(worker: Rc<Worker>, connection: Arc<UdpConnection>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            ready = connection.socket.readable() => if ready.is_err() {
                return;
            },
            () = connection.released.notified() => return,
        }
        for _ in 0..BATCH {
            match connection.socket.try_recv(&mut buffer) {
                Ok(length) => worker.received(&connection, &buffer[..length], Clock::now().into_std()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    worker.socket_failed(&connection, &error, Clock::now().into_std());
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Datagrams taken from one socket before others have their turn.
const BATCH: usize = 64;

/// The largest DNS message; what is larger than what was advertised is still read whole, not cut.
const DATAGRAM_MAX: usize = 65_535;
