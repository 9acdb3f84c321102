//! What the API says, as plain data. One word a thing, as in the glossary. Durations are seconds, times seconds since 1970.

mod config;
mod dns;
mod history;
mod pool;
mod query;
mod stats;
mod status;
mod upstream;

pub use config::{ConfigRow, ConfigValue, DifferenceRow, DrainedRow, LogPatch, LogRow, ReloadRow};
pub use dns::{BreakerState, DdrRow, DnsUpstreamRow};
pub use history::{HistoryRow, PoolSeries, SlowSeries, UpstreamSeries};
pub use pool::{
    ConnectionRow, CountersRow, GaugesRow, HostRow, LimitsPatch, LimitsRow, PoolAction, PoolDetail, PoolDone,
    PoolRequest, PoolRow, PoolState, ROWS_MAX, TimesRow,
};
pub use query::{Attempt, Phases, QueryError, QueryReport, QueryRequest};
pub use stats::{CacheStatus, CertificateRow, ErrorBody, FlushRequest, Flushed, Stats};
pub use status::{CheckRow, ConfigState, DaemonHealth, ListenerRow, PhaseRow, RecentRow, StatusRow};
pub use upstream::{Health, Job, UpstreamRow};
