//! Spares of tunnels: how many are to be ready so that a tunnel does not wait for a dial.

use super::{super::Material, Advice, Weight, percent, whole, with_headroom};
use crate::pools::short;
use keepwarm_control::rows::{Job, PoolRow, UpstreamRow};

/// What the upstreams of tunnels call for.
pub(super) fn advise(material: &Material) -> Vec<Advice> {
    let tunnels = material.upstreams.iter().filter(|upstream| upstream.job == Job::Tunnel);
    tunnels.filter_map(|upstream| spares(material, upstream)).collect()
}

fn spares(material: &Material, upstream: &UpstreamRow) -> Option<Advice> {
    let figure = |name: &str| upstream.figures.get(name).copied().unwrap_or(0);
    let (hits, misses, target) = (figure("hits"), figure("misses"), figure("spares_target"));
    let total = hits + misses;
    let ratio = hits as f64 / total.max(1) as f64;
    if total < TUNNELS_MIN || ratio >= HITS_MIN {
        return None;
    }
    let pool = material.pools.iter().find(|pool| Some(&pool.name) == upstream.pool.as_ref())?;
    let dial = pool.dial.p99?;
    let rate = busiest(material, upstream)?;
    // While a spare is made, so many tunnels come: that is the demand for spares.
    let needed = whole(with_headroom(rate * dial.as_secs_f64())).max(target + 1);
    let evidence = format!(
        "{} of {total} tunnels found a spare; up to {rate:.1} came a second and a spare takes {} to make (p99), {target} are kept ready",
        percent(ratio),
        short(dial)
    );
    let key = if needed > most(pool) { "tunnel.pool.spares_max" } else { "tunnel.pool.spares" };
    Some(Advice::new(Weight::Useful, &pool.name, evidence).set(material, key, &needed))
}

/// The most that may be kept ready.
fn most(pool: &PoolRow) -> u64 {
    pool.limits.max_idle_per_host
}

/// Requests a second in the busiest step but one in a hundred; none without a past.
fn busiest(material: &Material, upstream: &UpstreamRow) -> Option<f64> {
    let history = &material.history;
    let series = history.upstreams.iter().find(|series| {
        (series.job.as_str(), &series.name, &series.transport)
            == (upstream.job.as_str(), &upstream.name, &upstream.transport)
    })?;
    let most = super::super::summary::quantile(&series.requests, 0.99)?;
    Some(most as f64 / history.step.max(1) as f64)
}

/// Fewer tunnels say nothing.
const TUNNELS_MIN: u64 = 50;
/// Below this share tunnels wait for dials too often.
const HITS_MIN: f64 = 0.9;
