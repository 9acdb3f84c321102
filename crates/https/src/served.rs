//! What an answer says about its way: address, connection, time per phase.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::config::HttpVersions;

/// Which connection served a request, and what the time went to.
#[derive(Debug, Clone)]
pub struct Served {
    /// The address that answered.
    pub address: SocketAddr,
    /// The connection's number, unique in the client.
    pub connection: u64,
    /// Whether the connection had served before.
    pub reused: bool,
    /// `h2` or `http/1.1`.
    pub protocol: Protocol,
    /// The profile's label, such as `chrome@156`.
    pub profile: Arc<str>,
    /// Whether the connection's handshake resumed a session.
    pub resumed: bool,
    /// The TLS version, `1.2` or `1.3`.
    pub tls: &'static str,
    /// Tries, the one that was answered included.
    pub tries: u32,
    /// What the time went to.
    pub phases: Phases,
    /// From the end of the handshake to the first bytes of HTTP/2, the server's SETTINGS (RFC 9113 section 3.4). The request is sent
    /// meanwhile, so that this is part of [`Phases::head`]. Only on the first use of an HTTP/2 connection.
    pub settings: Option<Duration>,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
}

impl Protocol {
    /// `h2` or `http/1.1`, as in ALPN.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http2 => HttpVersions::Http2.as_str(),
            Protocol::Http1 => HttpVersions::Http1.as_str(),
        }
    }
}

/// What a request's time went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// From the call to the lease of the connection that answered: earlier tries, waiting, and the dial where one was waited for.
    pub wait: Duration,
    /// Set-up of that connection: TCP, and the proxy where there is one. Only on its first use.
    pub connect: Option<Duration>,
    /// Its TLS handshake. Only on its first use.
    pub tls: Option<Duration>,
    /// From sending the request to the head of its answer.
    pub head: Duration,
    /// From the call to the head of the answer.
    pub total: Duration,
}
