//! A run: who is there, what is measured in which order, and where the figures go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    HttpsArgs,
    clients::{self, Peer},
    measure::{Reading, Workshop},
    nginx,
    report::{Line, Report, Table},
    row::{Figure, Row},
};
use crate::{
    machine::Machine,
    pin::Cores,
    process::{catch_interrupts, check_interrupt},
};

/// Compares.
pub(super) fn run(args: &HttpsArgs) -> anyhow::Result<()> {
    if cfg!(debug_assertions) && !args.quick {
        bail!("this is a debug build, and keepwarm's client is part of it: run it with `cargo run --release`");
    }
    let page = page(args);
    if let Some(directory) = page.as_deref().and_then(Path::parent) {
        // Now, and not after a quarter of an hour.
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let (nginx, nginx_version) = nginx::find(args.nginx.as_deref())?;
    let (peers, missed) = clients::find(&args.names);
    for line in &missed {
        eprintln!("{line}");
    }
    if peers.is_empty() {
        bail!("there is no client to measure");
    }
    let machine = Machine::here();
    let cores = Cores::split();
    if !cores.are_split() {
        eprintln!("nothing is pinned: this process may use one core only, so every client shares it with the origin");
    }
    let is_split = cores.are_split();
    // From here on, since Cargo's builds have signals of their own.
    catch_interrupts()?;
    let mut workshop = Workshop::open(&nginx, cores)?;
    let reps = args.reps.unwrap_or(if args.quick { 1 } else { 3 });
    let rows = if args.only.is_empty() { Row::ALL.to_vec() } else { args.only.clone() };
    let mut tables = Vec::new();
    for row in rows {
        tables.push(table(&mut workshop, &peers, row, row.requests(args.quick), reps)?);
    }
    let report = Report { machine, nginx_version, is_split, missed, reps, is_quick: args.quick, tables };
    let text = report.markdown();
    println!("{text}");
    if let Some(page) = page {
        fs::write(&page, text).with_context(|| format!("write {}", page.display()))?;
        eprintln!("written: {}", page.display());
    }
    Ok(())
}

fn page(args: &HttpsArgs) -> Option<PathBuf> {
    // A part is not the page.
    let is_whole = !args.quick && args.only.is_empty() && args.names.is_empty();
    let usual = is_whole.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("https-bench.md"));
    args.out.clone().or(usual)
}

/// Repetition by repetition and client by client, so that a machine that drifts does so for all.
fn table(workshop: &mut Workshop, peers: &[Peer], row: Row, requests: usize, reps: u32) -> anyhow::Result<Table> {
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.kind.can(row)).collect();
    let mut lines: Vec<Line> = peers.iter().map(|peer| Line::new(peer)).collect();
    for rep in 1..=reps {
        for (peer, line) in peers.iter().zip(&mut lines).filter(|(_, line)| line.error.is_none()) {
            match workshop.measure(peer, row, requests) {
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
    Ok(Table { row, requests, lines })
}

fn brief(row: Row, reading: &Reading) -> String {
    let disturbed = if reading.is_disturbed() { ", disturbed by others" } else { "" };
    match row.figure() {
        Figure::Cpu => format!("{:.3} CPU s per 10,000 requests{disturbed}", reading.cpu()),
        Figure::Latency => format!("p50 {:.0} us{disturbed}", reading.outcome.p50_us),
        Figure::Memory => format!("{:.1} KiB each{disturbed}", reading.memory()),
    }
}
