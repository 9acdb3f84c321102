//! What the status endpoint shows of hot HTTPS, and what can be asked of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ipnet::IpNet;
use keepwarm_https::{
    Client, Error, ErrorKind, Key, RecentRequest, WarmUp,
    inventory::{self, Counts},
};
use keepwarm_pool::{CloseReason, Gauges, Histogram, HostStats, Limits, NamedPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::{
    config::words::duration_words,
    run::{HttpsView, https::authority},
};
use keepwarm_control::{
    https::{
        AddressCounts, AddressRow, AddressState, GatewayRow, HttpsError, HttpsPoolRow, HttpsSnapshots, HttpsStatus,
        OriginRow, RequestCounts, WarmRequest, WarmRow,
    },
    rows::Stats,
};

/// A running client, as the status endpoint sees it.
#[derive(Debug)]
pub(super) struct Hot {
    view: HttpsView,
    warm_ups: Arc<Semaphore>,
}

impl Hot {
    pub(super) fn new(view: HttpsView) -> Hot {
        Hot { view, warm_ups: Arc::new(Semaphore::new(WARM_UPS_MAX)) }
    }

    /// Adds what there is to the counters of the whole daemon.
    pub(super) fn count(&self, stats: &mut Stats) {
        // Those of origins that are gone too: a counter that falls would be taken for a restart.
        let requests = self.view.client.requests();
        let gauges = self.view.client.pool_stats().gauges;
        stats.counters.extend(
            [
                ("https_requests", requests.came),
                ("https_answered", requests.answered),
                ("https_failed", requests.failed),
                ("https_cancelled", requests.cancelled),
                ("https_retried", requests.retried),
                ("https_reused", requests.reused),
                ("https_open", gauges.open as u64),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        stats.listen.extend(self.listeners());
        stats.counters.insert("gateway_requests".into(), self.view.gateway.stats().requests);
    }

    pub(super) fn pools(&self) -> Vec<NamedPool> {
        self.view.client.pools()
    }

    pub(super) fn recent(&self) -> Vec<RecentRequest> {
        self.view.client.recent()
    }

    /// The origins, each with the durations to the head of the answer.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (OriginRow, Histogram)> {
        let stats = self.view.client.stats().into_iter();
        let mut latencies: HashMap<String, Histogram> =
            stats.map(|origin| (origin.authority, origin.latency)).collect();
        self.status().origins.into_iter().map(move |row| {
            let latency = latencies.remove(&row.origin).unwrap_or_default();
            (row, latency)
        })
    }

    /// Those in force, whoever set them.
    fn limits(&self) -> Limits {
        self.view.client.pools().first().map_or_else(Limits::default, |named| named.pool.limits())
    }

    /// Where the gateway listens, as URLs.
    pub(super) fn listeners(&self) -> Vec<String> {
        self.view.gateway.addresses().iter().map(|address| format!("http://{address}")).collect()
    }

    /// How many addresses of an origin are in a network.
    fn within(&self, origin: &str, net: IpNet) -> u64 {
        let rows = self.view.client.inventory(origin).unwrap_or_default();
        rows.iter().filter(|row| net.contains(&row.ip)).count() as u64
    }
}

impl HttpsSnapshots for Hot {
    fn status(&self) -> HttpsStatus {
        let mut pools: HashMap<String, Gauges> = HashMap::new();
        for (key, HostStats { gauges, .. }) in self.view.client.host_stats() {
            let sum = pools.entry(authority(&key)).or_default();
            sum.open += gauges.open;
            sum.idle += gauges.idle;
            sum.in_use += gauges.in_use;
            sum.in_flight += gauges.in_flight;
        }
        let origins = self.view.client.stats().into_iter().map(|origin| {
            let mut row = OriginRow {
                origin: origin.authority,
                profile: origin.profile,
                configured: origin.is_configured,
                addresses: counts(origin.addresses),
                requests: requests(origin.requests),
                ..OriginRow::default()
            };
            if let Some(gauges) = pools.get(&row.origin) {
                row.open = gauges.open as u64;
                row.idle = gauges.idle as u64;
                row.in_use = gauges.in_use as u64;
                row.in_flight = gauges.in_flight as u64;
            }
            row
        });
        let (listen, stats) = (self.view.gateway.addresses(), self.view.gateway.stats());
        let gateway = (!listen.is_empty()).then(|| GatewayRow {
            listen: listen.iter().map(ToString::to_string).collect(),
            clients: stats.clients as u64,
            accepted: stats.accepted,
            turned_away: stats.turned_away,
            requests: stats.requests,
            refused: stats.refused,
            failed: stats.failed,
            broken: stats.broken,
        });
        HttpsStatus { origins: origins.collect(), gateway }
    }

    fn pools(&self) -> Vec<HttpsPoolRow> {
        let max = self.limits().max_per_host.min(self.limits().max_total);
        let mut rows: Vec<_> = self.view.client.host_stats().iter().map(|(key, stats)| pool(key, stats, max)).collect();
        rows.sort_by(|a, b| (&a.origin, &a.ip, &a.profile).cmp(&(&b.origin, &b.ip, &b.profile)));
        rows
    }

    fn addresses(&self, origin: &str) -> Result<Vec<AddressRow>, HttpsError> {
        Ok(self.view.client.inventory(origin).map_err(|error| refused(&error))?.into_iter().map(address).collect())
    }

    fn warm(&self, request: &WarmRequest) -> Result<mpsc::Receiver<WarmRow>, HttpsError> {
        let WarmRequest { origin, connections } = request.clone();
        warmable(connections, self.limits().max_idle).map_err(HttpsError::Invalid)?;
        let client = self.view.client.clone();
        // With `any_host`, the first who asks for a host makes it known.
        match client.inventory(&origin) {
            Err(error) if !self.view.client.serves_any_host() => return Err(refused(&error)),
            Ok(_) | Err(_) => {}
        }
        let busy = |_| HttpsError::Busy("too many warm-ups at once".into());
        let permit = self.warm_ups.clone().try_acquire_owned().map_err(busy)?;
        let (steps, heard) = mpsc::channel(STEPS_MAX);
        tokio::spawn(warm_up(client, origin, connections, steps, self.view.stopped.clone(), permit));
        Ok(heard)
    }

    fn ban(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError> {
        self.view.client.ban(origin, net).map_err(|error| refused(&error))?;
        Ok(self.within(origin, net))
    }

    fn allow(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError> {
        self.view.client.allow(origin, net).map_err(|error| refused(&error))?;
        Ok(self.within(origin, net))
    }
}

/// Warms up and tells of each step, until it is done, nobody listens any more, or the daemon stops.
async fn warm_up(
    client: Client,
    origin: String,
    wanted: usize,
    steps: mpsc::Sender<WarmRow>,
    mut stopped: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
) {
    let mut last = WarmRow { wanted, ..WarmRow::default() };
    let progress = |now: &WarmUp| {
        let now = step(now);
        if now != last {
            last = now.clone();
            // A listener that is too slow misses a step, and hears of the next.
            let _ = steps.try_send(now);
        }
    };
    let ended = tokio::select! {
        ended = client.warm_up(&origin, wanted, progress) => ended.map_err(|error| error.to_string()),
        () = steps.closed() => return,
        () = tokio::time::sleep(WARM_UP_MAX) => Err(late()),
        _ = stopped.changed() => Err("the daemon is stopping".to_owned()),
    };
    let row = match ended {
        Ok(now) => WarmRow { done: true, ..step(&now) },
        Err(error) => WarmRow { done: true, error: Some(error), ..last },
    };
    let _ = steps.send(row).await;
}

/// Why a warm-up that took too long was given up.
pub(crate) fn late() -> String {
    format!("not ready within {}", duration_words(WARM_UP_MAX))
}

/// How far a warm-up has come, as it is shown.
pub(crate) fn step(now: &WarmUp) -> WarmRow {
    let WarmUp { wanted, open, addresses, failed } = *now;
    WarmRow { wanted, open, addresses, failed, done: false, error: None }
}

/// Whether so many connections can be ready at a time.
///
/// # Errors
/// What would be possible.
pub(crate) fn warmable(connections: usize, max_idle: usize) -> Result<(), String> {
    match connections {
        0 => Err("`connections` must be 1 or more".into()),
        more if more > max_idle => Err(format!(
            "{more} connections cannot be ready at a time: https.pool.max_idle closes all beyond {max_idle}; \
             ask for {max_idle} at most, or raise it"
        )),
        _ => Ok(()),
    }
}

fn refused(error: &Error) -> HttpsError {
    match error.kind() {
        ErrorKind::Request => HttpsError::Unknown(error.to_string()),
        _ => HttpsError::Invalid(error.to_string()),
    }
}

fn counts(counts: Counts) -> AddressCounts {
    AddressCounts {
        candidate: counts.candidate as u64,
        validated: counts.validated as u64,
        quarantined: counts.quarantined as u64,
        probing: counts.probing as u64,
        resting: counts.resting as u64,
        banned: counts.banned as u64,
    }
}

fn requests(requests: keepwarm_https::Requests) -> RequestCounts {
    RequestCounts {
        came: requests.came,
        answered: requests.answered,
        failed: requests.failed,
        cancelled: requests.cancelled,
        retried: requests.retried,
        reused: requests.reused,
    }
}

/// An address as it is shown.
pub(crate) fn address(row: inventory::AddressRow) -> AddressRow {
    let time = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    AddressRow {
        ip: row.ip,
        state: match row.state {
            inventory::AddressState::Candidate => AddressState::Candidate,
            inventory::AddressState::Validated => AddressState::Validated,
            inventory::AddressState::Quarantined => AddressState::Quarantined,
            inventory::AddressState::Probing => AddressState::Probing,
        },
        resting: time(row.resting_for),
        quarantined: time(row.quarantined_for),
        banned: row.banned,
        source: row.source,
        successes: row.successes,
        failures: row.failures,
        refusals: row.refusals,
        probes: row.probes,
        in_flight: u64::from(row.in_flight),
        latency: time(row.latency_s),
        last_status: row.last_status,
        last_error: row.last_error,
    }
}

fn pool(key: &Key, stats: &HostStats, max: usize) -> HttpsPoolRow {
    let HostStats { gauges, counters, dial, .. } = stats;
    let of_dials = |share| (dial.count() > 0).then(|| dial.quantile(share));
    let reasons = CloseReason::ALL.iter().map(|reason| (reason.as_str(), counters.closed(*reason)));
    let named = |(name, count): (&str, u64)| (count > 0).then(|| (name.to_owned(), count));
    HttpsPoolRow {
        origin: authority(key),
        ip: key.ip().to_string(),
        profile: key.profile().to_owned(),
        open: gauges.open as u64,
        max: max as u64,
        idle: gauges.idle as u64,
        in_use: gauges.in_use as u64,
        in_flight: gauges.in_flight as u64,
        dialing: gauges.dialing as u64,
        waiting: gauges.waiting as u64,
        hits: counters.hits,
        misses: counters.misses,
        reuse_ratio: (counters.acquires > 0).then(|| counters.reuse_ratio()),
        opened: counters.opened,
        reuse_failures: counters.reuse_failures,
        closed: reasons.filter_map(named).collect(),
        dial_errors: counters.dial_errors().iter().copied().filter_map(named).collect(),
        dial_p50: of_dials(0.5),
        dial_p95: of_dials(0.95),
        idle_limit: stats.idle_limit,
    }
}

/// For how long a warm-up may go on: the minute that it waits for addresses, and the dials after it.
pub(crate) const WARM_UP_MAX: Duration = Duration::from_secs(120);

/// Warm-ups under way at a time.
const WARM_UPS_MAX: usize = 4;

/// Steps of a warm-up that wait to be told.
const STEPS_MAX: usize = 16;
