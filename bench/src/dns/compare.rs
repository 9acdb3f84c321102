//! A run: who is there, what is measured in which order, and where the figures go.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{
    DnsArgs,
    figures::{Line, Rep},
    measure, memory,
    peers::{self, Kind, Peer},
    plan::{Contender, Plan, Row},
    report::{Report, Table},
    scaling,
    tools::Workshop,
};
use crate::{
    figures::{tenths, whole},
    machine::Machine,
    pin::Cores,
    process::{catch_interrupts, check_interrupt},
};

/// Compares, or soaks.
pub(super) fn run(args: &DnsArgs) -> anyhow::Result<()> {
    if cfg!(debug_assertions) && !args.quick {
        bail!(
            "this is a debug build, whose load generator is slower than the servers: run it with `cargo run --release`"
        );
    }
    let machine = Machine::here();
    if let Some(directory) = directory(args) {
        // Now, and not after a quarter of an hour.
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let (found, missed) = peers::find(args)?;
    for line in &missed {
        eprintln!("{line}");
    }
    let cores = Cores::split();
    if !cores.are_split() {
        eprintln!("nothing is pinned: this process may use one core only, so every server shares it with the load");
    }
    // From here on, since Cargo's builds have signals of their own.
    catch_interrupts()?;
    let mut workshop = Workshop::open(cores)?;
    if let Some(minutes) = args.soak {
        return memory::soak(&mut workshop, &found, args.threads, minutes);
    }
    let plan = plan(args, &found);
    let names: Vec<&str> = plan.kinds.iter().map(|kind| kind.name()).collect();
    eprintln!("{}: about {} min, more where others disturb", names.join(", "), plan.expected().as_secs() / 60 + 1);
    let mut tables = Vec::new();
    for row in plan.rows.iter().copied() {
        tables.push(table(&mut workshop, &plan, &found, row)?);
    }
    let command = shown(std::env::args().skip(1));
    let report = Report {
        machine,
        command,
        peers: found,
        missed,
        threads: plan.threads,
        reps: plan.reps,
        length: plan.length,
        tables,
    };
    println!("{}", report.markdown(None));
    match directory(args) {
        Some(directory) => write(&report, &directory),
        None => Ok(()),
    }
}

/// The command line without the paths of this machine.
fn shown(mut arguments: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=').filter(|(option, _)| option.starts_with("--")) {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (argument.clone(), None),
        };
        match option.as_str() {
            "--keepwarm" | "--out" => drop(value.or_else(|| arguments.next())),
            "--peer" => {
                let named = value.or_else(|| arguments.next()).unwrap_or_default();
                let name = named.split('=').next().unwrap_or_default();
                words.push(format!("--peer {name}=PROGRAM"));
            }
            _ => words.push(argument),
        }
    }
    words.join(" ")
}

fn plan(args: &DnsArgs, peers: &[Peer]) -> Plan {
    let (reps, length) = if args.quick { (1, Duration::from_millis(500)) } else { (3, Duration::from_millis(1_500)) };
    Plan {
        rows: if args.only.is_empty() { Row::ALL.to_vec() } else { args.only.clone() },
        kinds: peers.iter().map(|peer| peer.kind).collect(),
        threads: args.threads,
        reps: args.reps.unwrap_or(reps),
        length: args.seconds.unwrap_or(length),
    }
}

