//! How one upstream fares over one transport and address family: its breaker and its latency.
//!
//! Only what the upstream did is told to it: [`Health::record_success`] for any answer, NXDOMAIN and SERVFAIL too, and
//! [`Health::record_failure`] for silence, refusal and nonsense. There is no call for local errors, cancelled queries and
//! lost races, because they say nothing about an upstream. The pool itself does not use it: which upstream is asked is the business
//! of those who own several.

mod latency;

pub use latency::{Latency, Percentiles, Spread};

use std::time::{Duration, Instant};

/// When an upstream is left alone and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker. Default 3.
    pub failures: u32,
    /// Or this share of failures within `window`, 0 to 1. Default 0.5.
    pub failure_ratio: f64,
    /// The time over which the share is taken. Default 10 s.
    pub window: Duration,
    /// First pause. Default 1 s.
    pub open: Duration,
    /// The pause doubles up to this. Default 60 s.
    pub open_max: Duration,
    /// Half-open successes that close it. Default 2.
    pub successes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        BreakerSettings {
            failures: 3,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            successes: 2,
        }
    }
}

/// Whether queries may go to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// All of them.
    Yes,
    /// One, which is then announced by [`Health::probe_started`].
    Probe,
    /// None, unless there is nowhere else to go.
    No {
        /// When a probe will be allowed.
        until: Instant,
    },
}

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All is well. -> `Open` after `failures` in a row, or when `failure_ratio` of at least 20 results within `window`
    /// failed.
    Closed,
    /// Left alone. -> `HalfOpen` when a probe starts after `until`, or when an answer comes all the same.
    Open {
        /// End of the pause.
        until: Instant,
    },
    /// One probe at a time. -> `Closed` after `successes` answers, -> `Open` with a longer pause after one failure.
    HalfOpen {
        /// Answers since the pause.
        successes: u32,
        /// The probe under way: until when no other is sent.
        probe: Option<Instant>,
    },
}

impl BreakerState {
    /// `closed`, `open` or `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half-open",
        }
    }
}

/// Breaker and latency of one upstream over one transport and address family.
#[derive(Debug, Clone)]
pub struct Health {
    settings: BreakerSettings,
    state: BreakerState,
    consecutive: u32,
    /// Pauses since the breaker was last closed.
    pauses: u32,
    window: Window,
    latency: Latency,
}

/// What an operator sees of a [`Health`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealthSnapshot {
    /// The breaker.
    pub state: BreakerState,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Results within the window.
    pub samples: u32,
    /// Share of them that failed, 0 to 1.
    pub failure_ratio: f64,
    /// Smoothed latency; `None` before the first answer.
    pub latency: Option<Duration>,
}

impl Health {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Health {
        Health {
            settings,
            state: BreakerState::Closed,
            consecutive: 0,
            pauses: 0,
            window: Window::new(settings.window),
            latency: Latency::default(),
        }
    }

    /// Sets when it opens and for how long. Its state stays; a window of another length begins empty.
    pub fn set_settings(&mut self, settings: BreakerSettings) {
        if settings.window != self.settings.window {
            self.window = Window::new(settings.window);
        }
        self.settings = settings;
    }

    /// Forgets everything: a closed breaker.
    pub fn reset(&mut self) {
        *self = Health::new(self.settings);
    }

