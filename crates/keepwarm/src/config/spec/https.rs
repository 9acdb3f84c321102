//! `[https]`: the local gateway, the connections, and the origins that they lead to.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_https::config::{AddressSource, HttpVersions, StatusSet};

use crate::config::{
    read::{List, Several, Switch, section},
    value::{Count, GatewayAddress, Method, OriginHost, ProxyUrl, Text, UrlPath, Users},
};

section! {
    /// Hot HTTPS: connections that are ready, to addresses that were found good. Needs at least one origin, or `any_host`.
    HttpsSpec {
        /// Where the local HTTP gateway listens: IP and port, or a list of up to 64 of them. Port 0: any. Beyond loopback only
        /// with `users`. There is no gateway without it.
        gateway: Several<GatewayAddress>,
        /// Who may use the gateway (Basic, RFC 7617): name = "password", or name = { password_file = "FILE" } with the password
        /// as the file's only line; relative paths start at this file. Up to 1,000. Empty: everybody who reaches it.
        users: Users,
        /// Requests for http://HOST to the gateway as a forward proxy go out as https://HOST. `false`: they are refused.
        upgrade: bool,
        /// Connections of the gateway's clients; one more is refused with 503. 1 to 1,000,000.
        max_clients: Count<1, 1_000_000>,
        /// Hosts that no origin names. `false`: refused. `true`: served with the defaults of an origin. Or a section of its
        /// own with the keys of [[https.origin]], except those that belong to one host: `host`, `port`, `addresses`, `warm`.
        any_host: Switch<OriginSpec>,
        /// Hosts kept at a time that no origin names; the one not asked for longest is forgotten with its connections.
        /// 1 to 10,000.
        any_host_max: Count<1, 10_000>,
        /// A request that takes longer than this to the head of its answer is kept in mind as a slow one. 1ms to 1h.
        slow: Duration,
        /// The connections of all origins.
        pool: HttpsPoolSpec,
        /// The origins: each a host and port, with the way to reach it. Up to 1,000.
        origin: List<OriginSpec>,
    }
}

section! {
    /// A user of the gateway whose password is in a file.
    UserSpec {
        /// File with the password as its only line; relative paths start at this file. Required.
        password_file: Text,
    }
}

section! {
    /// The connections of all origins.
    HttpsPoolSpec {
        /// Connections of all origins together. 1 to 65535, and not more than `limits.max_connections`, of which [dns] gets
        /// what is left.
        max_total: Count<1, 65_535>,
        /// Connections to one address of an origin. 1 to `max_total`; the default gives way to a smaller one.
        max_per_host: Count<1, 65_535>,
        /// Connections without a request, of all origins together; beyond it the one idle for longest is closed. 1 to
        /// `max_total`; the default gives way to a smaller one.
        max_idle: Count<1, 65_535>,
        /// Requests at a time on one HTTP/2 connection, however many its server allows. 1 to 65535.
        max_in_flight: Count<1, 65_535>,
        /// Requests waiting for a connection to one address; further ones fail at once. 0 to 1,000,000.
        max_waiters: Count<0, 1_000_000>,
        /// A connection without a request is closed after so long. A ceiling: what the server really keeps is learned below
        /// it. 100ms to 1d.
        idle_timeout: Duration,
        /// A connection is replaced at this age, less up to 15 %. 1s to 7d.
        max_lifetime: Duration,
        /// Limit for one connection attempt, TLS included, validation not. 1ms to 5m.
        connect_timeout: Duration,
        /// Limit for waiting for a connection. 1ms to 5m.
        acquire_timeout: Duration,
        /// An HTTP/2 connection that has idled longer than this is pinged before use, and about as often while it idles.
        /// 1s to 1d.
        check_interval: Duration,
        /// How often idle and aged connections are looked for. 10ms to 1h.
        cleanup_interval: Duration,
    }
}

