//! The addresses of one origin: where they were found, how they fare, and which of them a request goes to.
//!
//! Pure: time, random numbers and outcomes go in, choices and probes that are due come out. A [`choose`](Inventory::choose) reserves, so
//! nothing can happen between looking at an address and using it. What is deliberately not here: resolving, reading files, dialling and
//! probing, which belong to the client; it keeps the inventory behind a lock and holds that for one call at a time.
//!
//! ```text
//!             found              probe, or first success             failures in a row
//! (unknown) --------> candidate -------------------------> validated ----------------> quarantined <-+
//!                         |  failed                            ^                           | pause   | failed,
//!                         +--------------> quarantined         +---------- probing <-------+ ended   | pause doubled
//!                                                                  good        +---------------------+
//! ```
//!
//! Two things lie across these states. An address *rests* while the application's word on it counts (a verdict on a status, such as
//! 403): its transport is not at fault. It is *banned* while a network that was put out at run time contains it.

mod access;
mod address;
mod book;
mod dice;
mod expand;
mod file;
mod latency;
mod renew;
mod retry_after;
mod rows;
mod select;
mod settings;

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use http::StatusCode;
use ipnet::IpNet;

pub(crate) use self::address::bounded;
use self::{
    access::Access,
    address::{Address, State, later},
    book::Book,
    dice::Dice,
};
pub use self::{
    access::ListFull,
    address::{AddressId, SourceId},
    expand::expand,
    file::{AddressFile, AddressFileError},
    retry_after::retry_after,
    rows::{AddressRow, AddressState, Counts},
    settings::Settings,
};

/// The addresses of one origin.
///
/// Reports take the id that [`choose`](Self::choose), [`reserve`](Self::reserve) or [`to_validate`](Self::to_validate) gave for *that*
/// request or probe. What began before its address was last put into quarantine, or let out, is counted and changes nothing else: an
/// answer on an old connection does not end a quarantine, and a time-out from before a recovery does not begin one.
#[derive(Debug)]
pub struct Inventory {
    settings: Settings,
    access: Access,
    book: Book,
    /// For the jitter of pauses.
    dice: Dice,
    /// Counts calls of [`found`](Self::found).
    round: u64,
}

/// What [`Inventory::found`] changed. Each a number of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// New ones.
    pub added: usize,
    /// Forgotten, for no source names them any more.
    pub gone: usize,
    /// Not taken in, because `allow` and `deny` do not let them be used.
    pub refused: usize,
    /// Not taken in, because there are `addresses_max` already.
    pub beyond_max: usize,
}

/// An address that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// For the reports of what becomes of it.
    pub id: AddressId,
    /// The address.
    pub ip: IpAddr,
    /// It is in quarantine, or to be validated: a request that goes there is a probe.
    pub probe: bool,
}

/// Why an address that was asked for by name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No source names it.
    Unknown,
    /// `deny`, a missing entry in `allow`, or a ban at run time is against it.
    Denied,
    /// It has to be validated before its first use, and was not yet.
    NotValidated,
}

/// What a verdict says about an answer and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// Until when the address rests; none: the answer says nothing about the address.
    pub rest_until: Option<Instant>,
    /// Whether the request is sent once more to another address, where that is safe.
    pub retry: bool,
}

impl Inventory {
    /// One without addresses.
    pub fn new(settings: Settings) -> Inventory {
        Inventory {
            access: Access::new(&settings.allow, &settings.deny),
            book: Book::new(settings.needs_validation, settings.probes_candidates),
            dice: Dice::new(settings.seed),
            round: 0,
            settings,
        }
    }

    /// A source says which addresses there are; this replaces what it said before. An address that was known keeps its state. One that
    /// no source names any more is forgotten, after its requests in flight have ended. Of new ones the first `addresses_max` are taken.
    ///
    /// A look-up that failed is no list without addresses: do not report it.
    pub fn found(&mut self, source: SourceId, ips: impl IntoIterator<Item = IpAddr>, now: Instant) -> Found {
        self.round += 1;
        let mut report = Found::default();
        let (mut news, mut seen) = (Vec::new(), HashSet::new());
        for ip in ips.into_iter().map(|ip| ip.to_canonical()) {
            if self.access.refuses(ip) {
                report.refused += 1;
            } else if let Some(slot) = self.book.slot_of(ip).filter(|slot| !self.book.address(*slot).is_leaving()) {
                self.book.update(slot, |address| address.named_by(source, self.round));
            } else if seen.len() < self.settings.addresses_max {
                if seen.insert(ip) {
                    news.push(ip);
                }
            } else if !seen.contains(&ip) {
                report.beyond_max += 1;
            }
        }
        for slot in self.book.all() {
            report.gone += usize::from(self.unname(slot, source));
        }
        for ip in news {
            match self.add(ip, source, now) {
                true => report.added += 1,
                false => report.beyond_max += 1,
            }
        }
        report
    }

