//! `limits.max_connections`: how the connections of the whole daemon are shared between its gateways.
//!
//! Hot HTTPS has `https.pool.max_total` of its own; the upstreams of DNS share what is left.

use super::{Check, count};
use crate::config::{
    Config, defaults,
    fault::Fault,
    read::At,
    spec::{DnsSpec, HttpsSpec},
    value::Count,
};

type PoolCount = Option<At<Count<1, 65_535>>>;

/// Where the file says how many connections each gateway may have.
pub(super) struct Places {
    dns_max_per_host: PoolCount,
    https_max_total: PoolCount,
}

impl Places {
    pub(super) fn of(dns: Option<&DnsSpec>, https: Option<&HttpsSpec>) -> Places {
        Places {
            dns_max_per_host: dns.and_then(|dns| dns.pool.as_ref()?.value.max_per_host.clone()),
            https_max_total: https.and_then(|https| https.pool.as_ref()?.value.max_total.clone()),
        }
    }
}

impl Check<'_> {
    /// Holds the connections of both against the limit, and gives each its share.
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
        let Some(dns) = &mut config.dns else {
            return;
        };
        let max_per_host = dns.pool.max_per_host;
        dns.max_connections = limit.saturating_sub(max_total);
        if max_per_host > limit {
            self.order(per_host_at, limit_at, "dns.pool.max_per_host", "limits.max_connections", &words);
        } else if max_per_host > dns.max_connections && max_total <= limit {
            let spans = [per_host_at.map(|at| &at.span), total_at.map(|at| &at.span), limit_at.map(|at| &at.span)];
            let span = spans.into_iter().flatten().next().cloned().unwrap_or(0..0);
            let least = max_total + max_per_host;
            self.faults.push(
                Fault::error(span, format!(
                    "`https.pool.max_total` leaves {} of `limits.max_connections`, and `dns.pool.max_per_host` is {max_per_host}",
                    dns.max_connections
                ))
                .help(format!("raise `limits.max_connections` to {least} or more, or lower one of the others")),
            );
        }
    }
}
