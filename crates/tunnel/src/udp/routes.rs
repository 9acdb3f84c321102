//! Where an association's datagrams go, remembered for a while: pure, it gets `now` and tells what to do.
//!
//! What is deliberately not here: asking the rules and the resolver, which takes time, and sending.

use std::{
    collections::HashMap,
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_transport::proxy::Target;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{counters::UdpDropped, port::Queue};

/// How datagrams for one destination leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// From a socket of ours, to one of these.
    Direct(Addresses),
    /// Over the association's relay of this upstream.
    Over(Arc<str>),
}

/// The addresses of a destination, most wanted first, and the one that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    all: SmallVec<[SocketAddr; 1]>,
    used: usize,
}

/// What was found for a destination, and for how long it holds.
pub(super) type Found = (Result<Route, UdpDropped>, Duration);

/// What is to be done with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Send it now.
    Send(&'a mut Route),
    /// It was kept. Somebody must find the route and tell it with [`Routes::found`].
    Find,
    /// It was kept; the route is being looked for.
    Wait,
    /// Drop it.
    Drop(UdpDropped),
}

/// The routes of one association, at most [`ROUTES_MAX`]. The one that was not used for longest gives way.
#[derive(Debug, Default)]
pub(super) struct Routes {
    entries: HashMap<Target, Entry>,
    finding: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// When it was last used, as a count of uses.
    used: u64,
    /// The address that datagrams went to last.
    previous: Option<IpAddr>,
}

#[derive(Debug)]
enum State {
    /// Being looked for, with the datagrams that wait. -> `Known` on `found`.
    Finding(Queue<Box<[u8]>>),
    /// Looked for. -> `Finding` with the first datagram after `until`.
    Known { answer: Result<Route, UdpDropped>, until: Instant },
}

impl Routes {
    /// Tells what becomes of a datagram for `target`.
    pub(super) fn datagram(&mut self, target: &Target, data: &[u8], now: Instant) -> Next<'_> {
        self.uses += 1;
        let wants = match self.entries.get_mut(target) {
            None => true,
            Some(entry) => {
                entry.used = self.uses;
                matches!(entry.state, State::Known { until, .. } if until <= now)
            }
        };
        if wants {
            return self.find(target, data);
        }
        match &mut self.entries.get_mut(target).expect("it was there").state {
            State::Known { answer: Ok(route), .. } => Next::Send(route),
            State::Known { answer: Err(reason), .. } => Next::Drop(*reason),
            State::Finding(waiting) => match waiting.push(data.len(), || data.into()) {
                true => Next::Wait,
                false => Next::Drop(UdpDropped::Full),
            },
        }
    }

    /// Takes what was found for `target`, and gives back what waited for it.
    pub(super) fn found(&mut self, target: &Target, found: Found, now: Instant) -> Queue<Box<[u8]>> {
        let Some(entry) = self.entries.get_mut(target) else { return Queue::default() };
        let (mut answer, holds) = found;
        if let (Ok(Route::Direct(addresses)), Some(previous)) = (&mut answer, entry.previous) {
            addresses.prefer(previous);
        }
        match mem::replace(&mut entry.state, State::Known { answer, until: now + holds }) {
            State::Finding(waiting) => {
                self.finding -= 1;
                waiting
            }
            State::Known { .. } => Queue::default(),
        }
    }

    /// Changes what is known of all that leaves over `upstream`.
    pub(super) fn lost(&mut self, upstream: &str, found: &Found, now: Instant) {
        let leaves_over =
            |answer: &Result<Route, UdpDropped>| matches!(answer, Ok(Route::Over(over)) if **over == *upstream);
        for entry in self.entries.values_mut() {
            if matches!(&entry.state, State::Known { answer, .. } if leaves_over(answer)) {
                entry.state = State::Known { answer: found.0.clone(), until: now + found.1 };
            }
        }
    }

    /// Nothing that is known holds any longer, and is looked for again with the next datagram.
    pub(super) fn expire(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if let State::Known { until, .. } = &mut entry.state {
                *until = now;
            }
        }
    }

    /// The datagrams that wait, those for one destination in their order. What is found for them is not to be told to anybody.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = (Target, Box<[u8]>)> {
        self.entries.into_iter().flat_map(|(target, entry)| {
            let waiting = match entry.state {
                State::Finding(waiting) => waiting,
                State::Known { .. } => Queue::default(),
            };
            waiting.into_iter().map(move |data| (target.clone(), data))
        })
    }

    fn find(&mut self, target: &Target, data: &[u8]) -> Next<'_> {
        if self.finding == FINDING_MAX {
            return Next::Drop(UdpDropped::Full);
        }
        let mut waiting = Queue::default();
        if !waiting.push(data.len(), || data.into()) {
            return Next::Drop(UdpDropped::Full);
        }
        let previous = match self.entries.remove(target) {
            Some(Entry { state: State::Known { answer: Ok(Route::Direct(addresses)), .. }, .. }) => {
                Some(addresses.used().ip())
            }
            _ => None,
        };
        if self.entries.len() >= ROUTES_MAX {
            self.forget_one();
        }
        self.finding += 1;
        self.entries.insert(target.clone(), Entry { state: State::Finding(waiting), used: self.uses, previous });
        Next::Find
    }

    /// Forgets the route that was not used for longest. Those that are looked for stay: somebody will come with the answer.
    fn forget_one(&mut self) {
        let known = self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Known { .. }));
        let oldest = known.min_by_key(|(_, entry)| entry.used).map(|(target, _)| target.clone());
        if let Some(target) = oldest {
            self.entries.remove(&target);
        }
    }
}

impl Addresses {
    /// `None` where there is none.
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Addresses> {
        let all: SmallVec<_> = addresses.into_iter().take(ADDRESSES_MAX).collect();
        (!all.is_empty()).then_some(Addresses { all, used: 0 })
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[SocketAddr] {
        &self.all
    }

    /// The address that datagrams go to.
    pub(super) fn used(&self) -> SocketAddr {
        self.all[self.used]
    }

    /// Tries the addresses, from the one that is used on, until one of them is taken.
    pub(super) fn send(
        &mut self,
        mut send: impl FnMut(SocketAddr) -> Result<(), UdpDropped>,
    ) -> Result<(), UdpDropped> {
        for _ in 0..self.all.len() {
            match send(self.used()) {
                Err(UdpDropped::Failed) => self.used = (self.used + 1) % self.all.len(),
                result => return result,
            }
        }
        Err(UdpDropped::Failed)
    }

    /// Goes on with the address that was used before, where it is still one of these: a server whose name has several addresses in
    /// turn keeps no state across them.
    fn prefer(&mut self, previous: IpAddr) {
        if let Some(used) = self.all.iter().position(|address| address.ip() == previous) {
            self.used = used;
        }
    }
}

impl<T> IntoIterator for Queue<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_items().into_iter()
    }
}

/// Destinations remembered at a time.
const ROUTES_MAX: usize = 256;
/// Destinations looked for at a time. Each keeps a queue.
const FINDING_MAX: usize = 32;
/// Addresses of one destination.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests;
