//! The servers that are compared: which there are, where they are found, and their versions.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::DnsArgs;
use crate::programs::{build_keepwarm, cargo, checked, is_program, on_path, own, target_dir, version_in};

mod config;

pub(super) use config::{Cache, Setup, Task};

/// How a server asks its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
    Https,
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Keepwarm,
    Dnsdist,
    Unbound,
    Smartdns,
    Oxidns,
    Hickory,
    // The bench's own relay, and the echo for cache hits.
    Floor,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Keepwarm => "keepwarm",
            Kind::Dnsdist => "dnsdist",
            Kind::Unbound => "unbound",
            Kind::Smartdns => "smartdns",
            Kind::Oxidns => "oxidns",
            Kind::Hickory => "hickory",
            Kind::Floor => "floor",
        }
    }

    /// What it can ask an upstream over.
    pub(super) fn upstreams(self) -> &'static [Transport] {
        use Transport::{Https, Tcp, Tls, Udp};
        match self {
            Kind::Keepwarm | Kind::Dnsdist | Kind::Oxidns | Kind::Hickory => &[Udp, Tcp, Tls, Https],
            // smartdns asks over HTTPS too, but as of version 46 with HTTP/1.1 only.
            Kind::Unbound | Kind::Smartdns => &[Udp, Tcp, Tls],
            Kind::Floor => &[Udp],
        }
    }

    fn source(self) -> Source {
        match self {
            Kind::Keepwarm | Kind::Floor => Source::Ours,
            Kind::Dnsdist | Kind::Unbound | Kind::Smartdns => Source::System(self.name()),
            Kind::Oxidns => Source::Registry { package: "oxidns", version: "^1.6", features: None },
            // The features that forwarding needs, and one TLS library instead of two.
            Kind::Hickory => Source::Registry {
                package: "hickory-dns",
                version: "^0.26",
                features: Some("resolver,tls-ring,https-ring,rustls-platform-verifier"),
            },
        }
    }
}

/// Where a program comes from.
enum Source {
    Ours,
    /// A package of the system, of the program's name.
    System(&'static str),
    /// A package of the Cargo registry, in the versions that its configuration here is written for.
    Registry {
        package: &'static str,
        version: &'static str,
        features: Option<&'static str>,
    },
}

/// A server that is there.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    pub(super) version: String,
}

impl Peer {
    /// The command that starts it under a setup, whose files are written.
    pub(super) fn prepare(&self, setup: &Setup<'_>) -> anyhow::Result<Vec<OsString>> {
        if self.kind == Kind::Floor {
            return own(setup.floor_arguments());
        }
        let file = setup.dir.join(config::file_name(self.kind));
        std::fs::write(&file, config::text(self.kind, setup)).with_context(|| format!("write {}", file.display()))?;
        let mut argv = vec![self.program.clone().into_os_string()];
        argv.extend(config::arguments(self.kind, setup, &file).into_iter().map(OsString::from));
        Ok(argv)
    }
}

/// The servers to compare, and a line for each that is missed.
pub(super) fn find(args: &DnsArgs) -> anyhow::Result<(Vec<Peer>, Vec<String>)> {
    if let Some(kind) = args.with.iter().find(|kind| !matches!(kind.source(), Source::Registry { .. })) {
        bail!("--with {}: only oxidns and hickory come from the Cargo registry", kind.name());
    }
    let (mut peers, mut missed) = (Vec::new(), Vec::new());
    for kind in Kind::value_variants().iter().copied() {
        if !args.names.is_empty() && !args.names.contains(&kind) && !args.with.contains(&kind) {
            continue;
        }
        match program(kind, args)? {
            Ok(program) => {
                let version = version(kind, &program)?;
                peers.push(Peer { kind, program, version });
            }
            Err(remedy) => missed.extend(remedy.map(|remedy| format!("{} is skipped: {remedy}", kind.name()))),
        }
    }
    Ok((peers, missed))
}

/// The program of a server, or what to do to get it. `None`: it is not asked for.
fn program(kind: Kind, args: &DnsArgs) -> anyhow::Result<Result<PathBuf, Option<String>>> {
    if let Some((_, program)) = args.peer.iter().find(|(named, _)| *named == kind) {
        return Ok(Ok(checked(program)?));
    }
    Ok(match kind.source() {
        Source::Ours if kind == Kind::Floor => Ok(std::env::current_exe()?),
        Source::Ours => Ok(args.keepwarm.as_deref().map_or_else(build_keepwarm, checked)?),
        Source::System(package) => on_path(package)
            .ok_or_else(|| Some(format!("not installed; `apt-get install {package}`, or --peer {package}=PROGRAM"))),
        Source::Registry { package, version, features } => {
            let wanted = args.with.contains(&kind) || args.names.contains(&kind);
            if wanted { Ok(install(package, version, features)?) } else { Err(None) }
        }
    })
}

fn install(package: &str, version: &str, features: Option<&str>) -> anyhow::Result<PathBuf> {
    let root = target_dir()?.join("bench-peers");
    let installed = root.join("bin").join(package);
    if let Some(found) = on_path(package).or_else(|| is_program(&installed).then(|| installed.clone())) {
        return Ok(found);
    }
    let root = root.to_string_lossy().into_owned();
    let mut arguments = vec!["install", "--locked", "--root", &root, "--version", version, package];
    if let Some(features) = features {
        arguments.extend(["--no-default-features", "--features", features]);
    }
    cargo(&arguments).with_context(|| format!("install {package}"))?;
    checked(&installed)
}

fn version(kind: Kind, program: &Path) -> anyhow::Result<String> {
    let flag = match kind {
        Kind::Floor => return Ok(String::new()),
        Kind::Unbound => "-V",
        Kind::Smartdns => "-v",
        _ => "--version",
    };
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {} {flag}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    Ok(version_in(&String::from_utf8_lossy(&said)))
}

/// `NAME=PROGRAM` of the command line.
pub(super) fn named_program(text: &str) -> Result<(Kind, PathBuf), String> {
    let (name, program) = text.split_once('=').ok_or("NAME=PROGRAM is expected")?;
    match Kind::from_str(name, false)? {
        Kind::Keepwarm => Err("for keepwarm there is --keepwarm PROGRAM".to_owned()),
        Kind::Floor => Err("the floor is part of this program".to_owned()),
        kind => Ok((kind, PathBuf::from(program))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_needs_a_known_name() {
        assert_eq!(named_program("dnsdist=/x/y"), Ok((Kind::Dnsdist, PathBuf::from("/x/y"))));
        assert!(
            named_program("dnsdist").is_err()
                && named_program("bind=/x").is_err()
                && named_program("floor=/x").is_err()
        );
    }
}
