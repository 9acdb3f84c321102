//! The config file: read, checked as a whole, and turned into typed settings.
//!
//! [`Source`] (file, environment, flags) -> `Spec` (as written, with places) -> [`Config`] (as meant). All faults are found in one
//! pass, each with its place and what would be accepted. [`Effective`] is the same for people: each key, its value and where that is
//! from. What the settings do is the business of the crates that take them; watching the file for changes is not here.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use keepwarm_dns::config::DnsConfig;
use keepwarm_https::config::HttpsConfig;
use keepwarm_tunnel::config::TunnelConfig;
use toml::de::DeTable;

use crate::logging::LogConfig;
use fault::{Fault, Faults};
use layers::{Overlay, Text};

pub mod address;
mod control;
mod effective;
mod elsewhere;
mod example;
pub mod fault;
mod layers;
mod meaning;
pub mod name;
mod origin;
mod read;
mod secret;
mod shape;
mod spec;
mod tunnel;
mod value;
pub mod words;

pub use control::ControlConfig;
pub use effective::{Difference, Effective, Entry, Origin, Show};
pub use example::{EXAMPLE, schema};
pub use layers::{Environment, Source};
pub(crate) use tunnel::show_pattern;

/// A config file larger than this is refused unread: 1 MiB.
const FILE_MAX: u64 = 1 << 20;

/// The config that is used when no file is given.
const DEFAULT: &str = include_str!("config/default.toml");

/// Everything that the daemon needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is logged, and how.
    pub log: LogConfig,
    /// The status endpoint.
    pub control: ControlConfig,
    /// The DNS gateway, with the limits of the whole daemon; none where the file has no `[dns]`. One of this, `https` and `tunnel` is there.
    pub dns: Option<DnsConfig>,
    /// Hot HTTPS; none where the file has no `[https]`. Its connections and those of `dns` are together at most
    /// `limits.max_connections`, with those of `tunnel`.
    pub https: Option<HttpsConfig>,
    /// Tunnels; none where the file has no `[tunnel]`.
    pub tunnel: Option<TunnelConfig>,
    /// Threads of hot HTTPS; 0: one per core. Those of `dns` are in its own settings, and as many.
    pub workers: usize,
}

/// A config and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Warnings only: what works as written and may surprise.
    pub warnings: Faults,
    /// The settings as text, each with where it is from.
    pub effective: Effective,
}

/// Why there is no config.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file was read and is refused; also holds its warnings.
    Faults(Box<Faults>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            ConfigError::Faults(faults) => faults.fmt(f),
        }
    }
}

/// The words of the system are part of the text, so there is no source to say them again.
impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file alone, without variables and flags; relative paths in it start at its folder.
    ///
    /// # Errors
    /// When it cannot be read, is larger than 1 MiB or not UTF-8, or when anything in it is refused: then with all faults.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        Source::file(path).load()
    }

    /// Checks the text of a file; `name` stands for it in messages, relative paths start at `base`.
    ///
    /// # Errors
    /// When anything in it is refused, with all faults.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Loaded, ConfigError> {
        Config::layered(&Text::of_file(name, text), &[], base)
    }

    /// Checks a file and what stands over it.
    fn layered(text: &Text, overlays: &[Overlay], base: &Path) -> Result<Loaded, ConfigError> {
        let mut faults = Faults::in_text(text.clone());
        let (tree, errors) = DeTable::parse_recoverable(text.file_text());
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            faults.push(Fault::error(span, format!("not TOML: {}", error.message())));
        }
        if faults.has_errors() {
            faults.conceal_suspects();
            // What a half-understood file means can only be guessed, so the keys are checked once the syntax is right.
            faults.sort();
            faults.conclude("the keys are checked once the syntax is right");
            return Err(ConfigError::Faults(Box::new(faults)));
        }
        let mut tree = tree.into_inner();
        for overlay in overlays {
            overlay.apply(text, &mut tree, &mut faults);
        }
        let spec = spec::FileSpec::from_table(&mut faults, "", &tree);
        let config = meaning::config(spec, &mut faults, base);
        faults.sort();
        if faults.has_errors() {
            return Err(ConfigError::Faults(Box::new(faults)));
        }
        let effective = Effective::of(&tree, &faults, &config);
        Ok(Loaded { config, warnings: faults, effective })
    }

    /// The config that is used when no file is given: DNS on 127.0.0.1:5300, three public resolvers over HTTPS and TLS.
    pub fn default_config() -> Config {
        Source::built_in().load().expect("a test parses the built-in default").config
    }
}

/// Defaults of what no single section of a library owns; all others are the `Default` impls of the libraries.
mod defaults {
    use std::{net::SocketAddr, time::Duration};

    use ipnet::IpNet;
    use keepwarm_dns::config::Listen;
    use keepwarm_tunnel::config as tunnel;

    pub(super) const TIMEOUT: Duration = Duration::from_secs(4);
    pub(super) const RACING_DELAY: Duration = Duration::from_millis(100);
    pub(super) const MAX_CONNECTIONS: usize = 512;
    pub(super) const WORKERS: usize = 0;
    /// Bits of a client's address that upstreams are told, where they are told any: RFC 7871 section 11.1.
    pub(super) const SUBNET_V4: u8 = 24;
    pub(super) const SUBNET_V6: u8 = 56;

    pub(super) fn listen() -> Listen {
        Listen::plain(SocketAddr::from(([127, 0, 0, 1], 5300)))
    }

    pub(super) fn tunnel_listen() -> tunnel::Listen {
        tunnel::Listen { address: SocketAddr::from(([127, 0, 0, 1], 1080)), kind: tunnel::ListenKind::Mixed }
    }

    pub(super) fn allow() -> Vec<IpNet> {
        ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("the loopback networks are well-formed")).into()
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
