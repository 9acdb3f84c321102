//! Which upstream is asked when, for one query.
//!
//! A [`Plan`] is told what happened and asked what to do next; it holds no connection, reads no clock and does not allocate.
//! In which order it asks is [`order`]'s business, who is asked for a name at all [`groups`]', how an upstream fares over many
//! queries `health`'s, and what its answer says `message`'s.

pub mod budget;
pub mod estimate;
pub mod groups;
pub mod order;

use std::time::{Duration, Instant};

use self::order::Lead;
use crate::{config::Strategy, health::Allowed};

/// An upstream as a plan sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// The caller's number for it.
    pub index: usize,
    /// What its breaker says.
    pub allowed: Allowed,
    /// How long its answers take at most, as measured ([`Latency::try_timeout`](crate::health::Latency::try_timeout)).
    pub try_timeout: Duration,
    /// When a second one joins it, if the strategy hedges; otherwise of no account.
    pub hedge_after: Duration,
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer, whatever its type: NXDOMAIN and NODATA too.
    Final,
    /// SERVFAIL or REFUSED: used when no other upstream does better.
    Improvable,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Ask this upstream, then call [`Plan::next`] again.
    Send(usize),
    /// The first has taken longer than most of its answers: if the budget allows, call [`Plan::hedge`] and ask this upstream
    /// too. Then call [`Plan::next`] again. Said once a query.
    Hedge(usize),
    /// Nothing, until something happens or this time has come.
    WaitUntil(Instant),
    /// Done: use the final answer of this upstream.
    Use(usize),
    /// Done: use the improvable answer there is.
    UseBest,
    /// Done: there is no answer.
    Failed,
}

/// The course of one query.
///
/// Candidates whose breaker is closed are asked in order, as the strategy says. One that waits for its probe is asked at
/// once beside the first, so that neither the probe waits for the others to fail nor the client for the probe. Those whose
/// breaker is open come last, the one that opens up soonest first, one at a time, and only when all others have failed or
/// stay silent: that is also what happens when all breakers are open.
///
/// The fallback group comes after all of them, one upstream after the other: when all have failed or, where nobody else is
/// left to ask, stay silent, those with a closed breaker for a second or their share of the time. An answer of SERVFAIL or
/// REFUSED does not lead there: it may be the verdict of a resolver that validates.
///
/// At most 16 candidates of a longer list take part, chosen in that order; four of these places are the fallback's, if it
/// has as many.
#[derive(Debug, Clone)]
pub struct Plan {
    strategy: Strategy,
    tries: [Try; CANDIDATES_MAX],
    len: u8,
    /// The one sent last.
    last: Option<u8>,
    winner: Option<u8>,
    hedge: Hedge,
    lead: Lead,
    /// Racing and hedging: when the second one joins the first, in microseconds as are all times below.
    join_delay: u32,
    /// When the next one joins though the last one has not failed: so long before the deadline.
    next_at: Left,
    /// When the last one has been silent for so long that an open breaker is no longer respected.
    silent_at: Left,
    /// When the group is given up for the fallback though something may still come from it.
    fallback_at: Left,
    deadline: Instant,
}

