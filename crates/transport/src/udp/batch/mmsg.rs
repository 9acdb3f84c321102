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

/// A few datagrams first, and the rest of a batch only when there are more: filling in 64 headers for one datagram costs
/// more than all else that is done with it here.
fn receive<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<A>,
    buffer: &mut [u8],
    peer: impl Fn(A) -> Option<SocketAddr>,
    mut each: impl FnMut(usize, Option<SocketAddr>),
) -> io::Result<()> {
    let (few, more) = buffer.split_at_mut(FEW * DATAGRAM_MAX);
    let mut received = 0;
    receive_up_to::<A, FEW>(socket, headers, few, |length, address| {
        received += 1;
        each(length, address.and_then(&peer));
    })?;
    if received < FEW {
        return Ok(());
    }
    let rest = receive_up_to::<A, { BATCH - FEW }>(socket, headers, more, |length, address| {
        each(length, address.and_then(&peer));
    });
    match rest {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        rest => rest,
    }
}

fn receive_up_to<A: SockaddrLike + Copy, const N: usize>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<A>,
    buffer: &mut [u8],
    mut each: impl FnMut(usize, Option<A>),
) -> io::Result<()> {
    let mut slots = buffer.chunks_exact_mut(DATAGRAM_MAX);
    let mut slices: [_; N] = array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
    let received = recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::empty(), None)?;
    for message in received {
        each(message.bytes, message.address);
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
    match messages.len() {
        0..=1 => send_up_to::<A, 1>(socket, headers, bytes, messages, peer),
        2..=FEW => send_up_to::<A, FEW>(socket, headers, bytes, messages, peer),
        _ => send_up_to::<A, BATCH>(socket, headers, bytes, messages, peer),
    }
}

fn send_up_to<A: SockaddrLike + Copy, const N: usize>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<A>,
    bytes: &[u8],
    messages: &[Message],
    peer: impl Fn(SocketAddr) -> Option<A>,
) -> io::Result<usize> {
    const NO_CONTROL: [ControlMessage<'static>; 0] = [];
    let message = |number: usize| messages.get(number);
    let slices: [_; N] =
        array::from_fn(|number| [IoSlice::new(message(number).map_or(&[][..], |one| &bytes[one.start..one.end]))]);
    let peers: [_; N] = array::from_fn(|number| message(number)?.peer.and_then(&peer));
    let count = messages.len().min(N);
    let sent = sendmmsg(socket.as_raw_fd(), headers, &slices[..count], &peers[..count], NO_CONTROL, MsgFlags::empty())?;
    Ok(sent.count())
}

/// Datagrams of a small batch.
const FEW: usize = 8;
