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
    /// How many names are asked for in turn, out of a cache; `None`: a name a query, and no cache.
    pub(super) hot_names: Option<u32>,
}

impl Path {
    /// How many names so many queries ask for. The upstream is asked for each of them once.
    pub(super) fn names(&self, queries: u32) -> u32 {
        self.hot_names.map_or(queries, |names| names.min(queries))
    }
}

/// All of them, in the order in which they are counted.
pub(super) const PATHS: [Path; 6] = [
    Path { name: "udp", client: Client::Udp, upstream: "udp", hot_names: None },
    Path { name: "tcp", client: Client::Udp, upstream: "tcp", hot_names: None },
    Path { name: "dot", client: Client::Udp, upstream: "tls", hot_names: None },
    Path { name: "doh", client: Client::Udp, upstream: "https", hot_names: None },
    Path { name: "tcp-client", client: Client::Tcp, upstream: "udp", hot_names: None },
    Path { name: "hit", client: Client::Udp, upstream: "udp", hot_names: Some(64) },
];
