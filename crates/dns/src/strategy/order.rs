//! In which order a strategy asks the upstreams of a group, from what is known of them.
//!
//! Pure: figures and random numbers come in. What happens when one fails or stays silent is the plan's business.

use std::{cmp::Ordering, time::Duration};

use super::Candidate;
use crate::{config::Strategy, health::Allowed};

/// An upstream and what a strategy goes by.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As the plan gets it.
    pub candidate: Candidate,
    /// Its share beside the other weights, 1 or more.
    pub weight: u32,
    /// Queries that it has not answered yet.
    pub load: u32,
    /// The latency that is believed; `None` when it was never tried.
    pub expected: Option<Duration>,
    /// For how long nothing was learned of it and nobody tried.
    pub idle: Duration,
}

/// Why an upstream is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lead {
    /// It is the first of the config.
    #[default]
    Order,
    /// All are asked at once.
    All,
    /// It is its turn.
    Turn,
    /// It was drawn, by weight.
    Draw,
    /// It has the fewest queries in flight by its weight.
    LeastLoaded,
    /// Its estimate is the lowest.
    Lowest,
    /// Nobody has asked it yet.
    Unknown,
    /// Its estimate is not the lowest, and it is time to see whether it still holds.
    Exploration,
}

/// Random numbers that a seed fixes: good enough to share queries out, and not for secrets (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed yields the same numbers.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `limit`, which is at least 1.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.roll()) * u128::from(limit.max(1));
        u64::try_from(product >> 64).expect("the upper half")
    }

    /// True once in so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Puts the upstreams of a group into the order of the strategy; `turn` counts the group's queries, for round-robin. Returns
/// why the first one whose breaker is closed is the first.
pub fn arrange(strategy: Strategy, entries: &mut [Entry], dice: &mut Dice, turn: u32) -> Lead {
    match strategy {
        Strategy::Sequential | Strategy::Racing => Lead::Order,
        Strategy::Parallel => Lead::All,
        Strategy::RoundRobin => {
            let skip = turn as usize % entries.len().max(1);
            entries.rotate_left(skip);
            Lead::Turn
        }
        Strategy::Random => {
            draw(entries, dice);
            Lead::Draw
        }
        Strategy::LeastLoaded => {
            // Ties are drawn: what is drawn first stays first among equals.
            draw(entries, dice);
            sort(entries, |a, b| {
                (u64::from(a.load) * u64::from(b.weight)).cmp(&(u64::from(b.load) * u64::from(a.weight)))
            });
            Lead::LeastLoaded
        }
        Strategy::Fastest | Strategy::Hedged => by_estimate(entries, dice),
    }
}

fn by_estimate(entries: &mut [Entry], dice: &mut Dice) -> Lead {
    // `None` is the least: who was never tried comes first.
    sort(entries, |a, b| a.expected.cmp(&b.expected));
    let well = |entry: &&Entry| matches!(entry.candidate.allowed, Allowed::Yes);
    let Some(first) = entries.iter().position(|entry| well(&entry)) else { return Lead::Lowest };
    if entries[first].expected.is_none() {
        return Lead::Unknown;
    }
    // The longer nothing was heard of one, the likelier it is chosen.
    let weight = |entry: &Entry| match entry.idle {
        idle if idle < EXPLORE_PAUSE || !well(&entry) => 0,
        idle => u64::try_from(idle.min(EXPLORE_IDLE_MAX).as_millis()).unwrap_or(0),
    };
    let sum: u64 = entries[first + 1..].iter().map(weight).sum();
    if sum == 0 || !dice.one_in(EXPLORE_ONE_IN) {
        return Lead::Lowest;
    }
    let mut at = dice.below(sum);
    let chosen = entries[first + 1..].iter().position(|entry| match at.checked_sub(weight(entry)) {
        Some(left) => {
            at = left;
            false
        }
        None => true,
    });
    if let Some(chosen) = chosen {
        entries[first..=first + 1 + chosen].rotate_right(1);
    }
    Lead::Exploration
}

/// Draws without putting back: the first place by weight, the second among the rest, and so on.
fn draw(entries: &mut [Entry], dice: &mut Dice) {
    for place in 0..entries.len() {
        let rest = &entries[place..];
        let sum = rest.iter().map(|entry| u64::from(entry.weight)).sum();
        let mut at = dice.below(sum);
        let drawn = rest.iter().position(|entry| match at.checked_sub(entry.weight.into()) {
            Some(left) => {
                at = left;
                false
            }
            None => true,
        });
        entries.swap(place, place + drawn.unwrap_or(0));
    }
}

/// Stable, and without memory of its own as the standard library's is not; there are few.
fn sort(entries: &mut [Entry], order: impl Fn(&Entry, &Entry) -> Ordering) {
    for end in 1..entries.len() {
        let mut at = end;
        while at > 0 && order(&entries[at], &entries[at - 1]) == Ordering::Less {
            entries.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// So many queries find out about an upstream that is not the fastest: 3 in 100.
const EXPLORE_ONE_IN: u64 = 33;

/// No upstream is explored more often: under a heavy load a small share would still be many queries.
const EXPLORE_PAUSE: Duration = Duration::from_millis(100);

/// Beyond this age all estimates are equally old.
const EXPLORE_IDLE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
