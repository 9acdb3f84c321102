//! `limits.max_connections`: how the connections of the whole daemon are shared between its gateways.
//!
//! Hot HTTPS has `https.pool.max_total` of its own. Tunnels have as many as `tunnel.max_tunnels` and all spares together, and the
//! upstreams of DNS share what is left. Where the file does not say how many tunnels or spares there may be, DNS keeps
//! `dns.pool.max_per_host` for each of its upstreams, at most half, and tunnels get the rest.

use keepwarm_tunnel::config::{TunnelConfig, UpstreamKind};

use super::{Check, count};
use crate::config::{
    Config, defaults,
    fault::Fault,
    read::{At, Section as _},
    spec::FileSpec,
    value::Count,
};

type PoolCount = Option<At<Count<1, 65_535>>>;

/// Where the file says how many connections each gateway may have.
pub(super) struct Places {
    dns_max_per_host: PoolCount,
    https_max_total: PoolCount,
    max_tunnels: Option<At<Count<1, 1_000_000>>>,
    max_per_destination: Option<At<Count<1, 1_000_000>>>,
    spares_max: Option<At<Count<0, 4096>>>,
    /// What the file says of these was refused, so that nothing can be held against it.
    tunnels_refused: bool,
    /// The section.
    tunnel: Option<std::ops::Range<usize>>,
}

impl Places {
    pub(super) fn of(spec: &FileSpec) -> Places {
        let (dns, https) = (spec.dns.as_ref().map(|at| &at.value), spec.https.as_ref().map(|at| &at.value));
        let tunnel = spec.tunnel.as_ref().map(|at| &at.value);
        let pool = tunnel.and_then(|tunnel| Some(&tunnel.pool.as_ref()?.value));
        Places {
            dns_max_per_host: dns.and_then(|dns| dns.pool.as_ref()?.value.max_per_host.clone()),
            https_max_total: https.and_then(|https| https.pool.as_ref()?.value.max_total.clone()),
            max_tunnels: tunnel.and_then(|tunnel| tunnel.max_tunnels.clone()),
            max_per_destination: tunnel.and_then(|tunnel| tunnel.max_per_destination.clone()),
            spares_max: pool.and_then(|pool| pool.spares_max.clone()),
            tunnels_refused: tunnel.is_some_and(|tunnel| tunnel.refused("max_tunnels", tunnel.max_tunnels.as_ref()))
                || pool.is_some_and(|pool| pool.refused("spares_max", pool.spares_max.as_ref())),
            tunnel: spec.tunnel.as_ref().map(|at| at.span.clone()),
        }
    }
}

