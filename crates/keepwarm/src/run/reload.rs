//! Another config for the running daemon: read, built whole, then put in force; or refused, and nothing has changed.
//!
//! Each part (DNS, hot HTTPS and its gateway, tunnels and their listeners) first prepares what is new, which may fail, and only when all
//! of them are ready each one applies it, which cannot. What the parts keep, drain or cannot change before the next start is theirs to
//! say; which keys differ, and from what to what, is said here. Not here: what a new config does within a part.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use keepwarm_control::{
    Answer, Control, Refusal,
    rows::{ConfigRow, ConfigState, DrainedRow, ReloadRow},
};
use keepwarm_dns::server::{self, Server};
use keepwarm_https::{Client, GatewayWatch};
use keepwarm_pool::Limits;
use keepwarm_transport::reload::Changes;
use keepwarm_tunnel::{Connector, ServerWatch};
use parking_lot::Mutex;

use crate::{
    config::{Config, ConfigError, Effective, Loaded, Source, words::io_words},
    run::log::LogLevel,
    service::Service,
};

/// Reads the config again, and knows the one in force.
pub(super) struct Reloader {
    source: Source,
    parts: Parts,
    /// The config that the process began with.
    first: Arc<Config>,
    stopping: AtomicBool,
    log: Arc<LogLevel>,
    service: Service,
    control: OnceLock<Weak<Control>>,
    state: Mutex<State>,
}

/// What runs and takes another config. DNS is not kept alive.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) dns: Option<Weak<Server>>,
    pub(super) https: Option<(Client, GatewayWatch)>,
    pub(super) tunnels: Option<(Connector, Option<ServerWatch>)>,
    /// Where the status endpoint listens.
    pub(super) control: Option<SocketAddr>,
}

/// The config in force.
struct State {
    config: Arc<Config>,
    effective: Arc<Effective>,
    generation: u64,
    loaded: u64,
    needs_restart: Vec<String>,
    last_error: Option<String>,
    changed_at_run_time: Vec<String>,
}

/// The parts of a config that are ready.
struct Prepared {
    dns: Option<server::Prepared>,
    https: Option<(keepwarm_https::Prepared, keepwarm_https::PreparedGateway)>,
    tunnels: Option<keepwarm_tunnel::Prepared>,
    /// What the daemon itself cannot change before its next start.
    needs_restart: Vec<String>,
}