    /// Returns whether there was room for it.
    fn add(&mut self, ip: IpAddr, source: SourceId, now: Instant) -> bool {
        if self.len() >= self.settings.addresses_max {
            return false;
        }
        match self.book.slot_of(ip) {
            // It was about to leave.
            Some(slot) => self.book.update(slot, |address| address.named_by(source, self.round)),
            None => self.book.insert(Address::new(ip, (source, self.round), self.access.bans(ip), now)),
        }
        true
    }

    /// Takes the source's name off an address that it did not name this time. Returns whether nobody names it any more.
    fn unname(&mut self, slot: u32, source: SourceId) -> bool {
        let address = self.book.address(slot);
        if !address.is_outdated(source, self.round) {
            return false;
        }
        self.book.update(slot, |address| address.unnamed_by(source));
        let is_leaving = self.book.address(slot).is_leaving();
        self.book.forget_if_idle(slot);
        is_leaving
    }

    /// Chooses an address for a request and reserves it: its requests in flight are one more, until [`release`](Self::release).
    ///
    /// Among validated addresses the one with the least (requests in flight + 1) * latency; nearly equal ones are drawn. One of which no
    /// latency is known comes first, and once in a hundred times it is any of them, so that a slow one that recovered is noticed. Where
    /// validation is not asked for, candidates take part: often until eight are known good, then once in a hundred times. A request that
    /// was `tried` elsewhere before takes no such chances. With no validated one left it is a candidate (without validation), then the one
    /// that rests for the shortest time, then one in quarantine, marked as [`probe`](Choice::probe).
    ///
    /// `None`: all were `tried`, are banned, or wait for validation. Does not allocate; looks at 64 addresses at most, of more at a sample.
    pub fn choose(&mut self, tried: &[AddressId], now: Instant, random: u64) -> Option<Choice> {
        self.book.wake(now);
        let slot = select::choose(&self.book, tried, self.settings.focus, now, &mut Dice::new(random))?;
        Some(self.book.reserve(slot, now))
    }

    /// Reserves an address that a request asks for by name, as [`choose`](Self::choose) would if there were no other.
    ///
    /// # Errors
    /// When it is not known, denied, or waits for its validation.
    pub fn reserve(&mut self, ip: IpAddr, now: Instant) -> Result<Choice, Unusable> {
        self.book.wake(now);
        let ip = ip.to_canonical();
        if self.access.refuses(ip) || self.access.bans(ip) {
            return Err(Unusable::Denied);
        }
        let slot = self.book.slot_of(ip).filter(|slot| !self.book.address(*slot).is_leaving());
        let slot = slot.ok_or(Unusable::Unknown)?;
        match self.book.is_usable(slot) {
            true => Ok(self.book.reserve(slot, now)),
            false => Err(Unusable::NotValidated),
        }
    }

    /// A request that was chosen or reserved for has ended, whatever came of it. Once for each; not for probes of
    /// [`to_validate`](Self::to_validate).
    pub fn release(&mut self, id: AddressId) {
        if let Some(slot) = self.book.slot(id) {
            self.book.release(slot);
        }
    }

    /// The head of an answer came, `latency` after the request was begun. Its status does not matter here.
    ///
    /// Validates a candidate and ends a quarantine, unless validation is asked for: then only a probe does.
    pub fn succeeded(&mut self, id: AddressId, latency: Duration, now: Instant) {
        let Some(slot) = self.book.slot(id) else { return };
        let needs_validation = self.settings.needs_validation;
        self.book.update(slot, |address| {
            address.successes += 1;
            if !address.is_current(id) {
                return;
            }
            address.latency.answered(now, latency);
            if matches!(address.state, State::Validated) || !needs_validation {
                address.failed_in_a_row = 0;
                address.pause = Duration::ZERO;
                address.set_state(State::Validated);
            }
        });
        self.promote(slot, now);
    }

    /// An address in reserve that is clearly quicker than one in focus, drawn at random, changes places with it.
    fn promote(&mut self, slot: u32, now: Instant) {
        if self.book.ready_index(slot).is_none_or(|index| index < self.settings.focus) {
            return;
        }
        let index = self.dice.below(self.settings.focus);
        let score = |slot: u32| self.book.address(slot).latency.score(0, now);
        if let Some(other) = self.book.list(book::List::Ready).get(index).copied()
            && score(slot) < score(other) * QUICKER
        {
            self.book.swap_ready(slot, index);
        }
    }

