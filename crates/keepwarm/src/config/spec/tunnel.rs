//! `[tunnel]`: the local proxy, the upstreams that its tunnels go through, and which destination goes where.

use std::time::Duration;

use keepwarm_tunnel::config::Strategy;

use super::BreakerSpec;
use crate::config::{
    read::{List, Several, section},
    value::{Count, Destination, Name, Pattern, Secret, SwitchBack, Text, Through, TunnelAddress, TunnelListen, Users},
};

section! {
    /// A local SOCKS5 and HTTP proxy whose upstream proxies are reached over connections that are ready: connected, greeted and
    /// authenticated.
    TunnelSpec {
        /// Where clients come in: IP and port for SOCKS5, SOCKS4a and HTTP by the first byte, or a list of up to 64.
        /// "socks5://IP:PORT" and "http://IP:PORT": one of them. "forward://IP:PORT->HOST:PORT": each connection is a tunnel to that
        /// host. Beyond loopback only with `users`, and a forward never. Port 0: any. An empty list: no listener.
        listen: Several<TunnelListen>,
        /// Who may use the listeners (SOCKS5: RFC 1929, HTTP: Basic): name = "password", or name = { password_file = "FILE" } with
        /// the password as the file's only line; relative paths start at this file. Passwords of up to 255 bytes. Up to 1,000.
        /// Empty: everybody who reaches them.
        users: Users,
        /// Clients of all listeners at a time; one more is closed at once. 1 to 1,000,000.
        max_clients: Count<1, 1_000_000>,
        /// Live tunnels of all destinations. 1 to 1,000,000, and with all spares not more than `limits.max_connections` leaves.
        /// Without it: what is left, at most 4,096.
        max_tunnels: Count<1, 1_000_000>,
        /// Live tunnels to one host and port; the rest wait in order. 1 to `max_tunnels`; the default gives way to a smaller one.
        max_per_destination: Count<1, 1_000_000>,
        /// Tunnels that wait for one destination; one more fails at once. 0 to 1,000,000.
        max_waiters: Count<0, 1_000_000>,
        /// Longest wait for a place among the live tunnels. 1ms to 5m.
        acquire_timeout: Duration,
        /// Longest time from then to the destination's word, failover included. 1ms to 10m.
        timeout: Duration,
        /// Longest time for a client to say who it is and where to. 100ms to 5m.
        handshake_timeout: Duration,
        /// A tunnel that takes longer than this until it is ready, waits included, is kept in mind as a slow one. 1ms to 1h.
        slow: Duration,
        /// A tunnel without a byte in either direction ends after this. 1s to 7d.
        idle_timeout: Duration,
        /// The same for a tunnel one side of which has ended. 1s to `idle_timeout`; the default gives way to a shorter one.
        half_open_timeout: Duration,
        /// How upstreams of one group and priority share. `ordered`: the first that is well, the others are its backups.
        /// `round-robin`: each in turn. `least-loaded`: the one with the fewest live tunnels. `fastest`: the one whose tunnels were
        /// ready soonest of late.
        strategy: Strategy,
        /// For how long an upstream that failed must be well before tunnels return to it, 0s to 1d; "never": not before its stand-in
        /// fails.
        switch_back: SwitchBack,
        /// Where destinations go that no rule matches: an upstream, a group, "direct" (this machine connects itself) or "reject".
        /// Without it: the group "default"; "direct" where there is no upstream at all.
        default: Name,
        /// The spares of each upstream.
        pool: TunnelPoolSpec,
        /// When an upstream is left alone, and when it is tried again.
        breaker: BreakerSpec,
        /// UDP ASSOCIATE.
        udp: UdpSpec,
        /// The upstreams, up to 256. Without one, tunnels are direct.
        upstream: List<TunnelUpstreamSpec>,
        /// Which destination goes where; the first match counts. Up to 1,000.
        rule: List<RuleSpec>,
    }
}

