//! The clients that are compared: which there are, how they are had, and their versions.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use keepwarm_https_driver::Mode;

use super::row::Row;
use crate::programs::{cargo, is_program, own, target_dir};

pub(super) mod keepwarm;

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// keepwarm with rustls.
    Keepwarm,
    /// keepwarm with Chromium's hello and preface.
    #[cfg(feature = "browser")]
    KeepwarmChrome,
    /// boring and http2, with nothing around them.
    ByHand,
    Reqwest,
    Wreq,
    #[value(name = "curl_cffi")]
    CurlCffi,
    Httpx,
    Requests,
}

/// Where a client's program comes from.
enum Source {
    /// This program, with a profile.
    Ours(&'static str),
    /// A program of a Cargo project beside this one: its directory and name.
    Crate(&'static str, &'static str),
    /// A package of PyPI.
    Python,
}

/// A client that is there.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) kind: Kind,
    /// The program and the arguments before the task's.
    pub(super) argv: Vec<OsString>,
    /// Empty: it says it itself.
    pub(super) version: String,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Keepwarm => "keepwarm",
            #[cfg(feature = "browser")]
            Kind::KeepwarmChrome => "keepwarm, chrome",
            Kind::ByHand => "boring + http2 by hand",
            Kind::Reqwest => "reqwest",
            Kind::Wreq => "wreq",
            Kind::CurlCffi => "curl_cffi",
            Kind::Httpx => "httpx",
            Kind::Requests => "requests",
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self.source(), Source::Ours(_))
    }

    /// Whether it can do what a row asks for.
    pub(super) fn can(self, row: Row) -> bool {
        match row.mode() {
            // The floor keeps no tickets.
            Mode::Cold | Mode::Same if row.has_tickets() && self == Kind::ByHand => false,
            // The others open a second connection to a host only when the first is gone.
            Mode::Same => self.is_ours() || self == Kind::ByHand,
            _ => true,
        }
    }

    fn source(self) -> Source {
        match self {
            Kind::Keepwarm => Source::Ours("plain"),
            #[cfg(feature = "browser")]
            Kind::KeepwarmChrome => Source::Ours("chrome"),
            Kind::ByHand => Source::Crate(".", "by-hand"),
            Kind::Reqwest => Source::Crate(".", "reqwest"),
            Kind::Wreq => Source::Crate("wreq", "keepwarm-https-peer-wreq"),
            Kind::CurlCffi | Kind::Httpx | Kind::Requests => Source::Python,
        }
    }

    /// The program's name for a Python client.
    fn python_name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn version(self) -> String {
        let version = |lock, package| locked(lock, package).unwrap_or("of unknown version");
        match self {
            Kind::ByHand => format!("(boring {}, http2 {})", version(LOCK, "boring"), version(LOCK, "http2")),
            Kind::Reqwest => version(LOCK, "reqwest").to_owned(),
            Kind::Wreq => version(WREQ_LOCK, "wreq").to_owned(),
            Kind::CurlCffi | Kind::Httpx | Kind::Requests => String::new(),
            _ => env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The clients to compare, and a line for each that is missed.
pub(super) fn find(names: &[Kind]) -> (Vec<Peer>, Vec<String>) {
    let (mut peers, mut missed) = (Vec::new(), Vec::new());
    for kind in Kind::value_variants().iter().copied().filter(|kind| names.is_empty() || names.contains(kind)) {
        match argv(kind) {
            Ok(argv) => peers.push(Peer { kind, argv, version: kind.version() }),
            Err(error) => missed.push(format!("{} is skipped: {error:#}", kind.name())),
        }
    }
    (peers, missed)
}

fn argv(kind: Kind) -> anyhow::Result<Vec<OsString>> {
    match kind.source() {
        Source::Ours(profile) => own(["https-client", "--profile", profile].map(OsString::from)),
        Source::Crate(directory, name) => Ok(vec![build(directory, name)?.into()]),
        Source::Python => {
            let script = peers_directory().join("client.py");
            Ok(vec![python(kind)?.into(), script.into(), kind.python_name().into()])
        }
    }
}

fn peers_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("https-peers")
}

/// Builds a peer's program; quick when nothing changed.
fn build(directory: &str, name: &str) -> anyhow::Result<PathBuf> {
    let manifest = peers_directory().join(directory).join("Cargo.toml");
    let target = target_dir()?.join("bench-peers/https");
    let [manifest, target_shown] = [&manifest, &target].map(|path| path.to_string_lossy().into_owned());
    let flags = ["--release", "--locked", "--manifest-path", &manifest, "--target-dir", &target_shown, "--bin", name];
    cargo(&[&["build"], flags.as_slice()].concat()).map_err(|_| anyhow::anyhow!("Cargo cannot build {name}"))?;
    let program = target.join("release").join(name);
    if is_program(&program) { Ok(program) } else { bail!("Cargo made no {name}") }
}

/// A Python that has a peer. An environment of its own, made on first use; packages are installed one by one, so that one that
/// cannot be had takes no other with it.
fn python(kind: Kind) -> anyhow::Result<PathBuf> {
    let name = kind.python_name();
    let requirement = REQUIREMENTS.lines().find(|line| line.starts_with(&name));
    let requirement = requirement.with_context(|| format!("requirements.txt has no {name}"))?;
    let directory = target_dir()?.join("bench-peers/https-python");
    let python = directory.join("bin/python");
    let done = directory.join(format!("{name}.installed"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == requirement) {
        return Ok(python);
    }
    if !is_program(&python) {
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&directory)).context("python3 cannot make a venv")?;
    }
    quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", requirement]))
        .with_context(|| format!("PyPI's {requirement} cannot be installed"))?;
    std::fs::write(&done, requirement).context("note what is installed")?;
    Ok(python)
}

/// Runs a command. Errors have no paths, since they become part of a page.
fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("it does not start")?;
    if status.success() { Ok(()) } else { bail!("{status}") }
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

const LOCK: &str = include_str!("../../https-peers/Cargo.lock");
const REQUIREMENTS: &str = include_str!("../../https-peers/requirements.txt");
const WREQ_LOCK: &str = include_str!("../../https-peers/wreq/Cargo.lock");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_files() {
        assert_eq!(locked("[[package]]\nname = \"a\"\nversion = \"1.2.3\"\nsource = 1\n", "a"), Some("1.2.3"));
        for kind in Kind::value_variants() {
            assert!(!kind.version().contains("unknown"), "{}: {}", kind.name(), kind.version());
        }
    }

    #[test]
    fn every_python_client_is_required() {
        for kind in Kind::value_variants().iter().filter(|kind| matches!(kind.source(), Source::Python)) {
            assert!(REQUIREMENTS.lines().any(|line| line.starts_with(&kind.python_name())), "{}", kind.name());
        }
    }

    #[test]
    fn every_client_is_measured_hot_and_only_ours_opens_connections_of_a_host_at_will() {
        for kind in Kind::value_variants() {
            assert!(kind.can(Row::Hot) && kind.can(Row::Idle));
            assert_eq!(kind.can(Row::Resumed), kind.is_ours());
        }
    }
}
