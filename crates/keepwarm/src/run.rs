//! `keepwarm run`: the daemon from its start to its last query and request.
//!
//! DNS, hot HTTPS and tunnels run side by side and share nothing but the process, its limits and the status endpoint. The DNS server has
//! threads of its own. The other two live on the daemon's runtime, which has as many threads as there are workers where there is one of
//! them: one core's worth of TLS and copying would be the limit of all downloads together, and a long one would delay the rest. Without
//! them, and with one worker, the runtime is this thread alone, which spares what threads take to share work.

mod file;
mod https;
mod log;
mod reload;
mod snapshots;
mod tunnel;

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use keepwarm_dns::{
    config::DnsConfig,
    server::{ListenSocket, PoolEvent, PoolEvents, Server, StartError},
};
use keepwarm_transport::resolve::{Resolve, SystemResolver};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

use crate::{
    cli::{Exit, RunArgs, Unavailable},
    config::{Config, Loaded, Source, words::io_words},
    service::{self, Alive, Privileges, Service, StatusLine},
};
use keepwarm_control::{Control, Snapshots};

use https::Https;
use log::LogLevel;
use reload::{Parts, Reloader};
use snapshots::Views;
use tunnel::Tunnels;

pub use https::{HttpsView, OwnClient, Validation};
pub use snapshots::{Daemon, ask, report};
pub(crate) use snapshots::{WARM_UP_MAX, address, late, step, warmable};
pub use tunnel::TunnelView;

/// Runs the daemon until SIGTERM or SIGINT (Ctrl-C), then lets queries and requests in flight end. A second signal ends it at once.
///
/// # Errors
/// [`Unavailable`] when an address cannot be listened on; when it cannot become the user that it should.
pub fn main(source: Source, loaded: Loaded, args: &RunArgs) -> anyhow::Result<Exit> {
    raise_file_limit();
    let privileges = Privileges::look_up(args)?;
    // Before any thread starts: what is taken over is taken out of the environment.
    let sockets = passed_sockets()?;
    let runtime = runtime(&loaded.config).context("start a runtime")?;
    let exit = runtime.block_on(Box::pin(run(source, loaded, sockets, Service::from_environment(), &privileges)));
    // The system's look-ups cannot be interrupted, and nobody waits for them any more.
    runtime.shutdown_background();
    exit
}

fn runtime(config: &Config) -> std::io::Result<Runtime> {
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    if workers == 1 || config.https.is_none() && config.tunnel.is_none() {
        return Builder::new_current_thread().enable_all().build();
    }
    Builder::new_multi_thread().worker_threads(workers).thread_name("gateway").enable_all().build()
}

