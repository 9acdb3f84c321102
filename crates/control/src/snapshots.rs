//! What the control plane needs of a daemon: figures to show and things to do. It knows this trait, not who implements it.

use std::{future::Future, pin::Pin};

use keepwarm_pool::NamedPool;

use crate::{
    https::HttpsSnapshots,
    rows::{
        CacheStatus, CheckRow, ConfigRow, ConfigState, DnsUpstreamRow, ListenerRow, LogPatch, LogRow, QueryError,
        QueryReport, QueryRequest, RecentRow, ReloadRow, Stats, UpstreamRow,
    },
    tunnel::TunnelSnapshots,
};

/// What the endpoint shows and steers; implemented by what runs. Every method that returns at once is cheap: it is called for requests.
pub trait Snapshots: Send + Sync + 'static {
    /// The pools, in the order of the config's sections.
    fn pools(&self) -> Vec<NamedPool>;

    /// The upstreams of every job, in the order of the config.
    fn upstreams(&self) -> Vec<UpstreamRow>;

    /// The upstreams of DNS, with what only DNS knows of them; none where the daemon has no DNS.
    fn dns(&self) -> Option<Vec<DnsUpstreamRow>>;

    /// Where clients come in.
    fn listeners(&self) -> Vec<ListenerRow>;

    /// The last requests that were slow or failed, the youngest first; a few hundred at most.
    fn recent(&self) -> Vec<RecentRow>;

    /// What must hold for the daemon to be ready.
    fn checks(&self) -> Checks;

    /// Whether it is stopping: then it is not ready.
    fn is_stopping(&self) -> bool;

    /// The counters of the whole daemon.
    fn stats(&self) -> Stats;

    /// Where the config in force is from.
    fn config_state(&self) -> ConfigState;

    /// The config in force, without secrets.
    fn config(&self) -> ConfigRow;

    /// Reads the config again and puts it in force. One at a time; a second one waits.
    fn reload(&self) -> Answer<ReloadRow>;

    /// What is logged.
    fn log(&self) -> LogRow;

    /// Logs otherwise for a while.
    ///
    /// # Errors
    /// When the level is none.
    fn set_log(&self, patch: LogPatch) -> Result<LogRow, Refusal>;

    /// A limit of a pool was changed by an operator: the names of the limits, such as `dns.max_per_host`, are shown until a restart, or a
    /// reload that changes the pool's section.
    fn limits_changed(&self, names: Vec<String>);

    /// The cache, its limit and its counters; none where the daemon has no DNS to have a cache of.
    fn cache(&self) -> Option<CacheStatus>;

    /// Forgets the answers to every question about `name` (presentation form, any case), or all answers. Returns how many;
    /// `None` when `name` is no valid name.
    fn flush_cache(&self, name: Option<&str>) -> Option<u64>;

    /// Asks a name the way that a client's query would be asked. Bounded by the query deadline of the config.
    fn query(&self, request: QueryRequest) -> QueryFuture;

    /// Hot HTTPS; none where the daemon has none.
    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        None
    }

    /// Tunnels; none where the daemon has none.
    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        None
    }
}

/// An answer to come.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// The answer to come of [`Snapshots::query`].
pub type QueryFuture = Pin<Box<dyn Future<Output = Result<QueryReport, QueryError>> + Send>>;

/// The answer to come of [`Snapshots::checks`].
pub type Checks = Pin<Box<dyn Future<Output = Vec<CheckRow>> + Send>>;

/// Why something was not done: nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// What is asked for cannot be: the words say why, and where in the config.
    Invalid(String),
    /// What it is about does not exist.
    Unknown(String),
    /// It could be, and did not come to be.
    Failed(String),
}
