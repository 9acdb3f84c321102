//! Tickets by the name of their server: bounded, newest first, those of TLS 1.3 used once.

use std::collections::VecDeque;

use keepwarm_boring_ext::Ticket;
use keepwarm_transport::tls::PeerName;
use parking_lot::Mutex;

/// Tickets of the connections of one dialer.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Shelves<Ticket>>);

impl Tickets {
    /// Keeps a ticket.
    pub(super) fn put(&self, name: &PeerName, ticket: Ticket) {
        let single = ticket.is_single_use();
        self.0.lock().put(name, ticket, single);
    }

    /// The newest ticket of a server. One of TLS 1.3 is gone with that.
    pub(super) fn take(&self, name: &PeerName) -> Option<Ticket> {
        self.0.lock().take(name, Ticket::is_single_use)
    }

    /// Drops the tickets of a server.
    pub(super) fn forget(&self, name: &PeerName) {
        self.0.lock().names.retain(|shelf| shelf.0 != *name);
    }

    /// Drops all of them.
    pub(super) fn clear(&self) {
        self.0.lock().names.clear();
    }
}

/// Names, the one used last at the end, and their tickets, newest at the end.
#[derive(Debug)]
struct Shelves<T> {
    names: Vec<(PeerName, VecDeque<T>)>,
}

impl<T> Default for Shelves<T> {
    fn default() -> Self {
        Shelves { names: Vec::new() }
    }
}

impl<T: Clone> Shelves<T> {
    fn put(&mut self, name: &PeerName, ticket: T, single: bool) {
        let mut shelf = self.remove(name).unwrap_or_else(|| (name.clone(), VecDeque::new()));
        // One that may be used often makes the older ones useless.
        if !single {
            shelf.1.clear();
        }
        if shelf.1.len() >= TICKETS_MAX {
            shelf.1.pop_front();
        }
        shelf.1.push_back(ticket);
        if self.names.len() >= NAMES_MAX {
            self.names.remove(0);
        }
        self.names.push(shelf);
    }

    fn take(&mut self, name: &PeerName, is_single_use: impl Fn(&T) -> bool) -> Option<T> {
        let mut shelf = self.remove(name)?;
        let ticket = match shelf.1.back() {
            Some(newest) if !is_single_use(newest) => Some(newest.clone()),
            _ => shelf.1.pop_back(),
        };
        if !shelf.1.is_empty() {
            self.names.push(shelf);
        }
        ticket
    }

    fn remove(&mut self, name: &PeerName) -> Option<(PeerName, VecDeque<T>)> {
        let at = self.names.iter().position(|shelf| shelf.0 == *name)?;
        Some(self.names.remove(at))
    }
}

/// A dialer belongs to one origin, which has one name; others are redirects of a caller's own making.
const NAMES_MAX: usize = 4;

/// Servers send two or so with each connection, and each is good for one: enough for a pool that starts anew.
const TICKETS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> PeerName {
        PeerName::parse(name, "test").unwrap()
    }

    #[test]
    fn the_newest_comes_first_and_once() {
        let mut shelves = Shelves::default();
        for ticket in 0..TICKETS_MAX + 3 {
            shelves.put(&name("a.example"), ticket, true);
        }
        let taken: Vec<usize> = std::iter::from_fn(|| shelves.take(&name("a.example"), |_| true)).collect();
        let expected: Vec<usize> = (3..TICKETS_MAX + 3).rev().collect();
        assert_eq!(taken, expected, "the oldest three were dropped");
    }

    #[test]
    fn one_that_may_be_used_often_stays_and_replaces_others() {
        let mut shelves = Shelves::default();
        shelves.put(&name("a.example"), 1, false);
        shelves.put(&name("a.example"), 2, false);
        assert_eq!(shelves.take(&name("a.example"), |_| false), Some(2));
        assert_eq!(shelves.take(&name("a.example"), |_| false), Some(2));
        assert_eq!(shelves.names[0].1.len(), 1);
    }

    #[test]
    fn another_name_gets_none_and_names_are_bounded() {
        let mut shelves = Shelves::default();
        for index in 0..NAMES_MAX + 1 {
            shelves.put(&name(&format!("n{index}.example")), index, true);
        }
        assert_eq!(shelves.names.len(), NAMES_MAX);
        assert_eq!(shelves.take(&name("n0.example"), |_| true), None, "used least lately");
        assert_eq!(shelves.take(&name("other.example"), |_| true), None);
        assert_eq!(shelves.take(&name("n1.example"), |_| true), Some(1));
    }
}