impl Reloader {
    pub(super) fn new(source: Source, loaded: Loaded, parts: Parts, log: Arc<LogLevel>, service: Service) -> Reloader {
        let first = Arc::new(loaded.config);
        let state = State {
            config: Arc::clone(&first),
            effective: Arc::new(loaded.effective),
            generation: 1,
            loaded: now(),
            needs_restart: Vec::new(),
            last_error: None,
            changed_at_run_time: Vec::new(),
        };
        Reloader {
            source,
            parts,
            first,
            stopping: AtomicBool::new(false),
            log,
            service,
            control: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// The endpoint whose token follows the config.
    pub(super) fn steers(&self, control: &Arc<Control>) {
        let _ = self.control.set(Arc::downgrade(control));
    }

    /// Nothing is put in force any more.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn check_running(&self) -> Result<(), Refusal> {
        match self.stopping.load(Ordering::Relaxed) {
            true => Err(Refusal::Failed("the daemon is stopping".to_owned())),
            false => Ok(()),
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state.lock().config)
    }

    pub(super) fn state(&self) -> ConfigState {
        let state = self.state.lock();
        ConfigState {
            file: self.source.path().map(|path| path.display().to_string()),
            generation: state.generation,
            loaded: state.loaded,
            needs_restart: state.needs_restart.clone(),
            last_error: state.last_error.clone(),
            changed_at_run_time: state.changed_at_run_time.clone(),
        }
    }

    pub(super) fn row(&self) -> ConfigRow {
        let effective = Arc::clone(&self.state.lock().effective);
        ConfigRow { state: self.state(), values: effective.entries().into_iter().map(Into::into).collect() }
    }

    pub(super) fn limits_changed(&self, names: Vec<String>) {
        let mut state = self.state.lock();
        for name in names {
            // As many as there are limits and pools, which are bounded.
            if !state.changed_at_run_time.contains(&name) {
                state.changed_at_run_time.push(name);
            }
        }
    }

    /// Reads the config again and puts it in force. The caller sees to it that only one does so at a time.
    pub(super) fn reload(self: Arc<Self>) -> Answer<ReloadRow> {
        Box::pin(async move {
            self.check_running()?;
            self.service.reloading().await;
            let done = self.try_reload().await;
            let why = done.as_ref().err().map(words);
            match (&done, &why) {
                (Ok(row), _) => told(row),
                (Err(_), why) => tracing::error!(why, "reload refused: nothing has changed"),
            }
            self.state.lock().last_error.clone_from(&why);
            self.service.reloaded(why.as_deref()).await;
            done
        })
    }

    async fn try_reload(&self) -> Result<ReloadRow, Refusal> {
        let source = self.source.clone();
        // It reads files, and some file systems take their time.
        let loaded = tokio::task::spawn_blocking(move || source.load()).await;
        let Loaded { config, warnings, effective } =
            loaded.map_err(|error| Refusal::Failed(format!("read the config: {error}")))?.map_err(refused)?;
        let mut prepared = self.prepare(&config).await?;
        self.check_running()?;
        let limits = self.limits();
        let mut changes = Changes { needs_restart: std::mem::take(&mut prepared.needs_restart), ..Changes::default() };
        changes.extend(prepared.apply().await);
        // A part may have named what the daemon names too.
        changes.needs_restart.sort_unstable();
        changes.needs_restart.dedup();
        let config = self.in_force(config);
        self.log.configure(config.log.filter.clone());
        if let Some(control) = self.control.get().and_then(Weak::upgrade) {
            control.set_token(config.control.token.clone());
        }
        let mut state = self.state.lock();
        let differences = Effective::difference(&state.effective, &effective);
        state.generation += 1;
        state.loaded = now();
        state.config = Arc::new(config);
        state.effective = Arc::new(effective);
        state.needs_restart.clone_from(&changes.needs_restart);
        // A pool whose settings were put in force anew has those; the others keep what an operator set.
        let now = self.limits();
        state.changed_at_run_time.retain(|name| {
            let pool = name.rsplit_once('.').map_or(name.as_str(), |(pool, _)| pool);
            limits.get(pool).is_some_and(|before| now.get(pool) == Some(before))
        });
        Ok(ReloadRow {
            generation: state.generation,
            differences: differences.into_iter().map(Into::into).collect(),
            kept: changes.kept,
            added: changes.added,
            changed: changes.changed,
            drained: changes.drained.into_iter().map(drained).collect(),
            needs_restart: changes.needs_restart,
            warnings: warnings.iter().map(|warning| warning.title.clone()).collect(),
        })
    }

    /// The endpoint listens where it did at the start, whatever the new config says: beyond loopback never without a token.
    fn check_token(&self, config: &Config) -> Result<(), Refusal> {
        let is_open = self.parts.control.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        match (is_open, &config.control.token, self.parts.control) {
            (true, None, Some(address)) => Err(Refusal::Invalid(format!(
                "control.token_file: the status endpoint listens on {address} until the next start, which nobody may reach without a \
                 token: keep it, or start again"
            ))),
            _ => Ok(()),
        }
    }

    /// What of a config is in force: parts that are not there before the next start, or only until then, are as they were.
    fn in_force(&self, config: Config) -> Config {
        let old = self.config();
        Config {
            dns: self.parts.dns.as_ref().and(config.dns.or_else(|| old.dns.clone())),
            https: self.parts.https.as_ref().and(config.https.or_else(|| old.https.clone())),
            tunnel: self.parts.tunnels.as_ref().and(config.tunnel.or_else(|| old.tunnel.clone())),
            ..config
        }
    }

    /// The limits of every pool.
    fn limits(&self) -> HashMap<String, Limits> {
        let server = self.parts.dns.as_ref().and_then(Weak::upgrade);
        let mut pools = server.map(|server| server.named_pools()).unwrap_or_default();
        pools.extend(self.parts.https.iter().flat_map(|(client, _)| client.pools()));
        pools.extend(self.parts.tunnels.iter().flat_map(|(connector, _)| connector.pools()));
        pools.into_iter().map(|named| (named.name, named.pool.limits())).collect()
    }

    /// Builds all that is new. Dropping what is built leaves everything as it is.
    async fn prepare(&self, config: &Config) -> Result<Prepared, Refusal> {
        self.check_token(config)?;
        let needs_restart = needs_restart(&self.first, config, &self.parts);
        let mut prepared = Prepared { dns: None, https: None, tunnels: None, needs_restart };
        let mut own: Vec<SocketAddr> = self.parts.control.into_iter().collect();
        if let Some((server, config)) = self.parts.dns.as_ref().zip(config.dns.as_ref()) {
            let server = server.upgrade().ok_or_else(|| Refusal::Failed("the daemon is stopping".to_owned()))?;
            prepared.dns = Some(server.prepare(config.clone()).await.map_err(|error| failed("dns", &error))?);
            own.extend(server.listening().iter().map(|listen| listen.address));
            own.extend(config.listen.iter().map(|listen| listen.address));
        }
        if let Some(((client, watch), config)) = self.parts.https.as_ref().zip(config.https.as_ref()) {
            let gateway =
                watch.prepare(config.gateway.as_ref()).map_err(|error| cannot_bind("https.gateway", &error))?;
            own.extend(gateway.addresses());
            let origins = client.prepare(config.clone()).map_err(|error| failed("https", &error))?;
            prepared.https = Some((origins, gateway));
        }
        if let Some(((connector, watch), config)) = self.parts.tunnels.as_ref().zip(config.tunnel.as_ref()) {
            let tunnels = connector.prepare(config.clone()).map_err(|error| failed("tunnel", &error))?;
            prepared.tunnels = Some(match watch {
                Some(watch) => tunnels.listen(watch, &own).map_err(|error| cannot_bind("tunnel.listen", &error))?,
                None => tunnels,
            });
            if watch.is_none() && !config.listen.is_empty() {
                prepared.needs_restart.push("tunnel.listen".to_owned());
            }
        }
        Ok(prepared)
    }
}

impl Prepared {
    async fn apply(self) -> Changes {
        let mut changes = Changes::default();
        if let Some(dns) = self.dns {
            changes.extend(dns.apply().await);
        }
        if let Some((origins, gateway)) = self.https {
            changes.extend(origins.apply());
            changes.extend(gateway.apply());
        }
        if let Some(tunnels) = self.tunnels {
            changes.extend(tunnels.apply());
        }
        changes
    }
}

/// What no part can change: whether it is there, and what the process began with.
fn needs_restart(old: &Config, new: &Config, parts: &Parts) -> Vec<String> {
    let differs = [
        ("dns", parts.dns.is_some() != new.dns.is_some()),
        ("https", parts.https.is_some() != new.https.is_some()),
        ("tunnel", parts.tunnels.is_some() != new.tunnel.is_some()),
        ("log.format", old.log.format != new.log.format),
        ("limits.workers", old.workers != new.workers),
        ("control.listen", old.control.listen != new.control.listen),
        ("control.history", old.control.history != new.control.history),
        ("control.watch", old.control.watch != new.control.watch),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

fn drained(drained: keepwarm_transport::reload::Drained) -> DrainedRow {
    DrainedRow { name: drained.name, connections: drained.connections as u64 }
}

fn refused(error: ConfigError) -> Refusal {
    Refusal::Invalid(match error {
        ConfigError::Faults(faults) => faults.render(false),
        other => other.to_string(),
    })
}

fn failed(part: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::Invalid(format!("{part}: {error}"))
}

fn cannot_bind(key: &str, error: &io::Error) -> Refusal {
    Refusal::Invalid(format!("{key}: {}", io_words(error)))
}

fn words(refusal: &Refusal) -> String {
    let (Refusal::Invalid(text) | Refusal::Unknown(text) | Refusal::Failed(text)) = refusal;
    text.clone()
}

fn told(row: &ReloadRow) {
    let list = |names: &[String]| names.join(", ");
    let drained: Vec<_> = row.drained.iter().map(|drained| drained.name.clone()).collect();
    tracing::info!(
        generation = row.generation,
        changed = list(&row.changed),
        added = list(&row.added),
        drained = list(&drained),
        kept = row.kept.len(),
        "config reloaded"
    );
    if !row.needs_restart.is_empty() {
        tracing::warn!(keys = list(&row.needs_restart), "these take effect with the next start only");
    }
    for warning in &row.warnings {
        tracing::warn!("{warning}");
    }
}

/// Whole seconds since 1970.
pub(super) fn now() -> u64 {
    super::snapshots::unix(wall())
}

/// The clock on the wall.
#[expect(clippy::disallowed_methods, reason = "shown to people, who have calendars; nothing is decided by it")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}
