//! `[dns.cache]`, `[dns.local]`, `[dns.client_subnet]`, `[dns.query_log]`: what is kept, known here, told and written down.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_dns::config::QueryLogPrivacy;

use crate::config::{
    read::{List, section},
    value::{Count, Record, Size, SubnetPolicy, Text},
};

section! {
    /// The answers that are kept, so that a question asked again needs no upstream.
    CacheSpec {
        /// Memory for answers, the store's own included. 64KiB to 64GiB; "0" turns the cache off. A usual answer takes a few
        /// hundred bytes.
        size: Size,
        /// A shorter TTL is raised to this. Above "0s" answers are kept longer than their owner allows. 0s to `max_ttl`.
        min_ttl: Duration,
        /// A longer TTL is lowered to this. 1s to 7d.
        max_ttl: Duration,
        /// Ceiling for negative answers: no such name, no such record (RFC 2308). 0s to `max_ttl`; "0s": they are not kept.
        /// The default gives way to a shorter `max_ttl`.
        negative_ttl: Duration,
        /// For how long after its end an answer serves when upstreams fail (RFC 8767). 0s to 7d; "0s" turns it off.
        stale: Duration,
        /// Popular answers are asked for again before they end; costs a few queries more.
        prefetch: bool,
    }
}

section! {
    /// Names that are answered without any upstream.
    LocalSpec {
        /// Hosts files (an IP and its names a line), read again when they change; relative paths start at this file. Up to 64.
        hosts: List<Text>,
        /// TTL of what hosts files say. 0s to 7d.
        hosts_ttl: Duration,
        /// Records in zone-file form, with absolute names: "nas.home.arpa. 60 A 192.168.1.5". Up to 10,000.
        records: List<Record>,
        /// AAAA queries get an empty answer, for networks whose IPv6 does not work.
        filter_aaaa: bool,
        /// localhost, invalid, test, onion, the reverse zones of private networks and the like (RFC 6761, RFC 6303) are
        /// answered here and never forwarded. A route for such a name wins.
        special_names: bool,
    }
}

section! {
    /// What upstreams are told of the client's network (EDNS client subnet, RFC 7871).
    ClientSubnetSpec {
        /// `strip`: nothing; what a client says is removed. `pass`: what the client says. `set`: the client's network, cut to
        /// the prefixes below, or `address`; tells every upstream where clients are, and the cache holds answers per network.
        policy: SubnetPolicy,
        /// With `set`: bits of an IPv4 client that are told, 0 to 32. 24 without it (RFC 7871 section 11.1).
        v4_prefix: Count<0, 32>,
        /// With `set`: bits of an IPv6 client that are told, 0 to 128. 56 without it (RFC 7871 section 11.1).
        v6_prefix: Count<0, 128>,
        /// With `set`: this network is told for every client, instead of its own.
        address: IpNet,
    }
}

section! {
    /// Where queries are written down, and what of them. Apart from [log], which never has names above `debug`.
    QueryLogSpec {
        /// `off`: nothing is written. `hashed`: clients and names as keyed hashes whose key is never stored and changes each
        /// day. `full`: clients and names as they are.
        privacy: QueryLogPrivacy,
        /// The file, one JSON object a line; relative paths start at this file. Required unless `privacy` is `off`.
        file: Text,
        /// The file is renamed to FILE.1 when it has grown to this, and the old FILE.1 is lost. 64KiB to 1024GiB.
        max_size: Size,
        /// Entries that wait to be written; beyond it new ones are dropped and counted. 1 to 1,000,000.
        queue: Count<1, 1_000_000>,
    }
}
