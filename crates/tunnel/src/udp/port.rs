//! A UDP socket with what could not be sent at once.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    task::{Context, Poll, ready},
};

use keepwarm_transport::{error::Error, udp};
use tokio::{io::ReadBuf, net::UdpSocket};

use super::counters::UdpDropped;

/// An unconnected socket: the system reports no ICMP errors on it, so that one destination cannot disturb another's datagrams.
#[derive(Debug)]
pub(super) struct Port {
    socket: UdpSocket,
    address: SocketAddr,
    queue: Queue<(SocketAddr, Box<[u8]>)>,
}

/// Datagrams that wait, at most [`QUEUE_MAX`] of them and [`QUEUE_BYTES_MAX`] bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: VecDeque<T>,
    bytes: usize,
}

impl Port {
    /// Opens a socket at `local`, at a port of the system's choice where that has none.
    pub(super) fn open(local: SocketAddr) -> Result<Port, Error> {
        let socket = udp::listen(local, false, None)?;
        let fail =
            |error| Error::from_io(error, keepwarm_transport::error::Phase::Listen, format!("listen on {local}"));
        let address = socket.local_addr().map_err(fail)?;
        Ok(Port { socket, address, queue: Queue::default() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the next datagram: its length in `buffer`, and who sent it. The length field of UDP has 16 bits, so a buffer of
    /// [`DATAGRAM_MAX`] cuts none.
    pub(super) fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        let from = ready!(self.socket.poll_recv_from(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), from)))
    }

    /// Sends, or keeps what the socket does not take now until [`poll_flush`](Self::poll_flush).
    pub(super) fn send(&mut self, datagram: &[u8], to: SocketAddr) -> Result<(), UdpDropped> {
        if datagram.len() > datagram_max(to) {
            return Err(UdpDropped::TooLarge);
        }
        if self.queue.is_empty() {
            match self.socket.try_send_to(datagram, to) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(UdpDropped::Failed),
            }
        }
        if self.queue.push(datagram.len(), || (to, datagram.into())) { Ok(()) } else { Err(UdpDropped::Full) }
    }

    /// Sends what waits; tells how many the system did not take after all.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> usize {
        let mut failed = 0;
        while let Some((to, datagram)) = self.queue.first() {
            match self.socket.poll_send_to(cx, datagram, *to) {
                Poll::Pending => break,
                Poll::Ready(result) => failed += usize::from(result.is_err()),
            }
            let bytes = datagram.len();
            self.queue.pop(bytes);
        }
        failed
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends an item of `bytes`, unless there is no room for it.
    pub(super) fn push(&mut self, bytes: usize, item: impl FnOnce() -> T) -> bool {
        let fits = self.items.len() < QUEUE_MAX && self.bytes + bytes <= QUEUE_BYTES_MAX;
        if fits {
            self.bytes += bytes;
            self.items.push_back(item());
        }
        fits
    }

    pub(super) fn into_items(self) -> VecDeque<T> {
        self.items
    }

    fn first(&self) -> Option<&T> {
        self.items.front()
    }

    /// Removes the first item, which is one of `bytes`.
    fn pop(&mut self, bytes: usize) {
        self.items.pop_front();
        self.bytes -= bytes;
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { items: VecDeque::new(), bytes: 0 }
    }
}

/// `0.0.0.0` or `::` with a port.
pub(super) fn unspecified(ipv4: bool, port: u16) -> SocketAddr {
    if ipv4 { (Ipv4Addr::UNSPECIFIED, port).into() } else { (Ipv6Addr::UNSPECIFIED, port).into() }
}

/// What fits into a datagram behind the headers of IP and UDP; that of IPv4 counts in the length (RFC 791 section 3.1), that of IPv6
/// does not (RFC 8200 section 3).
fn datagram_max(to: SocketAddr) -> usize {
    if to.is_ipv4() { 65_535 - 20 - 8 } else { 65_535 - 8 }
}

/// No datagram is longer.
pub(super) const DATAGRAM_MAX: usize = 65_535;

/// A burst that comes while the socket's own buffer is full; more is better dropped than late.
const QUEUE_MAX: usize = 64;
const QUEUE_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_full_by_count_and_by_bytes() {
        let mut queue = Queue::default();
        for item in 0..QUEUE_MAX {
            assert!(queue.push(1, || item));
        }
        assert!(!queue.push(1, || unreachable!("no room")));
        queue.pop(1);
        assert!(!queue.push(QUEUE_BYTES_MAX, || unreachable!("no room")));
        assert!(queue.push(QUEUE_BYTES_MAX - QUEUE_MAX + 1, || 64));
        assert_eq!((queue.first(), queue.bytes), (Some(&1), QUEUE_BYTES_MAX));
    }

    #[tokio::test]
    async fn the_longest_datagram_goes_through_and_a_longer_one_does_not() {
        let mut sender = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let receiver = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let longest = vec![7; 65_507];
        assert_eq!(sender.send(&longest, receiver.address()), Ok(()));
        let mut buffer = vec![0; DATAGRAM_MAX];
        let (length, from) = std::future::poll_fn(|cx| {
            assert_eq!(sender.poll_flush(cx), 0);
            receiver.poll_recv(cx, &mut buffer)
        })
        .await
        .unwrap();
        assert_eq!((&buffer[..length], from), (longest.as_slice(), sender.address()));
        assert_eq!(sender.send(&[7; 65_508], receiver.address()), Err(UdpDropped::TooLarge));
    }
}
