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

use std::{collections::BTreeMap, path::Path as FilePath};

use anyhow::{Context as _, anyhow, bail};

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
    (!Tools::has_valgrind()).then_some("valgrind is missing here; its package is called valgrind")
}

/// Measures, compares, reports, and says whether the gate is open; what keeps it from measuring closes it too.
pub(crate) fn pass(options: &Options) -> bool {
    let run = match lacks() {
        Some(lack) => Err(anyhow!(lack)),
        None => run(options),
    };
    run.unwrap_or_else(|error| {
        println!("   cannot count instructions: {error:#}");
        false
    })
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
        let mut counts = Vec::new();
        let (count, verdict) = loop {
            counts.push(per_query(&program, path, scratch.path())?);
            let count = median(&mut counts);
            let verdict = baseline.judge(path.name, count);
            // How queries fall into batches differs a little from run to run. A baseline is worth the median of a few, and
            // so is a failure; where the first run passes the gate, no other is needed.
            let wants_more = options.accept || gates && verdict.fails();
            if !wants_more || counts.len() == RUNS_MAX {
                break (count, verdict);
            }
        };
        println!("   {:<11}{count:>8} instructions a query; {verdict}", path.name);
        passed &= !verdict.fails();
        measured.insert(path.name.to_owned(), count);
    }
    if options.accept {
        baseline.accept(tools, measured)?;
        println!("   accepted");
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

/// What one more query costs: the difference of a long and a short run.
fn per_query(program: &FilePath, path: &Path, scratch: &FilePath) -> anyhow::Result<u64> {
    let few = count(program, path, FEW, scratch)?;
    let many = count(program, path, MANY, scratch)?;
    let more = many.checked_sub(few).context("more queries took fewer instructions")?;
    Ok(more / u64::from(MANY - FEW))
}

/// The middle one; the lower of two.
fn median(counts: &mut [u64]) -> u64 {
    counts.sort_unstable();
    counts[(counts.len() - 1) / 2]
}

/// Instructions of a whole daemon's life, in which it answers so many queries.
fn count(program: &FilePath, path: &Path, queries: u32, scratch: &FilePath) -> anyhow::Result<u64> {
    let mut asked = 0;
    for _ in 0..REPEATS_MAX {
        let lab = Lab::start(program, scratch)?;
        let daemon = Daemon::start(program, path, &lab, scratch)?;
        load::ask(path, daemon.address, queries)
            .with_context(|| format!("ask {queries} queries over the path {}", path.name))?;
        let instructions = daemon.stop()?;
        asked = lab.stop(path.upstream)?;
        // A machine so busy that the daemon lost patience with the lab has counted the wrong thing.
        if asked == u64::from(path.names(queries)) {
            return Ok(instructions);
        }
    }
    let names = path.names(queries);
    bail!("path {}: the upstream was asked {asked} times for {names} names, {REPEATS_MAX} runs in a row", path.name)
}

/// How counts become the baseline.
const ACCEPT: &str = "`cargo xtask instructions --accept`";

/// Queries of the short and of the long run of a path.
const FEW: u32 = 2_000;
const MANY: u32 = 6_000;

/// How often a path is measured that seems dearer, or whose count is to be accepted.
const RUNS_MAX: usize = 3;

/// How often a run is tried in which queries were repeated.
const REPEATS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let names = |words: &[&str]| {
            let options = Options::parse(words)?;
            Some((options.accept, options.paths.iter().map(|path| path.name).collect::<Vec<_>>()))
        };
        let all = PATHS.map(|path| path.name).to_vec();
        assert_eq!(names(&[]), Some((false, all.clone())));
        assert_eq!(names(&["--accept"]), Some((true, all)));
        assert_eq!(names(&["dot", "--accept", "udp"]), Some((true, vec!["dot", "udp"])));
        assert_eq!(names(&["doq"]), None);
        assert_eq!(names(&["--acept"]), None);
    }

    #[test]
    fn the_median_is_no_outlier() {
        assert_eq!(median(&mut [7]), 7);
        assert_eq!(median(&mut [9, 7]), 7);
        assert_eq!(median(&mut [90, 7, 8]), 8);
    }
}
