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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepwarm_transport::resolve::{Resolve, SystemResolver};
    use tokio::time::Instant as Clock;

    use super::*;
    use crate::{
        config::{DnsConfig, UpstreamConfig},
        message::{Query, build_query, wire::Options},
    };

    fn endpoint(transport: Transport, change: impl FnOnce(&mut UpstreamConfig)) -> Endpoint {
        let mut config = UpstreamConfig::new("lab", transport, "192.0.2.1", 53);
        change(&mut config);
        let resolver: Arc<dyn Resolve> = Arc::new(SystemResolver::default());
        Endpoint::new(&config, transport, &DnsConfig::default(), &resolver).unwrap()
    }

    fn dress(endpoint: &Endpoint) -> Option<Dress> {
        Dress::of(endpoint, Some([192, 0, 2, 9].into()), ([192, 0, 2, 1], 53).into())
    }

    /// The codes of the options that a query leaves with, and its length.
    fn sent(dress: &mut Dress, now: Instant) -> (Vec<u16>, usize) {
        let query = build_query("a.example", 1).unwrap();
        let end = Query::parse(&query).unwrap().question.end;
        let mut out = b"what came before".to_vec();
        let start = out.len();
        out.extend_from_slice(&query);
        dress.put_on(&mut out, start, end, now);
        let query = &out[start..];
        let edns = Query::parse(query).unwrap().edns.unwrap();
        let codes = Options::new(query, edns.rdata).map(|option| option.unwrap().0);
        (codes.collect(), query.len())
    }

    const COOKIE: u16 = OPTION_COOKIE;
    const KEEPALIVE: u16 = OPTION_KEEPALIVE;
    const PADDING: u16 = 12;
    const NOTHING: &[u16] = &[];

    #[test]
    fn each_transport_gets_the_options_that_are_for_it() {
        let now = Clock::now().into_std();
        let table: [(Transport, &[u16], &[u16]); 5] = [
            (Transport::Tcp, &[COOKIE, KEEPALIVE], &[COOKIE]),
            (Transport::Tls, &[KEEPALIVE, PADDING], &[PADDING]),
            (Transport::Https, &[PADDING], &[PADDING]),
            (Transport::H3, &[PADDING], &[PADDING]),
            (Transport::Quic, &[PADDING], &[PADDING]),
        ];
        for (transport, first, later) in table {
            let mut dress = dress(&endpoint(transport, |_| {})).unwrap();
            for expected in [first, later, later] {
                let (codes, length) = sent(&mut dress, now);
                assert_eq!(codes, expected, "{transport:?}");
                assert_eq!(length % PADDING_BLOCK == 0, transport.is_encrypted(), "{transport:?}: {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_switched_off_is_not_added() {
        let now = Clock::now().into_std();
        let off = |config: &mut UpstreamConfig| (config.cookies, config.padding) = (false, false);
        for transport in [Transport::Tcp, Transport::Tls] {
            let mut dress = dress(&endpoint(transport, off)).unwrap();
            assert_eq!(sent(&mut dress, now).0, [KEEPALIVE], "{transport:?}");
            assert_eq!(sent(&mut dress, now).0, NOTHING, "{transport:?}");
        }
        for transport in [Transport::Https, Transport::H3, Transport::Quic] {
            assert!(dress(&endpoint(transport, off)).is_none(), "{transport:?}");
        }
    }

    #[test]
    fn an_upstream_that_refuses_options_gets_none_for_a_while() {
        let now = Clock::now().into_std();
        let endpoint = endpoint(Transport::Tls, |_| {});
        let mut dress = dress(&endpoint).unwrap();
        endpoint.habits.refused_options(now);
        assert_eq!(sent(&mut dress, now).0, NOTHING);
        assert_eq!(sent(&mut dress, now + Duration::from_secs(3600)).0, [KEEPALIVE, PADDING]);
    }
}
