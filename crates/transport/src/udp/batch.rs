//! Many datagrams with one system call (recvmmsg, sendmmsg), where the system has that; one by one elsewhere.
//!
//! A [`DatagramBatch`] holds what the calls need and is used for many sockets in turn; nothing is allocated per datagram.
//! What is deliberately not here: whose datagrams these are, and when a queue is sent.

use std::{io, net::SocketAddr};

use tokio::{io::Interest, net::UdpSocket};

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))]
#[path = "batch/mmsg.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd")))]
#[path = "batch/single.rs"]
mod system;
// Tested where it is not used, so that it works where it is.
#[cfg(all(test, any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd")))]
mod single;

/// Datagrams that one call moves at most.
pub const BATCH: usize = 64;

/// The largest DNS message; larger datagrams are cut to this.
const DATAGRAM_MAX: usize = 65_535;

/// Receives and sends datagrams in batches of up to [`BATCH`].
///
/// Its buffers take 4 MiB of address space and as much memory as the largest datagrams received needed, in pages: 256 KiB
/// for DNS as it usually is.
pub struct DatagramBatch {
    buffer: Vec<u8>,
    received: Vec<Received>,
    system: system::Headers,
}

/// What addresses a call carries.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Connected,
    Ipv4,
    Ipv6,
}

struct Received {
    length: usize,
    peer: Option<SocketAddr>,
}

/// Datagrams that wait to be sent on one socket.
#[derive(Debug, Default)]
pub struct SendQueue {
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    start: usize,
    end: usize,
    peer: Option<SocketAddr>,
}

impl Default for DatagramBatch {
    fn default() -> Self {
        DatagramBatch::new()
    }
}

impl DatagramBatch {
    /// A batch that has received nothing.
    pub fn new() -> DatagramBatch {
        // Zeroed pages are the system's until they are written to.
        let buffer = vec![0; BATCH * DATAGRAM_MAX];
        DatagramBatch { buffer, received: Vec::with_capacity(BATCH), system: system::Headers::new() }
    }

    /// Receives what is there, at most [`BATCH`] datagrams, in place of what was received before; returns how many.
    /// `ipv6` says of which family the socket is. Nothing there is 0, and so is a socket that tokio holds for not readable.
    ///
    /// # Errors
    /// What the system reports, such as the ICMP answer to an earlier datagram. [`datagrams`](Self::datagrams) has what came
    /// before it, and more may wait behind it.
    pub fn receive_from(&mut self, socket: &UdpSocket, ipv6: bool) -> io::Result<usize> {
        self.receive_as(socket, if ipv6 { Kind::Ipv6 } else { Kind::Ipv4 })
    }

    /// Receives on a connected socket; the peer is known, so no addresses are asked for. See
    /// [`receive_from`](Self::receive_from).
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.receive_as(socket, Kind::Connected)
    }

    /// Waits until datagrams or an error of an earlier one can be [received](Self::receive). tokio's own `readable` does not
    /// wake for errors.
    ///
    /// # Errors
    /// When the runtime shuts down.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(socket: &UdpSocket) -> io::Result<()> {
        socket.ready(Interest::READABLE.add(Interest::ERROR)).await.map(|_| ())
    }

    fn receive_as(&mut self, socket: &UdpSocket, kind: Kind) -> io::Result<usize> {
        self.received.clear();
        let mut tried = None;
        // tokio keeps errors apart from datagrams, and knows no call for either.
        for interest in [Interest::READABLE, Interest::ERROR] {
            let (buffer, received) = (&mut self.buffer, &mut self.received);
            let _ = socket.try_io(interest, || {
                let result = self.system.receive(socket, kind, buffer, |length, peer| {
                    received.push(Received { length, peer });
                });
                // Fewer than a batch: the queue was empty when the call returned, and the next datagram is a new event.
                // Saying so here spares the call that would only find that out.
                let more = interest == Interest::READABLE && (result.is_err() || received.len() == BATCH);
                let done = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
                tried = Some(result);
                if more && !done { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            if tried.is_some() {
                break;
            }
        }
        match tried {
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(self.received.len()),
        }
    }

    /// What was received last, in order; the peer where [`receive_from`](Self::receive_from) was called.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        let slots = self.buffer.chunks_exact(DATAGRAM_MAX).zip(&self.received);
        slots.map(|(slot, received)| (&slot[..received.length.min(slot.len())], received.peer))
    }

    /// Sends the messages of `queue` from number `first` on, at most [`BATCH`] with one call; returns how many. All of a
    /// queue's messages have a peer, of one family, or none has.
    ///
    /// # Errors
    /// Of the first message that was tried; `WouldBlock` when the socket's send buffer is full.
    pub fn send(&mut self, socket: &UdpSocket, queue: &SendQueue, first: usize) -> io::Result<usize> {
        let messages = &queue.messages[first..queue.messages.len().min(first + BATCH)];
        let kind = match messages.first() {
            None => return Ok(0),
            Some(Message { peer: None, .. }) => Kind::Connected,
            Some(Message { peer: Some(peer), .. }) if peer.is_ipv6() => Kind::Ipv6,
            Some(_) => Kind::Ipv4,
        };
        self.system.send(socket, kind, &queue.bytes, messages)
    }
}

impl SendQueue {
    /// Adds a message; `peer` is `None` on a connected socket.
    pub fn push(&mut self, message: &[u8], peer: Option<SocketAddr>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.messages.push(Message { start, end: self.bytes.len(), peer });
    }

    /// The bytes of a message.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn message(&self, number: usize) -> &[u8] {
        let message = self.messages[number];
        &self.bytes[message.start..message.end]
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets all messages. What one burst needed is not kept for ever.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
        self.messages.shrink_to(MESSAGES_KEPT);
        self.bytes.shrink_to(BYTES_KEPT);
    }
}

/// Room that an empty queue keeps.
const MESSAGES_KEPT: usize = 2 * BATCH;
const BYTES_KEPT: usize = 32 * 1024;

#[cfg(test)]
mod tests;
