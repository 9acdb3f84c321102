//! The config that is in force, what a reload did to it, and the level of the log.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rows::ConfigState, seconds};

/// The config that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConfigRow {
    /// Where it is from and what is pending.
    pub state: ConfigState,
    /// Every key with its value, in the order of the example. Secrets are `<redacted>`.
    pub values: Vec<ConfigValue>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConfigValue {
    /// The key, such as `dns.upstream.quad9.address`.
    pub path: String,
    /// Its value as TOML has it, or `<redacted>`.
    pub value: String,
    /// Where it is from: `file:12`, `environment KEEPWARM_DNS__TIMEOUT`, `flag --set`, `default`.
    pub origin: String,
}

/// What a reload did. Names are paths of the config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReloadRow {
    /// The number of the config that is in force now.
    pub generation: u64,
    /// Keys whose value is another one.
    pub differences: Vec<DifferenceRow>,
    /// What stands as it was, with every warm connection.
    pub kept: Vec<String>,
    /// What is new.
    pub added: Vec<String>,
    /// What is other than it was.
    pub changed: Vec<String>,
    /// What gets nothing new any more, and ends with what is in flight.
    pub drained: Vec<DrainedRow>,
    /// Keys that take effect with the next start only.
    pub needs_restart: Vec<String>,
    /// What works as written and may surprise.
    pub warnings: Vec<String>,
}

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DifferenceRow {
    /// The key.
    pub path: String,
    /// What it was; none: it is new.
    pub from: Option<String>,
    /// What it is; none: it has gone.
    pub to: Option<String>,
}

/// Something that is let go of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DrainedRow {
    /// Its name.
    pub name: String,
    /// Connections that were open then.
    pub connections: u64,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LogRow {
    /// The level or filter in force.
    pub level: String,
    /// The one of the config.
    pub configured: String,
    /// When it becomes that of the config again; none: it is.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub reverts_in: Option<Duration>,
}

/// A level for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogPatch {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter per target.
    pub level: String,
    /// Seconds after which it is that of the config again, 1 to 86,400. Default 600.
    #[serde(default = "LogPatch::default_seconds")]
    pub seconds: u64,
}

impl LogPatch {
    /// 600.
    pub fn default_seconds() -> u64 {
        600
    }
}
