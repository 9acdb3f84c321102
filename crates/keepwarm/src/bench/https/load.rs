//! The load of `keepwarm bench https`: so many requests, so many at a time, over connections of one kind.
//!
//! | run | clients | connections |
//! |---|---|---|
//! | cold | one a request, made before the clock starts | new, full handshake: a client that knows nothing has no ticket |
//! | resumed | one a worker, which first asks once for a ticket | new for each request, with the last one's ticket |
//! | hot | one for all, which first asks once a worker | those that are there |
//!
//! A client a worker keeps the resumed connections apart: a request that asks for a new connection may take one that another
//! request began after it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::Method;
use indicatif::ProgressBar;
use keepwarm_https::{Client, RequestOptions};
use tokio::{task::JoinSet, time::Instant};

use super::report::{Kind, Latency, RunResult};
use crate::{
    probe::{
        ask::{Failed, ask},
        origin::{Origin, Url},
    },
    run::cpu_time,
};

/// What all runs have in common.
pub(super) struct Load<'a> {
    origin: &'a Origin,
    method: Method,
    addresses: &'a [IpAddr],
    concurrency: u32,
    bar: ProgressBar,
}

/// What the workers of a run share.
struct Job {
    url: Url,
    method: Method,
    fresh: bool,
    /// Requests that were not begun.
    left: AtomicU64,
    /// Requests that failed in the whole run.
    failures: Arc<AtomicU64>,
    /// Clients for one request each; of a run that has them.
    clients: Mutex<Vec<Client>>,
    bar: ProgressBar,
}

/// What one worker, or all of them, did.
#[derive(Debug, Default)]
struct Tally {
    times: Vec<Duration>,
    failed: u64,
    first_failure: Option<Failed>,
    statuses: BTreeMap<u16, u64>,
    reused: u64,
    resumed: u64,
    bytes: u64,
    /// Connections of clients that served one request.
    opened: u64,
}

impl Load<'_> {
    pub(super) fn new<'a>(
        origin: &'a Origin,
        method: Method,
        addresses: &'a [IpAddr],
        concurrency: u32,
        bar: ProgressBar,
    ) -> Load<'a> {
        Load { origin, method, addresses, concurrency, bar }
    }

    /// Asks once, with a client of its own.
    ///
    /// # Errors
    /// When the profile cannot be used here.
    pub(super) async fn once(&self) -> anyhow::Result<Result<(), Failed>> {
        let client = self.ready(1).await?;
        let result = ask(&client, &self.origin.url, &self.method, RequestOptions::default()).await;
        client.close(Duration::ZERO).await;
        Ok(result.map(|_| ()))
    }

    /// Makes one run.
    ///
    /// # Errors
    /// When the profile cannot be used here.
    pub(super) async fn run(&self, kind: Kind, requests: u32) -> anyhow::Result<RunResult> {
        let mut run = Measured::default();
        match kind {
            Kind::Cold => self.cold(requests, &mut run).await?,
            Kind::Resumed => self.resumed(requests, &mut run).await?,
            Kind::Hot => self.hot(requests, &mut run).await?,
        }
        Ok(run.result(kind, requests))
    }

    async fn cold(&self, requests: u32, run: &mut Measured) -> anyhow::Result<()> {
        let failures = Arc::<AtomicU64>::default();
        let mut left = requests;
        while left > 0 && failures.load(Ordering::Relaxed) < FAILURES_MAX {
            let batch = left.min(BATCH.max(self.concurrency));
            let mut clients = Vec::new();
            for _ in 0..batch {
                clients.push(self.ready(1).await?);
            }
            let job = Job { clients: Mutex::new(clients), ..self.job(batch, false, &failures) };
            run.measure(job, vec![None; self.concurrency as usize]).await?;
            left -= batch;
        }
        Ok(())
    }

    async fn resumed(&self, requests: u32, run: &mut Measured) -> anyhow::Result<()> {
        let mut workers = Vec::new();
        for _ in 0..self.concurrency.min(requests) {
            let client = self.ready(2).await?;
            // Its failure would be that of the measured requests as well, which are what is told.
            let _ = ask(&client, &self.origin.url, &self.method, RequestOptions::default()).await;
            workers.push(Some(client));
        }
        self.with_clients(workers.clone(), workers, requests, true, run).await
    }

    async fn hot(&self, requests: u32, run: &mut Measured) -> anyhow::Result<()> {
        let client = self.ready(self.concurrency as usize).await?;
        for workers in [1, self.concurrency] {
            let mut first = JoinSet::new();
            for _ in 0..workers {
                let (client, url, method) = (client.clone(), self.origin.url.clone(), self.method.clone());
                first.spawn(async move { ask(&client, &url, &method, RequestOptions::default()).await.is_ok() });
            }
            first.join_all().await;
        }
        let workers = vec![Some(client.clone()); self.concurrency.min(requests) as usize];
        self.with_clients(vec![Some(client)], workers, requests, false, run).await
    }

    /// A run over clients that are ready: the connections that they open in it are counted.
    async fn with_clients(
        &self,
        all: Vec<Option<Client>>,
        workers: Vec<Option<Client>>,
        requests: u32,
        fresh: bool,
        run: &mut Measured,
    ) -> anyhow::Result<()> {
        let opened = || all.iter().flatten().map(|client| client.pool_stats().counters.opened).sum::<u64>();
        let before = opened();
        run.measure(self.job(requests, fresh, &Arc::default()), workers).await?;
        run.tally.opened += opened() - before;
        for client in all.iter().flatten() {
            client.close(Duration::ZERO).await;
        }
        Ok(())
    }

    /// A client that has its addresses.
    async fn ready(&self, connections: usize) -> anyhow::Result<Client> {
        let client = self.origin.client(self.addresses, connections)?;
        client.find_addresses(self.origin.url.authority()).await?;
        Ok(client)
    }

    fn job(&self, requests: u32, fresh: bool, failures: &Arc<AtomicU64>) -> Job {
        Job {
            url: self.origin.url.clone(),
            method: self.method.clone(),
            fresh,
            left: AtomicU64::new(requests.into()),
            failures: failures.clone(),
            clients: Mutex::default(),
            bar: self.bar.clone(),
        }
    }
}

