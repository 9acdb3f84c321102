//! Any text is a config or has faults; faults can be shown, and what is accepted once is accepted again.
#![no_main]

use std::path::Path;

use keepwarm::config::{Config, ConfigError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse("fuzz.toml", text, Path::new("/etc/keepwarm")) {
        Ok(loaded) => drop(format!("{} {:?}", loaded.warnings, loaded.config)),
        Err(ConfigError::Faults(faults)) => assert!(!faults.to_string().is_empty()),
        Err(ConfigError::Read { .. }) => unreachable!("nothing is read"),
    }
});
