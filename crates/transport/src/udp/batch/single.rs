//! One call a datagram, for systems without a call for many.

use std::{io, net::SocketAddr};

use tokio::net::UdpSocket;

use super::{DATAGRAM_MAX, Message};

/// Nothing has to be prepared.
pub(super) struct Headers;

impl Headers {
    pub(super) fn new() -> Headers {
        Headers
    }

    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        kind: super::Kind,
        buffer: &mut [u8],
        mut each: impl FnMut(usize, Option<SocketAddr>),
    ) -> io::Result<()> {
        for (number, slot) in buffer.chunks_exact_mut(DATAGRAM_MAX).enumerate() {
            let received = match kind {
                super::Kind::Connected => socket.try_recv(slot).map(|length| (length, None)),
                _ => socket.try_recv_from(slot).map(|(length, peer)| (length, Some(peer))),
            };
            match received {
                Ok((length, peer)) => each(length, peer),
                Err(error) if number > 0 && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        _: super::Kind,
        bytes: &[u8],
        messages: &[Message],
    ) -> io::Result<usize> {
        for (number, message) in messages.iter().enumerate() {
            let bytes = &bytes[message.start..message.end];
            let sent = message.peer.map_or_else(|| socket.try_send(bytes), |peer| socket.try_send_to(bytes, peer));
            match sent {
                Ok(_) => {}
                Err(_) if number > 0 => return Ok(number),
                Err(error) => return Err(error),
            }
        }
        Ok(messages.len())
    }
}