    /// The addresses that requests go to first: known good ones in focus; none of them, where none is known.
    pub fn focus(&self) -> Vec<IpAddr> {
        let ready = self.book.list(book::List::Ready);
        let focus = ready.get(..self.settings.focus).unwrap_or(ready);
        focus.iter().map(|slot| self.book.address(*slot).ip).collect()
    }

    /// An answer's status, after [`succeeded`](Self::succeeded). `retry_after` is what the header of that name says (see
    /// [`retry_after()`]). The first verdict that names the status counts; `None`: there is none.
    pub fn answered(
        &mut self,
        id: AddressId,
        status: StatusCode,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Option<Ruling> {
        let slot = self.book.slot(id);
        if let Some(slot) = slot {
            self.book.update(slot, |address| address.last_status = Some(status));
        }
        let verdict = self.settings.verdicts.iter().find(|verdict| verdict.statuses.contains(status))?;
        if verdict.rest.is_zero() {
            return Some(Ruling { rest_until: None, retry: verdict.retry });
        }
        let asked = retry_after.unwrap_or_default().min(self.settings.quarantine_max);
        let rest_until = Some(later(now, verdict.rest.max(asked)));
        if let Some(slot) = slot {
            self.book.update(slot, |address| {
                address.refusals += 1;
                address.rest_until = address.rest_until.max(rest_until);
            });
        }
        Some(Ruling { rest_until, retry: verdict.retry })
    }

    /// A request failed through a fault of the upstream's side. After `failures` in a row the address goes into quarantine; one that is
    /// there already stays for as long as it would have. Failures of the local side or of the client are not reported.
    pub fn failed(&mut self, id: AddressId, error: &str, now: Instant) {
        let Some(slot) = self.book.slot(id) else { return };
        let limit = self.settings.failures.max(1);
        self.book.update(slot, |address| address.failed(error));
        let address = self.book.address(slot);
        if address.is_current(id) && !address.is_out() {
            self.book.update(slot, |address| address.failed_in_a_row = address.failed_in_a_row.saturating_add(1));
            if self.book.address(slot).failed_in_a_row >= limit {
                self.quarantine(slot, now);
            }
        }
    }

    /// What is to be probed now, `max` at most: candidates (see [`Settings::probes_candidates`]), and addresses in quarantine whose pause
    /// has ended. They are `Probing` from here on and not named again until the outcome is told by [`validated`](Self::validated) or
    /// [`given_up`](Self::given_up), or ten minutes have passed. Probes are no requests in flight: do not release them.
    pub fn to_validate(&mut self, max: usize, now: Instant) -> Vec<Choice> {
        self.book.wake(now);
        let mut probes = Vec::new();
        while probes.len() < max {
            let Some(slot) = self.book.due(now) else { break };
            self.book.update(slot, |address| {
                address.probes += 1;
                address.set_state(State::Probing { since: now, again: address.is_out() });
            });
            probes.push(self.book.choice(slot, true));
        }
        probes
    }

    /// The outcome of a probe: how long it took, or why the address is not good. A bad one goes into quarantine, for twice as long as
    /// the last time if no request succeeded since.
    pub fn validated(&mut self, id: AddressId, outcome: Result<Duration, &str>, now: Instant) {
        let Some(slot) = self.book.slot(id) else { return };
        match outcome {
            Ok(latency) => self.book.update(slot, |address| {
                if address.is_current(id) {
                    address.latency.answered(now, latency);
                    address.failed_in_a_row = 0;
                    address.set_state(State::Validated);
                }
            }),
            Err(error) => {
                self.book.update(slot, |address| address.failed(error));
                let address = self.book.address(slot);
                if address.is_current(id) && !matches!(address.state, State::Quarantined { .. }) {
                    self.quarantine(slot, now);
                }
            }
        }
    }

    /// A probe ended without saying anything about the address: a local shortage, or nobody waits for it any more. It is due again in ten
    /// seconds, in the state that it had before.
    pub fn given_up(&mut self, id: AddressId, now: Instant) {
        self.probe_again(id, later(now, GIVEN_UP_PAUSE));
    }

    /// A probe ended with the task that made it, and says nothing about the address. It is due again at once, for whoever comes after it.
    pub(crate) fn cut_off(&mut self, id: AddressId, now: Instant) {
        self.probe_again(id, now);
    }

    fn probe_again(&mut self, id: AddressId, due: Instant) {
        let Some(slot) = self.book.slot(id) else { return };
        self.book.update(slot, |address| match address.state {
            _ if !address.is_current(id) => {}
            State::Probing { again: true, .. } => address.set_state(State::Quarantined { until: due }),
            State::Probing { again: false, .. } => address.set_state(State::Candidate { due }),
            State::Candidate { .. } | State::Validated | State::Quarantined { .. } => {}
        });
    }

    /// When [`to_validate`](Self::to_validate) has something; `now`, if it has already. `None`: not before something changes.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        self.book.next_due().map(|due| due.max(now))
    }

