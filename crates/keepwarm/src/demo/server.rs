//! The server under test: this very program as `keepwarm run`, in a process of its own so that its CPU time is its own.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use keepwarm_dns::config::{Strategy, Transport};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::plan::UPSTREAMS;
use keepwarm_control::{
    client,
    rows::{DnsUpstreamRow, Stats},
};

/// What the server is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup<'a> {
    /// How it reaches the upstreams.
    pub(super) transport: Transport,
    /// Pooled with the product's defaults, or a connection per query.
    pub(super) reuse: bool,
    /// How it chooses upstreams.
    pub(super) strategy: Strategy,
    /// Clients that may ask at once: what the naive server needs room for.
    pub(super) clients: usize,
    /// The upstreams' addresses for that transport.
    pub(super) upstreams: &'a [SocketAddr],
    /// The CA that signed the upstreams' certificates, as a PEM file.
    pub(super) ca: &'a Path,
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    control: SocketAddr,
    /// Where it takes queries.
    pub(super) address: SocketAddr,
    log: tempfile::NamedTempFile,
    /// The process reads it at its start, and it goes with the server.
    _config: tempfile::NamedTempFile,
}

impl Server {
    /// Starts a server and waits until it listens. Its files are in `directory`.
    ///
    /// # Errors
    /// What the server wrote before it ended, or that it did not listen within [`START_TIMEOUT`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(super) async fn start(setup: Setup<'_>, directory: &Path) -> anyhow::Result<Server> {
        for _ in 1..PORT_ATTEMPTS {
            // Another process may take the port in between; then the server says that it cannot listen.
            if let Some(server) = Server::try_start(setup, directory).await? {
                return Ok(server);
            }
        }
        bail!("no free port for the server's status endpoint in {PORT_ATTEMPTS} attempts")
    }

    async fn try_start(setup: Setup<'_>, directory: &Path) -> anyhow::Result<Option<Server>> {
        let control = free_port().await.context("find a free port")?;
        let config =
            tempfile::Builder::new().suffix(".toml").tempfile_in(directory).context("write the server's config")?;
        std::fs::write(config.path(), config_text(setup, control)).context("write the server's config")?;
        let log = tempfile::NamedTempFile::new_in(directory).context("write the server's log")?;
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(&program)
            .args([OsStr::new("run"), OsStr::new("-c"), config.path().as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.reopen().context("write the server's log")?))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        let address = loop {
            if let Some(status) = child.try_wait().context("look after the server")? {
                if status.code() == Some(UNAVAILABLE) {
                    return Ok(None);
                }
                bail!("{}", ended(status, &log));
            }
            // Nothing listens in the first few milliseconds; an answer is what is waited for.
            if let Ok(stats) = client::get::<Stats>(control, "/api/v1/stats").await
                && let Some(address) = stats.listen.iter().find_map(|url| url.strip_prefix("udp://"))
            {
                break address.parse().with_context(|| format!("the server listens on `{address}`"))?;
            }
            if Instant::now() > deadline {
                bail!("the server did not listen within {START_TIMEOUT:?}{}", words(&log));
            }
            sleep(POLL).await;
        };
        Ok(Some(Server { child, control, address, log, _config: config }))
    }

    /// CPU time of the process up to now; `None` where the system does not tell.
    ///
    /// # Errors
    /// When the process has ended or does not answer.
    pub(super) async fn cpu_time(&mut self) -> anyhow::Result<Option<Duration>> {
        self.check()?;
        let stats: Stats =
            client::get(self.control, "/api/v1/stats").await.context("ask the server for its CPU time")?;
        Ok(stats.counters.get("cpu_micros").copied().map(Duration::from_micros))
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// What it wrote at the end.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look after the server")? {
            Some(status) => bail!("{}", ended(status, &self.log)),
            None => Ok(()),
        }
    }

    /// Where its pools can be watched.
    pub(super) fn watch(&self) -> Watch {
        Watch { control: self.control }
    }

    /// Ends the process: asks first, and kills what has not ended soon after.
    ///
    /// # Errors
    /// When it can be neither ended nor waited for, or ended by a fault of its own.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        #[cfg(unix)]
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if let Ok(status) = timeout(STOP_TIMEOUT, self.child.wait()).await {
                let status = status.context("wait for the server's end")?;
                return if status.success() { Ok(()) } else { bail!("{}", ended(status, &self.log)) };
            }
        }
        self.child.kill().await.context("end the server")
    }
}

/// Asks a server about its pools.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    control: SocketAddr,
}

impl Watch {
    /// Connections open to the upstream that has the most; none when the server does not answer.
    pub(super) async fn open_max(self) -> Option<u64> {
        let pools: Vec<DnsUpstreamRow> = client::get(self.control, "/api/v1/dns/upstreams").await.ok()?;
        pools.iter().map(|pool| pool.open).max()
    }
}

