//! Advice: which setting to change, to what, and what was seen that says so. Pure: figures in, advice out.
//!
//! Sizes follow Little's law: `L = arrivals a second x mean time of a lease` leases are held at a time. Where arrivals do not know of each
//! other their number is Poisson distributed, so `L + 2.33 x sqrt(L)` is not passed in 99 of 100 moments: that is the headroom.

mod keys;
mod pools;
mod spares;

use serde::Serialize;

use super::{Material, summary::Summary};
use keepwarm_control::rows::{Health, UpstreamRow};

/// One thing to do, or to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Advice {
    /// How much it matters.
    pub(super) weight: Weight,
    /// The pool or upstream.
    pub(super) about: String,
    /// What was seen.
    pub(super) evidence: String,
    /// The key of the config that should be another; none where no setting helps.
    pub(super) key: Option<String>,
    /// What it should be.
    pub(super) value: Option<String>,
    /// The value that it has; none where that is not known.
    pub(super) now: Option<String>,
    /// The command that does the same until a restart, or a reload that changes the pool's section; none where there is none.
    pub(super) command: Option<String>,
}

/// How much advice matters; the first matter most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weight {
    /// Requests fail or wait because of it.
    Urgent,
    /// It costs time or handshakes.
    Useful,
    /// It is to be looked at elsewhere: no setting of ours helps.
    Look,
    /// All is well.
    Fine,
}

impl Weight {
    /// `urgent`, `useful`, `look` or `fine`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Weight::Urgent => "urgent",
            Weight::Useful => "useful",
            Weight::Look => "look",
            Weight::Fine => "fine",
        }
    }
}

impl Advice {
    fn new(weight: Weight, about: &str, evidence: String) -> Advice {
        Advice { weight, about: about.to_owned(), evidence, key: None, value: None, now: None, command: None }
    }

    /// With a key of the config, what it should be, and what it is.
    fn set(self, material: &Material, key: &str, value: &impl ToString) -> Advice {
        let now = material.config.values.iter().find(|known| known.path == key).map(|known| known.value.clone());
        Advice { key: Some(key.to_owned()), value: Some(value.to_string()), now: now.or(self.now), ..self }
    }

    /// With the value that a limit has now, where the config does not say it.
    fn was(self, now: u64) -> Advice {
        Advice { now: self.now.or_else(|| Some(now.to_string())), ..self }
    }

    /// With what does it at once.
    fn at_once(self, pool: &str, limits: &str) -> Advice {
        Advice { command: Some(format!("keepwarm pools set {pool} {limits}")), ..self }
    }

    /// `key = value`; none where no setting helps.
    pub(super) fn setting(&self) -> Option<String> {
        Some(format!("{} = {}", self.key.as_ref()?, self.value.as_ref()?))
    }
}

/// What is to be done, the most important first.
pub(super) fn advise(material: &Material, summaries: &[Summary]) -> Vec<Advice> {
    let mut all = Vec::new();
    for summary in summaries {
        let Some(row) = material.pools.iter().find(|row| row.name == summary.pool) else { continue };
        let of_pool = pools::advise(material, summary, row);
        if of_pool.is_empty() && summary.acquires > 0 {
            all.push(pools::fine(summary, row));
        }
        all.extend(of_pool);
    }
    all.extend(spares::advise(material));
    all.extend(material.upstreams.iter().filter_map(down));
    if let Some(error) = &material.status.config.last_error {
        let error = error.lines().next().unwrap_or_default();
        all.push(Advice::new(Weight::Look, "config", format!("the last reload was refused: {error}")));
    }
    agree(&mut all);
    all.sort_by_key(|advice| advice.weight);
    all
}

/// Two pools may have a key in common: then the one that wants more gets it.
fn agree(all: &mut [Advice]) {
    let number = |advice: &Advice| advice.value.as_ref().and_then(|value| value.parse::<u64>().ok());
    let most =
        |all: &[Advice], key: &Option<String>| all.iter().filter(|advice| advice.key == *key).filter_map(number).max();
    for index in 0..all.len() {
        let key = all[index].key.clone();
        if let (Some(_), Some(_), Some(most)) = (&key, number(&all[index]), most(all, &key)) {
            all[index].value = Some(most.to_string());
        }
    }
}

/// An upstream that is not asked now. An origin that a client came with may not be there: that is not for the operator to mend.
fn down(upstream: &UpstreamRow) -> Option<Advice> {
    let why = upstream.reason.as_deref().unwrap_or("no reason is known");
    let about = format!("{} upstream {}", upstream.job.as_str(), upstream.name);
    (upstream.configured && upstream.health == Health::Down)
        .then(|| Advice::new(Weight::Look, &about, format!("it is down: {why}")))
}

/// How many are needed so that a demand of so many on average finds room in 99 of 100 moments.
fn with_headroom(demand: f64) -> f64 {
    demand + 2.33 * demand.max(0.0).sqrt()
}

/// The next whole number, at least 1.
fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded from both sides before")]
    let whole = number.ceil().clamp(1.0, 1e9) as u64;
    whole
}

/// A share with two digits where it is small.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 1.0 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests;
