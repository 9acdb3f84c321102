//! The proxies that are compared: which there are, how they are had, and their versions.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use clap::ValueEnum;

use super::{TunnelArgs, row::Row};
use crate::programs::{build_keepwarm, cargo, checked, on_path, own, target_dir, version_in};
pub(super) use config::Setup;

mod config;

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Keepwarm,
    /// The crate, as a server of its own.
    #[value(name = "fast-socks5")]
    FastSocks5,
    Microsocks,
    Danted,
    /// This program, with `tokio::io::copy_bidirectional`.
    Tokio,
    /// This program, with splice(2).
    Splice,
    /// This program, with a buffer of 256 KiB.
    Copy,
}

/// A proxy that is there.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    /// Empty: there is none.
    pub(super) version: String,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Keepwarm => "keepwarm",
            Kind::FastSocks5 => "fast-socks5",
            Kind::Microsocks => "microsocks",
            Kind::Danted => "dante",
            Kind::Tokio => "copy_bidirectional",
            Kind::Splice => "*splice (floor)*",
            Kind::Copy => "*256 KiB copy (floor)*",
        }
    }

    /// Its name in a row's table.
    pub(super) fn title(self, row: Row) -> String {
        match self {
            Kind::Keepwarm if row.has_upstream() => "keepwarm, spares".to_owned(),
            Kind::FastSocks5 if row.has_upstream() => "fast-socks5, dials each".to_owned(),
            Kind::Microsocks if row.has_upstream() => "*nothing between client and upstream*".to_owned(),
            _ => self.name().to_owned(),
        }
    }

    /// Whether there is a server to start for a row, and not only the upstream to use.
    pub(super) fn is_server(self, row: Row) -> bool {
        !(self == Kind::Microsocks && row.has_upstream())
    }

    fn program(self, args: &TunnelArgs) -> anyhow::Result<PathBuf> {
        let installed = |program: &str, package: &str| {
            on_path(program).with_context(|| format!("not installed; `apt-get install {package}`"))
        };
        match self {
            Kind::Keepwarm => args.keepwarm.as_deref().map_or_else(build_keepwarm, checked),
            Kind::FastSocks5 => build_fast_socks5(),
            Kind::Microsocks => installed("microsocks", "microsocks"),
            Kind::Danted => installed("danted", "dante-server"),
            Kind::Tokio | Kind::Splice | Kind::Copy => Ok(std::env::current_exe()?),
        }
    }

    fn version(self, program: &Path) -> String {
        match self {
            Kind::Keepwarm => said(program, "--version"),
            Kind::Danted => said(program, "-v").trim_end_matches('.').to_owned(),
            Kind::FastSocks5 => locked("fast-socks5").to_owned(),
            // The program does not say.
            Kind::Microsocks => said(Path::new("dpkg-query"), "--show --showformat=${Version} microsocks"),
            Kind::Tokio | Kind::Splice | Kind::Copy => String::new(),
        }
    }
}

impl Peer {
    /// The command that starts it under a setup, whose files are written.
    pub(super) fn prepare(&self, setup: &Setup<'_>) -> anyhow::Result<Vec<OsString>> {
        if matches!(self.kind, Kind::Tokio | Kind::Splice | Kind::Copy) {
            return own(config::arguments(self.kind, setup).into_iter().map(OsString::from));
        }
        if let Some((name, text)) = config::file(self.kind, setup) {
            let file = setup.dir.join(name);
            std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        let arguments = config::arguments(self.kind, setup).into_iter().map(OsString::from);
        Ok(std::iter::once(self.program.clone().into_os_string()).chain(arguments).collect())
    }
}

/// The proxies to compare, and a line for each that is missed.
pub(super) fn find(args: &TunnelArgs) -> (Vec<Peer>, Vec<String>) {
    let (mut peers, mut missed) = (Vec::new(), Vec::new());
    for kind in Kind::value_variants().iter().copied() {
        if !args.names.is_empty() && !args.names.contains(&kind) {
            continue;
        }
        match kind.program(args) {
            Ok(program) => peers.push(Peer { kind, version: kind.version(&program), program }),
            Err(error) => missed.push(format!("{} is skipped: {error:#}", kind.name())),
        }
    }
    (peers, missed)
}

/// Quick when nothing changed.
fn build_fast_socks5() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tunnel-peers/Cargo.toml");
    let target = target_dir()?.join("bench-peers/tunnel");
    let [manifest, target_shown] = [&manifest, &target].map(|path| path.to_string_lossy().into_owned());
    let flags = ["build", "--release", "--locked", "--manifest-path", &manifest, "--target-dir", &target_shown];
    cargo(&flags).map_err(|_| anyhow::anyhow!("Cargo cannot build it"))?;
    checked(&target.join("release/fast-socks5"))
}

fn said(program: &Path, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).stdin(Stdio::null()).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&said))
}

/// The version of a package in the peers' lock file.
fn locked(package: &str) -> &'static str {
    let entry = LOCK.split_once(&format!("name = \"{package}\"\nversion = \""));
    entry.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("of unknown version")
}

const LOCK: &str = include_str!("../../tunnel-peers/Cargo.lock");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        assert!(locked("fast-socks5").starts_with("1."), "{}", locked("fast-socks5"));
        assert_eq!(locked("slow-socks5"), "of unknown version");
    }

    #[test]
    fn only_a_client_that_goes_by_itself_needs_no_server() {
        assert!(!Kind::Microsocks.is_server(Row::Ready20) && Kind::Microsocks.is_server(Row::Setup));
        assert!(Kind::value_variants().iter().filter(|kind| !kind.is_server(Row::Ready)).count() == 1);
    }
}