async fn run(
    source: Source,
    loaded: Loaded,
    mut sockets: Vec<ListenSocket>,
    service: Service,
    privileges: &Privileges,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::new().context("listen for signals")?;
    let hangup = Hangup::new().context("listen for signals")?;
    let config = loaded.config.clone();
    if !sockets.is_empty() {
        tracing::info!(sockets = sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), "taken over");
    }
    let control = listen_for_status(&config, service::take_listener(&mut sockets, config.control.listen)).await?;
    let address = control.local_addr()?;
    let (stop, stopped) = watch::channel(());
    let (mut views, mut parts) = (Views::default(), Parts { control: Some(address), ..Parts::default() });
    let dns = match config.dns {
        None if !sockets.is_empty() => return Err(Unavailable(NO_DNS_FOR_SOCKETS.into()).into()),
        None => None,
        Some(config) => {
            let dns = Dns::start(config, sockets)?;
            views.dns = Some(Arc::downgrade(&dns.server));
            parts.dns.clone_from(&views.dns);
            Some(dns)
        }
    };
    let resolver: Arc<dyn Resolve> = match &dns {
        Some(dns) => Arc::new(dns.server.resolver()),
        None => Arc::new(SystemResolver::default()),
    };
    let https = match config.https {
        None => None,
        Some(config) => {
            let https = Https::start(config, Arc::clone(&resolver), &stopped)?;
            let view = https.view(stopped.clone());
            parts.https = Some((view.client.clone(), view.gateway.clone()));
            views.https = Some(view);
            Some(https)
        }
    };
    let mut own = vec![address];
    own.extend(dns.iter().flat_map(|dns| dns.server.listening()).map(|listen| listen.address));
    own.extend(https.iter().flat_map(Https::addresses));
    let tunnels = match config.tunnel {
        None => None,
        Some(config) => {
            let tunnels = Tunnels::start(config, Arc::clone(&resolver), &own, &stopped)?;
            let view = tunnels.view();
            parts.tunnels = Some((view.connector.clone(), view.server.clone()));
            views.tunnels = Some(view);
            Some(tunnels)
        }
    };
    // It keeps the server alive, which is taken apart at the end.
    drop(resolver);
    // All listeners are bound.
    privileges.give_up()?;
    let options = config.control.options();
    let log = LogLevel::new(config.log.filter.clone());
    let watched = source.path().map(Path::to_owned).filter(|_| config.control.watch);
    let reloader = Arc::new(Reloader::new(source, loaded, parts, Arc::clone(&log), service.clone()));
    let daemon = Arc::new(Daemon::new(views, log, Arc::clone(&reloader)));
    let reports = service.report(status_line(&daemon), alive(dns.as_ref()));
    let plane = Control::new(Arc::clone(&daemon) as Arc<dyn Snapshots>, address, options, stopped);
    reloader.steers(&plane);
    let steer = tokio::spawn(reload_on_hangup(hangup, Arc::downgrade(&plane)));
    let watch = watched.map(|path| tokio::spawn(file::watch(path, Arc::downgrade(&plane))));
    tracing::info!(%address, "status endpoint listens");
    #[cfg(feature = "otlp")]
    export(&plane)?;
    let endpoint = tokio::spawn(plane.serve(control));
    // Before connections are made ahead: upstreams that are down hold up nobody's start.
    service.ready().await;
    let warm_up = async {
        if let Some(dns) = &dns {
            dns.server.warm_up().await;
        }
        std::future::pending::<()>().await;
    };
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = warm_up => unreachable!("it goes on for ever"),
    };
    let told = Instant::now();
    tracing::info!(signal, "stopping: what is in flight may end");
    // No other config from here on.
    [Some(steer), watch].into_iter().flatten().for_each(|task| task.abort());
    daemon.stopping();
    reloader.stopping();
    service.stopping().await;
    drop(stop);
    let ended = async {
        let https = async {
            match https {
                Some(https) => https.stop(DRAIN).await,
                None => 0,
            }
        };
        let tunnels = async {
            match tunnels {
                Some(tunnels) => tunnels.stop().await,
                None => 0,
            }
        };
        let dns = async {
            match dns {
                Some(dns) => dns.stop().await,
                None => 0,
            }
        };
        // Side by side: a client of the status endpoint that does not finish holds up nobody's queries.
        let (queries, requests, tunnels, ()) = tokio::join!(dns, https, tunnels, end_of(endpoint));
        (queries, requests, tunnels)
    };
    let exit = tokio::select! {
        (queries, requests, tunnels) = ended => {
            match (queries, requests, tunnels) {
                (0, 0, 0) => tracing::info!("stopped"),
                _ => tracing::warn!(queries, requests, tunnels, "stopped: some were cut off"),
            }
            Ok(Exit::Ok)
        }
        signal = signals.next_after(told + SAME_SIGNAL) => {
            tracing::warn!(signal, "stopped at once");
            Ok(Exit::Failure)
        }
    };
    drop(reports);
    exit
}

/// Reads the config again each time that SIGHUP comes.
async fn reload_on_hangup(mut hangup: Hangup, control: Weak<Control>) {
    loop {
        hangup.next().await;
        let Some(control) = control.upgrade() else { return };
        tracing::info!("SIGHUP: the config is read again");
        // What became of it is in the log.
        let _ = control.reload().await;
    }
}

/// SIGHUP, which ends nobody from the moment that this is made.
struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    fn new() -> std::io::Result<Hangup> {
        Ok(Hangup {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Tells a collector, where the environment names one; it ends with the control plane.
///
/// # Errors
/// When a variable is not what it has to be.
#[cfg(feature = "otlp")]
fn export(plane: &Arc<Control>) -> anyhow::Result<()> {
    let options = keepwarm_control::otlp::OtlpOptions::from_environment(|name| std::env::var(name).ok());
    if let Some(options) = options.map_err(anyhow::Error::msg)? {
        tracing::info!(collector = options.endpoint(), "exports metrics and slow requests");
        tokio::spawn(Control::export(Arc::downgrade(plane), options));
    }
    Ok(())
}

fn status_line(daemon: &Arc<Daemon>) -> StatusLine {
    let daemon = Arc::clone(daemon);
    Arc::new(move || service::summary(&daemon.upstreams()))
}

/// Whether the data path runs: the DNS workers, where there are any. The rest lives on the runtime that this is polled on.
fn alive(dns: Option<&Dns>) -> Alive {
    let server = dns.map(|dns| Arc::downgrade(&dns.server)).unwrap_or_default();
    Arc::new(move |within| match server.upgrade() {
        Some(server) => Box::pin(server.is_alive(within)),
        None => Box::pin(std::future::ready(true)),
    })
}

/// The status endpoint's listener: the one that was passed, or a new one.
async fn listen_for_status(config: &Config, passed: Option<std::net::TcpListener>) -> anyhow::Result<TcpListener> {
    if let Some(passed) = passed {
        passed.set_nonblocking(true)?;
        return Ok(TcpListener::from_std(passed)?);
    }
    let control = TcpListener::bind(config.control.listen).await.map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; another keepwarm may be running: stop it, or change control.listen",
            _ => "",
        };
        let error = io_words(&error);
        Unavailable(format!("listen on {} (status endpoint): {error}{remedy}", config.control.listen))
    })?;
    Ok(control)
}

