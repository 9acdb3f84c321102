//! The query as one upstream gets it over one connection with a stream: cookie (TCP), edns-tcp-keepalive on the first query
//! (TCP, TLS), padding (everything that is encrypted). Datagrams have a cookie alone, see [`UdpConnection`].
//!
//! [`UdpConnection`]: super::UdpConnection

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::{
    cookie::{Cookies, Peer},
    endpoint::Endpoint,
    habits::Habits,
};
use crate::{
    config::Transport,
    message::{
        OptWriter, PADDING_BLOCK,
        wire::{OPTION_COOKIE, OPTION_KEEPALIVE},
    },
};

/// What is added to the queries of one connection.
pub(crate) struct Dress {
    habits: Arc<Habits>,
    cookies: Option<Cookies>,
    /// The connection's first query has yet to ask for the idle limit (RFC 7828 section 3.2.1).
    keepalive: bool,
    padding: bool,
}

impl Dress {
    /// `None` when nothing is added over this transport.
    pub(crate) fn of(endpoint: &Endpoint, local: Option<IpAddr>, peer: SocketAddr) -> Option<Dress> {
        let dress = Dress {
            habits: endpoint.habits.clone(),
            cookies: endpoint.peer_cookies(local, peer).map(Cookies::new),
            keepalive: endpoint.asks_keepalive(),
            padding: endpoint.padding,
        };
        (dress.cookies.is_some() || dress.keepalive || dress.padding).then_some(dress)
    }

    /// For the one who reads the answers.
    pub(crate) fn cookies(&self) -> Option<Cookies> {
        self.cookies.clone()
    }

    /// Adds to the query that begins at `start` and ends with the buffer.
    pub(crate) fn put_on(&mut self, out: &mut Vec<u8>, start: usize, question_end: usize, now: Instant) {
        let cookie = self.cookies.as_mut().and_then(|cookies| cookies.option(false, now));
        if cookie.is_none() && !self.keepalive && !self.padding || self.habits.is_plain(now) {
            return;
        }
        let Some(mut opt) = OptWriter::open(out, start, question_end) else { return };
        if let Some(cookie) = cookie {
            opt.push(OPTION_COOKIE, cookie);
        }
        if std::mem::take(&mut self.keepalive) {
            // RFC 7828 section 3.2.1: a query has no time-out in it.
            opt.push(OPTION_KEEPALIVE, &[]);
        }
        if self.padding {
            opt.pad(PADDING_BLOCK);
        }
    }
}

impl Endpoint {
    /// Whether queries over a stream may have options of ours.
    pub(crate) fn adds_options(&self) -> bool {
        self.cookies || self.padding || self.asks_keepalive()
    }

    /// HTTP and QUIC have means of their own (RFC 7828 section 3.1 is about TCP).
    fn asks_keepalive(&self) -> bool {
        matches!(self.transport, Transport::Tcp | Transport::Tls)
    }

    /// What is known of the cookies of `peer`; `None` where they are not used, or our own address is not known.
    pub(super) fn peer_cookies(&self, local: Option<IpAddr>, peer: SocketAddr) -> Option<Arc<Peer>> {
        local.filter(|_| self.cookies).map(|local| self.habits.jar.peer(local, peer))
    }
}
