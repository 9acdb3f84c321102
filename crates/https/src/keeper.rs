//! What an origin needs while nobody asks: its addresses found again, bad ones probed, connections kept ready.
//!
//! Two tasks an origin, ended with it. What is deliberately not here: what becomes of an address by a request (`client`).

use std::{
    future::Future,
    net::IpAddr,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::Request;
use keepwarm_pool::{AcquireError, AcquireOptions};
use keepwarm_transport::error::Error as TransportError;

use crate::{
    body::RequestBody,
    client::Pool,
    config::{AddressSource, Validate},
    error::{Error, Side},
    exchange::{self, Failure, Until},
    head::Head,
    inventory::{AddressFile, AddressRow, AddressState, Choice, Found, Inventory, SourceId, expand},
    origin::Origin,
    site,
};

/// How far a warm-up has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WarmUp {
    /// Connections that are wanted.
    pub wanted: usize,
    /// Connections that are open.
    pub open: usize,
    /// Addresses that are known good.
    pub addresses: usize,
    /// Addresses that could not be connected to, or were found bad.
    pub failed: usize,
}

/// Keeps the addresses of an origin until it is gone.
pub(crate) async fn keep(pool: Pool, origin: Weak<Origin>) {
    tokio::join!(find(&origin), probe(&pool, &origin));
}

/// Finds addresses, again and again.
async fn find(origin: &Weak<Origin>) {
    let mut failures = 0;
    loop {
        let Some(strong) = origin.upgrade() else { return };
        let pause = match find_once(&strong).await {
            Ok(next) => {
                failures = 0;
                next
            }
            Err(_) => {
                failures += 1;
                let pause = RETRY_MIN * 2u32.saturating_pow(failures - 1).min(64);
                Some(pause.min(strong.config.refresh.unwrap_or(RETRY_MAX)).min(RETRY_MAX))
            }
        };
        let site = strong.site().clone();
        drop(strong);
        match pause {
            Some(pause) => _ = tokio::time::timeout(pause, site.looked_for()).await,
            None => site.looked_for().await,
        }
    }
}

/// Asks every source once. Returns when to ask again.
///
/// # Errors
/// The first source that failed; what the others said counts, and what this one said before stays.
async fn find_once(origin: &Arc<Origin>) -> Result<Option<Duration>, ()> {
    let (mut trouble, mut next) = (None, origin.config.refresh);
    let sources = origin.progress().borrow().sources;
    let nets = site::nets(&origin.config);
    if !nets.is_empty() {
        note(origin, SourceId::Config, expand(&nets, origin.config.addresses_max, origin.draw()));
    }
    for (index, source) in origin.config.addresses.iter().enumerate() {
        if let AddressSource::File(path) = source {
            match read_file(path).await {
                Ok(nets) => {
                    let index = u16::try_from(index).unwrap_or(u16::MAX);
                    let ips = expand(&nets, origin.config.addresses_max, origin.draw());
                    note(origin, SourceId::File(index), ips);
                }
                Err(error) => trouble = trouble.or(Some(format!("{}: {error}", path.display()))),
            }
        }
    }
    if site::asks_dns(&origin.config) {
        match origin.look_up().await {
            Ok(found) => {
                next = match (next, found.ttl) {
                    (Some(refresh), Some(ttl)) => Some(refresh.min(ttl.max(TTL_MIN))),
                    (next, _) => next,
                };
                note(origin, SourceId::Dns, found.addresses);
            }
            Err(error) => trouble = trouble.or(Some(error.to_string())),
        }
    }
    let is_source = |source| site::is_source(&origin.config, source, &origin.config);
    origin.with_inventory(|inventory| inventory.keep_sources(is_source));
    let failed = trouble.is_some();
    origin.touch(|progress| {
        // Others may have come meanwhile, and another task with them.
        if progress.sources == sources {
            progress.lookups += 1;
            progress.trouble = trouble.take().map(Into::into);
        }
    });
    if failed { Err(()) } else { Ok(next) }
}