/// Waits for the status endpoint, which was told to stop, and cuts off what does not end within [`DRAIN`].
async fn end_of(mut endpoint: JoinHandle<()>) {
    if tokio::time::timeout(DRAIN, &mut endpoint).await.is_err() {
        tracing::warn!("requests to the status endpoint did not end: cut off");
        endpoint.abort();
        let _ = endpoint.await;
    }
}

/// The DNS server while it runs.
struct Dns {
    server: Arc<Server>,
    events: JoinHandle<()>,
}

impl Dns {
    fn start(config: DnsConfig, sockets: Vec<ListenSocket>) -> anyhow::Result<Dns> {
        let server = Server::start_with(config, sockets).map_err(unavailable)?;
        if let Some(certificate) = server.certificate() {
            let (names, not_after) = (certificate.names().join(", "), certificate.not_after_date());
            tracing::info!(names, not_after, "certificate of the encrypted listeners");
        }
        for listen in server.listening() {
            tracing::info!(address = %listen.address, transport = listen.transport.as_str(), "dns listens");
        }
        let events = tokio::spawn(log_events(server.events()));
        Ok(Dns { server: Arc::new(server), events })
    }

    /// Returns how many queries were cut off.
    async fn stop(self) -> usize {
        let deadline = Instant::now() + DRAIN;
        let cut = match last_of(self.server, deadline + CUT_OFF).await {
            Some(server) => server.stop(deadline.saturating_duration_since(Instant::now())).await,
            None => 0,
        };
        self.events.abort();
        cut
    }
}

/// The server once no status query holds it any more; `None` when one still does at the deadline, whose answer is lost with the process.
async fn last_of(mut server: Arc<Server>, deadline: Instant) -> Option<Server> {
    loop {
        match Arc::try_unwrap(server) {
            Ok(server) => return Some(server),
            Err(shared) => server = shared,
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(SHARED_POLL).await;
    }
}

/// Port in use and the like have an exit code of their own.
pub fn unavailable(error: StartError) -> anyhow::Error {
    match error {
        StartError::Listen(_) | StartError::PassedSocket(_) => Unavailable(error.to_string()).into(),
        other => anyhow::Error::new(other),
    }
}

/// The sockets that systemd or the like passes (`LISTEN_FDS`, sd_listen_fds(3)).
fn passed_sockets() -> anyhow::Result<Vec<ListenSocket>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..passed.len() {
        if let Ok(Some(socket)) = passed.take_udp_socket(number) {
            sockets.push(ListenSocket::Udp(socket));
        } else if let Ok(Some(listener)) = passed.take_tcp_listener(number) {
            sockets.push(ListenSocket::Tcp(listener));
        } else {
            let text = format!(
                "socket activation passed file descriptor {}, which is neither a udp nor a tcp socket: \
                 take it out of the socket unit",
                FIRST_PASSED + number
            );
            return Err(Unavailable(text).into());
        }
    }
    Ok(sockets)
}

/// One line for each thing that happens to a pool, with counts like `3/10`.
async fn log_events(mut events: PoolEvents) {
    while let Some(event) = events.next().await {
        let PoolEvent { upstream, transport, text, is_routine, is_failure } = event;
        if is_failure {
            tracing::warn!(target: "keepwarm_pool", upstream, transport, "{text}");
        } else if is_routine {
            tracing::debug!(target: "keepwarm_pool", upstream, transport, "{text}");
        } else {
            tracing::info!(target: "keepwarm_pool", upstream, transport, "{text}");
        }
    }
}

/// A connection is a file, and the usual soft limit of 1,024 is for programs that use `select`.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current < limit.maximum || limit.maximum.is_none() {
            limit.current = limit.maximum;
            // A refusal leaves what there was.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// The signals that end the daemon.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        // Without a handler nothing can be waited for; the process then ends by the system's default.
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}

impl Signals {
    /// The next signal that comes after `time`. Programs that stop others often tell the process and its group, which is
    /// one wish and not two.
    async fn next_after(&mut self, time: Instant) -> &'static str {
        loop {
            let signal = self.next().await;
            if Instant::now() >= time {
                return signal;
            }
        }
    }
}

/// CPU time of this process so far, user and system; `None` where the system does not say.
#[cfg(unix)]
pub(crate) fn cpu_time() -> Option<Duration> {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(u64::try_from(usage.tv_sec).ok()?, u32::try_from(usage.tv_nsec).ok()?))
}

/// CPU time of this process so far: not known here.
#[cfg(not(unix))]
pub(crate) fn cpu_time() -> Option<Duration> {
    None
}

/// The file descriptor of the first socket that is passed.
const FIRST_PASSED: usize = 3;

/// Signals within this are one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// Sockets are passed for the listeners of DNS and the status endpoint only.
const NO_DNS_FOR_SOCKETS: &str = "socket activation passed sockets that are not for control.listen, and the config has no [dns] that they could be for: take them out of the socket unit";

/// For how long queries and requests in flight may go on after a signal.
const DRAIN: Duration = Duration::from_secs(5);

/// For how long what was cut off may take to let go of the server.
const CUT_OFF: Duration = Duration::from_millis(200);

/// How often it is looked whether a status query still holds the server.
const SHARED_POLL: Duration = Duration::from_millis(10);