section! {
    /// The spares of each upstream: connections that are greeted and authenticated and wait for a destination.
    TunnelPoolSpec {
        /// Kept ready while the upstream is in use; more where the rate asks for it. 0 to `spares_max`; 0: none, each tunnel dials. The
        /// default gives way to a smaller `spares_max`.
        spares: Count<0, 4096>,
        /// Kept ready when nothing was asked for five minutes. 0 to `spares`; the default gives way to a smaller one.
        spares_min: Count<0, 4096>,
        /// Kept ready at most. 0 to 4096. The default gives way so that all spares take at most half of what
        /// `limits.max_connections` leaves for tunnels.
        spares_max: Count<0, 4096>,
        /// Longest age of a spare. A ceiling: what the proxy really allows is learned below it. 100ms to 1d.
        idle_timeout: Duration,
        /// Limit for connecting to the proxy, greeting it and authenticating. 1ms to 5m.
        connect_timeout: Duration,
        /// How often the upstream's health is checked over a spare. 1s to 1d; "0s": never.
        check_interval: Duration,
    }
}

section! {
    /// UDP ASSOCIATE (RFC 1928 section 7). Its sockets are beside `limits.max_connections`.
    UdpSpec {
        /// Whether it is offered.
        enabled: bool,
        /// Associations at a time. 1 to 65535.
        max_associations: Count<1, 65_535>,
        /// An association without a datagram ends after this, and with its TCP connection. 1s to 1d.
        idle_timeout: Duration,
    }
}

section! {
    /// An upstream.
    TunnelUpstreamSpec {
        /// Name in rules, logs and status. Required; unique, no group's name, neither "direct" nor "reject"; up to 64 of the
        /// characters A-Z a-z 0-9 . _ -
        name: Name,
        /// Where it is and what it speaks. Required. "socks5://HOST:PORT" (1080 without a port), "http://HOST:PORT" and
        /// "https://HOST:PORT" (CONNECT; 443), "ssh://USER@HOST:PORT" (22), "direct://" for this machine itself. "USER:PASSWORD@" may
        /// stand before the host (special characters as %40).
        address: TunnelAddress,
        /// User, where `address` has none. Up to 255 bytes.
        username: Text,
        /// Password of the user. Up to 255 bytes; may be empty.
        password: Secret,
        /// File with the password as its only line, instead of `password`; relative paths start at this file.
        password_file: Text,
        /// A proxy through which this upstream is reached: the name of another upstream that is a proxy and has no `through` itself, or
        /// a URL such as "socks5://HOST:PORT" or "http://USER:PASSWORD@HOST:PORT".
        through: Through,
        /// Its group, for `via` and `default`. "default" without it.
        group: Name,
        /// Lower first; equal ones share by `strategy`. 0 to 1,000,000.
        priority: Count<0, 1_000_000>,
        /// Health checks and canaries connect to this destination, where HTTP is spoken: "HOST:PORT". Without it the greeting alone is
        /// checked.
        check: Destination,
        /// Whether handshakes may be pipelined and payload be sent ahead of the proxy's word, once a canary has shown that this
        /// upstream bears it and gains from it.
        pipeline: bool,
        /// ssh:// only: private key in OpenSSH's format, instead of a password; relative paths start at this file.
        key: Text,
        /// ssh:// only, and required there: the server's key as `ssh-keygen -l` shows it ("SHA256:..."), or a file in the format of
        /// known_hosts; relative paths start at this file.
        host_key: Text,
        /// ssh:// only: tunnels over one session at a time, 1 to 64. More of them need fewer sessions, and a client that stops reading
        /// holds up the others of its session.
        channels: Count<1, 64>,
    }
}

section! {
    /// Destinations, and where they go.
    RuleSpec {
        /// Any of these. "*": every host; "NAME"; ".NAME": the name and all below it; "*.NAME": all below it; an IP or a network, for
        /// hosts given by address (names are never looked up for it). Each with an optional port or range: "*:25", "NAME:8000-8999",
        /// "[2001:db8::/32]:443". Required; up to 10,000.
        r#match: List<Pattern>,
        /// An upstream, a group, "direct" (this machine connects itself) or "reject". Required.
        via: Name,
        /// Tunnels opened ahead to a matching destination while it is hot, and closed after 5 s if nobody wants them. 0 to 16. Only
        /// where every pattern names ports, and none at which servers speak first.
        speculate: Count<0, 16>,
    }
}