fn note(origin: &Origin, source: SourceId, ips: Vec<IpAddr>) {
    let now = tokio::time::Instant::now().into_std();
    let Found { added, gone, refused, beyond_max } =
        origin.with_inventory(|inventory| inventory.found(source, ips, now));
    if added + gone > 0 {
        tracing::info!(origin = %origin.authority(), %source, added, gone, refused, "addresses found");
    }
    if beyond_max > 0 {
        let max = origin.config.addresses_max;
        tracing::warn!(origin = %origin.authority(), %source, beyond_max, max, "addresses left out: raise addresses_max");
    }
}

async fn read_file(path: &Path) -> Result<Vec<ipnet::IpNet>, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let length = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if length > FILE_MAX {
            return Err(format!("the file is larger than {FILE_MAX} bytes"));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        AddressFile::parse(&text).map_err(|error| error.to_string())
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Probes candidates and what comes out of quarantine.
async fn probe(pool: &Pool, origin: &Weak<Origin>) {
    let mut probes = FuturesUnordered::new();
    loop {
        let Some(strong) = origin.upgrade() else { return };
        let mut progress = strong.progress();
        progress.borrow_and_update();
        let now = tokio::time::Instant::now().into_std();
        // Not through `touch`: this is no change that anyone waits for.
        let (due, next) = strong.due(PROBES_MAX - probes.len(), now);
        for choice in due {
            probes.push(probe_once(pool.clone(), strong.clone(), choice));
        }
        drop(strong);
        let full = probes.len() >= PROBES_MAX;
        let next = next.filter(|_| !full).map_or(now + IDLE, |next| next.min(now + IDLE));
        tokio::select! {
            Some(()) = probes.next() => {}
            changed = progress.changed(), if !full => if changed.is_err() { return },
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// The probe is under way from this call on, not from the first look at the future.
fn probe_once(pool: Pool, origin: Arc<Origin>, choice: Choice) -> impl Future<Output = ()> {
    let probe = Probe { origin, choice, is_over: false };
    async move {
        let origin = &probe.origin;
        let began = tokio::time::Instant::now();
        let outcome = check(&pool, origin, choice.ip).await;
        let now = tokio::time::Instant::now();
        let latency = now.saturating_duration_since(began);
        match &outcome {
            Ok(()) => tracing::debug!(origin = %origin.authority(), ip = %choice.ip, "address is good"),
            Err(Bad::Address(error)) => {
                tracing::info!(origin = %origin.authority(), ip = %choice.ip, error, "address put aside");
            }
            Err(Bad::Local(error)) => {
                tracing::debug!(origin = %origin.authority(), ip = %choice.ip, error, "address not probed");
            }
        }
        probe.end(|inventory| match &outcome {
            Ok(()) => inventory.validated(choice.id, Ok(latency), now.into_std()),
            Err(Bad::Address(error)) => inventory.validated(choice.id, Err(error), now.into_std()),
            Err(Bad::Local(_)) => inventory.given_up(choice.id, now.into_std()),
        });
    }
}

/// A probe that is under way. When it is dropped before its end, with the task that made it, another task may make it again.
struct Probe {
    origin: Arc<Origin>,
    choice: Choice,
    is_over: bool,
}

impl Probe {
    fn end(mut self, note: impl FnOnce(&mut Inventory)) {
        self.is_over = true;
        self.origin.with_inventory(note);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_over {
            let now = tokio::time::Instant::now().into_std();
            self.origin.with_inventory(|inventory| inventory.cut_off(self.choice.id, now));
        }
    }
}

/// What a probe found.
enum Bad {
    /// The address is not good.
    Address(String),
    /// Nothing was found out about it.
    Local(String),
}

/// Connects to an address and, where that is asked for, sends the validation request.
async fn check(pool: &Pool, origin: &Arc<Origin>, ip: IpAddr) -> Result<(), Bad> {
    let default = Validate::default();
    let validate = origin.config.validate.as_ref();
    let timeout = validate.unwrap_or(&default).timeout;
    let deadline = tokio::time::Instant::now() + timeout;
    let host = origin.host(pool, origin.main(), ip);
    let options = AcquireOptions { deadline: Some(deadline.into_std()), ..AcquireOptions::default() };
    let lease =
        host.acquire_with(options).await.map_err(|error| not_leased(&error, timeout, origin.config.proxy.is_some()))?;
    let Some(validate) = validate else { return Ok(()) };
    let mut request = Request::new(());
    *request.method_mut() = validate.method.clone();
    let path = validate.path.parse().map_err(|error| Bad::Local(format!("path of validate: {error}")))?;
    *request.uri_mut() = path;
    let profile = origin.config.profile_headers.then(|| origin.main().headers());
    let mut body = RequestBody::empty();
    let head = Head::new(request.into_parts().0, profile, &body);
    let until = Until { at: deadline.into_std(), after_upload: None };
    match exchange::send(lease, origin.main(), &head, &mut body, timeout, until, None).await {
        Err((Failure::Silent { .. }, mut lease, _)) => {
            lease.poison();
            Err(Bad::Address(format!("no answer to {} within {timeout:.1?}", validate.method)))
        }
        Err((Failure::Transport(error), ..)) if is_local(&error) => Err(Bad::Local(error.to_string())),
        Err((Failure::Transport(error) | Failure::Refused(error) | Failure::Reset(error), ..)) => {
            Err(Bad::Address(error.to_string()))
        }
        Err((Failure::RequestBody(error), ..)) => Err(Bad::Local(error.to_string())),
        Ok((head, mut incoming)) => {
            if !validate.statuses.contains(head.status) {
                return Err(Bad::Address(format!("{} answered {}", validate.method, head.status.as_u16())));
            }
            incoming.skip(deadline).await;
            Ok(())
        }
    }
}

fn not_leased(error: &AcquireError<TransportError>, timeout: Duration, has_proxy: bool) -> Bad {
    if let AcquireError::Dial(dial) = error {
        return if is_local(dial) { Bad::Local(dial.to_string()) } else { Bad::Address(dial.to_string()) };
    }
    match Error::acquire(error).side() {
        // Behind a proxy nobody knows which of the two was slow.
        Side::Upstream if !has_proxy => Bad::Address(format!("no connection within {timeout:.1?}: {error}")),
        Side::Upstream | Side::Local | Side::Client => Bad::Local(error.to_string()),
    }
}

/// Whether an error says nothing about the address: it is this machine's, or the proxy's.
pub(crate) fn is_local(error: &TransportError) -> bool {
    error.side() != Side::Upstream || error.is_proxy()
}

/// Connects at start, and keeps some connections open.
pub(crate) async fn stay_ready(pool: Pool, origin: Weak<Origin>) {
    let (warm, min_idle) = match origin.upgrade() {
        Some(origin) => (origin.config.warm, origin.config.min_idle),
        None => return,
    };
    let mut wanted = warm.max(min_idle);
    while wanted > 0 {
        let Some(strong) = origin.upgrade() else { return };
        if count_open(&pool, &strong, &strong.rows(tokio::time::Instant::now().into_std())) < wanted {
            let result = warm_up(&pool, &strong, wanted, |_| {}).await;
            match result {
                Ok(WarmUp { open, .. }) => {
                    tracing::debug!(origin = %strong.authority(), open, wanted, "connections ready");
                }
                Err(error) => tracing::debug!(origin = %strong.authority(), %error, wanted, "connections not ready"),
            }
        }
        drop(strong);
        wanted = min_idle;
        tokio::time::sleep(READY_INTERVAL).await;
    }
}

/// Connects until `wanted` connections are open, over as many addresses as possible.
pub(crate) async fn warm_up(
    pool: &Pool,
    origin: &Arc<Origin>,
    wanted: usize,
    mut tell: impl FnMut(&WarmUp) + Send,
) -> Result<WarmUp, Error> {
    let mut changes = origin.progress();
    let deadline = tokio::time::Instant::now() + WARM_UP_MAX;
    // Connections to an address that this round asks for: first one to each, then a second to each ...
    let mut round = 1;
    let mut last: Option<AcquireError<TransportError>> = None;
    loop {
        let seen = changes.borrow_and_update().clone();
        let rows = origin.rows(tokio::time::Instant::now().into_std());
        let report = report(pool, origin, &rows, wanted);
        tell(&report);
        if report.open >= wanted {
            return Ok(report);
        }
        let hosts = below(pool, origin, &rows, round);
        if hosts.is_empty() {
            if seen.lookups == 0 || origin.is_hopeful() || changes.has_changed().unwrap_or(false) {
                // More addresses may come, or turn out good.
                if let Ok(Ok(())) = tokio::time::timeout_at(deadline, changes.changed()).await {
                    continue;
                }
            } else if round < pool.limits().max_per_host && report.addresses > 0 {
                round += 1;
                continue;
            }
            return ended(report, last, seen.trouble.as_deref());
        }
        let more = wanted - report.open;
        let mut dials: FuturesUnordered<_> =
            hosts.into_iter().take(more.min(DIALS_MAX)).map(|host| async move { host.warm_up(round).await }).collect();
        while let Some(result) = dials.next().await {
            if let Err(error) = result {
                last = Some(error);
            }
            let rows = origin.rows(tokio::time::Instant::now().into_std());
            tell(&self::report(pool, origin, &rows, wanted));
        }
        let rows = origin.rows(tokio::time::Instant::now().into_std());
        let progressed = count_open(pool, origin, &rows) > report.open;
        let is_late = tokio::time::Instant::now() >= deadline;
        if is_late || (!progressed && round >= pool.limits().max_per_host) {
            return ended(report, last, seen.trouble.as_deref());
        }
        round += usize::from(!progressed);
    }
}

fn ended(report: WarmUp, last: Option<AcquireError<TransportError>>, trouble: Option<&str>) -> Result<WarmUp, Error> {
    match (report.open, last) {
        (0, Some(error)) => Err(Error::acquire(&error)),
        (0, None) => Err(Error::no_address(trouble.unwrap_or("none of its addresses can be used now"))),
        _ => Ok(report),
    }
}

/// The pool's handles of good addresses with fewer than `round` connections, those with the lowest latency first.
fn below(
    pool: &Pool,
    origin: &Arc<Origin>,
    rows: &[AddressRow],
    round: usize,
) -> Vec<keepwarm_pool::Host<crate::connection::Dialer>> {
    let mut good: Vec<_> = rows.iter().filter(|row| is_good(origin, row)).collect();
    let focus = origin.focus();
    let order = |row: &AddressRow| (!focus.contains(&row.ip), row.latency_s.unwrap_or(f64::MAX));
    good.sort_by(|a, b| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal));
    let hosts = good.into_iter().map(|row| origin.host(pool, origin.main(), row.ip));
    hosts.filter(|host| host.stats().gauges.open < round).collect()
}

/// Whether connections may be made to it ahead of requests.
fn is_good(origin: &Origin, row: &AddressRow) -> bool {
    let needs_validation = origin.config.validate.is_some();
    !row.banned
        && row.resting_for.is_none()
        && (row.state == AddressState::Validated || (row.state == AddressState::Candidate && !needs_validation))
}

fn report(pool: &Pool, origin: &Arc<Origin>, rows: &[AddressRow], wanted: usize) -> WarmUp {
    WarmUp {
        wanted,
        open: count_open(pool, origin, rows),
        addresses: rows.iter().filter(|row| is_good(origin, row)).count(),
        failed: rows.iter().filter(|row| row.state == AddressState::Quarantined).count(),
    }
}

fn count_open(pool: &Pool, origin: &Arc<Origin>, rows: &[AddressRow]) -> usize {
    let good = rows.iter().filter(|row| is_good(origin, row));
    good.map(|row| origin.host(pool, origin.main(), row.ip).stats().gauges.open).sum()
}

/// Pauses between look-ups that failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// No look-up follows another sooner, however short its records live.
const TTL_MIN: Duration = Duration::from_secs(10);

/// Probes of one origin at a time.
const PROBES_MAX: usize = 8;

/// Dials of one warm-up at a time.
const DIALS_MAX: usize = 16;

/// The longest that a probing task sleeps without looking.
const IDLE: Duration = Duration::from_secs(600);

/// Between two looks at the connections that are to be kept ready.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// For how long a warm-up waits for addresses.
const WARM_UP_MAX: Duration = Duration::from_secs(60);

/// Bytes of a file with addresses.
const FILE_MAX: u64 = 4 << 20;
