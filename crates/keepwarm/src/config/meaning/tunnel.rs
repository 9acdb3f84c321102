//! `[tunnel]`: that its times and counts are in range and agree with each other. What the daemon's limit leaves for tunnels is held
//! against them in `shares.rs`.

use std::{path::Path, time::Duration};

use keepwarm_transport::tls::TlsRoots;
use keepwarm_tunnel::config::{PoolConfig, TunnelConfig, UdpConfig};

use super::{Check, DAY, MILLISECOND, MINUTE, SECOND, count, https::Taken};
use crate::config::{
    fault::Fault,
    read::{At, Section as _},
    spec::{TunnelPoolSpec, TunnelSpec, UdpSpec},
    value::{SwitchBack, Text},
    words::duration_words,
};

mod credential;
mod listen;
mod reach;
mod rules;
mod upstream;

use reach::Names;

impl Check<'_> {
    pub(super) fn tunnel(&mut self, spec: At<TunnelSpec>, taken: &Taken, roots: TlsRoots, base: &Path) -> TunnelConfig {
        let At { value: spec, span } = spec;
        let default = TunnelConfig::default();
        let users = spec.users.as_ref().map(|at| self.tunnel_users(at, base)).unwrap_or_default();
        let upstreams = spec.upstream.as_ref().map(|list| self.tunnel_upstreams(list, base)).unwrap_or_default();
        let names = Names::of(&spec);
        self.tunnel_names(&names);
        let rules = spec.rule.as_ref().map(|list| self.tunnel_rules(list, &names)).unwrap_or_default();
        let otherwise = self.tunnel_default(&spec, &names, span);
        self.unused_upstreams(&spec, &names, otherwise.as_ref());
        let (idle_timeout, half_open_timeout) = self.tunnel_idle(&spec, &default);
        let time = |check: &mut Self, key: &str, at: &Option<At<Duration>>, range, default| {
            check.duration(&format!("tunnel.{key}"), at.as_ref(), range, default)
        };
        let short = MILLISECOND..=5 * MINUTE;
        TunnelConfig {
            listen: self.tunnel_listen(&spec, taken),
            users,
            max_clients: count(spec.max_clients.as_ref(), default.max_clients),
            max_tunnels: count(spec.max_tunnels.as_ref(), default.max_tunnels),
            max_per_destination: count(spec.max_per_destination.as_ref(), default.max_per_destination),
            max_waiters: count(spec.max_waiters.as_ref(), default.max_waiters),
            acquire_timeout: time(self, "acquire_timeout", &spec.acquire_timeout, short, default.acquire_timeout),
            timeout: time(self, "timeout", &spec.timeout, MILLISECOND..=10 * MINUTE, default.timeout),
            handshake_timeout: time(
                self,
                "handshake_timeout",
                &spec.handshake_timeout,
                100 * MILLISECOND..=5 * MINUTE,
                default.handshake_timeout,
            ),
            idle_timeout,
            half_open_timeout,
            strategy: spec.strategy.as_ref().map_or(default.strategy, |at| at.value),
            switch_back: self.switch_back(spec.switch_back.as_ref(), default.switch_back),
            pool: self.tunnel_pool(&spec.pool.clone().map(|at| at.value).unwrap_or_default()),
            breaker: self.breaker("tunnel.breaker", &spec.breaker.clone().map(|at| at.value).unwrap_or_default()),
            upstreams,
            rules,
            default: otherwise.unwrap_or(default.default),
            roots,
            udp: self.udp(&spec.udp.clone().map(|at| at.value).unwrap_or_default()),
            slow: self.slow("tunnel.slow", spec.slow.as_ref(), default.slow),
        }
    }

    fn tunnel_idle(&mut self, spec: &TunnelSpec, default: &TunnelConfig) -> (Duration, Duration) {
        let (key, limit) = ("tunnel.half_open_timeout", "tunnel.idle_timeout");
        let idle = self.duration(limit, spec.idle_timeout.as_ref(), SECOND..=7 * DAY, default.idle_timeout);
        let (at, gives_way) = (spec.half_open_timeout.as_ref(), default.half_open_timeout.min(idle));
        let half_open = self.duration(key, at, SECOND..=7 * DAY, gives_way);
        let limit_is_known = spec.idle_timeout.as_ref().map_or(!spec.has("idle_timeout"), |at| at.value == idle);
        if half_open > idle && limit_is_known {
            self.order(at, spec.idle_timeout.as_ref(), key, limit, &duration_words(idle));
        }
        (idle, half_open)
    }

    fn switch_back(&mut self, at: Option<&At<SwitchBack>>, default: Option<Duration>) -> Option<Duration> {
        let Some(At { value: SwitchBack(time), span }) = at else {
            return default;
        };
        if time.is_some_and(|time| time > DAY) {
            self.out_of_range("tunnel.switch_back", span.clone(), "0s to 1d, or \"never\"");
        }
        *time
    }

    fn tunnel_pool(&mut self, spec: &TunnelPoolSpec) -> PoolConfig {
        let default = PoolConfig::default();
        // Where spares are turned off, none are kept however many might be.
        let off = spec.spares.as_ref().is_some_and(|at| at.value.0 == 0) && !spec.has("spares_max");
        let spares_max = if off { 0 } else { count(spec.spares_max.as_ref(), default.spares_max) };
        let spares = count(spec.spares.as_ref(), default.spares.min(spares_max));
        let spares_min = count(spec.spares_min.as_ref(), default.spares_min.min(spares));
        if spares > spares_max && !spec.refused("spares_max", spec.spares_max.as_ref()) {
            let (at, other) = (spec.spares.as_ref(), spec.spares_max.as_ref());
            self.order(at, other, "tunnel.pool.spares", "tunnel.pool.spares_max", &spares_max.to_string());
        }
        if spares_min > spares && !spec.refused("spares", spec.spares.as_ref()) {
            let (at, other) = (spec.spares_min.as_ref(), spec.spares.as_ref());
            self.order(at, other, "tunnel.pool.spares_min", "tunnel.pool.spares", &spares.to_string());
        }
        let mut time = |key: &str, at: &Option<At<Duration>>, range, default| {
            self.duration(&format!("tunnel.pool.{key}"), at.as_ref(), range, default)
        };
        PoolConfig {
            spares,
            spares_min,
            spares_max,
            idle_timeout: time("idle_timeout", &spec.idle_timeout, 100 * MILLISECOND..=DAY, default.idle_timeout),
            connect_timeout: time(
                "connect_timeout",
                &spec.connect_timeout,
                MILLISECOND..=5 * MINUTE,
                default.connect_timeout,
            ),
            check_interval: self.tunnel_check_interval(spec.check_interval.as_ref(), default.check_interval),
        }
    }

    fn tunnel_check_interval(&mut self, at: Option<&At<Duration>>, default: Duration) -> Duration {
        let Some(At { value, span }) = at else {
            return default;
        };
        if !value.is_zero() && !(SECOND..=DAY).contains(value) {
            self.out_of_range("tunnel.pool.check_interval", span.clone(), "1s to 1d; \"0s\": never");
        }
        *value
    }

    fn udp(&mut self, spec: &UdpSpec) -> UdpConfig {
        let default = UdpConfig::default();
        let enabled = spec.enabled.as_ref().map_or(default.enabled, |at| at.value);
        let idle_timeout = spec.idle_timeout.as_ref();
        let range = SECOND..=DAY;
        UdpConfig {
            enabled,
            max_associations: count(spec.max_associations.as_ref(), default.max_associations),
            idle_timeout: self.duration("tunnel.udp.idle_timeout", idle_timeout, range, default.idle_timeout),
        }
    }

    /// Warns of a file with a secret that everybody on this machine may read.
    pub(in crate::config::meaning) fn is_private(&mut self, key: &str, at: &At<Text>, base: &Path) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let path = base.join(&at.value.0);
            let mode = std::fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
            if mode & READABLE_BY_OTHERS != 0 {
                let title = format!("`{key}`: everybody on this machine may read {}", path.display());
                let help = format!("chmod o-r {}", path.display());
                self.faults.push(Fault::warning(at.span.clone(), title).help(help));
            }
        }
        #[cfg(not(unix))]
        let _ = (key, at, base);
    }
}

/// The bit of a file's mode (chmod(2)).
#[cfg(unix)]
const READABLE_BY_OTHERS: u32 = 0o004;

/// How tunnels are written.
pub(in crate::config::meaning) const TUNNEL_FORM: &str =
    "[[tunnel.upstream]]\nname = \"exit-a\"\naddress = \"socks5://proxy.example.com:1080\"";
