//! What an inventory is told.

use std::time::Duration;

use ipnet::IpNet;

use crate::config::{OriginConfig, Verdict};

/// What an [`Inventory`](super::Inventory) takes from the config of its origin; the fields are documented there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// [`OriginConfig::allow`].
    pub allow: Vec<IpNet>,
    /// [`OriginConfig::deny`].
    pub deny: Vec<IpNet>,
    /// [`OriginConfig::quarantine`].
    pub quarantine: Duration,
    /// [`OriginConfig::quarantine_max`].
    pub quarantine_max: Duration,
    /// [`OriginConfig::failures`]; 0 counts as 1.
    pub failures: u32,
    /// [`OriginConfig::verdicts`].
    pub verdicts: Vec<Verdict>,
    /// [`OriginConfig::addresses_max`].
    pub addresses_max: usize,
    /// Whether [`OriginConfig::validate`] is set: no address is used before its probe was good.
    pub needs_validation: bool,
    /// Whether candidates are probed; otherwise their first request finds out. As `needs_validation`, unless changed.
    pub probes_candidates: bool,
    /// What the jitter of pauses is drawn from; a random number.
    pub seed: u64,
}

impl Settings {
    /// Those of an origin. `seed` is a random number.
    pub fn new(origin: &OriginConfig, seed: u64) -> Settings {
        Settings {
            allow: origin.allow.clone(),
            deny: origin.deny.clone(),
            quarantine: origin.quarantine,
            quarantine_max: origin.quarantine_max,
            failures: origin.failures,
            verdicts: origin.verdicts.clone(),
            addresses_max: origin.addresses_max,
            needs_validation: origin.validate.is_some(),
            probes_candidates: origin.validate.is_some(),
            seed,
        }
    }
}
