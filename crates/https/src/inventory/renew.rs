//! A running inventory under other settings, and what a new one takes over from one that ends.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Inventory, SourceId,
    access::Access,
    address::{Address, State, later},
    settings::Settings,
};

impl Inventory {
    /// Puts other settings in force. What was banned or let in at run time stays so.
    ///
    /// What is known of addresses stays known: one that was validated by another request than is asked for now stays in use. Those that
    /// the new lists refuse, and the worst beyond a lower `addresses_max`, leave once nothing is in flight; those that the new lists let
    /// in come when a source names them the next time. Pauses longer than the new `quarantine_max` end with it. Probes that are under way
    /// are given up and due at once: whoever made them is expected to end.
    pub(crate) fn renew(&mut self, settings: Settings, now: Instant) {
        self.access.set_config(&settings.allow, &settings.deny);
        self.book.set_validation(settings.needs_validation, settings.probes_candidates);
        let pause_max = later(now, settings.quarantine_max);
        for slot in self.book.all() {
            let is_refused = self.access.refuses(self.book.address(slot).ip);
            self.book.update(slot, |address| {
                restart(address, now, pause_max, settings.quarantine_max);
                if is_refused {
                    address.unnamed_by_all();
                }
            });
            self.book.forget_if_idle(slot);
        }
        self.settings = settings;
        self.shrink();
    }

    /// Sets how many known good addresses get the requests, see [`Settings::focus`].
    pub(crate) fn set_focus(&mut self, focus: usize) {
        self.settings.focus = focus;
    }

    /// Takes the names of sources that are none any more off the addresses.
    pub(crate) fn keep_sources(&mut self, is_kept: impl Fn(SourceId) -> bool) {
        for slot in self.book.all() {
            self.book.update(slot, |address| address.sources.retain(|(source, _)| is_kept(*source)));
            self.book.forget_if_idle(slot);
        }
    }

    /// Begins with the addresses of another inventory, as far as they may be used here, as candidates; and with what was banned and let in
    /// there at run time.
    pub(crate) fn inherit(&mut self, other: &Inventory, now: Instant) {
        self.access = Access::new(&self.settings.allow, &self.settings.deny).with_additions_of(&other.access);
        let mut named: BTreeMap<SourceId, Vec<IpAddr>> = BTreeMap::new();
        for address in other.book.all().into_iter().map(|slot| other.book.address(slot)) {
            for (source, _) in &address.sources {
                named.entry(*source).or_default().push(address.ip);
            }
        }
        for (source, ips) in named {
            self.found(source, ips, now);
        }
    }

    /// Whether the lists of the config, and what was let in since, are for it. Bans are apart from this.
    pub(crate) fn permits(&self, ip: IpAddr) -> bool {
        !self.access.refuses(ip.to_canonical())
    }

    /// Lets the worst go above `addresses_max`.
    fn shrink(&mut self) {
        let mut slots = self.book.all();
        slots.retain(|slot| !self.book.address(*slot).is_leaving());
        if slots.len() <= self.settings.addresses_max {
            return;
        }
        slots.sort_by_key(|slot| match self.book.address(*slot).state {
            State::Validated => 0,
            State::Candidate { .. } | State::Probing { again: false, .. } => 1,
            State::Quarantined { .. } | State::Probing { again: true, .. } => 2,
        });
        for slot in slots.split_off(self.settings.addresses_max) {
            self.book.update(slot, Address::unnamed_by_all);
            self.book.forget_if_idle(slot);
        }
    }
}

fn restart(address: &mut Address, now: Instant, pause_max: Instant, quarantine_max: Duration) {
    address.pause = address.pause.min(quarantine_max);
    match address.state {
        State::Probing { again: true, .. } => address.set_state(State::Quarantined { until: now }),
        State::Probing { again: false, .. } => address.set_state(State::Candidate { due: now }),
        State::Quarantined { until } => address.set_state(State::Quarantined { until: until.min(pause_max) }),
        State::Candidate { .. } | State::Validated => {}
    }
}
