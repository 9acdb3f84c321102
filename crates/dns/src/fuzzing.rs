//! What fuzz targets need of private modules. Nobody else may: there are no promises here.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant as Clock,
};

use crate::{
    framing::Frames,
    message::name_to_text,
    server::{doq, proxy},
    upstream::svcb::{self, Binding},
};

/// Reads a stream that comes in pieces of at most `piece` bytes with a buffer of `usual` bytes; returns its messages.
pub fn frames(stream: &[u8], piece: usize, usual: usize) -> Vec<Vec<u8>> {
    let mut reader = Pieces { stream, piece };
    let (mut frames, mut messages) = (Frames::new(usual), Vec::new());
    while let Poll::Ready(Ok(1..)) = frames.poll_fill(&mut reader, &mut Context::from_waker(Waker::noop())) {
        while let Some(message) = frames.next() {
            messages.push(message.to_vec());
        }
    }
    messages
}

/// What comes of a DoQ stream that comes in pieces of at most `piece` bytes, as the server reads it.
///
/// # Errors
/// The rule that the client broke.
pub fn doq_query(stream: &[u8], piece: usize) -> Result<Vec<u8>, &'static str> {
    doq::query(stream.chunks(piece.max(1)))
}

/// The client that the PROXY header of a datagram names, and what is behind the header.
pub fn proxy_datagram(datagram: &[u8], peer: IpAddr) -> Option<(IpAddr, &[u8])> {
    proxy::split_datagram(datagram, peer).ok()
}

/// The same of a connection that comes in pieces of at most `piece` bytes and then ends.
pub fn proxy_connection(stream: &[u8], piece: usize, peer: IpAddr) -> Option<(IpAddr, &[u8])> {
    let mut reader = Pieces { stream, piece };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
    let header = async { proxy::read_header(&mut reader, peer, Clock::now() + Duration::from_secs(60)).await };
    let client = runtime.block_on(header).ok()?;
    Some((client, reader.stream))
}

/// The text of a name in a message.
pub fn name(message: &[u8], place: usize) -> Option<String> {
    let mut text = String::new();
    name_to_text(message, place, &mut text)?;
    Some(text)
}

/// A way to reach a service: its priority, its host, its port and the path of its DoH.
pub type Service = (u16, String, Option<u16>, Option<String>);

/// What an answer says of the services at `name`; an alias is one with priority 0.
pub fn services(answer: &[u8], name: &str, rtype: u16) -> Option<Vec<Service>> {
    match svcb::read(answer, name, rtype).ok()? {
        Binding::Services(services, _) => Some(
            services
                .into_iter()
                .map(|service| (service.priority, service.target.clone(), service.port, service.doh_path()))
                .collect(),
        ),
        Binding::Alias(target) => Some(vec![(0, target, None, None)]),
        Binding::Nothing => Some(Vec::new()),
    }
}

struct Pieces<'a> {
    stream: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (piece, rest) = self.stream.split_at(self.piece.min(self.stream.len()).min(into.remaining()));
        into.put_slice(piece);
        self.stream = rest;
        Poll::Ready(Ok(()))
    }
}
