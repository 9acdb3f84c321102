//! What a proxy serves and how it misbehaves: plain data that tests fill in. Nothing here acts on it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Describes one proxy.
#[derive(Clone)]
pub struct ProxySpec {
    /// The address that is bound, at a port of the system's choice. Default 127.0.0.1.
    pub address: IpAddr,
    /// What is spoken. Default SOCKS5.
    pub protocol: LabProxyProtocol,
    /// User and password that every client must give. Default none: whoever comes is served, and gives none if asked for.
    pub credential: Option<(String, String)>,
    /// Round trip between client and proxy, TCP's handshake included. Default 0. See [`DelayRelay`](crate::DelayRelay).
    pub delay: Duration,
    /// Faults from the start. Default none.
    pub faults: ProxyFaults,
    /// Destinations by the host that clients name, a name or an address, whatever the port. Other names do not exist, and
    /// other addresses are connected to if they are loopback ones.
    pub pinned: HashMap<String, SocketAddr>,
}

/// What a [`ProxyLab`](crate::ProxyLab) speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LabProxyProtocol {
    /// SOCKS5 (RFC 1928) with user and password (RFC 1929): CONNECT and UDP ASSOCIATE.
    #[default]
    Socks5,
    /// HTTP CONNECT (RFC 9110 section 9.3.6) with Basic credentials.
    Http,
    /// The same over TLS.
    Https,
}

/// How a proxy ends a connection that idles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyClose {
    /// FIN. What comes later is answered with RST by the system, as behind a server that has closed.
    #[default]
    Fin,
    /// RST.
    Reset,
    /// Nothing: it forgets the connection, and what comes later is never answered.
    Silent,
    /// Nothing yet, as behind a NAT that has lost its entry: what comes later is answered with RST.
    SilentReset,
}

/// When a connection begins to idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdleFrom {
    /// When it was accepted.
    Accepted,
    /// When it was greeted, user and password included. Over HTTP: when it was accepted, and TLS shook hands.
    #[default]
    Greeted,
}

/// A point in the life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyPhase {
    /// It was accepted.
    Accept,
    /// The greeting was read and is not answered. SOCKS5 alone.
    Greeting,
    /// User and password were read and are not answered. SOCKS5 alone.
    Auth,
    /// The request was read; nothing is connected, and nothing answered.
    Connect,
    /// The destination is connected and so many bytes of the answer were sent; no more than there are.
    Reply(usize),
    /// So many bytes of the destination were sent to the client.
    Payload(u64),
}

/// What becomes of bytes that came before the answer that they should have waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pipelining {
    /// They are taken for what they are.
    #[default]
    Bears,
    /// They are dropped, as by a server that takes each read for one message.
    Ignores,
    /// The connection is reset.
    Resets,
}

/// What BND.ADDR (RFC 1928 section 6) is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyAddress {
    /// The true one.
    #[default]
    True,
    /// 192.0.2.1.
    V4,
    /// 2001:db8::1.
    V6,
    /// The name `proxy.lab`.
    Name,
    /// 0.0.0.0. A client takes the proxy's own address for it.
    Unspecified,
}

/// How a proxy misbehaves. The default is no fault at all.
///
/// All of it may change at run time and applies from the next step on, to connections already open as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyFaults {
    /// A connection without a request is ended after this long, as [`close_kind`](Self::close_kind) says.
    pub close_idle: Option<Duration>,
    /// See [`close_idle`](Self::close_idle).
    pub close_kind: ProxyClose,
    /// Where [`close_idle`](Self::close_idle) and [`stray_reply`](Self::stray_reply) begin to count.
    pub idle_from: IdleFrom,
    /// After this long without a request an answer is written that nobody asked for: once, and not after the end.
    pub stray_reply: Option<Duration>,
    /// Nothing listens: connections are refused by the system. Open ones go on.
    pub refuse: bool,
    /// New connections are accepted and nothing is read or answered, TLS included.
    pub hang_accept: bool,
    /// The greeting is read and never answered. SOCKS5 alone.
    pub silent_greeting: bool,
    /// User and password are read and never answered. SOCKS5 alone.
    pub silent_auth: bool,
    /// The request is read and never answered.
    pub silent_connect: bool,
    /// The first answer has another version: 4, or no HTTP at all. The connection is then closed.
    pub bad_version: bool,
    /// The method that is chosen, offered or not. With one other than 0 and 2 the proxy then waits without end.
    pub method: Option<u8>,
    /// No method is acceptable: FF, then FIN.
    pub no_acceptable: bool,
    /// User and password are refused, whatever they are: 01, or status 407, then FIN.
    pub auth_fails: bool,
    /// Every request is refused with this reply code, over HTTP with the status that fits best; 0 refuses none.
    pub reply: Option<u8>,
    /// The same by host, as the client names it; goes before [`reply`](Self::reply).
    pub reply_for: HashMap<String, u8>,
    /// Every request gets this status, unless it is 2xx. HTTP alone; goes before [`reply`](Self::reply).
    pub status: Option<u16>,
    /// Connections are reset here.
    pub reset_at: Option<ProxyPhase>,
    /// Connections are closed here: FIN.
    pub close_at: Option<ProxyPhase>,
    /// Answers are written byte by byte, a millisecond apart.
    pub fragments: bool,
    /// What BND.ADDR is. SOCKS5 alone.
    pub reply_address: ReplyAddress,
    /// The answer waits, for a second at most, for the destination's first bytes and is sent in one segment with them.
    pub coalesce_greeting_payload: bool,
    /// What becomes of bytes that came too early.
    pub pipelining: Pipelining,
    /// Requests are answered, refused ones too, this much later.
    pub slow_connect: Duration,
    /// Connections at a time. One more is accepted and closed at once.
    pub max_connections: Option<usize>,
    /// UDP ASSOCIATE is answered 07.
    pub no_udp: bool,
}

impl Default for ProxySpec {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            protocol: LabProxyProtocol::default(),
            credential: None,
            delay: Duration::ZERO,
            faults: ProxyFaults::default(),
            pinned: HashMap::new(),
        }
    }
}

impl fmt::Debug for ProxySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySpec")
            .field("address", &self.address)
            .field("protocol", &self.protocol)
            .field("user", &self.credential.as_ref().map(|(user, _)| user))
            .field("delay", &self.delay)
            .field("faults", &self.faults)
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}
