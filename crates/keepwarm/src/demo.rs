//! `keepwarm demo`: what pooling saves, measured on the user's own machine in a minute, without a network.
//!
//! Three upstreams that answer after 20 ms run in this process, the real server in a child process. For each transport the
//! same load is put on it twice: with a connection per query, and pooled. Here is the order of events; the load is in
//! `load`, what is counted in `measure`, what was promised in `result`, how it is shown in `table` and `report`.
//! Deliberately not here: a comparison with other programs, and anything that needs a network or root.

mod latency;
mod load;
mod measure;
mod plan;
mod report;
mod result;
mod server;
mod table;
mod words;

use std::{
    io::{self, IsTerminal as _},
    rc::Rc,
    time::Duration,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{runtime, task::LocalSet, time::Instant};

use self::{
    load::OnAnswer,
    measure::{Bench, Upstreams},
    plan::{DELAY, Phase, Plan, TRANSPORTS, UPSTREAMS, label},
    result::{DemoResult, Load, Machine, RunResult, reuse_name},
    table::Style,
};
use crate::cli::{DemoArgs, Exit, print};

/// Runs the demo, and shows what it found.
///
/// The exit code is [`Exit::Failure`] when a promise was not kept. Ctrl-C ends the server and leaves with 130, as shells
/// expect of a command that was interrupted.
///
/// # Errors
/// When a server or an upstream cannot start, a server ends early, or the report cannot be written.
pub fn main(args: &DemoArgs) -> anyhow::Result<Exit> {
    if let Some(file) = &args.report {
        // A place that cannot be written to is told now rather than after a minute. What is there stays until then.
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
        opened.with_context(|| format!("write the report {}", file.display()))?;
    }
    let upstreams = runtime::Builder::new_multi_thread()
        .thread_name("upstreams")
        .enable_all()
        .build()
        .context("start a runtime for the upstreams")?;
    let here = runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let ended = here.block_on(LocalSet::new().run_until(async {
        tokio::select! {
            result = run(args, upstreams.handle()) => Ok(result),
            code = interrupted() => Err(code),
        }
    }));
    // What is still there ends with the runtimes: first the clients and the child process, then the upstreams.
    drop(here);
    upstreams.shutdown_timeout(SHUTDOWN_TIMEOUT);
    let result = match ended {
        Ok(result) => result?,
        Err(signal) => return Ok(Exit::Signal(signal)),
    };
    if let Some(file) = &args.report {
        std::fs::write(file, report::page(&result)).with_context(|| format!("write the report {}", file.display()))?;
    }
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&result).context("write json")?),
        false => table::render(&result, style()),
    };
    print(&text)?;
    Ok(if result.ok { Exit::Ok } else { Exit::Failure })
}

async fn run(args: &DemoArgs, upstream_runtime: &runtime::Handle) -> anyhow::Result<DemoResult> {
    let begin = Instant::now();
    let plan = Plan::new(args.quick, args.seed);
    let open_files = plan::raise_open_files();
    plan.check(open_files)?;
    let directory = tempfile::Builder::new().prefix("keepwarm-demo-").tempdir().context("make a scratch directory")?;
    let upstreams = Upstreams::start(upstream_runtime).await?;
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, upstreams.ca_pem()).context("write the upstreams' CA")?;
    let progress = Progress::new(&plan, open_files, args.json);
    let on_answer = progress.on_answer();
    let bench = Bench { plan: &plan, upstreams: &upstreams, ca: &ca, directory: directory.path(), on_answer };

    progress.say("upstreams alone");
    let direct = bench.direct(plan.clients_within(true, open_files).0, DIRECT).await?;
    let mut runs = Vec::new();
    for transport in TRANSPORTS {
        for reuse in [false, true] {
            let (clients, note) = plan.clients_within(reuse, open_files);
            let phase = async |phase: Phase| {
                let name = format!("{}, {}: {}", label(transport), reuse_name(reuse), phase.as_str());
                progress.say(&name);
                bench.phase(transport, reuse, clients, phase).await.context(name)
            };
            let burst = phase(Phase::Burst).await?;
            let paced = phase(Phase::Paced).await?;
            runs.push(RunResult::new(transport, reuse, note, burst, paced));
        }
    }
    progress.end();
    upstreams.stop().await;
    let checks: Vec<_> = runs.iter().flat_map(RunResult::checks).collect();
    Ok(DemoResult {
        version: env!("CARGO_PKG_VERSION"),
        ok: checks.iter().all(|check| check.ok),
        quick: args.quick,
        seed: args.seed,
        machine: Machine {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            open_files,
        },
        load: Load {
            upstreams: UPSTREAMS,
            delay: DELAY,
            clients: plan.clients,
            paced_rate: plan.clients * plan.rate,
            paced: plan.paced,
            warm_after: plan.warm_after,
        },
        direct,
        runs,
        checks,
        took: begin.elapsed(),
    })
}

/// A bar on standard error while the demo runs, for people only: there is none without a terminal, and none with `--json`.
#[derive(Debug)]
struct Progress(ProgressBar);

impl Progress {
    fn new(plan: &Plan, open_files: Option<u64>, is_quiet: bool) -> Progress {
        let queries = |reuse| {
            let (clients, _) = plan.clients_within(reuse, open_files);
            clients + plan.paced_queries(clients)
        };
        let all = TRANSPORTS.len() * (queries(false) + queries(true));
        let is_shown = io::stderr().is_terminal() && !is_quiet;
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:28.green} {percent:>3} %  {msg}  {elapsed:.dim}")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(all as u64), target).with_style(style);
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn on_answer(&self) -> OnAnswer {
        let bar = self.0.clone();
        OnAnswer(Rc::new(move || bar.inc(1)))
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // After an error or Ctrl-C as well: no half bar stays on the terminal.
        self.0.finish_and_clear();
    }
}

fn style() -> Style {
    let is_terminal = io::stdout().is_terminal();
    let width = is_terminal.then(console_width).flatten();
    let colored = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Style { width, colored }
}

fn console_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// Waits for Ctrl-C or a request to end, and tells the signal's number.
async fn interrupted() -> u8 {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let both = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
        if let Ok((mut interrupt, mut terminate)) = both {
            return tokio::select! {
                _ = interrupt.recv() => SIGINT,
                _ = terminate.recv() => SIGTERM,
            };
        }
    }
    // Without handlers the system ends this process by itself.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    SIGINT
}

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Length of the load on an upstream alone.
const DIRECT: Duration = Duration::from_millis(500);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
