//! `cargo xtask instructions`: how many user-space instructions the daemon spends on a query, and whether that is more
//! than it was.
//!
//! Wall time says little on a shared machine; instructions under callgrind are the same from run to run. Each path is
//! run twice with different numbers of queries, and the difference is divided by the difference of the numbers, so that
//! start, handshakes and stop do not count. What the kernel does is not seen: this is no measure of speed, it is a
//! tripwire.

mod baseline;
mod build;
mod daemon;
mod lab;
mod load;
mod path;
mod process;

use std::{collections::BTreeMap, path::Path as FilePath, process::ExitCode};

use anyhow::{Context as _, bail};

use baseline::{Baseline, Tools};
use daemon::Daemon;
use lab::Lab;
use path::{PATHS, Path};

/// What was asked for on the command line.
pub(crate) struct Options {
    accept: bool,
    paths: Vec<&'static Path>,
}

impl Options {
    /// Every path, compared with the baseline.
    pub(crate) fn all() -> Options {
        Options { accept: false, paths: PATHS.iter().collect() }
    }

    /// `[--accept] [PATH]...`; `None` when there is another word.
    pub(crate) fn parse(words: &[&str]) -> Option<Options> {
        let (flags, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
        let accept = !flags.is_empty();
        if flags.iter().any(|flag| *flag != "--accept") {
            return None;
        }
        let paths: Option<Vec<_>> = names.iter().map(|name| PATHS.iter().find(|path| path.name == *name)).collect();
        paths.map(
            |paths| if paths.is_empty() { Options { accept, ..Options::all() } } else { Options { accept, paths } },
        )
    }
}

/// The names of the paths, for the usage.
pub(crate) fn names() -> String {
    PATHS.map(|path| path.name).join(", ")
}

/// What this machine lacks; `None` when instructions can be counted here.
pub(crate) fn lacks() -> Option<&'static str> {
    if !cfg!(unix) {
        return Some("callgrind does not run on this system");
    }
    Tools::here().is_err().then_some("valgrind is missing here; its package is called valgrind")
}

/// Measures, compares and reports.
pub(crate) fn main(options: &Options) -> ExitCode {
    if let Some(lack) = lacks() {
        println!("cannot count instructions: {lack}");
        return ExitCode::FAILURE;
    }
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("cannot count instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no path got dearer by more than the tolerance, or all were accepted.
fn run(options: &Options) -> anyhow::Result<bool> {
    let tools = Tools::here()?;
    let mut baseline = Baseline::load()?;
    let scratch = tempfile::tempdir().context("make a scratch directory")?;
    let program = build::daemon(scratch.path())?;
    let gates = !options.accept && baseline.is_from(&tools);
    let mut passed = true;
    let mut measured = BTreeMap::new();
    for path in &options.paths {
        let mut counts = Counts::default();
        let verdict = loop {
            counts.measure(&program, path, scratch.path())?;
            let verdict = baseline.judge(path.name, counts.per_query());
            // What else happens on a machine only adds, so the least of a few runs is the truest; where the first one
            // passes no other is needed.
            if !gates || !verdict.fails() || counts.runs == RUNS_MAX {
                break verdict;
            }
        };
        println!("   {:<11}{:>8} instructions a query; {verdict}", path.name, counts.per_query());
        passed &= !verdict.fails();
        measured.insert(path.name.to_owned(), counts.per_query());
    }
    if options.accept {
        baseline.accept(tools, measured)?;
    } else if !gates {
        println!(
            "   NOT COMPARED: the baseline is of {}, this is {tools}. Other tools make other instructions, so nothing \
             fails here; {ACCEPT} makes these counts the baseline.",
            baseline.tools(),
        );
    } else if !passed {
        println!("   a path got dearer: make it cheaper, or {ACCEPT} and say in the commit what the instructions buy");
    }
    Ok(passed || !gates)
}

/// The least that runs of a path counted.
#[derive(Default)]
struct Counts {
    runs: u32,
    few: Option<u64>,
    many: Option<u64>,
}

impl Counts {
    fn measure(&mut self, program: &FilePath, path: &Path, scratch: &FilePath) -> anyhow::Result<()> {
        let least = |old: Option<u64>, new: u64| Some(old.map_or(new, |old| old.min(new)));
        self.few = least(self.few, count(program, path, FEW, scratch)?);
        self.many = least(self.many, count(program, path, MANY, scratch)?);
        self.runs += 1;
        Ok(())
    }

    fn per_query(&self) -> u64 {
        let (few, many) = (self.few.unwrap_or_default(), self.many.unwrap_or_default());
        many.saturating_sub(few) / u64::from(MANY - FEW)
    }
}

/// Instructions of a whole daemon's life, in which it answers so many queries.
fn count(program: &FilePath, path: &Path, queries: u32, scratch: &FilePath) -> anyhow::Result<u64> {
    let mut asked = 0;
    for _ in 0..REPEATS_MAX {
        let lab = Lab::start(program, scratch)?;
        let daemon = Daemon::start(program, path, &lab, scratch)?;
        load::ask(path.client, daemon.address, queries)
            .with_context(|| format!("ask {queries} queries over the path {}", path.name))?;
        let instructions = daemon.stop()?;
        asked = lab.stop(path.upstream)?;
        // A machine so busy that the daemon lost patience with the lab has counted the wrong thing.
        if asked == u64::from(queries) {
            return Ok(instructions);
        }
    }
    bail!("path {}: {queries} queries of clients became {asked} of ours, {REPEATS_MAX} times over", path.name)
}

/// How counts become the baseline.
const ACCEPT: &str = "`cargo xtask instructions --accept`";

/// Queries of the short and of the long run of a path.
const FEW: u32 = 2_000;
const MANY: u32 = 6_000;

/// How often a path that seems dearer is measured.
const RUNS_MAX: u32 = 3;

/// How often a run is tried in which queries were repeated.
const REPEATS_MAX: u32 = 3;
