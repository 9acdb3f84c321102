//! A card a job: DNS, hot HTTPS, tunnels. The script puts those that the daemon makes anew in their place.

use maud::{Markup, html};

use super::{
    frame::{Frame, fact},
    words::{bytes, count, percent},
};
use crate::{
    https::{HttpsSnapshots, HttpsStatus},
    rows::{CacheStatus, StatusRow},
    tunnel::{TunnelSnapshots, TunnelStatus},
};

/// The cards of the jobs that the daemon has.
pub(super) fn cards(frame: &Frame<'_>) -> Markup {
    let (snapshots, status) = (&frame.shared.snapshots, frame.status);
    let cache = snapshots.cache();
    let https = snapshots.https().map(HttpsSnapshots::status);
    let tunnels = snapshots.tunnels().map(TunnelSnapshots::status);
    html! {
        @if let Some(cache) = &cache { (dns(status, cache)) }
        @if let Some(https) = &https { (hot_https(status, https)) }
        @if let Some(tunnels) = &tunnels { (tunnel(status, tunnels)) }
        @if cache.is_none() && https.is_none() && tunnels.is_none() { p.none { "The config has no job." } }
    }
}

/// Requests of clients a second: since the start, until the script knows those of late.
fn rate(status: &StatusRow, what: &str) -> Markup {
    let seconds = status.uptime.as_secs_f64();
    let total = status.requests.get(what).copied();
    let mean = total.filter(|_| seconds >= 1.0).map(|total| total as f64 / seconds);
    html! {
        div.large {
            dt { (what) "/s" span.quiet.mean { ", mean" } }
            dd data-request-rate=(what) { (super::words::rate(mean)) }
        }
        (fact("in all", &total.map_or_else(|| super::words::NONE.to_owned(), count)))
    }
}

fn dns(status: &StatusRow, cache: &CacheStatus) -> Markup {
    html! {
        article.card {
            h3 { "DNS" }
            dl.figures {
                (rate(status, "queries"))
                div.large { dt { "cache hits" } dd { (percent(cache.hit_ratio)) } }
                (fact("answers kept", &count(cache.entries)))
                (fact("memory", &if cache.size == 0 { "off".to_owned() } else { format!("{} of {}", bytes(cache.bytes as f64), bytes(cache.size as f64)) }))
                (fact("stale", &count(cache.stale)))
                (fact("prefetched", &count(cache.prefetches)))
            }
        }
    }
}

fn hot_https(status: &StatusRow, https: &HttpsStatus) -> Markup {
    let sum = |figure: fn(&crate::https::OriginRow) -> u64| count(https.origins.iter().map(figure).sum());
    html! {
        article.card {
            h3 { "HTTPS" }
            dl.figures {
                (rate(status, "requests"))
                div.large { dt { "origins" } dd { (count(https.origins.len() as u64)) } }
                (fact("addresses good", &sum(|origin| origin.addresses.validated)))
                (fact("quarantined", &sum(|origin| origin.addresses.quarantined)))
                (fact("in flight", &sum(|origin| origin.in_flight)))
                (fact("failed", &sum(|origin| origin.requests.failed)))
            }
        }
    }
}

fn tunnel(status: &StatusRow, tunnels: &TunnelStatus) -> Markup {
    let spares = tunnels.upstreams.iter().filter_map(|upstream| upstream.spares.as_ref());
    let (idle, target) = spares.fold((0, 0), |(idle, target), spares| (idle + spares.idle, target + spares.target));
    html! {
        article.card {
            h3 { "Tunnels" }
            dl.figures {
                (rate(status, "tunnels"))
                div.large { dt { "live" } dd { (count(tunnels.live)) } }
                (fact("limit", &count(tunnels.max)))
                (fact("spares", &format!("{} of {}", count(idle), count(target))))
                (fact("spare hits", &percent(tunnels.hit_ratio)))
                (fact("waiting", &count(tunnels.waiting)))
            }
        }
    }
}
