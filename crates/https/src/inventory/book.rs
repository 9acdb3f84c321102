//! All addresses, with the lists, times and counts that follow from their states.
//!
//! An address changes through [`Book::update`] alone, which works out anew where it belongs; so lists, agenda and counts cannot
//! contradict the states.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Instant,
};

use super::{
    Choice,
    address::{Address, AddressId, PROBE_MAX, State, later},
    rows::{AddressState, Counts},
};

#[derive(Debug)]
pub(super) struct Book {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_ip: HashMap<IpAddr, u32>,
    /// By [`List`].
    lists: [Vec<u32>; List::ALL],
    /// When which slot is to be probed.
    agenda: BTreeSet<(Instant, u32)>,
    /// When which slot has rested.
    rests: BTreeSet<(Instant, u32)>,
    counts: Counts,
    needs_validation: bool,
    probes_candidates: bool,
}

/// A slot's address stays in it after it was forgotten, until the next one comes; its generation is another one by then.
#[derive(Debug)]
struct Slot {
    generation: u32,
    address: Address,
}

/// What an address may be chosen as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Known good.
    Ready,
    /// Not known yet, and usable without validation.
    Fresh,
    /// Known good or not known yet, and put to rest by the application.
    Resting,
    /// In quarantine, or probed after one.
    Out,
}

impl List {
    const ALL: usize = 4;
}

/// Where an address is listed and counted, as it follows from its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// The list, and the index in it. None: it cannot be chosen.
    list: Option<List>,
    index: usize,
    /// What it counts as; none before it is listed, and while it leaves.
    counted: Option<Counted>,
    due: Option<Instant>,
    rest_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    state: AddressState,
    is_resting: bool,
    is_banned: bool,
}

impl Book {
    pub(super) fn new(needs_validation: bool, probes_candidates: bool) -> Book {
        Book {
            slots: Vec::new(),
            free: Vec::new(),
            by_ip: HashMap::new(),
            lists: Default::default(),
            agenda: BTreeSet::new(),
            rests: BTreeSet::new(),
            counts: Counts::default(),
            needs_validation,
            probes_candidates,
        }
    }

    /// Sets what addresses need before their first use. Each is to be [updated](Self::update) after it.
    pub(super) fn set_validation(&mut self, needs_validation: bool, probes_candidates: bool) {
        (self.needs_validation, self.probes_candidates) = (needs_validation, probes_candidates);
    }

    /// `slot` is one that this book gave out.
    pub(super) fn address(&self, slot: u32) -> &Address {
        &self.slots[slot as usize].address
    }

    pub(super) fn slot(&self, id: AddressId) -> Option<u32> {
        let slot = self.slots.get(id.slot as usize)?;
        (slot.generation == id.generation).then_some(id.slot)
    }

    pub(super) fn slot_of(&self, ip: IpAddr) -> Option<u32> {
        self.by_ip.get(&ip).copied()
    }