/// Microseconds before the deadline; a quarter of what the time itself would take, in each query in flight.
#[derive(Debug, Clone, Copy)]
struct Left(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hedge {
    /// No second try is due. -> `Armed` when the first one is sent and its answers usually come sooner than it would be given
    /// up.
    Off,
    /// -> `Off` when it is time or the first one failed.
    Armed,
    /// This place was asked beside the first.
    Sent(u8),
}

#[derive(Debug, Clone, Copy)]
struct Try {
    index: u16,
    /// Tenths of a millisecond. The plan is part of every query in flight, so it is kept small.
    try_timeout: u16,
    rank: Rank,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    Closed,
    Probe,
    Open,
    Fallback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not asked yet. -> `Live` when sent.
    Waiting,
    /// Asked; its answer wins however late it comes. -> `Failed`, `Improvable`, or the end.
    Live,
    /// Its last try failed.
    Failed,
    /// It answered SERVFAIL or REFUSED.
    Improvable,
}

impl Plan {
    /// A new plan for candidates in the order in which they are to be asked. `rotation` says with which of them round-robin
    /// begins; `racing_delay` is the most that racing waits before the next one joins.
    pub fn start(
        strategy: Strategy,
        candidates: &[Candidate],
        rotation: u32,
        now: Instant,
        deadline: Instant,
        racing_delay: Duration,
    ) -> Plan {
        let unused = Try { index: 0, try_timeout: 0, rank: Rank::Open, state: State::Failed };
        let mut plan = Plan {
            strategy,
            tries: [unused; CANDIDATES_MAX],
            len: 0,
            last: None,
            winner: None,
            hedge: Hedge::Off,
            lead: match strategy {
                Strategy::Parallel => Lead::All,
                Strategy::RoundRobin => Lead::Turn,
                _ => Lead::Order,
            },
            join_delay: micros(racing_delay),
            next_at: Left(0),
            silent_at: Left(0),
            fallback_at: Left(0),
            deadline,
        };
        plan.next_at = plan.left(now);
        plan.silent_at = plan.next_at;
        let skip = match strategy {
            Strategy::RoundRobin if !candidates.is_empty() => rotation as usize % candidates.len(),
            _ => 0,
        };
        let rotated = || candidates[skip..].iter().chain(&candidates[..skip]);
        rotated().filter(|candidate| matches!(candidate.allowed, Allowed::Yes)).for_each(|c| plan.add(c, Rank::Closed));
        rotated()
            .filter(|candidate| matches!(candidate.allowed, Allowed::Probe))
            .for_each(|c| plan.add(c, Rank::Probe));
        plan.add_open(rotated(), Rank::Open);
        if strategy == Strategy::Hedged
            && let Some(first) = rotated().find(|candidate| matches!(candidate.allowed, Allowed::Yes))
        {
            plan.join_delay = micros(first.hedge_after);
        }
        plan
    }

    /// Adds the candidates of the fallback group, in the order in which they are to be asked.
    pub fn add_fallback(&mut self, candidates: &[Candidate]) {
        let places = candidates.len().min(FALLBACK_MAX);
        self.len = self.len.min(u8::try_from(CANDIDATES_MAX - places).unwrap_or(0));
        let well = |candidate: &&Candidate| matches!(candidate.allowed, Allowed::Yes);
        let probe = |candidate: &&Candidate| matches!(candidate.allowed, Allowed::Probe);
        candidates.iter().filter(well).for_each(|candidate| self.add(candidate, Rank::Fallback));
        candidates.iter().filter(probe).for_each(|candidate| self.add(candidate, Rank::Fallback));
        self.add_open(candidates.iter(), Rank::Fallback);
    }

    /// Notes why the first candidate is the first, for those who ask.
    #[must_use]
    pub fn led_by(self, lead: Lead) -> Plan {
        Plan { lead, ..self }
    }

    fn add(&mut self, candidate: &Candidate, rank: Rank) {
        // Whoever has more than 65,536 upstreams asks the first ones.
        if let (Some(place), Ok(index)) = (self.tries.get_mut(usize::from(self.len)), u16::try_from(candidate.index)) {
            *place = Try { index, try_timeout: tenths(candidate.try_timeout), rank, state: State::Waiting };
            self.len += 1;
        }
    }

    /// Adds those with an open breaker by the end of their pause: a selection sort, for there are few.
    fn add_open<'a>(&mut self, candidates: impl Iterator<Item = &'a Candidate> + Clone, rank: Rank) {
        let open = candidates.enumerate().filter_map(|(place, candidate)| match candidate.allowed {
            Allowed::No { until } => Some(((until, place), candidate)),
            Allowed::Yes | Allowed::Probe => None,
        });
        let mut last = None;
        while let Some((key, candidate)) = open.clone().filter(|(key, _)| Some(*key) > last).min_by_key(|(key, _)| *key)
            && usize::from(self.len) < CANDIDATES_MAX
        {
            self.add(candidate, rank);
            last = Some(key);
        }
    }

    /// What to do now. Call it after each event, when the time of [`Step::WaitUntil`] has come, and again after each
    /// [`Step::Send`].
    pub fn next(&mut self, now: Instant) -> Step {
        if let Some(winner) = self.winner {
            return Step::Use(self.tries[usize::from(winner)].index.into());
        }
        if now >= self.deadline {
            return self.give_up();
        }
        let live = self.tries().iter().any(|each| each.state == State::Live);
        if let Some(place) = self.waiting(Rank::Closed)
            && (!live || self.strategy == Strategy::Parallel || now >= self.at(self.next_at))
        {
            if live && self.hedge == Hedge::Armed {
                self.hedge = Hedge::Off;
                self.next_at = self.silent_at;
                return Step::Hedge(self.tries[usize::from(place)].index.into());
            }
            return self.send(place, now);
        }
        if let Some(place) = self.waiting(Rank::Probe) {
            return self.probe(place, now);
        }
        if self.waiting(Rank::Closed).is_some() {
            return Step::WaitUntil(self.at(self.next_at));
        }
        let answered = |each: &Try| each.state == State::Improvable && each.rank != Rank::Fallback;
        if self.tries().iter().any(answered) {
            return if live { Step::WaitUntil(self.deadline) } else { self.give_up() };
        }
        let (next, joins_at) = match self.waiting(Rank::Open) {
            Some(place) => (Some(place), self.at(self.silent_at)),
            None => (self.waiting(Rank::Fallback), self.at(self.fallback_at)),
        };
        match next {
            Some(place) if !live || now >= joins_at => self.send(place, now),
            Some(_) => Step::WaitUntil(joins_at),
            None if live => Step::WaitUntil(self.deadline),
            None => self.give_up(),
        }
    }

    /// The second try is made: ask this upstream.
    pub fn hedge(&mut self, index: usize, now: Instant) {
        if let Some(place) = self.place(index).filter(|place| self.tries[usize::from(*place)].state == State::Waiting) {
            let _ = self.send(place, now);
            self.hedge = Hedge::Sent(place);
        }
    }

    /// The last try at this upstream failed: nothing will come from it.
    pub fn failed(&mut self, index: usize, now: Instant) {
        self.settle(index, State::Failed, now);
    }

    /// This upstream answered. The first final answer wins.
    pub fn answered(&mut self, index: usize, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Improvable => self.settle(index, State::Improvable, now),
            Verdict::Final if self.winner.is_none() => self.winner = self.place(index),
            Verdict::Final => {}
        }
    }

    fn settle(&mut self, index: usize, state: State, now: Instant) {
        let Some(place) = self.place(index) else { return };
        let settled = &mut self.tries[usize::from(place)];
        if settled.state != State::Live {
            return;
        }
        settled.state = state;
        // The next one takes over at once; one that was already given its time does not hurry the others.
        if self.last == Some(place) {
            (self.next_at, self.silent_at) = (self.left(now), self.left(now));
            if self.tries[usize::from(place)].rank == Rank::Fallback {
                self.fallback_at = self.silent_at;
            }
            if self.hedge == Hedge::Armed {
                self.hedge = Hedge::Off;
            }
        }
    }

    fn send(&mut self, place: u8, now: Instant) -> Step {
        let left = self.tries().iter().filter(|each| each.state == State::Waiting && each.rank != Rank::Probe).count();
        let Left(now_left) = self.left(now);
        let sent = &mut self.tries[usize::from(place)];
        sent.state = State::Live;
        // A try has as long as its answers take, but no more than its share of what is left. All in microseconds.
        let share = now_left / u32::try_from(left).unwrap_or(1).max(1);
        let try_timeout = u32::from(sent.try_timeout) * micros(TENTH);
        let patience = try_timeout.min(share).max(micros(PATIENCE_MIN));
        let join_delay = self.join_delay;
        let join = match self.strategy {
            Strategy::Racing => try_timeout.min(join_delay),
            Strategy::Hedged if self.last.is_none() && sent.rank == Rank::Closed && join_delay < patience => {
                self.hedge = Hedge::Armed;
                join_delay
            }
            _ => patience,
        };
        // Most of those who are silent for less than a second are slow at one name, and not gone.
        let hope = match sent.rank {
            Rank::Closed => micros(SILENCE).min(share).max(patience),
            Rank::Probe | Rank::Open | Rank::Fallback => patience,
        };
        let index = sent.index.into();
        self.last = Some(place);
        let after = |time: u32| Left(now_left.saturating_sub(time));
        (self.next_at, self.silent_at, self.fallback_at) = (after(join), after(patience), after(hope));
        Step::Send(index)
    }

    /// A probe goes beside the others and moves no timer, unless it is alone.
    fn probe(&mut self, place: u8, now: Instant) -> Step {
        if self.last.is_none() {
            return self.send(place, now);
        }
        self.tries[usize::from(place)].state = State::Live;
        Step::Send(self.tries[usize::from(place)].index.into())
    }

    fn give_up(&self) -> Step {
        let answered = self.tries().iter().any(|each| each.state == State::Improvable);
        if answered { Step::UseBest } else { Step::Failed }
    }

    /// Candidates that take part.
    pub fn candidates(&self) -> usize {
        self.len.into()
    }

    /// Why the first candidate is the first.
    pub fn lead(&self) -> Lead {
        self.lead
    }

    /// The upstream of the second try, once that was made.
    pub fn hedged(&self) -> Option<usize> {
        match self.hedge {
            Hedge::Sent(place) => Some(self.tries[usize::from(place)].index.into()),
            Hedge::Off | Hedge::Armed => None,
        }
    }

    /// When the second one joins the first: racing and hedging alone.
    pub(crate) fn join_delay(&self) -> Duration {
        Duration::from_micros(self.join_delay.into())
    }

    /// A time as it is kept; what is later than the deadline is the deadline.
    fn left(&self, at: Instant) -> Left {
        Left(micros(self.deadline.saturating_duration_since(at)))
    }

    fn at(&self, left: Left) -> Instant {
        self.deadline - Duration::from_micros(left.0.into())
    }

    /// The candidates in the order in which they are asked, with what that goes by.
    pub(crate) fn ranks(&self) -> impl Iterator<Item = (usize, Rank)> {
        self.tries().iter().map(|each| (usize::from(each.index), each.rank))
    }

    fn tries(&self) -> &[Try] {
        &self.tries[..usize::from(self.len)]
    }

    fn waiting(&self, rank: Rank) -> Option<u8> {
        self.position(|each| each.state == State::Waiting && each.rank == rank)
    }

    fn place(&self, index: usize) -> Option<u8> {
        self.position(|each| usize::from(each.index) == index)
    }

    fn position(&self, is: impl Fn(&Try) -> bool) -> Option<u8> {
        self.tries().iter().position(is).and_then(|place| u8::try_from(place).ok())
    }
}

fn tenths(time: Duration) -> u16 {
    u16::try_from(micros(time).div_ceil(micros(TENTH))).unwrap_or(u16::MAX)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// The measure of a try's time: 6.5 s at most.
const TENTH: Duration = Duration::from_micros(100);

/// Candidates of one plan.
const CANDIDATES_MAX: usize = 16;

/// Places that the fallback has at most when there are too many candidates.
const FALLBACK_MAX: usize = 4;

/// Who said nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(1);

/// No try is given up for the next one sooner, however fast its answers usually are: names differ more than upstreams.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
