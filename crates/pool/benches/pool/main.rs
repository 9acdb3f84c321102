//! The pool beside its peers, in one program, round by round in turn: `cargo bench -p keepwarm-pool`.
//!
//! `-- --markdown FILE` and `-- --json FILE` also write the figures down (`-` is standard output; paths count from the crate's
//! directory), `-- --rounds N` sets the rounds, `-- --column N` measures one load only (1 to 6, for a profiler), any other word runs
//! only the pools with that word in their names; the last two write no report.
//! Without `--bench`, as under `cargo test --benches`, a very short run only shows that everything works.
//! Allocations are counted by a program of their own (`benches/allocations.rs`), because counting them slows everybody down.

mod load;
mod peers;
mod report;

use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::time::Duration;

use load::{Load, Reading};
use peers::{Bb8, Deadpool, Dials, HyperCache, Mobc, OursByHandle, OursByKey, Peer};
use report::{Report, Row};

fn main() -> io::Result<()> {
    let arguments = Arguments::parse()?;
    if arguments.list {
        return Ok(());
    }
    let machine = report::Machine::here();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let rows = runtime.block_on(run(&arguments));
    if arguments.filter.is_some() || arguments.column.is_some() {
        return writeln!(io::stdout().lock(), "{}", report::figures(&rows));
    }
    let report = Report { machine, rounds: arguments.scale.rounds, rows, allocations: report::allocations() };
    if arguments.smoke {
        // The report is made, so that a test run sees it work, but its figures would only mislead.
        let length = report.markdown().len() + report.json().len();
        return writeln!(io::stdout().lock(), "every pool bore every load; {length} bytes of report not shown");
    }
    writeln!(io::stdout().lock(), "{}", report.summary())?;
    for (path, text) in [(&arguments.markdown, report.markdown()), (&arguments.json, report.json())] {
        match path.as_deref() {
            None => {}
            Some("-") => writeln!(io::stdout().lock(), "{text}")?,
            Some(path) => std::fs::write(path, text)?,
        }
    }
    Ok(())
}

/// Runs everything; the rows come in the order of the table.
async fn run(Arguments { scale, filter, column: only, .. }: &Arguments) -> Vec<Row> {
    let mut entrants = entrants();
    entrants.retain(|entrant| filter.as_ref().is_none_or(|word| entrant.name().contains(word)));
    let mut rows: Vec<Row> = entrants.iter().map(|entrant| Row::new(entrant.name())).collect();
    for round in 0..scale.rounds {
        progress(&format!("round {} of {}", round + 1, scale.rounds));
        for (column, load) in LOADS.into_iter().enumerate().filter(|(n, _)| only.is_none_or(|only| only == n + 1)) {
            for (entrant, row) in entrants.iter().zip(&mut rows) {
                let what = || format!("{load:?}");
                row.readings[column].extend(guard(entrant.name(), what, entrant.drive(load, scale)).await);
            }
        }
        if only.is_some() {
            continue;
        }
        for (entrant, row) in entrants.iter().zip(&mut rows) {
            let what = || "late binding".to_owned();
            row.late_binding.extend(guard(entrant.name(), what, entrant.late_binding()).await);
            for (n, costs) in scale.cancels.into_iter().zip(&mut row.cancels) {
                let what = || format!("{n} cancels");
                costs.extend(guard(entrant.name(), what, entrant.cancel(n)).await);
            }
        }
    }
    rows
}

/// Lets a pool that hangs lose its turn, loudly, instead of stopping the run.
async fn guard<T>(
    name: &str,
    what: impl Fn() -> String,
    turn: Pin<Box<dyn Future<Output = Option<T>> + '_>>,
) -> Option<T> {
    let outcome = tokio::time::timeout(TURN_MAX, turn).await;
    outcome.unwrap_or_else(|_| {
        progress(&format!("{name} HANGS: {} did not end within {TURN_MAX:?}", what()));
        None
    })
}

fn entrants() -> Vec<Box<dyn Entrant>> {
    vec![
        entrant("keepwarm, host handle", |size, dials| OursByHandle::new(size, dials, false)),
        entrant("keepwarm, key look-up", |size, dials| OursByKey::new(size, dials, false)),
        entrant("keepwarm, host handle, statistics", |size, dials| OursByHandle::new(size, dials, true)),
        entrant("keepwarm, key look-up, statistics (default)", |size, dials| OursByKey::new(size, dials, true)),
        entrant("deadpool 0.13 (no time-out, default)", |size, dials| Deadpool::new(size, dials, None)),
        entrant("deadpool 0.13, time-out 10 s", |size, dials| {
            Deadpool::new(size, dials, Some(Duration::from_secs(10)))
        }),
        entrant("bb8 0.9", Bb8::new),
        entrant("mobc 0.9", Mobc::new),
        entrant("hyper-util 0.1 pool::cache (no limit)", |_, dials| HyperCache::build(dials)),
    ]
}

