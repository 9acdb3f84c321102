//! The ways of a query through the daemon that are counted.

/// What a client speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client {
    /// A datagram a query.
    Udp,
    /// One connection, queries one after the other on it (RFC 7766).
    Tcp,
}

/// A way of a query: from a client to an upstream.
#[derive(Debug)]
pub(super) struct Path {
    /// As in `bench/instructions.toml`.
    pub(super) name: &'static str,
    /// What the client speaks.
    pub(super) client: Client,
    /// What the upstream speaks, in the lab's words: `udp`, `tcp`, `tls` or `https`.
    pub(super) upstream: &'static str,
}

/// All of them, in the order in which they are counted.
pub(super) const PATHS: [Path; 5] = [
    Path { name: "udp", client: Client::Udp, upstream: "udp" },
    Path { name: "tcp", client: Client::Udp, upstream: "tcp" },
    Path { name: "dot", client: Client::Udp, upstream: "tls" },
    Path { name: "doh", client: Client::Udp, upstream: "https" },
    Path { name: "tcp-client", client: Client::Tcp, upstream: "udp" },
];
