//! Clients on TCP (RFC 7766): queries pipelined, answers in the order in which they come, limits on everything.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant as Clock, sleep_until},
};

use super::{access::Permit, flight::Client, worker::Worker};
use crate::{
    framing::{next_frame, push_frame},
    upstream::count,
};

/// A client's connection, as those see it who answer.
#[derive(Default)]
pub(crate) struct TcpClient {
    output: RefCell<BytesMut>,
    in_flight: Cell<usize>,
    closing: Cell<bool>,
    wake: Notify,
}

impl TcpClient {
    /// Queues an answer.
    pub(crate) fn answer(&self, message: &[u8]) {
        // An answer cannot be longer than a DNS message; if it were, the client is better off with a closed connection.
        if !push_frame(&mut self.output.borrow_mut(), message) {
            self.closing.set(true);
        }
        self.in_flight.set(self.in_flight.get() - 1);
        self.wake.notify_one();
    }

    /// Ends the connection: its bytes are not DNS.
    pub(crate) fn close(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.closing.set(true);
        self.wake.notify_one();
    }
}

/// Accepts until the worker stops listening.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    while worker.listening.get() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.stop_listening.notified() => return,
        };
        match accepted {
            Ok((stream, peer)) => match worker.shared.access.admit(peer.ip()) {
                Some(permit) => {
                    let client = serve(worker.clone(), stream, peer, permit);
                    tokio::task::spawn_local(client);
                }
                None => count(&worker.shared.counters.tcp_rejected),
            },
            Err(error) => {
                // EMFILE and the like: the connection stays in the backlog, so give others time to end.
                count(&worker.shared.counters.local_errors);
                tracing::warn!(%error, "cannot accept a client: local shortage");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client until it leaves, idles too long or misbehaves.
async fn serve(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, permit: Permit) {
    let limits = worker.shared.config.clients;
    let client = Rc::new(TcpClient::default());
    let allowed = worker.shared.access.allows(peer.ip());
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    let mut input = BytesMut::with_capacity(INPUT);
    let mut writing = BytesMut::new();
    let mut active = Clock::now();
    let mut ended = false;
    loop {
        while client.in_flight.get() < limits.tcp_max_in_flight && !client.closing.get() {
            let Some(query) = next_frame(&mut input) else { break };
            client.in_flight.set(client.in_flight.get() + 1);
            worker.ask(&query, Client::Tcp(client.clone()), allowed, Clock::now().into_std());
        }
        if !writing.has_remaining() {
            writing = client.output.take();
        }
        let in_flight = client.in_flight.get();
        let quiet = in_flight == 0 && writing.is_empty();
        if quiet && (ended || client.closing.get() || !worker.listening.get()) {
            break;
        }
        // A client that does not read its answers gets no more of them.
        let reads = !ended
            && !client.closing.get()
            && in_flight < limits.tcp_max_in_flight
            && client.output.borrow().len() + writing.len() < OUTPUT_MAX;
        tokio::select! {
            biased;
            written = writer.write_buf(&mut writing), if writing.has_remaining() => match written {
                Ok(_) => active = Clock::now(),
                Err(_) => break,
            },
            () = client.wake.notified() => active = Clock::now(),
            read = reader.read_buf(&mut input), if reads => match read {
                // RFC 7766 section 6.2.4: a half-closed client still gets its answers.
                Ok(0) => ended = true,
                Ok(_) => active = Clock::now(),
                Err(_) => break,
            },
            () = worker.stop_listening.notified() => {}
            () = sleep_until(active + limits.tcp_idle_timeout), if in_flight == 0 || writing.has_remaining() => break,
        }
    }
    let _ = writer.shutdown().await;
    // Queries still in flight answer into the void.
    drop(permit);
}

const INPUT: usize = 4096;

/// Answers that may wait for a client that reads slowly.
const OUTPUT_MAX: usize = 256 * 1024;

/// Pause after a failed accept.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
