//! The strategies side by side on a virtual clock: how many answers are slow, and how many queries that costs. The figures of
//! docs/dns/strategies.md are this test's, which prints them.

use std::time::{Duration, Instant};

use super::{
    Candidate, Plan, Step, Verdict,
    budget::HedgeBudget,
    estimate::Estimate,
    order::{Dice, Entry, arrange},
};
use crate::{
    config::{HedgeSettings, Strategy},
    health::{Allowed, Latency, Spread},
};

const MS: Duration = Duration::from_millis(1);
const QUERIES: u32 = 20_000;
const UPSTREAMS: usize = 3;

/// Answers take so long, give or take a tenth, and with this share of a thousand 400 ms more.
#[derive(Clone, Copy)]
struct Model {
    usual: Duration,
    tail: u64,
}

/// What a worker knows of an upstream, and the answers that are on their way.
#[derive(Default)]
struct Known {
    latency: Latency,
    spread: Spread,
    estimate: Estimate,
    coming: Vec<(Instant, Duration)>,
}

/// What a strategy made of it.
#[derive(Debug)]
struct Figures {
    /// Share of the answers that took longer than 100 ms.
    slow: f64,
    /// Queries to upstreams for each query of a client.
    sent: f64,
    hedges: u32,
}

fn draw(model: Model, dice: &mut Dice) -> Duration {
    let usual = model.usual * 9 / 10 + model.usual / 5 * u32::try_from(dice.below(1000)).unwrap() / 1000;
    if dice.below(1000) < model.tail { usual + MS * 400 } else { usual }
}

impl Known {
    /// Takes in what has come by now.
    fn hear(&mut self, now: Instant) {
        self.coming.sort_unstable();
        while let Some(&(at, took)) = self.coming.first().filter(|(at, _)| *at <= now) {
            self.coming.remove(0);
            self.latency.record(took);
            self.spread.record(at, took);
            self.estimate.answered(at, took);
        }
    }

    fn entry(&mut self, index: usize, now: Instant) -> Entry {
        let try_timeout = self.latency.try_timeout();
        let hedge_after = self.spread.percentiles().map_or(try_timeout, |percentiles| percentiles.p95);
        Entry {
            candidate: Candidate { index, allowed: Allowed::Yes, try_timeout, hedge_after },
            weight: 1,
            load: u32::try_from(self.coming.len()).unwrap(),
            expected: self.estimate.expected(now),
            idle: self.estimate.idle(now),
        }
    }
}

/// A hundred queries a second.
fn run(strategy: Strategy, models: [Model; UPSTREAMS], hedge: HedgeSettings) -> Figures {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock; its value does not matter"
    )]
    let began = Instant::now();
    let (mut dice, mut world, budget) = (Dice::new(1), Dice::new(2), HedgeBudget::new(hedge));
    let mut known: [Known; UPSTREAMS] = std::array::from_fn(|_| Known::default());
    let (mut slow, mut sent, mut hedges) = (0_u32, 0_u32, 0_u32);
    for query in 0..QUERIES {
        let mut now = began + MS * 10 * query;
        let asked = now;
        known.iter_mut().for_each(|known| known.hear(asked));
        let mut entries: Vec<Entry> = known.iter_mut().enumerate().map(|(n, known)| known.entry(n, asked)).collect();
        arrange(strategy, &mut entries, &mut dice, query);
        budget.earn();
        known[entries[0].candidate.index].estimate.tried(now);
        let candidates: Vec<Candidate> = entries.iter().map(|entry| entry.candidate).collect();
        let mut plan = Plan::start(strategy, &candidates, 0, now, now + MS * 4000, MS * 100);
        let mut coming: Vec<(Instant, usize)> = Vec::new();
        let took = loop {
            let step = plan.next(now);
            match step {
                Step::Send(index) | Step::Hedge(index) => {
                    if matches!(step, Step::Hedge(_)) {
                        if !budget.spend() {
                            continue;
                        }
                        plan.hedge(index, now);
                        hedges += 1;
                    }
                    let takes = draw(models[index], &mut world);
                    known[index].coming.push((now + takes, takes));
                    coming.push((now + takes, index));
                    sent += 1;
                }
                Step::WaitUntil(at) => match coming.iter().min().copied().filter(|(answer, _)| *answer <= at) {
                    Some((answer, index)) => {
                        now = answer;
                        plan.answered(index, Verdict::Final, now);
                    }
                    None => now = at,
                },
                Step::Use(_) => break now - asked,
                Step::UseBest | Step::Failed => panic!("all upstreams answer"),
            }
        };
        slow += u32::from(took > MS * 100);
    }
    Figures { slow: f64::from(slow) / f64::from(QUERIES), sent: f64::from(sent) / f64::from(QUERIES), hedges }
}

const ALL: [Strategy; 8] = [
    Strategy::Sequential,
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::LeastLoaded,
    Strategy::Racing,
    Strategy::Parallel,
    Strategy::Fastest,
    Strategy::Hedged,
];

fn table(what: &str, models: [Model; UPSTREAMS]) -> impl Fn(Strategy) -> f64 {
    let settings = HedgeSettings::default();
    let figures = ALL.map(|strategy| run(strategy, models, settings));
    println!("{what}\n{:<14}{:>14}{:>18}", "strategy", "over 100 ms", "queries sent");
    for (strategy, Figures { slow, sent, hedges }) in ALL.iter().zip(&figures) {
        println!("{:<14}{:>12.2} %{:>18.2}", strategy.as_str(), slow * 100.0, sent);
        let allowed = f64::from(settings.burst) + settings.budget * f64::from(QUERIES);
        assert!(f64::from(*hedges) <= allowed, "{hedges} second tries of {allowed}");
    }
    move |strategy| figures[ALL.iter().position(|each| *each == strategy).expect("it is one of all")].slow
}

#[test]
fn fastest_and_hedged_avoid_one_of_three_with_a_slow_tail() {
    let steady = |usual| Model { usual: MS * usual, tail: 0 };
    let first = Model { usual: MS * 10, tail: 50 };
    let slow = table("the first of three is slow 5 times in 100", [first, steady(14), steady(18)]);
    assert!(slow(Strategy::Sequential) > 0.045);
    assert!(slow(Strategy::RoundRobin) > 0.014);
    assert!(slow(Strategy::Fastest) < slow(Strategy::Sequential) / 10.0);
    assert!(slow(Strategy::Fastest) < slow(Strategy::RoundRobin) / 3.0);
    assert!(slow(Strategy::Hedged) < slow(Strategy::RoundRobin) / 3.0);
}

#[test]
fn hedged_cuts_a_tail_that_all_three_have() {
    let tailed = |usual| Model { usual: MS * usual, tail: 20 };
    let slow = table("each of three is slow 2 times in 100", [tailed(10), tailed(14), tailed(18)]);
    for strategy in [Strategy::Sequential, Strategy::RoundRobin, Strategy::Fastest] {
        assert!(slow(strategy) > 0.015, "{strategy:?}");
        assert!(slow(Strategy::Hedged) < slow(strategy) / 4.0, "{strategy:?}");
    }
}