    /// The slots of all addresses, in the order of the addresses.
    pub(super) fn all(&self) -> Vec<u32> {
        let mut all: Vec<(IpAddr, u32)> = self.by_ip.iter().map(|(ip, slot)| (*ip, *slot)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, slot)| slot).collect()
    }

    pub(super) fn list(&self, list: List) -> &[u32] {
        &self.lists[list as usize]
    }

    /// Where one that is known good is in the list of those; `None` for others.
    pub(super) fn ready_index(&self, slot: u32) -> Option<usize> {
        let place = self.address(slot).place;
        (place.list == Some(List::Ready)).then_some(place.index)
    }

    /// Gives one that is known good the place of another in the list.
    pub(super) fn swap_ready(&mut self, slot: u32, place: usize) {
        let index = self.address(slot).place.index;
        let list = &mut self.lists[List::Ready as usize];
        if let Some(other) = list.get(place).copied() {
            list.swap(index, place);
            self.slots[slot as usize].address.place.index = place;
            self.slots[other as usize].address.place.index = index;
        }
    }

    /// Those that rest or will be listed as such, the shortest rest first.
    pub(super) fn rests(&self) -> impl Iterator<Item = u32> {
        let is_listed = |slot: &u32| self.address(*slot).place.list == Some(List::Resting);
        self.rests.iter().map(|(_, slot)| *slot).filter(is_listed)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn is_usable(&self, slot: u32) -> bool {
        self.address(slot).place.list.is_some()
    }

    pub(super) fn insert(&mut self, address: Address) {
        let ip = address.ip;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize].address = address;
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len()).expect("addresses_max is far below 2^32");
                self.slots.push(Slot { generation: 0, address });
                slot
            }
        };
        self.by_ip.insert(ip, slot);
        self.update(slot, |_| ());
    }

    /// Forgets an address that no source names and no request uses.
    pub(super) fn forget_if_idle(&mut self, slot: u32) {
        let address = self.address(slot);
        if !address.is_leaving() || address.in_flight > 0 {
            return;
        }
        let ip = address.ip;
        self.by_ip.remove(&ip);
        self.update(slot, |address| address.rest_until = None);
        let slot_ref = &mut self.slots[slot as usize];
        slot_ref.generation = slot_ref.generation.wrapping_add(1);
        self.free.push(slot);
    }

    /// Changes an address, and with it all that follows.
    pub(super) fn update(&mut self, slot: u32, change: impl FnOnce(&mut Address)) {
        let address = &mut self.slots[slot as usize].address;
        change(address);
        let old = address.place;
        let new = Place::of(address, self.needs_validation, self.probes_candidates);
        if new.list != old.list {
            self.unlist(old);
            let index = new.list.map_or(0, |list| self.lists[list as usize].len());
            self.slots[slot as usize].address.place = Place { index, ..new };
            if let Some(list) = new.list {
                self.lists[list as usize].push(slot);
            }
        } else {
            address.place = Place { index: old.index, ..new };
        }
        if new.counted != old.counted {
            old.counted.into_iter().for_each(|counted| self.count(counted, |number| *number -= 1));
            new.counted.into_iter().for_each(|counted| self.count(counted, |number| *number += 1));
        }
        reschedule(&mut self.agenda, slot, old.due, new.due);
        reschedule(&mut self.rests, slot, old.rest_until, new.rest_until);
    }

    fn unlist(&mut self, place: Place) {
        let Some(list) = place.list else { return };
        let list = &mut self.lists[list as usize];
        list.swap_remove(place.index);
        if let Some(moved) = list.get(place.index) {
            self.slots[*moved as usize].address.place.index = place.index;
        }
    }

    fn count(&mut self, counted: Counted, change: impl Fn(&mut usize)) {
        change(match counted.state {
            AddressState::Candidate => &mut self.counts.candidate,
            AddressState::Validated => &mut self.counts.validated,
            AddressState::Quarantined => &mut self.counts.quarantined,
            AddressState::Probing => &mut self.counts.probing,
        });
        if counted.is_resting {
            change(&mut self.counts.resting);
        }
        if counted.is_banned {
            change(&mut self.counts.banned);
        }
    }

    /// Ends the rests whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((_, slot)) = self.rests.first().copied().filter(|(until, _)| *until <= now) {
            self.update(slot, |address| address.rest_until = None);
        }
    }

    /// The one that waits longest to be probed, if there is one.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        self.agenda.first().filter(|(due, _)| *due <= now).map(|(_, slot)| *slot)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.agenda.first().map(|(due, _)| *due)
    }

    pub(super) fn reserve(&mut self, slot: u32, now: Instant) -> Choice {
        // Neither field decides where the address is listed.
        let address = &mut self.slots[slot as usize].address;
        address.in_flight += 1;
        address.latency.chosen(now);
        let is_probe = address.is_out();
        self.choice(slot, is_probe)
    }

    /// A request ended.
    pub(super) fn release(&mut self, slot: u32) {
        // It does not decide where the address is listed either.
        let address = &mut self.slots[slot as usize].address;
        address.in_flight = address.in_flight.saturating_sub(1);
        self.forget_if_idle(slot);
    }

    pub(super) fn choice(&self, slot: u32, probe: bool) -> Choice {
        let Slot { generation, address } = &self.slots[slot as usize];
        let id = AddressId { slot, generation: *generation, turn: address.turn() };
        Choice { id, ip: address.ip, probe }
    }

    pub(super) fn id(&self, slot: u32) -> AddressId {
        self.choice(slot, false).id
    }
}

impl Place {
    fn of(address: &Address, needs_validation: bool, probes_candidates: bool) -> Place {
        if address.is_leaving() {
            return Place { rest_until: address.rest_until, ..Place::default() };
        }
        let is_resting = address.rest_until.is_some();
        let list = match address.state {
            _ if address.is_banned => None,
            _ if address.is_out() => Some(List::Out),
            State::Candidate { .. } | State::Probing { .. } if needs_validation => None,
            _ if is_resting => Some(List::Resting),
            State::Validated => Some(List::Ready),
            _ => Some(List::Fresh),
        };
        let due = match address.state {
            _ if address.is_banned => None,
            // A request finds out.
            State::Candidate { .. } if !probes_candidates => None,
            State::Candidate { due } | State::Quarantined { until: due } => Some(due),
            State::Probing { since, .. } => Some(later(since, PROBE_MAX)),
            State::Validated => None,
        };
        let state = AddressState::of(address.state);
        let counted = Some(Counted { state, is_resting, is_banned: address.is_banned });
        Place { list, index: 0, counted, due, rest_until: address.rest_until }
    }
}

fn reschedule(times: &mut BTreeSet<(Instant, u32)>, slot: u32, old: Option<Instant>, new: Option<Instant>) {
    if old == new {
        return;
    }
    old.into_iter().for_each(|time| _ = times.remove(&(time, slot)));
    new.into_iter().for_each(|time| _ = times.insert((time, slot)));
}
