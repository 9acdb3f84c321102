//! Datagrams that leave over relays of upstream proxies: associations of ours with them (RFC 1928 section 7).
//!
//! An association has one relay of each upstream that its destinations need, never shared with another client's, and each lives as
//! long as its control connection.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use keepwarm_transport::proxy::Target;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::{
    counters::{Counters, OutletPort, UdpDropped},
    header,
    port::{Port, unspecified},
};
use crate::Stream;

/// The relays of one association, at most [`RELAYS_MAX`].
#[derive(Debug)]
pub(super) struct Relays {
    counters: Arc<Counters>,
    all: Vec<Relay>,
    /// Where datagrams are put together with their header.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Relay {
    upstream: Arc<str>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Asked for, because of these destinations. -> `Open` on `opened`, or gone where that is a failure.
    Opening(Vec<Target>),
    /// In use. -> gone when the upstream closes its control connection.
    Open { control: Stream, address: SocketAddr, port: Port, _known: OutletPort },
}

/// What an upstream gave.
pub(super) struct Opened {
    /// The relay lives as long as this.
    pub(super) control: Stream,
    /// Where datagrams are sent, with the header.
    pub(super) address: SocketAddr,
}

/// What is to be done for a destination that leaves over an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Its relay is there.
    Ready,
    /// Its relay is being asked for.
    Wait,
    /// Somebody must ask for it, and tell with [`Relays::opened`].
    Open,
    /// There are too many.
    Full,
}

impl Relays {
    pub(super) fn new(counters: Arc<Counters>) -> Relays {
        Relays { counters, all: Vec::new(), scratch: Vec::new() }
    }

    /// Tells how far the relay of `upstream` is, and remembers who waits for it. The routes bound how many that are.
    pub(super) fn want(&mut self, upstream: &Arc<str>, target: &Target) -> Want {
        let full = self.all.len() >= RELAYS_MAX;
        match self.all.iter_mut().find(|relay| relay.upstream == *upstream).map(|relay| &mut relay.state) {
            Some(State::Open { .. }) => Want::Ready,
            Some(State::Opening(waiting)) => {
                waiting.push(target.clone());
                Want::Wait
            }
            None if full => Want::Full,
            None => {
                let state = State::Opening(vec![target.clone()]);
                self.all.push(Relay { upstream: upstream.clone(), state });
                Want::Open
            }
        }
    }

    /// Takes what the upstream gave; gives back who waits for it, and whether it was of use.
    pub(super) fn opened(
        &mut self,
        upstream: &str,
        opened: Result<Opened, UdpDropped>,
    ) -> (Vec<Target>, Result<(), UdpDropped>) {
        let Some(place) = self.all.iter().position(|relay| *relay.upstream == *upstream) else {
            return (Vec::new(), Err(UdpDropped::Failed));
        };
        let relay = self.all.swap_remove(place);
        let State::Opening(waiting) = relay.state else { return (Vec::new(), Ok(())) };
        let open = opened.and_then(|Opened { control, address }| {
            let port = Port::open(unspecified(address.is_ipv4(), 0)).map_err(|_| UdpDropped::Failed)?;
            let known = self.counters.outlet(port.address());
            Ok(State::Open { control, address, port, _known: known })
        });
        (waiting, open.map(|state| self.all.push(Relay { upstream: relay.upstream, state })))
    }

    /// Sends to `target` over the relay of `upstream`.
    pub(super) fn send(&mut self, upstream: &str, target: &Target, data: &[u8]) -> Result<(), UdpDropped> {
        for relay in self.all.iter_mut().filter(|relay| *relay.upstream == *upstream) {
            if let State::Open { address, port, .. } = &mut relay.state {
                self.scratch.clear();
                header::append_of_target(&mut self.scratch, target)?;
                self.scratch.extend_from_slice(data);
                return port.send(&self.scratch, *address);
            }
        }
        Err(UdpDropped::Failed)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes the next datagram from the relay at `place`: its length and that of its data, if it may be handed on as it is.
    pub(super) fn poll_recv(
        &self,
        place: usize,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Result<(usize, usize), UdpDropped>>> {
        let Some(State::Open { address, port, .. }) = self.all.get(place).map(|relay| &relay.state) else {
            return Poll::Pending;
        };
        let (ip, number) = (address.ip().to_canonical(), address.port());
        port.poll_recv(cx, buffer).map_ok(|(length, from)| {
            if (from.ip().to_canonical(), from.port()) != (ip, number) {
                return Err(UdpDropped::Unasked);
            }
            match header::parse(&buffer[..length]) {
                Ok((header, data)) if header.fragment == 0 => Ok((length, data.len())),
                Ok(_) => Err(UdpDropped::Fragment),
                Err(_) => Err(UdpDropped::Malformed),
            }
        })
    }

    /// Tells of a relay that its upstream has closed. It is gone then.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        let gone = |relay: &mut Relay| match &mut relay.state {
            State::Opening(_) => false,
            State::Open { control, .. } => has_ended(control, cx),
        };
        match self.all.iter_mut().position(gone) {
            Some(place) => Poll::Ready(self.all.swap_remove(place).upstream),
            None => Poll::Pending,
        }
    }

    /// Sends what waits; tells how many the system did not take.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> usize {
        let flush = |relay: &mut Relay| match &mut relay.state {
            State::Opening(_) => 0,
            State::Open { port, .. } => port.poll_flush(cx),
        };
        self.all.iter_mut().map(flush).sum()
    }
}

/// Whether a control connection has ended. Nothing is said on one after its reply; what comes nevertheless, breaks the protocol and
/// ends it as well.
fn has_ended(control: &mut Stream, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    Pin::new(control).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready()
}

/// Relays of one association.
const RELAYS_MAX: usize = 16;
