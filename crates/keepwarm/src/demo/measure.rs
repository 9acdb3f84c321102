//! One run: a transport, reuse off or pooled, both loads; and what the server and the upstreams were seen to do.
//!
//! Connections, ports and handshakes are counted by the upstreams, times by the clients, CPU time by the server's process.
//! Nothing is derived from what should have happened.

use std::{cell::Cell, net::SocketAddr, path::Path, rc::Rc, time::Duration};

use anyhow::Context as _;
use keepwarm_dns::config::Transport;
use keepwarm_lab::{Ca, CloseKind, Faults, Lab, LabSpec, TransportCounters};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    latency::Latency,
    load::{Clients, OnAnswer, Outcome},
    plan::{DELAY, Phase, Plan, UPSTREAMS},
    result::{PhaseResult, Seen, Source},
    server::{Server, Setup, Watch},
};

/// The upstreams of all runs, on a runtime of their own.
#[derive(Debug)]
pub(super) struct Upstreams {
    labs: Vec<Lab>,
}

impl Upstreams {
    /// Starts them on `runtime`, with one CA for all.
    ///
    /// # Errors
    /// A port that cannot be listened on.
    pub(super) async fn start(runtime: &Handle) -> anyhow::Result<Upstreams> {
        let start = async {
            let ca = Ca::new();
            let mut labs = Vec::new();
            for _ in 0..UPSTREAMS {
                let faults = Faults { delay: DELAY, ..Faults::default() };
                labs.push(Lab::start_with_ca(LabSpec { faults, ..LabSpec::default() }, &ca).await?);
            }
            Ok::<_, std::io::Error>(labs)
        };
        let labs = runtime.spawn(start).await.context("start the upstreams")?.context("start the upstreams")?;
        Ok(Upstreams { labs })
    }

    /// The CA of their certificates.
    pub(super) fn ca_pem(&self) -> &str {
        self.labs[0].ca_pem()
    }

    /// Where they are asked over `transport`.
    pub(super) fn addresses(&self, transport: Transport) -> Vec<SocketAddr> {
        let address = match transport {
            Transport::Udp => Lab::udp_addr,
            Transport::Tcp => Lab::tcp_addr,
            Transport::Tls => Lab::tls_addr,
            Transport::Https => Lab::https_addr,
            Transport::Quic => Lab::quic_addr,
            Transport::H3 => Lab::h3_addr,
        };
        self.labs.iter().map(address).collect()
    }

    /// Ends them, and waits until their sockets are closed.
    pub(super) async fn stop(self) {
        for lab in self.labs {
            lab.stop().await;
        }
    }

    fn counters(&self, transport: Transport) -> impl Iterator<Item = TransportCounters> {
        self.labs.iter().map(move |lab| {
            let counters = lab.counters();
            match transport {
                Transport::Udp => counters.udp,
                Transport::Tcp => counters.tcp,
                Transport::Tls => counters.tls,
                Transport::Https => counters.https,
                Transport::Quic => counters.quic,
                Transport::H3 => counters.h3,
            }
        })
    }

    /// Waits until the connections of the server before are gone and starts counting anew.
    async fn start_anew(&self, transport: Transport) {
        let deadline = Instant::now() + GONE_TIMEOUT;
        while self.counters(transport).any(|counters| counters.open > 0) {
            if Instant::now() > deadline {
                self.labs.iter().for_each(|lab| lab.close_all(CloseKind::Reset));
            }
            sleep(GONE_POLL).await;
        }
        self.labs.iter().for_each(Lab::reset_counters);
    }

    fn seen(&self, transport: Transport) -> Seen {
        let mut seen = Seen::default();
        for counters in self.counters(transport) {
            let is_stream = transport != Transport::Udp;
            seen.add(&Seen {
                queries: counters.queries,
                sockets: counters.sockets,
                sockets_per_upstream: counters.sockets,
                source_ports: counters.source_ports,
                tcp_connects: counters.accepted,
                handshakes_full: counters.handshakes_full,
                handshakes_resumed: counters.handshakes_resumed,
                handshakes_failed: counters.handshakes_failed,
                open_max: is_stream.then_some(counters.open_max),
                bad: counters.bad,
            });
        }
        seen
    }
}

/// What a phase is measured with.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// The load.
    pub(super) plan: &'a Plan,
    /// The upstreams.
    pub(super) upstreams: &'a Upstreams,
    /// The CA as a file.
    pub(super) ca: &'a Path,
    /// Where the servers' files go.
    pub(super) directory: &'a Path,
    /// Called for each query that ended.
    pub(super) on_answer: OnAnswer,
}

