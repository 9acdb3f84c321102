//! The calls of Linux, Android, FreeBSD and NetBSD.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg, sendmmsg,
};
use tokio::net::UdpSocket;

use super::{BATCH, DATAGRAM_MAX, Kind, Message};

/// Message headers, prepared once.
///
/// nix keeps in them what the last call left, and does not see to it itself: a set that has sent still points at the peers
/// of that call, where a receiving call would write; one that received from IPv4 has room for no IPv6 address any more. So
/// there is a set for each direction and kind, which are never mixed.
pub(super) struct Headers {
    receive: Sets,
    send: Sets,
}

struct Sets {
    connected: MultiHeaders<()>,
    ipv4: MultiHeaders<SockaddrIn>,
    ipv6: MultiHeaders<SockaddrIn6>,
}

impl Sets {
    fn new() -> Sets {
        Sets {
            connected: MultiHeaders::preallocate(BATCH, None),
            ipv4: MultiHeaders::preallocate(BATCH, None),
            ipv6: MultiHeaders::preallocate(BATCH, None),
        }
    }
}

impl Headers {
    pub(super) fn new() -> Headers {
        Headers { receive: Sets::new(), send: Sets::new() }
    }

    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        kind: Kind,
        buffer: &mut [u8],
        each: impl FnMut(usize, Option<SocketAddr>),
    ) -> io::Result<()> {
        let Sets { connected, ipv4, ipv6 } = &mut self.receive;
        match kind {
            Kind::Connected => receive(socket, connected, buffer, |()| None, each),
            Kind::Ipv4 => receive(socket, ipv4, buffer, |peer| Some(SocketAddrV4::from(peer).into()), each),
            Kind::Ipv6 => receive(socket, ipv6, buffer, |peer| Some(SocketAddrV6::from(peer).into()), each),
        }
    }

    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        kind: Kind,
        bytes: &[u8],
        messages: &[Message],
    ) -> io::Result<usize> {
        let Sets { connected, ipv4, ipv6 } = &mut self.send;
        match kind {
            Kind::Connected => send(socket, connected, bytes, messages, |_| None),
            Kind::Ipv4 => send(socket, ipv4, bytes, messages, |peer| match peer {
                SocketAddr::V4(peer) => Some(SockaddrIn::from(peer)),
                SocketAddr::V6(_) => None,
            }),
            Kind::Ipv6 => send(socket, ipv6, bytes, messages, |peer| match peer {
                SocketAddr::V6(peer) => Some(SockaddrIn6::from(peer)),
                SocketAddr::V4(_) => None,
            }),
        }
    }
}

fn receive<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<A>,
    buffer: &mut [u8],
    peer: impl Fn(A) -> Option<SocketAddr>,
    mut each: impl FnMut(usize, Option<SocketAddr>),
) -> io::Result<()> {
    let mut slots = buffer.chunks_exact_mut(DATAGRAM_MAX);
    let mut slices: [_; BATCH] = array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
    let received = recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::empty(), None)?;
    for message in received {
        each(message.bytes, message.address.and_then(&peer));
    }
    Ok(())
}

fn send<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<A>,
    bytes: &[u8],
    messages: &[Message],
    peer: impl Fn(SocketAddr) -> Option<A>,
) -> io::Result<usize> {
    const NO_CONTROL: [ControlMessage<'static>; 0] = [];
    let message = |number: usize| messages.get(number);
    let slices: [_; BATCH] =
        array::from_fn(|number| [IoSlice::new(message(number).map_or(&[][..], |one| &bytes[one.start..one.end]))]);
    let peers: [_; BATCH] = array::from_fn(|number| message(number)?.peer.and_then(&peer));
    let sent = sendmmsg(
        socket.as_raw_fd(),
        headers,
        &slices[..messages.len()],
        &peers[..messages.len()],
        NO_CONTROL,
        MsgFlags::empty(),
    )?;
    Ok(sent.count())
}