/// What a run took, in one or more parts.
#[derive(Debug, Default)]
struct Measured {
    tally: Tally,
    took: Duration,
    /// `None` where the system does not say.
    cpu: Option<Duration>,
}

impl Measured {
    /// Lets the workers loose, and takes the time and CPU time of this process until the last one has ended.
    async fn measure(&mut self, job: Job, workers: Vec<Option<Client>>) -> anyhow::Result<()> {
        let job = Arc::new(job);
        let (cpu, start) = (cpu_time(), Instant::now());
        let mut tasks = JoinSet::new();
        for client in workers {
            tasks.spawn(work(job.clone(), client));
        }
        let mut tallies = Vec::new();
        while let Some(tally) = tasks.join_next().await {
            tallies.push(tally?);
        }
        self.took += start.elapsed();
        let used = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        self.cpu = used.map(|used| used + self.cpu.unwrap_or_default());
        tallies.into_iter().for_each(|tally| self.tally.add(tally));
        Ok(())
    }

    fn result(self, kind: Kind, planned: u32) -> RunResult {
        let Measured { tally, took, cpu } = self;
        let answered = tally.times.len() as u64;
        let requests = answered + tally.failed;
        let seconds = took.as_secs_f64();
        RunResult {
            kind,
            requests,
            left_out: u64::from(planned).saturating_sub(requests),
            answered,
            failed: tally.failed,
            first_failure: tally.first_failure,
            statuses: tally.statuses,
            reused: tally.reused,
            handshakes_full: tally.opened.saturating_sub(tally.resumed),
            handshakes_resumed: tally.resumed,
            handshakes_per_request: tally.opened as f64 / requests.max(1) as f64,
            bytes: tally.bytes,
            took,
            per_second: if seconds > 0.0 { answered as f64 / seconds } else { 0.0 },
            latency: Latency::of(tally.times),
            cpu,
            cpu_per_10000: cpu.filter(|_| answered > 0).map(|cpu| cpu.mul_f64(10_000.0 / answered as f64)),
        }
    }
}

/// Asks until nothing is left, or too much failed; over its own client, or one of the job's for each request.
async fn work(job: Arc<Job>, client: Option<Client>) -> Tally {
    let mut tally = Tally::default();
    let options = RequestOptions { fresh: job.fresh, ..RequestOptions::default() };
    while job.take() {
        let once = if client.is_none() { job.client() } else { None };
        let Some(client) = client.as_ref().or(once.as_ref()) else { break };
        let result = ask(client, &job.url, &job.method, options.clone()).await;
        job.bar.inc(1);
        tally.count(&job, result);
        if let Some(once) = once {
            tally.opened += once.pool_stats().counters.opened;
            once.close(Duration::ZERO).await;
        }
    }
    tally
}

impl Job {
    /// Whether one more request is to be sent.
    fn take(&self) -> bool {
        let go = self.failures.load(Ordering::Relaxed) < FAILURES_MAX;
        go && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn client(&self) -> Option<Client> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Tally {
    fn count(&mut self, job: &Job, result: Result<crate::probe::ask::Answer, Failed>) {
        let result = result.and_then(|answer| match answer.is_whole {
            true => Ok(answer),
            false => Err(Failed { phase: "http", kind: "body", error: "the answer is too long to be read".to_owned() }),
        });
        match result {
            Ok(answer) => {
                self.times.push(answer.total);
                *self.statuses.entry(answer.status.as_u16()).or_default() += 1;
                self.reused += u64::from(answer.served.reused);
                self.resumed += u64::from(!answer.served.reused && answer.served.resumed);
                self.bytes += answer.bytes;
            }
            Err(failed) => {
                job.failures.fetch_add(1, Ordering::Relaxed);
                self.failed += 1;
                self.first_failure.get_or_insert(failed);
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.times.extend(other.times);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.reused += other.reused;
        self.resumed += other.resumed;
        self.bytes += other.bytes;
        self.opened += other.opened;
    }
}

/// A run ends after so many failures: a server that is down is not asked a thousand times.
const FAILURES_MAX: u64 = 10;

/// Clients for cold requests that are made ahead.
const BATCH: u32 = 64;