impl Bench<'_> {
    /// One load on a new server. Needs a `LocalSet`.
    ///
    /// # Errors
    /// A server that does not start or ends early, or sockets that cannot be opened.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server.
    pub(super) async fn phase(
        &self,
        transport: Transport,
        reuse: bool,
        clients: usize,
        phase: Phase,
    ) -> anyhow::Result<PhaseResult> {
        self.upstreams.start_anew(transport).await;
        let addresses = self.upstreams.addresses(transport);
        let strategy = phase.strategy();
        let setup = Setup { transport, reuse, strategy, clients, upstreams: &addresses, ca: self.ca };
        let mut server = Server::start(setup, self.directory).await?;
        let started = server.cpu_time().await?;
        let watched = (transport == Transport::Udp).then(|| Watched::start(server.watch()));
        let part = format!("{}.{}", transport.as_str(), if reuse { "pooled" } else { "naive" });
        let Plan { seed, paced, warm_after, .. } = *self.plan;
        let population = Clients::open(server.address, clients, seed, &part, self.on_answer.clone()).await?;
        let (outcome, warm_after) = match phase {
            Phase::Burst => (population.burst().await?, Duration::ZERO),
            Phase::Paced => (population.paced(self.plan.paced_queries(clients), paced).await?, warm_after),
        };
        drop(population);
        // The counters before the stop: what a drain closes is not what the load did.
        let mut seen = self.upstreams.seen(transport);
        let source = match watched {
            Some(watched) => {
                seen.open_max = watched.open_max().await;
                Source::Server
            }
            None => Source::Upstreams,
        };
        let cpu = server.cpu_time().await?.zip(started).map(|(now, started)| now.saturating_sub(started));
        server.stop().await?;
        Ok(result(phase, clients, outcome, warm_after, seen, source, cpu))
    }

    /// The paced load of `clients` on an upstream itself, with nothing between: what this machine and its timers add to the delay.
    ///
    /// # Errors
    /// Sockets that cannot be opened.
    pub(super) async fn direct(&self, clients: usize, length: Duration) -> anyhow::Result<Option<Latency>> {
        let address = self.upstreams.addresses(Transport::Udp)[0];
        let on_answer = OnAnswer(Rc::new(|| ()));
        let population = Clients::open(address, clients, self.plan.seed, "direct", on_answer).await?;
        let outcome = population.paced(self.plan.paced_queries(clients), length).await?;
        Ok(Latency::of(outcome.times.into_iter().map(|(_, took)| took).collect()))
    }
}

fn result(
    phase: Phase,
    clients: usize,
    outcome: Outcome,
    warm_after: Duration,
    seen: Seen,
    open_max_source: Source,
    cpu: Option<Duration>,
) -> PhaseResult {
    let warm = outcome.times.iter().filter(|(left, _)| *left >= warm_after).map(|(_, took)| *took).collect();
    PhaseResult {
        phase,
        clients,
        queries: outcome.queries,
        answered: outcome.answered,
        wrong: outcome.wrong,
        failed: outcome.failed,
        unanswered: outcome.unanswered,
        first_wrong: outcome.first_wrong,
        took: outcome.took,
        lag_max: outcome.lag_max,
        latency: Latency::of(outcome.times.into_iter().map(|(_, took)| took).collect()),
        warm: Latency::of(warm),
        seen,
        open_max_source,
        cpu,
    }
}

/// Watches the pools of a server whose sockets its upstreams cannot see opening and closing.
#[derive(Debug)]
struct Watched {
    watch: Watch,
    open_max: Rc<Cell<Option<u64>>>,
    /// Aborted on drop.
    _task: JoinSet<()>,
}

impl Watched {
    fn start(watch: Watch) -> Watched {
        let open_max = Rc::new(Cell::new(None));
        let seen = Rc::clone(&open_max);
        let mut task = JoinSet::new();
        task.spawn_local(async move {
            loop {
                seen.set(seen.get().max(watch.open_max().await));
                sleep(WATCH_PERIOD).await;
            }
        });
        Watched { watch, open_max, _task: task }
    }

    /// The most up to now. Asks once more: what a short load has opened is still there at its end.
    async fn open_max(&self) -> Option<u64> {
        self.open_max.get().max(self.watch.open_max().await)
    }
}

const WATCH_PERIOD: Duration = Duration::from_millis(50);
const GONE_TIMEOUT: Duration = Duration::from_secs(2);
const GONE_POLL: Duration = Duration::from_millis(5);