    /// Whether queries may go there now.
    pub fn allowed(&self, now: Instant) -> Allowed {
        match self.state {
            BreakerState::Closed => Allowed::Yes,
            BreakerState::Open { until } | BreakerState::HalfOpen { probe: Some(until), .. } if now < until => {
                Allowed::No { until }
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => Allowed::Probe,
        }
    }

    /// A probe is on its way: no other for 5 s, or until its result is recorded.
    pub fn probe_started(&mut self, now: Instant) {
        let probe = Some(now + PROBE_LOST);
        match &mut self.state {
            BreakerState::Closed => {}
            BreakerState::Open { .. } => self.state = BreakerState::HalfOpen { successes: 0, probe },
            BreakerState::HalfOpen { probe: under_way, .. } => *under_way = probe,
        }
    }

    /// `count` answers came, with this latency.
    pub fn record_success(&mut self, now: Instant, latency: Duration, count: u32) {
        self.latency.record(latency);
        self.consecutive = 0;
        let so_far = match self.state {
            BreakerState::Closed => return self.window.add(now, count, 0),
            BreakerState::Open { .. } => 0,
            BreakerState::HalfOpen { successes, .. } => successes,
        };
        let successes = so_far.saturating_add(count);
        if successes < self.settings.successes {
            self.state = BreakerState::HalfOpen { successes, probe: None };
            return;
        }
        // What came before the pause is no longer held against it.
        self.window = Window::new(self.settings.window);
        self.pauses = 0;
        self.state = BreakerState::Closed;
    }

    /// A failure came that the upstream is to blame for. `jitter` is random: a pause is between half and all of its length,
    /// so that daemons that lost an upstream together do not come back together.
    pub fn record_failure(&mut self, now: Instant, jitter: u32) {
        self.consecutive = self.consecutive.saturating_add(1);
        let open = match self.state {
            BreakerState::Closed => {
                self.window.add(now, 0, 1);
                let (samples, failures) = self.window.totals(now);
                let ratio = ratio(samples, failures);
                self.consecutive >= self.settings.failures.max(1)
                    || samples >= SAMPLES_MIN && ratio >= self.settings.failure_ratio
            }
            // What was sent before the pause began fails late and says nothing new.
            BreakerState::Open { until } => now >= until,
            BreakerState::HalfOpen { .. } => true,
        };
        if open {
            self.state = BreakerState::Open { until: now + self.pause(jitter) };
            self.pauses = self.pauses.saturating_add(1);
        }
    }

    fn pause(&self, jitter: u32) -> Duration {
        let BreakerSettings { open, open_max, .. } = self.settings;
        let full = open.saturating_mul(1 << self.pauses.min(16)).min(open_max);
        let share = 0.5 + 0.5 * f64::from(jitter) / f64::from(u32::MAX);
        full.mul_f64(share)
    }

    /// The breaker's state.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// For status and logs.
    pub fn snapshot(&self, now: Instant) -> HealthSnapshot {
        let (samples, failures) = self.window.totals(now);
        HealthSnapshot {
            state: self.state,
            consecutive_failures: self.consecutive,
            samples,
            failure_ratio: ratio(samples, failures),
            latency: self.latency.smoothed(),
        }
    }
}

fn ratio(samples: u32, failures: u32) -> f64 {
    if samples == 0 { 0.0 } else { f64::from(failures) / f64::from(samples) }
}

/// Counts over a sliding time, in ten steps: what leaves is between nine and ten tenths of `length` old.
#[derive(Debug, Clone)]
struct Window {
    step: Duration,
    /// When step 0 began: the first result.
    base: Option<Instant>,
    current: u128,
    steps: [Counts; STEPS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    answers: u32,
    failures: u32,
}

impl Window {
    fn new(length: Duration) -> Window {
        let step = (length / 10).max(Duration::from_millis(1));
        Window { step, base: None, current: 0, steps: [Counts::default(); STEPS] }
    }

    fn step_of(&self, now: Instant) -> u128 {
        self.base.map_or(0, |base| now.saturating_duration_since(base).as_nanos() / self.step.as_nanos())
    }

    fn add(&mut self, now: Instant, answers: u32, failures: u32) {
        self.base.get_or_insert(now);
        let step = self.step_of(now).max(self.current);
        for passed in (self.current + 1..=step).take(STEPS) {
            self.steps[place(passed)] = Counts::default();
        }
        // After a longer pause the loop above has emptied all places, among them this one.
        self.current = step;
        let counts = &mut self.steps[place(step)];
        counts.answers = counts.answers.saturating_add(answers);
        counts.failures = counts.failures.saturating_add(failures);
    }

    /// All results and the failures among them.
    fn totals(&self, now: Instant) -> (u32, u32) {
        let step = self.step_of(now).max(self.current);
        let (mut samples, mut failures) = (0_u32, 0_u32);
        for back in 0..STEPS as u128 {
            let Some(at) = step.checked_sub(back) else { break };
            if at > self.current {
                continue;
            }
            let counts = self.steps[place(at)];
            samples = samples.saturating_add(counts.answers).saturating_add(counts.failures);
            failures = failures.saturating_add(counts.failures);
        }
        (samples, failures)
    }
}

fn place(step: u128) -> usize {
    (step % STEPS as u128) as usize
}

const STEPS: usize = 10;

/// Fewer results say nothing about a share.
const SAMPLES_MIN: u32 = 20;

/// A probe whose result was not recorded by then is taken for lost, and another one is allowed.
const PROBE_LOST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
