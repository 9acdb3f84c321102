//! A run: who is there, what is measured in which order, and where the figures go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    TunnelArgs, measure,
    peers::{self, Peer},
    reading::Reading,
    report::{Line, Report, Table},
    row::{Figure, Row},
    workshop::{Workshop, far},
};
use crate::{
    machine::Machine,
    pin::Cores,
    process::{catch_interrupts, check_interrupt},
};

/// Compares.
pub(super) fn run(args: &TunnelArgs) -> anyhow::Result<()> {
    if cfg!(debug_assertions) && !args.quick {
        bail!("this is a debug build, whose load is slower than the proxies: run it with `cargo run --release`");
    }
    let page = page(args);
    if let Some(directory) = page.as_deref().and_then(Path::parent) {
        // Now, and not after half an hour.
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let (peers, missed) = peers::find(args);
    for line in &missed {
        eprintln!("{line}");
    }
    if peers.is_empty() {
        bail!("there is no proxy to measure");
    }
    let machine = Machine::here();
    let cores = Cores::split();
    if !cores.are_split() {
        eprintln!("nothing is pinned: this process may use one core only, so every proxy shares it with the load");
    }
    let is_split = cores.are_split();
    allow_files()?;
    // From here on, since Cargo's builds have signals of their own.
    catch_interrupts()?;
    let far = far(&peers)?;
    let mut workshop = Workshop::open(&far, cores)?;
    let reps = args.reps.unwrap_or(if args.quick { 1 } else { 3 });
    let rows = if args.only.is_empty() { Row::ALL.to_vec() } else { args.only.clone() };
    let mut tables = Vec::new();
    for row in rows {
        tables.push(table(&mut workshop, &peers, row, args.quick, reps)?);
    }
    let versions = peers.iter().filter(|peer| !peer.version.is_empty());
    let versions = versions.map(|peer| format!("{} {}", peer.kind.name(), peer.version)).collect();
    let far = far.kind.name();
    let report = Report { machine, versions, far, is_split, missed, reps, is_quick: args.quick, tables };
    let text = report.markdown();
    println!("{text}");
    if let Some(page) = page {
        fs::write(&page, text).with_context(|| format!("write {}", page.display()))?;
        eprintln!("written: {}", page.display());
    }
    Ok(())
}

fn page(args: &TunnelArgs) -> Option<PathBuf> {
    // A part is not the page.
    let is_whole = !args.quick && args.only.is_empty() && args.names.is_empty();
    let usual = is_whole.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("tunnel-bench.md"));
    args.out.clone().or(usual)
}

/// 1,000 tunnels are 2,000 sockets of a proxy. All that is started has this process's limit.
fn allow_files() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")
}

/// Repetition by repetition and proxy by proxy, so that a machine that drifts does so for all.
fn table(workshop: &mut Workshop, peers: &[Peer], row: Row, quick: bool, reps: u32) -> anyhow::Result<Table> {
    let peers: Vec<&Peer> = peers.iter().filter(|peer| row.admits(peer.kind)).collect();
    let mut lines: Vec<Line> = peers.iter().map(|peer| Line::new(peer.kind, row)).collect();
    for rep in 1..=reps {
        for (peer, line) in peers.iter().zip(&mut lines).filter(|(_, line)| line.error.is_none()) {
            match measure::repetition(workshop, peer, row, quick) {
                Ok(reading) => {
                    eprintln!("{}, {rep} of {reps}, {}: {}", row.title(), line.name, brief(row, &reading));
                    line.readings.push(reading);
                }
                Err(error) => {
                    check_interrupt()?;
                    eprintln!("{}, {}: {error:#}", row.title(), line.name);
                    line.error = Some(format!("{error:#}"));
                }
            }
        }
    }
    Ok(Table { row, lines, quick })
}

fn brief(row: Row, reading: &Reading) -> String {
    let disturbed = if reading.is_disturbed() { ", disturbed by others" } else { "" };
    let figure = reading.figure(row.figure());
    match row.figure() {
        Figure::Setup => format!("{figure:.3} CPU s per 10,000 tunnels{disturbed}"),
        Figure::Relay => format!("{figure:.3} CPU s per GB{disturbed}"),
        Figure::Ready => format!("p50 {:.2} ms{disturbed}", figure / 1e3),
        Figure::Memory => format!("{figure:.1} KiB each{disturbed}"),
    }
}