/// A pool that takes part, with its type hidden.
trait Entrant {
    fn name(&self) -> &'static str;
    /// `None` where the load means nothing for this pool.
    fn drive<'a>(&'a self, load: Load, scale: &'a Scale) -> Pin<Box<dyn Future<Output = Option<Reading>> + 'a>>;
    fn late_binding(&self) -> Pin<Box<dyn Future<Output = Option<Duration>> + '_>>;
    fn cancel(&self, n: usize) -> Pin<Box<dyn Future<Output = Option<f64>> + '_>>;
}

struct Entry<P, F> {
    name: &'static str,
    build: F,
    _peer: std::marker::PhantomData<fn() -> P>,
}

fn entrant<P: Peer, F: Fn(usize, Dials) -> P + 'static>(name: &'static str, build: F) -> Box<dyn Entrant> {
    Box::new(Entry { name, build, _peer: std::marker::PhantomData })
}

impl<P: Peer, F: Fn(usize, Dials) -> P> Entrant for Entry<P, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn drive<'a>(&'a self, load: Load, scale: &'a Scale) -> Pin<Box<dyn Future<Output = Option<Reading>> + 'a>> {
        Box::pin(async move {
            if load.saturated && !P::WAITS {
                return None;
            }
            let peer = (self.build)(POOL_SIZE, Dials::default());
            peers::warm(&peer, POOL_SIZE).await;
            let (ramp, window) = if load.saturated { scale.saturated } else { scale.unsaturated };
            Some(load::drive(&peer, load, ramp, window).await)
        })
    }

    fn late_binding(&self) -> Pin<Box<dyn Future<Output = Option<Duration>> + '_>> {
        Box::pin(async move {
            let dials = Dials::default();
            Some(load::late_binding(&(self.build)(2, dials.clone()), &dials).await)
        })
    }

    fn cancel(&self, n: usize) -> Pin<Box<dyn Future<Output = Option<f64>> + '_>> {
        Box::pin(async move {
            if !P::WAITS {
                return None;
            }
            let peer = (self.build)(1, Dials::default());
            peers::warm(&peer, 1).await;
            Some(load::cancel(&peer, n).await)
        })
    }
}

/// How long everything takes.
struct Scale {
    rounds: usize,
    /// Ramp and window.
    unsaturated: (Duration, Duration),
    saturated: (Duration, Duration),
    /// Numbers of waiters to cancel.
    cancels: [usize; 2],
}

const FULL: Scale = Scale {
    rounds: 7,
    unsaturated: (Duration::from_millis(10), Duration::from_millis(60)),
    saturated: (Duration::from_millis(100), Duration::from_millis(400)),
    cancels: report::CANCELS,
};
const SMOKE: Scale = Scale {
    rounds: 1,
    unsaturated: (Duration::from_millis(1), Duration::from_millis(2)),
    saturated: (Duration::from_millis(5), Duration::from_millis(10)),
    cancels: [10, 100],
};

/// Longest that one pool may take for one load of one round; the longest load takes half a second.
const TURN_MAX: Duration = Duration::from_secs(8);
const WORKERS: usize = 2;
const POOL_SIZE: usize = 10;
const LOADS: [Load; report::COLUMNS] = [
    Load { tasks: 1, saturated: false },
    Load { tasks: 4, saturated: false },
    Load { tasks: 64, saturated: false },
    Load { tasks: 1024, saturated: false },
    Load { tasks: 64, saturated: true },
    Load { tasks: 1024, saturated: true },
];

struct Arguments {
    scale: Scale,
    smoke: bool,
    list: bool,
    filter: Option<String>,
    column: Option<usize>,
    markdown: Option<String>,
    json: Option<String>,
}

impl Arguments {
    fn parse() -> io::Result<Self> {
        // cargo bench puts it last.
        let smoke = !std::env::args().any(|argument| argument == "--bench");
        let scale = if smoke { SMOKE } else { FULL };
        let mut parsed = Self { scale, smoke, list: false, filter: None, column: None, markdown: None, json: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--list" => parsed.list = true,
                "--markdown" => parsed.markdown = Some(arguments.next().ok_or_else(|| wants("--markdown"))?),
                "--json" => parsed.json = Some(arguments.next().ok_or_else(|| wants("--json"))?),
                "--rounds" => {
                    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
                    parsed.scale.rounds = rounds.filter(|&rounds| rounds > 0).ok_or_else(|| wants("--rounds"))?;
                }
                "--column" => {
                    let column = arguments.next().and_then(|column| column.parse().ok());
                    parsed.column = Some(column.ok_or_else(|| wants("--column"))?);
                }
                // Flags of the standard harness are not for this one.
                flag if flag.starts_with('-') => {}
                word => parsed.filter = Some(word.to_owned()),
            }
        }
        Ok(parsed)
    }
}

fn wants(option: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{option} wants a value"))
}

/// Says on a terminal how far the run is; a failure to say so is no reason to stop.
fn progress(text: &str) {
    let _ = writeln!(io::stderr().lock(), "pool bench: {text}");
}
