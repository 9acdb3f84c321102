//! The log: level or filter, text or JSON, on standard error.
//!
//! Standard output stays free for what a command was asked for. What is logged is decided where it happens.

use std::{fmt, io::IsTerminal as _, str::FromStr, sync::OnceLock};

use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// What is logged: a level, or levels per target (`info,keepwarm_pool=debug`). Default: `info`.
#[derive(Clone, PartialEq)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every format and its name in the config.
    pub const ALL: [(&'static str, LogFormat); 3] =
        [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// The log's settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogConfig {
    /// What is logged.
    pub filter: LogFilter,
    /// How it is written.
    pub format: LogFormat,
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// What is wrong with the text, as the end of "`level` ...".
    pub problem: String,
    /// What would be accepted.
    pub accepted: String,
}

impl LogFilter {
    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        LogFilter { text: "info".into(), targets: Targets::new().with_default(LevelFilter::INFO) }
    }
}

impl FromStr for LogFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut targets = Targets::new();
        for part in text.split(',') {
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, part.trim()),
            };
            let Some((_, level)) = LEVELS.iter().find(|(name, _)| *name == level) else {
                return Err(unknown_level(level));
            };
            targets = match target {
                None => targets.with_default(*level),
                Some(target) if is_target(target) => targets.with_target(target, *level),
                Some(target) => {
                    let problem = format!("has `{target}`, which is not a target");
                    return Err(FilterError { problem, accepted: ACCEPTED.into() });
                }
            };
        }
        Ok(LogFilter { text: text.to_owned(), targets })
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogFilter({:?})", self.text)
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if self.accepted.starts_with("write ") { "" } else { "accepted: " };
        write!(f, "{}; {joint}{}", self.problem, self.accepted)
    }
}

impl std::error::Error for FilterError {}

/// Starts logging to standard error; `RUST_LOG` and the like are not read, so that the config says everything.
///
/// # Errors
/// When a logger is already installed in this process.
pub fn init(config: &LogConfig) -> Result<(), TryInitError> {
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal && !json);
    let lines = if json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    let (filter, handle) = reload::Layer::new(config.filter.targets.clone());
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    // Whoever installs the logger is the only one, so there is no handle yet.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Logs by another filter from now on. Nothing happens where this process has no logger of ours.
pub fn set_filter(filter: &LogFilter) {
    if let Some(handle) = FILTER.get() {
        // It fails only when the logger is gone, and with it whoever would read.
        let _ = handle.reload(filter.targets.clone());
    }
}

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
    ("off", LevelFilter::OFF),
];

const ACCEPTED: &str =
    "error, warn, info, debug, trace or off, or a filter per target such as \"info,keepwarm_pool=debug\"";

fn unknown_level(level: &str) -> FilterError {
    if is_target(level) && level.starts_with("keepwarm") {
        let problem = format!("has the target `{level}` without a level");
        return FilterError { problem, accepted: format!("write \"{level}=debug\"; accepted: {ACCEPTED}") };
    }
    FilterError { problem: format!("has the unknown level \"{level}\""), accepted: ACCEPTED.into() }
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_holds_for_every_target() {
        let filter: LogFilter = "debug".parse().unwrap();
        assert!(filter.targets.would_enable("keepwarm_dns", &Level::DEBUG));
        assert!(!filter.targets.would_enable("keepwarm_dns", &Level::TRACE));
        assert_eq!(filter.as_str(), "debug");
    }

    #[test]
    fn a_filter_sets_levels_per_target() {
        let filter: LogFilter = "warn, keepwarm_pool=trace".parse().unwrap();
        assert!(filter.targets.would_enable("keepwarm_pool::core", &Level::TRACE));
        assert!(!filter.targets.would_enable("keepwarm_dns", &Level::INFO));
        let silent: LogFilter = "off".parse().unwrap();
        assert!(!silent.targets.would_enable("keepwarm", &Level::ERROR));
    }

    #[test]
    fn the_default_is_what_its_text_says() {
        assert_eq!("info".parse::<LogFilter>().unwrap(), LogFilter::default());
    }

    #[test]
    fn unknown_levels_are_refused() {
        for (text, problem) in [
            ("infos", "unknown level \"infos\""),
            ("", "unknown level \"\""),
            ("info,", "unknown level \"\""),
            ("INFO", "unknown level \"INFO\""),
            ("keepwarm_pool", "without a level"),
            ("a b=info", "not a target"),
            ("keepwarm=loud", "unknown level \"loud\""),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }
}