section! {
    /// One https://HOST:PORT and how it is reached.
    OriginSpec {
        /// Host name, as on its certificate, or IP; with a port where it is not 443: "tiles.example.com:8443". Required.
        /// A host and port may be named once.
        host: OriginHost,
        /// The port, where `host` has none. 1 to 65535.
        port: Count<1, 65_535>,
        /// How its connections look to the server. `plain`: like no browser. `chrome`, `firefox`, `safari`: like that browser's
        /// of late, "chrome@156": of that version; need a build with browser profiles. "@FILE": a profile in JSON; relative
        /// paths start at this file.
        profile: Text,
        /// What is offered: `both` (the server chooses), `http1` alone, or `http2` alone: then a server without it fails.
        http: HttpVersions,
        /// Where its addresses are from: IPs, networks ("2001:db8::/64"; of IPv4 at most a /16, of a large IPv6 one some at
        /// random), files of them ("@ips.txt", one a line, # for comments), or "dns". Up to 10,000. Empty: DNS alone.
        addresses: List<AddressSource>,
        /// How often DNS and files are read again; a shorter TTL counts. 10s to 7d; "0s": once.
        refresh: Duration,
        /// Addresses kept, the first found. 1 to 65536.
        addresses_max: Count<1, 65_536>,
        /// Connections made ready at start. 0 to `https.pool.max_idle`, of all origins together.
        warm: Count<0, 65_535>,
        /// Connections kept ready even when nothing asks, over as many addresses as possible. 0 to `https.pool.max_idle`, of
        /// all origins together.
        min_idle: Count<0, 65_535>,
        /// The request that an address must answer before its first use, and to come back. `false`: the handshake is enough.
        /// `true`: with the defaults of the section.
        validate: Switch<ValidateSpec>,
        /// Networks whose addresses may be used. Up to 10,000. Empty: all.
        allow: List<IpNet>,
        /// Networks whose addresses may not be used; wins over `allow`. Up to 10,000.
        deny: List<IpNet>,
        /// First pause of an address that failed, 1s to `quarantine_max`; doubles up to that, then one probe. The default gives
        /// way to a shorter `quarantine_max`.
        quarantine: Duration,
        /// Longest pause. 1s to 7d.
        quarantine_max: Duration,
        /// Failures of an address in a row that put it in quarantine. 1 to 100.
        failures: Count<1, 100>,
        /// What the status of an answer says about the address it came from; the first match counts. Up to 64. Empty: nothing.
        /// Without it 403 and 429 rest the address for a minute, or for as long as Retry-After says, up to `quarantine_max`.
        verdicts: List<VerdictSpec>,
        /// One deadline for a request up to the head of its answer: waits, dials and retries included. 1ms to 1h.
        timeout: Duration,
        /// Longest pause between two pieces of a body, in either direction. 1ms to 1h.
        body_timeout: Duration,
        /// Tries of one request, the first included. Further ones are made only where that is safe. 1 to 10.
        tries: Count<1, 10>,
        /// Retries per request on average, 0 to 1, beyond a few saved up: the load that an outage may add.
        retry_budget: f64,
        /// Proxy that its connections are made through: "socks5://HOST:PORT" or "http://HOST:PORT", with "USER:PASSWORD@" before
        /// the host where it asks for them (special characters as %40). None without it.
        proxy: ProxyUrl,
        /// Adds the profile's default headers where a request lacks them.
        profile_headers: bool,
    }
}

section! {
    /// The request that says whether an address is good.
    ValidateSpec {
        /// `HEAD`, `GET` or `OPTIONS`.
        method: Method,
        /// Path and query. Up to 4,096 characters.
        path: UrlPath,
        /// Statuses that are good: "200-399", "204", "200-299,304".
        statuses: StatusSet,
        /// Longest time from the first packet to the head of the answer. 1ms to 5m.
        timeout: Duration,
    }
}

section! {
    /// What answers with some statuses say about the address they came from.
    VerdictSpec {
        /// The statuses: "403,429", "500-599". Required.
        statuses: StatusSet,
        /// For how long the address rests; Retry-After counts where it is longer, up to `quarantine_max`. 0s to
        /// `quarantine_max`; "0s": the answer says nothing about the address.
        rest: Duration,
        /// Whether the request is sent once more to another address, where that is safe.
        retry: bool,
    }
}
