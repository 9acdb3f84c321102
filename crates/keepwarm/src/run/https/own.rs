//! A client of a command's own: one origin of a config file, and nothing that is served.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use keepwarm_dns::{
    config::{DnsConfig, QueryLogSettings},
    server::Server,
};
use keepwarm_https::{
    Client,
    config::{HttpsConfig, Validate},
};
use keepwarm_transport::resolve::{Resolve, SystemResolver};

use crate::{
    config::{Config, ConfigError},
    logging::{self, LogFilter},
    run::unavailable,
};

/// A client for one origin of a config file. [`close`](Self::close) it: its DNS server would hold up the end of the runtime.
pub struct OwnClient {
    /// The client.
    pub client: Client,
    /// Idle connections beyond these are closed.
    pub max_idle: usize,
    /// What finds names where the file has `[dns]`.
    server: Option<Server>,
}

/// When an address is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// As the file says: after the handshake, where it has no `validate`.
    AsConfigured,
    /// Each address is asked; where the file has no `validate`, by `HEAD /`, and any answer is good.
    Each,
}

impl OwnClient {
    /// Reads the file, begins to log warnings, or what `log` says, and makes a client for `origin` (`host` or `host:port`) that connects
    /// to nothing by itself. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] when the file is refused; when it has no such origin.
    pub fn open(
        file: &Path,
        origin: &str,
        validation: Validation,
        log: Option<LogFilter>,
    ) -> anyhow::Result<OwnClient> {
        let mut config = load(file)?;
        config.log.filter = log.unwrap_or_else(|| "error".parse().expect("a level"));
        logging::init(&config.log)?;
        let https = config.https.with_context(|| format!("{} has no [https]: there is no origin", file.display()))?;
        let https = only(https, origin, validation)
            .with_context(|| format!("{origin} is not an origin of {}", file.display()))?;
        let server = config.dns.map(resolving).map(|dns| Server::start(dns).map_err(unavailable)).transpose()?;
        let resolver: Arc<dyn Resolve> = match &server {
            Some(server) => Arc::new(server.resolver()),
            None => Arc::new(SystemResolver::default()),
        };
        let max_idle = https.pool.max_idle;
        Ok(OwnClient { client: Client::new(https, resolver)?, max_idle, server })
    }

    /// Closes every connection and stops what finds names.
    pub async fn close(self) {
        self.client.close(Duration::ZERO).await;
        if let Some(server) = self.server {
            server.stop(Duration::ZERO).await;
        }
    }
}

fn load(file: &Path) -> Result<Config, ConfigError> {
    Ok(Config::load(file)?.config)
}

/// The config less its gateway and all origins but this one, which is not connected to ahead of what is asked; `None` where it has no
/// such origin.
fn only(mut https: HttpsConfig, origin: &str, validation: Validation) -> Option<HttpsConfig> {
    https.gateway = None;
    https.origins.retain(|known| super::shown(&known.host, known.port) == origin);
    for known in https.origins.iter_mut().chain(https.any_host.as_deref_mut()) {
        (known.warm, known.min_idle) = (0, 0);
        if validation == Validation::AsConfigured {
            continue;
        }
        known.validate.get_or_insert_with(|| Validate {
            statuses: "100-599".parse().expect("a set of statuses"),
            ..Validate::default()
        });
    }
    (!https.origins.is_empty() || https.any_host.is_some()).then_some(https)
}

/// The DNS server of a config as far as names are found through it.
fn resolving(dns: DnsConfig) -> DnsConfig {
    // The log is the running daemon's, and may not be this user's to write.
    DnsConfig { listen: Vec::new(), workers: 1, tls: None, query_log: QueryLogSettings::default(), ..dns }
}