fn directory(args: &DnsArgs) -> Option<PathBuf> {
    let usual = (!args.quick).then(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs"));
    args.out.clone().or(usual)
}

fn write(report: &Report, directory: &Path) -> anyhow::Result<()> {
    let chart = report.chart()?;
    let (page, drawing) = (directory.join("dns-bench.md"), directory.join("dns-bench.svg"));
    fs::write(&page, report.markdown(Some("dns-bench.svg"))).with_context(|| format!("write {}", page.display()))?;
    fs::write(&drawing, chart).with_context(|| format!("write {}", drawing.display()))?;
    eprintln!("written: {} and {}", page.display(), drawing.display());
    Ok(())
}

fn table(workshop: &mut Workshop, plan: &Plan, peers: &[Peer], row: Row) -> anyhow::Result<Table> {
    let contenders = row.contenders(&plan.kinds, plan.threads);
    let pairs: Vec<(&Peer, Contender)> = contenders
        .into_iter()
        .filter_map(|contender| Some((peers.iter().find(|peer| peer.kind == contender.kind)?, contender)))
        .collect();
    match row {
        Row::Memory => memory_table(workshop, &pairs),
        Row::Scaling => scaling_table(workshop, plan, &pairs),
        row => servers_table(workshop, plan, &pairs, row),
    }
}

/// Repetition by repetition and server by server, so that a machine that drifts does so for all.
fn servers_table(
    workshop: &mut Workshop,
    plan: &Plan,
    pairs: &[(&Peer, Contender)],
    row: Row,
) -> anyhow::Result<Table> {
    let mut lines: Vec<Line> =
        pairs.iter().map(|(_, contender)| Line::new(name(*contender, row, plan.threads))).collect();
    for rep in 1..=plan.reps {
        for ((peer, contender), line) in pairs.iter().zip(&mut lines) {
            if line.error.is_some() {
                continue;
            }
            match measure::repetition(workshop, peer, *contender, row, plan.length) {
                Ok(found) => {
                    eprintln!("{}, {rep} of {}, {}: {}", row.title(), plan.reps, line.name, brief(&found));
                    line.reps.push(found);
                }
                Err(error) => {
                    check_interrupt()?;
                    eprintln!("{}, {}: {error:#}", row.title(), line.name);
                    line.error = Some(format!("{error:#}"));
                }
            }
        }
    }
    Ok(Table::Servers { row, lines })
}

fn brief(rep: &Rep) -> String {
    let disturbed = if rep.most.is_disturbed() { ", disturbed by others" } else { "" };
    format!("{} queries/s, {} us of CPU each{disturbed}", whole(rep.most.rate), tenths(rep.most.cpu))
}

fn memory_table(workshop: &mut Workshop, pairs: &[(&Peer, Contender)]) -> anyhow::Result<Table> {
    let mut found = Vec::new();
    for (peer, contender) in pairs {
        let name = contender.kind.name().to_owned();
        eprintln!("{}, {name}", Row::Memory.title());
        match memory::held(workshop, peer, *contender, name) {
            Ok(held) => found.push(held),
            Err(error) => {
                check_interrupt()?;
                eprintln!("{}, {}: {error:#}", Row::Memory.title(), contender.kind.name());
            }
        }
    }
    Ok(Table::Memory(found))
}

fn scaling_table(workshop: &mut Workshop, plan: &Plan, pairs: &[(&Peer, Contender)]) -> anyhow::Result<Table> {
    let Some((peer, _)) = pairs.first().filter(|_| workshop.cores.are_split()) else {
        return Ok(Table::Scaling(Vec::new()));
    };
    eprintln!("{}", Row::Scaling.title());
    Ok(Table::Scaling(scaling::scaled(workshop, peer, plan.reps, plan.length)?))
}

/// A server's name in a table.
fn name(contender: Contender, row: Row, threads: u32) -> String {
    match (contender.kind, row) {
        (Kind::Floor, Row::Cache) => "*echo (floor)*".to_owned(),
        (Kind::Floor, _) => "*relay (floor)*".to_owned(),
        (kind, _) if contender.threads == threads => kind.name().to_owned(),
        (kind, _) => format!("{}, {} thread", kind.name(), contender.threads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_has_no_paths() {
        let given =
            ["dns", "--peer", "dnsdist=/a/b", "--keepwarm=/c", "--out", "/d", "--peer=unbound=/e", "--reps", "5"];
        let shown = shown(given.into_iter().map(str::to_owned));
        assert_eq!(shown, "dns --peer dnsdist=PROGRAM --peer unbound=PROGRAM --reps 5");
    }
}