impl Check<'_> {
    /// Holds the connections of all against the limit, and gives each its share.
    pub(super) fn connections(
        &mut self,
        config: &mut Config,
        places: &Places,
        limit_at: Option<&At<Count<1, 1_000_000>>>,
    ) {
        let limit = count(limit_at, defaults::MAX_CONNECTIONS);
        let max_total = config.https.as_ref().map_or(0, |https| https.pool.max_total);
        let (total_at, per_host_at) = (places.https_max_total.as_ref(), places.dns_max_per_host.as_ref());
        let words = limit.to_string();
        if max_total > limit {
            self.order(total_at, limit_at, "https.pool.max_total", "limits.max_connections", &words);
        }
        let left = limit.saturating_sub(max_total);
        let max_per_host = config.dns.as_ref().map_or(0, |dns| dns.pool.max_per_host);
        let dns_kept =
            config.dns.as_ref().map_or(0, |dns| (dns.upstreams.len() * max_per_host).min(left / 2).max(max_per_host));
        if let Some(dns) = &mut config.dns {
            dns.max_connections = left;
            if max_per_host > limit {
                self.order(per_host_at, limit_at, "dns.pool.max_per_host", "limits.max_connections", &words);
                return;
            }
            if max_per_host > left && max_total <= limit {
                let spans = [per_host_at.map(|at| &at.span), total_at.map(|at| &at.span), limit_at.map(|at| &at.span)];
                let span = spans.into_iter().flatten().next().cloned().unwrap_or(0..0);
                let least = max_total + max_per_host;
                self.faults.push(
                    Fault::error(span, format!(
                        "`https.pool.max_total` leaves {left} of `limits.max_connections`, and `dns.pool.max_per_host` is {max_per_host}"
                    ))
                    .help(format!("raise `limits.max_connections` to {least} or more, or lower one of the others")),
                );
                return;
            }
        }
        let Some(tunnel) = config.tunnel.as_mut().filter(|_| max_total <= limit) else {
            return;
        };
        let room = Room { limit, left, kept: dns_kept, least: max_per_host };
        let share = self.tunnels_fit(tunnel, places, limit_at, &room);
        if let Some(dns) = &mut config.dns {
            dns.max_connections = left.saturating_sub(share).max(max_per_host);
        }
    }

    /// Gives tunnels and spares what is left where the file does not say, and holds them against it; returns how many they take.
    fn tunnels_fit(
        &mut self,
        tunnel: &mut TunnelConfig,
        places: &Places,
        limit_at: Option<&At<Count<1, 1_000_000>>>,
        room: &Room,
    ) -> usize {
        let is_proxy = |kind: &UpstreamKind| !matches!(kind, UpstreamKind::Direct);
        let proxies = tunnel.upstreams.iter().filter(|upstream| is_proxy(&upstream.kind)).count();
        let free = room.left.saturating_sub(room.kept);
        let pool = &mut tunnel.pool;
        if places.spares_max.is_none() && proxies > 0 {
            pool.spares_max = pool.spares_max.min((free / 2 / proxies).max(pool.spares));
        }
        let spares = proxies * pool.spares_max;
        if places.max_tunnels.is_none() {
            tunnel.max_tunnels = tunnel.max_tunnels.min(free.saturating_sub(spares));
        }
        let share = spares + tunnel.max_tunnels;
        if places.tunnels_refused {
            return share;
        }
        if tunnel.max_tunnels == 0 || share + room.least > room.left {
            self.too_many_tunnels(tunnel, places, limit_at, room, spares);
        } else {
            self.per_destination_fits(tunnel, places);
        }
        share
    }

    fn too_many_tunnels(
        &mut self,
        tunnel: &TunnelConfig,
        places: &Places,
        limit_at: Option<&At<Count<1, 1_000_000>>>,
        room: &Room,
        spares: usize,
    ) {
        let spans = [
            places.max_tunnels.as_ref().map(|at| &at.span),
            places.spares_max.as_ref().map(|at| &at.span),
            limit_at.map(|at| &at.span),
            places.tunnel.as_ref(),
        ];
        let span = spans.into_iter().flatten().next().cloned().unwrap_or(0..0);
        let free = room.left.saturating_sub(room.least);
        let tunnels = tunnel.max_tunnels.max(1);
        let least = room.limit - room.left + room.least + spares + tunnels;
        let title = match spares {
            0 => format!("`limits.max_connections` leaves {free} for tunnels, which want {tunnels}"),
            spares => format!(
                "`limits.max_connections` leaves {free} for tunnels, which want {tunnels} and {spares} spares (`tunnel.pool.spares_max` for each upstream)"
            ),
        };
        self.faults.push(
            Fault::error(span, title)
                .help(format!("raise `limits.max_connections` to {least} or more, or lower `tunnel.max_tunnels` or `tunnel.pool.spares_max`")),
        );
    }

    fn per_destination_fits(&mut self, tunnel: &mut TunnelConfig, places: &Places) {
        let at = places.max_per_destination.as_ref();
        let limit = tunnel.max_tunnels;
        match at {
            None => tunnel.max_per_destination = tunnel.max_per_destination.min(limit),
            Some(_) if tunnel.max_per_destination > limit => {
                let (key, other) = ("tunnel.max_per_destination", places.max_tunnels.as_ref());
                if other.is_none() {
                    let title = format!("`{key}` is larger than what `limits.max_connections` leaves for tunnels");
                    let span = at.map_or(0..0, |at| at.span.clone());
                    let help = format!("accepted: up to {limit}; or raise `limits.max_connections`");
                    self.faults.push(Fault::error(span, title).help(help));
                } else {
                    self.order(at, other, key, "tunnel.max_tunnels", &limit.to_string());
                }
            }
            Some(_) => {}
        }
    }
}

/// What there is to be shared.
struct Room {
    /// `limits.max_connections`.
    limit: usize,
    /// What hot HTTPS leaves of it.
    left: usize,
    /// What DNS keeps where the file does not say how much tunnels take.
    kept: usize,
    /// What DNS needs in any case.
    least: usize,
}