/// The config of a server: defaults, and with reuse off as much room as a connection per query needs. Without a cache,
/// which would hide what is measured here: the connections to upstreams.
fn config_text(setup: Setup<'_>, control: SocketAddr) -> String {
    let Setup { transport, reuse, strategy, clients, upstreams, ca } = setup;
    let text = |text: &str| toml::Value::from(text).to_string();
    let strategy = strategy.as_str();
    let mut config = format!(
        "version = 1\n[log]\nlevel = \"warn\"\nformat = \"text\"\n[control]\nlisten = \"{control}\"\n\
         [tls]\nextra_roots = [{}]\n[dns]\nlisten = [\"udp://127.0.0.1:0\"]\nstrategy = \"{strategy}\"\n\
         [dns.cache]\nsize = \"0\"\n",
        text(&ca.to_string_lossy()),
    );
    let mut limits = String::new();
    if !reuse {
        // Queries that have not ended yet hold theirs while new ones come, hence twice the clients. A query may wait for
        // its connection as long as for its answer, so that no limit of ours fails the naive server early.
        let room = 2 * clients;
        config += &format!(
            "[dns.pool]\nreuse = false\nmax_per_host = {room}\nmin_idle = 0\nmax_waiters = {room}\nacquire_timeout = \"4s\"\n"
        );
        limits = format!("[limits]\nmax_connections = {}\n", room * UPSTREAMS);
    }
    for (number, address) in upstreams.iter().enumerate() {
        let _ = writeln!(config, "[[dns.upstream]]\nname = \"lab-{}\"", number + 1);
        let _ = match transport {
            Transport::Udp | Transport::Tcp => writeln!(config, "address = \"{}://{address}\"", transport.as_str()),
            _ => writeln!(config, "address = \"{}://{address}\"\nserver_name = \"upstream.lab\"", transport.as_str()),
        };
    }
    config + &limits
}

/// A port of loopback that nothing listens on at this moment.
async fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

fn ended(status: ExitStatus, log: &tempfile::NamedTempFile) -> String {
    format!("the server ended ({status}){}", words(log))
}

/// The server's last words, for an error message.
fn words(log: &tempfile::NamedTempFile) -> String {
    let text = File::open(log.path()).and_then(io::read_to_string).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    // A backtrace would hide the panic's own words.
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let first = panic.unwrap_or_else(|| lines.len().saturating_sub(WORDS_MAX));
    let last = &lines[first..lines.len().min(first + WORDS_MAX)];
    if last.is_empty() { String::new() } else { format!("; its last words:\n  {}", last.join("\n  ")) }
}

/// How `keepwarm run` ends when it cannot listen: `Exit::Unavailable`.
const UNAVAILABLE: i32 = 69;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
const PORT_ATTEMPTS: u32 = 5;
const WORDS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use keepwarm_dns::config::DnsConfig;

    use super::*;
    use crate::{cli::Exit, config::Config};

    fn config(transport: Transport, reuse: bool) -> DnsConfig {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("c \"a\".pem");
        std::fs::write(&ca, keepwarm_lab::Ca::new().pem()).unwrap();
        let upstreams = [1, 2, 3].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let strategy = Strategy::Parallel;
        let setup = Setup { transport, reuse, strategy, clients: 1_000, upstreams: &upstreams, ca: &ca };
        let text = config_text(setup, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let loaded = Config::parse("demo", &text, Path::new("")).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert_eq!(loaded.warnings.iter().count(), 0);
        loaded.config.dns.unwrap()
    }

    #[test]
    fn the_pooled_server_has_the_defaults_of_the_product() {
        for transport in super::super::plan::TRANSPORTS {
            let config = config(transport, true);
            let defaults = Config::default_config().dns.unwrap();
            assert_eq!(config.pool, defaults.pool);
            assert_eq!(config.max_connections, defaults.max_connections);
            assert_eq!(config.timeout, defaults.timeout);
            assert_eq!(config.cache.size, 0, "except for the cache, which would keep queries from the upstreams");
            assert_eq!(config.upstreams.len(), UPSTREAMS);
            assert!(config.upstreams.iter().all(|upstream| upstream.transport == transport));
        }
    }

    #[test]
    fn the_naive_server_has_room_for_a_connection_per_query() {
        let config = config(Transport::Tls, false);
        assert!(!config.pool.reuse);
        assert_eq!(config.pool.min_idle, 0);
        assert_eq!((config.pool.max_per_host, config.max_connections), (2_000, 6_000));
    }

    #[test]
    fn the_exit_code_of_a_port_in_use_is_known() {
        assert_eq!(std::process::ExitCode::from(Exit::Unavailable), std::process::ExitCode::from(69u8));
    }
}
