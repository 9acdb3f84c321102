//! `bench/instructions.toml`: what each path cost when somebody last said that this is how it shall be.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// The accepted counts.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    path: PathBuf,
    file: File,
}

/// The file as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// How much dearer a path may get, in percent of its baseline.
    #[serde(default = "tolerance_default")]
    tolerance_percent: f64,
    tools: Tools,
    instructions_per_query: BTreeMap<String, u64>,
}

impl Default for File {
    fn default() -> Self {
        File {
            tolerance_percent: tolerance_default(),
            tools: Tools::default(),
            instructions_per_query: BTreeMap::new(),
        }
    }
}

/// What decides on instructions beside the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tools {
    rustc: String,
    valgrind: String,
    /// Its `memcpy` and `malloc` are a part of every query.
    libc: String,
    /// The CPU that valgrind emulates follows the host's. With AVX, AVX2, ERMS and FSRM turned off in libc alone, a query over
    /// UDP took 8 % more instructions.
    cpu: String,
}

/// What a count is, beside its baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Nobody has accepted a count of this path.
    New,
    /// As it was, within the tolerance.
    Within { baseline: u64, percent: f64 },
    /// Dearer than that.
    Dearer { baseline: u64, percent: f64 },
    /// Cheaper than that.
    Cheaper { baseline: u64, percent: f64 },
}

impl Baseline {
    /// Reads the file; one that does not exist has no counts.
    ///
    /// # Errors
    /// When it cannot be read or has a fault.
    pub(super) fn load() -> anyhow::Result<Baseline> {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask instructions`")?;
        let path = Path::new(&xtask).join("../bench/instructions.toml");
        if !path.exists() {
            return Ok(Baseline { path, file: File::default() });
        }
        let text = fs::read_to_string(&path).context("read bench/instructions.toml")?;
        let file = toml::from_str(&text).context("read bench/instructions.toml")?;
        Ok(Baseline { path, file })
    }

    /// Whether its counts can be compared with those of these tools.
    pub(super) fn is_from(&self, tools: &Tools) -> bool {
        self.file.tools == *tools
    }

    /// With what its counts were made.
    pub(super) fn tools(&self) -> &Tools {
        &self.file.tools
    }

    /// What a count of a path is.
    pub(super) fn judge(&self, path: &str, count: u64) -> Verdict {
        let Some(&baseline) = self.file.instructions_per_query.get(path) else { return Verdict::New };
        let percent = percent(baseline, count);
        if percent > self.file.tolerance_percent {
            Verdict::Dearer { baseline, percent }
        } else if percent < -self.file.tolerance_percent {
            Verdict::Cheaper { baseline, percent }
        } else {
            Verdict::Within { baseline, percent }
        }
    }

    /// Makes these counts the baseline. Others stay, unless they are of other tools.
    ///
    /// # Errors
    /// When the file cannot be written, or would mix counts of different tools.
    pub(super) fn accept(&mut self, tools: Tools, counts: BTreeMap<String, u64>) -> anyhow::Result<()> {
        let old = &mut self.file.instructions_per_query;
        ensure!(
            self.file.tools == tools || old.keys().all(|path| counts.contains_key(path)),
            "other paths have counts of other tools: accept all paths at once",
        );
        old.extend(counts);
        self.file.tools = tools;
        let text = toml::to_string(&self.file).context("write bench/instructions.toml")?;
        fs::write(&self.path, format!("{HEAD}{text}")).context("write bench/instructions.toml")
    }
}

impl Tools {
    /// Whether valgrind is installed.
    pub(super) fn has_valgrind() -> bool {
        first_line("valgrind", &["--version"]).is_ok()
    }

    /// The tools of this machine.
    ///
    /// # Errors
    /// When one of them is missing.
    pub(super) fn here() -> anyhow::Result<Tools> {
        let rustc = first_line("rustc", &["--version"])?;
        let valgrind = first_line("valgrind", &["--version"])?;
        // Where there is no glibc there is nothing to ask, and nothing to differ in but the system.
        let libc = first_line("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_else(|_| env::consts::OS.to_owned());
        Ok(Tools { rustc, valgrind, libc, cpu: cpu().to_owned() })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tools { rustc, valgrind, libc, cpu } = self;
        if rustc.is_empty() { f.write_str("nothing yet") } else { write!(f, "{rustc}, {valgrind}, {libc}, {cpu}") }
    }
}

impl Verdict {
    /// Whether the gate is closed by it.
    pub(super) fn fails(self) -> bool {
        matches!(self, Verdict::New | Verdict::Dearer { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::New => f.write_str("no baseline"),
            Verdict::Within { baseline, percent } => write!(f, "baseline {baseline}, {percent:+.1} %"),
            Verdict::Dearer { baseline, percent } => write!(f, "baseline {baseline}, {percent:+.1} %: DEARER"),
            Verdict::Cheaper { baseline, percent } => {
                write!(f, "baseline {baseline}, {percent:+.1} %: a gain; keep it with {}", super::ACCEPT)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn percent(baseline: u64, count: u64) -> f64 {
    (count as f64 - baseline as f64) * 100.0 / baseline as f64
}

/// What valgrind emulates on this host.
fn cpu() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return "x86_64 with AVX2";
    }
    env::consts::ARCH
}

fn tolerance_default() -> f64 {
    5.0
}

fn first_line(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// What stands above the counts.
const HEAD: &str = "\
# User-space instructions of the daemon for one query, counted by `cargo xtask instructions` under callgrind.
# Written by `cargo xtask instructions --accept`; tolerance_percent may be changed by hand.

";

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let text = "tools = { rustc = \"r\", valgrind = \"v\", libc = \"l\", cpu = \"c\" }\n[instructions_per_query]\nudp = 1000";
        Baseline { path: PathBuf::new(), file: toml::from_str(text).unwrap() }
    }

    #[test]
    fn a_count_beyond_the_tolerance_fails_and_a_gain_does_not() {
        let baseline = baseline();
        for (count, fails) in [(1, false), (949, false), (1000, false), (1050, false), (1051, true), (9000, true)] {
            assert_eq!(baseline.judge("udp", count).fails(), fails, "{count}");
        }
        assert!(matches!(baseline.judge("udp", 949), Verdict::Cheaper { .. }));
        assert!(matches!(baseline.judge("udp", 950), Verdict::Within { .. }));
    }

    #[test]
    fn a_path_that_nobody_accepted_fails() {
        assert_eq!(baseline().judge("dot", 1), Verdict::New);
        assert!(Verdict::New.fails());
    }

    #[test]
    fn counts_of_other_tools_are_not_mixed() {
        let mut baseline = baseline();
        assert!(!baseline.is_from(&Tools::default()));
        assert!(baseline.accept(Tools::default(), BTreeMap::from([("dot".into(), 5)])).is_err());
    }

    #[test]
    fn what_is_accepted_is_the_next_baseline() {
        let folder = tempfile::tempdir().unwrap();
        let mut baseline = baseline();
        baseline.path = folder.path().join("instructions.toml");
        let tools = baseline.file.tools.clone();
        baseline.accept(tools, BTreeMap::from([("dot".into(), 5)])).unwrap();
        let written: File = toml::from_str(&fs::read_to_string(&baseline.path).unwrap()).unwrap();
        assert_eq!(written.instructions_per_query, BTreeMap::from([("dot".into(), 5), ("udp".into(), 1000)]));
        assert_eq!(written.tools, baseline.file.tools);
    }
}
