//! What an origin serves and how its addresses misbehave: plain data. Nothing here acts on it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::CloseKind;

/// Describes one origin: its name, its addresses and how they misbehave from the start.
///
/// ```
/// use keepwarm_lab::{OriginSpec, loopback_addresses};
///
/// let spec = OriginSpec { addresses: loopback_addresses(50), ..OriginSpec::default() };
/// assert_eq!(spec.host, "tiles.test");
/// ```
#[derive(Debug, Clone)]
pub struct OriginSpec {
    /// The one name in its certificate. Default `tiles.test`.
    pub host: String,
    /// Where it listens: addresses of 127.0.0.0/8, or `::1`. Default 127.0.0.1 alone.
    pub addresses: Vec<IpAddr>,
    /// The port of all addresses; 0 lets the system choose one that is free on all of them. Default 0.
    pub port: u16,
    /// Faults of every address from the start. Default none; [`OriginLab::set_faults`](crate::OriginLab::set_faults) changes them
    /// for one address.
    pub faults: OriginFaults,
    /// Whether sessions are resumed. Tickets of one address are good at all others, as with a real origin. Default `true`.
    pub session_tickets: bool,
    /// Time before each answer, added to that of the faults. Default 0.
    pub delay: Duration,
}

impl Default for OriginSpec {
    fn default() -> Self {
        Self {
            host: "tiles.test".to_owned(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: 0,
            faults: OriginFaults::default(),
            session_tickets: true,
            delay: Duration::ZERO,
        }
    }
}

/// The first `count` of the addresses 127.0.1.1, 127.0.1.2 and so on, 250 to a network of 256; at most 50,000.
#[must_use]
pub fn loopback_addresses(count: usize) -> Vec<IpAddr> {
    let address = |index: u16| {
        let [net, host] = [1 + index / PER_NET, 1 + index % PER_NET].map(|part| part.to_be_bytes()[1]);
        IpAddr::V4(Ipv4Addr::new(127, 0, net, host))
    };
    (0..ADDRESSES_MAX).take(count).map(address).collect()
}

/// How one address misbehaves. The default is no fault at all.
///
/// A change applies to connections made and requests read from then on. Where several faults exclude each other, the one named first
/// here wins. Counts are for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginFaults {
    /// Connections are refused by the system (RST to the SYN): nobody listens. In force as soon as the call that sets it returns, and
    /// ended as soon as the call that clears it returns.
    pub refuse: bool,
    /// Connections are accepted and reset at once.
    pub reset_accept: bool,
    /// Connections are accepted and nothing is ever sent.
    pub hang: bool,
    /// The client's hello is answered with the first bytes of a TLS record, and then nothing.
    pub hang_tls: bool,
    /// The client's hello is answered by `HTTP/1.1 400 Bad Request` without TLS, and FIN.
    pub plain_http: bool,
    /// The certificate is for another name.
    pub wrong_certificate: bool,
    /// The certificate is signed by another authority.
    pub untrusted: bool,
    /// The certificate has expired.
    pub expired: bool,
    /// Protocols that ALPN may choose; `None`: `h2` and `http/1.1`. A client that offers none of them fails its handshake; with an
    /// empty list the client's offer is ignored, and HTTP/1.1 is spoken.
    pub alpn: Option<Vec<String>>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS, 0 as well; `None`: 1,000, which is the most. A change is sent to open connections at once. A
    /// stream above it that was opened after its acknowledgement is refused and counted
    /// ([`over_limit`](crate::OriginCounters::over_limit)).
    pub max_streams: Option<u32>,
    /// A connection without a request for this long is ended as [`close_kind`](Self::close_kind) says.
    pub close_idle: Option<Duration>,
    /// How idle connections are ended, by [`close_idle`](Self::close_idle) or
    /// [`OriginLab::close_idle`](crate::OriginLab::close_idle).
    pub close_kind: CloseKind,
    /// After this many streams h2 shuts down in order (RFC 9113 section 6.8): GOAWAY with the highest id, PING, GOAWAY with the last
    /// id; what has come until then is answered. HTTP/1.1: that answer has `connection: close`.
    pub goaway_after: Option<u32>,
    /// The GOAWAY of [`goaway_after`](Self::goaway_after) names the last of these streams at once, and later ones are not processed.
    pub goaway_cuts: bool,
    /// Each so many-th h2 stream is refused with REFUSED_STREAM before it is processed.
    pub refuse_stream_every: Option<u32>,
    /// Requests are read and never answered.
    pub ignore_requests: bool,
    /// Requests with a body are answered with this status before the body was read.
    pub early_status: Option<u16>,
    /// Time before each answer, added to that of the spec.
    pub delay: Duration,
    /// The status of every answer, whatever was asked.
    pub status: Option<u16>,
    /// Retry-After in every answer.
    pub retry_after: Option<String>,
    /// Bodies longer than this are cut off there: RST_STREAM (INTERNAL_ERROR) on h2, RST on HTTP/1.1.
    pub reset_mid_body: Option<u64>,
    /// Bodies longer than this are cut off there by the end of the connection: FIN, without close_notify or GOAWAY.
    pub close_mid_body: Option<u64>,
    /// Bodies longer than this are ended there as if whole, while content-length tells the true length: END_STREAM on h2,
    /// close_notify on HTTP/1.1. Without content-length HTTP/1.1 leaves out the last chunk, and h2 shows nothing.
    pub truncate: Option<u64>,
    /// Speed of answers' bodies.
    pub bytes_per_second: Option<u32>,
    /// HTTP/1.1 answers say `connection: close`, and the connection ends.
    pub connection_close: bool,
    /// Keep-Alive in HTTP/1.1 answers, such as `timeout=5`. It is only announced; [`close_idle`](Self::close_idle) acts.
    pub keep_alive_header: Option<String>,
}

const PER_NET: u16 = 250;
const ADDRESSES_MAX: u16 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_distinct() {
        let addresses = loopback_addresses(600);
        assert_eq!(addresses.len(), 600);
        assert_eq!([addresses[0], addresses[250]].map(|ip| ip.to_string()), ["127.0.1.1", "127.0.2.1"]);
        assert_eq!(addresses.iter().collect::<std::collections::HashSet<_>>().len(), 600);
        assert_eq!(loopback_addresses(usize::MAX).last().unwrap().to_string(), "127.0.200.250");
    }
}