    /// Puts a network out, beside `deny`: its addresses are not chosen and not probed any more, and keep their state. Returns how many
    /// addresses that concerns.
    ///
    /// # Errors
    /// When 1,024 networks are out already.
    pub fn ban(&mut self, net: IpNet, now: Instant) -> Result<usize, ListFull> {
        self.access.ban(net)?;
        Ok(self.apply_bans(now))
    }

    /// Takes back the bans of networks that lie within `net`. Returns how many addresses that concerns. `deny` stays as it is.
    pub fn unban(&mut self, net: IpNet, now: Instant) -> usize {
        self.access.unban(net);
        self.apply_bans(now)
    }

    /// Lets a network in beside `allow`; without entries in `allow` everything is let in already. Deny and bans win. Its addresses come
    /// when a source names them the next time.
    ///
    /// # Errors
    /// When 1,024 networks were let in already.
    pub fn allow(&mut self, net: IpNet) -> Result<(), ListFull> {
        self.access.allow(net)
    }

    fn apply_bans(&mut self, now: Instant) -> usize {
        self.book.wake(now);
        let mut changed = 0;
        for slot in self.book.all() {
            let address = self.book.address(slot);
            let is_banned = self.access.bans(address.ip);
            if address.is_banned != is_banned {
                changed += 1;
                self.book.update(slot, |address| address.is_banned = is_banned);
            }
        }
        changed
    }

    /// The network of this machine is another one: what was learned of addresses in quarantine may not hold any more, so all of them may
    /// be probed at once.
    pub fn network_changed(&mut self, now: Instant) {
        for slot in self.book.all() {
            self.book.update(slot, |address| {
                if let State::Quarantined { until } = &mut address.state {
                    *until = now.min(*until);
                }
            });
        }
    }

    /// One row an address, in the order of the addresses.
    pub fn rows(&self, now: Instant) -> Vec<AddressRow> {
        rows::rows(&self.book, now)
    }

    /// Addresses by state.
    pub fn counts(&self) -> Counts {
        self.book.counts()
    }

    /// How many addresses can be chosen that are known good, or may be (candidates, where validation is not asked for).
    pub fn usable(&self) -> usize {
        self.book.list(book::List::Ready).len() + self.book.list(book::List::Fresh).len()
    }

    /// Whether an address may become usable without anything new being found: it is probed, or is about to be.
    pub fn is_hopeful(&self) -> bool {
        self.book.all().into_iter().map(|slot| self.book.address(slot)).any(|address| {
            let waits = match address.state {
                State::Probing { .. } => true,
                State::Candidate { .. } => self.settings.probes_candidates,
                State::Validated | State::Quarantined { .. } => false,
            };
            waits && !address.is_banned && !address.is_leaving()
        })
    }

    /// The address's id as it stands now, for reports that are about the address and not about a request.
    pub fn find(&self, ip: IpAddr) -> Option<AddressId> {
        let slot = self.book.slot_of(ip.to_canonical()).filter(|slot| !self.book.address(*slot).is_leaving())?;
        Some(self.book.choice(slot, false).id)
    }

    /// How many addresses there are. Those that wait only for their last requests to end do not count.
    pub fn len(&self) -> usize {
        self.book.counts().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn quarantine(&mut self, slot: u32, now: Instant) {
        let (first, max) = (self.settings.quarantine, self.settings.quarantine_max);
        let fraction = self.dice.fraction();
        self.book.update(slot, |address| {
            address.pause = match address.pause {
                Duration::ZERO => first.min(max),
                pause => pause.saturating_mul(2).min(max),
            };
            let until = later(now, address.pause.mul_f64(1.0 - JITTER * fraction));
            address.set_state(State::Quarantined { until });
        });
    }
}

/// Pauses are shorter by up to this share, so that addresses that failed together are not probed together.
const JITTER: f64 = 0.1;

/// How much quicker one in reserve must be.
const QUICKER: f32 = 0.7;

/// For how long a probe waits that could not be made.
const GIVEN_UP_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
