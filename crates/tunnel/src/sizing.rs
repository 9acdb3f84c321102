//! How many spares to keep ready: as many as the rate of tunnels uses up while others are made. Pure.
//!
//! Spares are a stock that is refilled after a lead time (set-up of a connection). While one is made, on average `rate x lead` are asked
//! for; with arrivals at random a stock of that and three times its root is used up about once in a thousand times.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Keeps count of what is asked for.
#[derive(Debug)]
pub(crate) struct Sizing {
    spares: usize,
    min: usize,
    max: usize,
    /// When tunnels were asked for, the last [`REMEMBERED`] of them.
    asked: VecDeque<Instant>,
    /// The most that were asked for within one lead time; forgotten by and by.
    peak: f64,
    peak_at: Instant,
}

impl Sizing {
    /// Between `min` and `max`, `spares` when there is any use.
    pub(crate) fn new(spares: usize, min: usize, max: usize, now: Instant) -> Sizing {
        Sizing { spares, min, max, asked: VecDeque::new(), peak: 0.0, peak_at: now }
    }

    /// Changes the numbers. What was asked for is not forgotten.
    pub(crate) fn set_bounds(&mut self, spares: usize, min: usize, max: usize) {
        (self.spares, self.min, self.max) = (spares, min, max);
    }

    /// The number that is never undercut, and the one that is never exceeded.
    pub(crate) fn bounds(&self) -> (usize, usize) {
        (self.min, self.max)
    }

    /// A tunnel is asked for; `lead` is how long a spare takes to be made.
    pub(crate) fn asked(&mut self, now: Instant, lead: Duration) {
        if self.asked.len() == REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back(now);
        let together = self.asked.iter().rev().take_while(|at| now.saturating_duration_since(**at) <= lead).count();
        self.peak = self.peak_now(now).max(together as f64);
        self.peak_at = now;
    }

    fn peak_now(&self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.peak_at).as_secs_f64() / PEAK_HALVES.as_secs_f64();
        self.peak * 0.5_f64.powf(halves)
    }

    /// How many there should be, where each may wait for `limit` at most.
    pub(crate) fn target(&self, now: Instant, lead: Duration, limit: Duration) -> usize {
        if self.spares == 0 {
            return 0;
        }
        let since_last = self.asked.back().map(|at| now.saturating_duration_since(*at));
        if since_last.is_none_or(|since| since >= QUIET) {
            return self.min;
        }
        let mean = self.rate(now) * lead.as_secs_f64();
        let stock = (mean + 3.0 * mean.sqrt()).max(self.peak_now(now)).ceil();
        // A float that is too large saturates, and is bounded here in any case.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded by max")]
        let stock = stock as usize;
        stock.max(self.usual(limit)).min(self.max).max(self.min)
    }

    /// The usual number, or as few as are replaced [`REPLACED_MAX`] times a second: where spares live for an instant, many of them would
    /// be dialled for nobody.
    fn usual(&self, limit: Duration) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and bounded by spares"
        )]
        let few = (limit.as_secs_f64() * REPLACED_MAX).ceil() as usize;
        self.spares.min(few.max(1))
    }

    /// Tunnels a second, over the last ten seconds or as far as is remembered.
    fn rate(&self, now: Instant) -> f64 {
        let recent = self.asked.iter().rev().take_while(|at| now.saturating_duration_since(**at) <= RATE_OVER).count();
        let span = match self.asked.front() {
            // All that is remembered is recent: the rate is higher than the window could tell.
            Some(first) if recent == REMEMBERED => now.saturating_duration_since(*first),
            _ => RATE_OVER,
        };
        recent as f64 / span.as_secs_f64().max(0.1)
    }
}

/// Spares that are replaced for their age alone, a second.
const REPLACED_MAX: f64 = 2.0;

/// Tunnels that are remembered.
const REMEMBERED: usize = 256;

/// Over what the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(10);

/// After this time half of a burst is forgotten.
const PEAK_HALVES: Duration = Duration::from_secs(30);

/// After this time without a tunnel only `min` are kept.
const QUIET: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(12);

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_quiet_upstream_keeps_the_fewest_and_one_that_is_used_the_usual() {
        let now = start();
        let mut sizing = Sizing::new(8, 1, 64, now);
        assert_eq!(sizing.target(now, 200 * MS, LONG), 1);
        sizing.asked(now, 200 * MS);
        assert_eq!(sizing.target(now, 200 * MS, LONG), 8);
        assert_eq!(sizing.target(now + QUIET - MS, 200 * MS, LONG), 8);
        assert_eq!(sizing.target(now + QUIET, 200 * MS, LONG), 1);
    }

    #[test]
    fn the_stock_follows_the_rate_and_the_time_to_make_one() {
        let now = start();
        let stock = |every: u32, lead: u32| {
            let mut sizing = Sizing::new(8, 1, 64, now);
            (0..400).for_each(|count| sizing.asked(now + count * every * MS, lead * MS));
            sizing.target(now + 400 * every * MS, lead * MS, LONG)
        };
        assert_eq!(stock(1000, 200), 8);
        // 20 a second, of which 4 come while one is made: 4 + 3 x 2.
        assert_eq!(stock(50, 200), 10);
        assert_eq!(stock(50, 500), 20);
        // 100 a second are more than the window remembers.
        assert_eq!(stock(10, 200), 34);
        assert_eq!(stock(1, 500), 64);
    }

    #[test]
    fn a_burst_is_kept_in_mind_for_a_while() {
        let now = start();
        let mut sizing = Sizing::new(8, 1, 64, now);
        (0..30).for_each(|_| sizing.asked(now, 200 * MS));
        assert_eq!(sizing.target(now + 11_000 * MS, 200 * MS, LONG), 24);
        assert_eq!(sizing.target(now + 60_000 * MS, 200 * MS, LONG), 8);
    }

    #[test]
    fn a_proxy_that_closes_at_once_is_not_dialled_for_nobody() {
        let now = start();
        let mut sizing = Sizing::new(8, 1, 64, now);
        sizing.asked(now, 200 * MS);
        assert_eq!(sizing.target(now, 200 * MS, 4000 * MS), 8);
        assert_eq!(sizing.target(now, 200 * MS, 800 * MS), 2);
        assert_eq!(sizing.target(now, 200 * MS, 100 * MS), 1);
        let mut none = Sizing::new(0, 0, 64, now);
        (0..100).for_each(|_| none.asked(now, 200 * MS));
        assert_eq!(none.target(now, 200 * MS, LONG), 0, "no spares means none");
    }

    /// Tunnels at random, 20 a second, with connections that take 200 ms to be made: how many find a spare.
    #[test]
    fn at_twenty_a_second_more_than_99_of_100_find_a_spare() {
        let start = start();
        let mut sizing = Sizing::new(8, 1, 64, start);
        let lead = 200 * MS;
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut at = start;
        let (mut ready, mut coming) = (8, VecDeque::<Instant>::new());
        let (mut hits, mut asked) = (0, 0);
        for round in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
            at += Duration::from_secs_f64(-(1.0 - uniform).ln() / 20.0);
            while coming.front().is_some_and(|due| *due <= at) {
                coming.pop_front();
                ready += 1;
            }
            sizing.asked(at, lead);
            if round > 200 {
                asked += 1;
                hits += usize::from(ready > 0);
            }
            ready = usize::saturating_sub(ready, 1);
            while ready + coming.len() < sizing.target(at, lead, LONG) {
                coming.push_back(at + lead);
            }
        }
        assert!(hits * 1000 >= asked * 990, "{hits} of {asked}");
    }
}
