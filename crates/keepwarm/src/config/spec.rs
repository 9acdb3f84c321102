//! The config file as written: its sections and keys, each with meaning, unit, default and range.
//!
//! The texts here are the descriptions of the JSON Schema. Defaults are not set here: a missing key stays `None`, and
//! the step to the typed config (`meaning.rs`) falls back to the one place where the default is defined.

use std::time::Duration;

use super::{
    read::{List, section},
    value::{ControlAddress, Count, FileOrNone, Text},
};
use crate::logging::{LogFilter, LogFormat};

mod answers;
mod dns;
mod https;
mod tunnel;
mod upstream;

pub(super) use answers::{CacheSpec, ClientSubnetSpec, LocalSpec, QueryLogSpec};
pub(super) use dns::{ClientsSpec, DnsSpec, ListenTlsSpec};
pub(super) use https::{HttpsPoolSpec, HttpsSpec, OriginSpec, UserSpec, ValidateSpec, VerdictSpec};
pub(super) use tunnel::{RuleSpec, TunnelPoolSpec, TunnelSpec, TunnelUpstreamSpec, UdpSpec};
pub(super) use upstream::{BreakerSpec, HedgeSpec, PoolSpec, RouteSpec, UpstreamSpec};

section! {
    /// The configuration of keepwarm. Durations and sizes are words ("250ms", "1h30m", "64MiB"). Unknown keys are refused.
    FileSpec {
        /// Version of the file format. Required; always 1.
        version: u64,
        /// What is logged, and how.
        log: LogSpec,
        /// Limits of the whole daemon.
        limits: LimitsSpec,
        /// What is trusted when connecting to encrypted upstreams, to origins and to proxies over TLS.
        tls: TlsSpec,
        /// The DNS gateway.
        dns: DnsSpec,
        /// Hot HTTPS: connections to hosts that are ready, and the local gateway to them.
        https: HttpsSpec,
        /// Tunnels: a local SOCKS5 and HTTP proxy over ready connections to upstream proxies.
        tunnel: TunnelSpec,
        /// The status endpoint, which `keepwarm pools`, `keepwarm cache` and `keepwarm query` ask.
        control: ControlSpec,
    }
}

section! {
    /// What is logged, and how.
    LogSpec {
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter per target: "info,keepwarm_pool=debug". `off` is silent.
        level: LogFilter,
        /// `text`, `json`, or `auto`: text on a terminal, JSON otherwise.
        format: LogFormat,
    }
}

section! {
    /// Limits of the whole daemon.
    LimitsSpec {
        /// Outbound connections of all pools together. 1 to 1,000,000; each costs a file descriptor.
        max_connections: Count<1, 1_000_000>,
        /// Worker threads of each gateway, 0 to 1024. 0: one per core.
        workers: Count<0, 1024>,
    }
}

section! {
    /// What is trusted when connecting to encrypted upstreams, to origins and to proxies over TLS. Certificates are always verified.
    TlsSpec {
        /// PEM files with certificates that are trusted beside the system's roots; relative paths start at this file.
        extra_roots: List<Text>,
    }
}

section! {
    /// The status endpoint.
    ControlSpec {
        /// IP and port of the status endpoint. Beyond loopback only with a token.
        listen: ControlAddress,
        /// File with the token that callers have to show: 16 to 4096 visible ASCII characters, its only line. Empty: none.
        token_file: FileOrNone,
        /// Whether a change of this file is a reload, as SIGHUP and `keepwarm reload` are.
        watch: bool,
        /// For how long figures are kept for reports. 1m to 1d.
        history: Duration,
    }
}

/// Every section of this version and its keys.
pub(super) const SECTIONS: [(&str, &[&str]); 28] = [
    ("", FileSpec::KEYS),
    ("log", LogSpec::KEYS),
    ("limits", LimitsSpec::KEYS),
    ("tls", TlsSpec::KEYS),
    ("dns", DnsSpec::KEYS),
    ("dns.tls", ListenTlsSpec::KEYS),
    ("dns.hedge", HedgeSpec::KEYS),
    ("dns.clients", ClientsSpec::KEYS),
    ("dns.client_subnet", ClientSubnetSpec::KEYS),
    ("dns.local", LocalSpec::KEYS),
    ("dns.query_log", QueryLogSpec::KEYS),
    ("dns.cache", CacheSpec::KEYS),
    ("dns.pool", PoolSpec::KEYS),
    ("dns.breaker", BreakerSpec::KEYS),
    ("dns.upstream", UpstreamSpec::KEYS),
    ("dns.route", RouteSpec::KEYS),
    ("https", HttpsSpec::KEYS),
    ("https.pool", HttpsPoolSpec::KEYS),
    ("https.origin", OriginSpec::KEYS),
    ("https.origin.validate", ValidateSpec::KEYS),
    ("https.origin.verdicts", VerdictSpec::KEYS),
    ("tunnel", TunnelSpec::KEYS),
    ("tunnel.pool", TunnelPoolSpec::KEYS),
    ("tunnel.breaker", BreakerSpec::KEYS),
    ("tunnel.udp", UdpSpec::KEYS),
    ("tunnel.upstream", TunnelUpstreamSpec::KEYS),
    ("tunnel.rule", RuleSpec::KEYS),
    ("control", ControlSpec::KEYS),
];
