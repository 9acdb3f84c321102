//! Datagrams in batches, and waiting for many sockets at once. One system call moves up to `BATCH` datagrams, so that the
//! bench itself costs less than what it measures.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt,
    sockopt::{RcvBufForce, SndBufForce},
};
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use socket2::{Domain, Socket, Type};

/// Datagrams a system call.
pub(crate) const BATCH: usize = 64;
/// Longest datagram; the bench's own are below 100 octets, servers may pad.
const DATAGRAM_MAX: usize = 1536;
type Buffers = Box<[[u8; DATAGRAM_MAX]; BATCH]>;

/// Any free port of this machine alone.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A bound, non-blocking socket with roomy buffers.
pub(crate) fn udp_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, None)?;
    // Beyond the system's limit with the right to it, and up to the limit without.
    if setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(&socket, SndBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

const SOCKET_BUFFER: usize = 8 << 20;

/// A batch of datagrams that came in.
pub(crate) struct Receiver {
    buffers: Buffers,
    headers: MultiHeaders<SockaddrIn>,
    /// Length and sender of each.
    received: Vec<(usize, Option<SockaddrIn>)>,
}

impl Receiver {
    pub(crate) fn new() -> Receiver {
        Receiver { buffers: buffers(), headers: MultiHeaders::preallocate(BATCH, None), received: Vec::new() }
    }

    /// Takes what is there, without waiting, and returns how many came.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> usize {
        let Receiver { buffers, headers, received } = self;
        received.clear();
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        // A refused or unreachable peer shows as an error here; the queries it concerns time out by themselves.
        if let Ok(messages) = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            received.extend(messages.map(|message| (message.bytes, message.address)));
        }
        received.len()
    }

    /// A datagram of the last batch and its sender.
    pub(crate) fn datagram(&self, index: usize) -> (&[u8], Option<SockaddrIn>) {
        let (len, from) = self.received[index];
        (&self.buffers[index][..len.min(DATAGRAM_MAX)], from)
    }
}

/// A batch of datagrams to go out.
pub(crate) struct Sender {
    buffers: Buffers,
    headers: MultiHeaders<SockaddrIn>,
    lens: [usize; BATCH],
    to: [Option<SockaddrIn>; BATCH],
    queued: usize,
}

impl Sender {
    pub(crate) fn new() -> Sender {
        Sender {
            buffers: buffers(),
            headers: MultiHeaders::preallocate(BATCH, None),
            lens: [0; BATCH],
            to: [None; BATCH],
            queued: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queued == BATCH
    }

    /// Adds what `write` writes, unless it writes nothing. `to` is `None` on a connected socket. The batch must not be full.
    pub(crate) fn push(&mut self, to: Option<SockaddrIn>, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if let Some(len) = write(&mut self.buffers[self.queued]) {
            (self.lens[self.queued], self.to[self.queued]) = (len, to);
            self.queued += 1;
        }
    }

    /// Sends the batch and returns how many datagrams the system did not take.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) -> usize {
        let (mut sent, mut refused) = (0, 0);
        while sent < self.queued {
            let Sender { buffers, headers, lens, to, queued } = self;
            let slices: [[IoSlice<'_>; 1]; BATCH] = array::from_fn(|i| [IoSlice::new(&buffers[i][..lens[i]])]);
            let (slices, to) = (&slices[sent..*queued], &to[sent..*queued]);
            let none: [ControlMessage<'_>; 0] = [];
            match sendmmsg(socket.as_raw_fd(), headers, slices.iter(), to, none, MsgFlags::MSG_NOSIGNAL) {
                Ok(taken) => sent += taken.count(),
                // The error of an earlier datagram, reported once.
                Err(nix::Error::ECONNREFUSED) if refused < 3 => refused += 1,
                Err(_) => break,
            }
        }
        let lost = self.queued - sent;
        self.queued = 0;
        lost
    }
}

fn buffers() -> Buffers {
    Box::new([[0; DATAGRAM_MAX]; BATCH])
}

/// Waits for sockets, with a time-out finer than a millisecond.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// A socket that something happened on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    /// Watches a socket for data; closing it ends that.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Whether room for more output is waited for too.
    pub(crate) fn want_write(&self, socket: impl AsFd, token: u64, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    /// Appends what is ready to `ready`; `None` waits without end.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            // An error or a hang-up is found by reading.
            Ready {
                token: data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP),
                writable: flags.intersects(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// Nanoseconds since a start: what the loops of the bench reckon with.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A duration in the nanoseconds of a [`Clock`].
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_whole_with_its_sender() {
        let (a, b) = (udp_socket(LOOPBACK).unwrap(), udp_socket(LOOPBACK).unwrap());
        let SocketAddr::V4(to) = b.local_addr().unwrap() else { panic!("ipv4") };
        let (mut sender, mut receiver, mut poller) = (Sender::new(), Receiver::new(), Poller::new().unwrap());
        poller.add(&b, 7).unwrap();
        for number in 0..40_u8 {
            sender.push(Some(to.into()), |out| {
                out[..3].fill(number);
                Some(3)
            });
        }
        sender.push(None, |_| None);
        assert_eq!(sender.flush(&a), 0);
        let (mut ready, mut seen) = (Vec::new(), Vec::new());
        while seen.len() < 40 {
            ready.clear();
            poller.wait(Some(Duration::from_secs(5)), &mut ready).unwrap();
            assert!(ready.iter().any(|ready| ready.token == 7 && ready.readable));
            for index in 0..receiver.receive(&b) {
                let (datagram, from) = receiver.datagram(index);
                assert_eq!(SocketAddr::from(SocketAddrV4::from(from.unwrap())), a.local_addr().unwrap());
                seen.push(datagram.to_vec());
            }
        }
        assert_eq!(seen, (0..40).map(|number| vec![number; 3]).collect::<Vec<_>>());
    }
}
