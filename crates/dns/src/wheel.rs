//! A timer wheel for many short timers: setting and cancelling one is a few instructions and no allocation.
//!
//! Times are rounded up to ticks, so a timer never fires early and at most one tick late. Nothing here reads a clock or
//! sleeps: the owner calls [`Wheel::advance`] when [`Wheel::next_tick`] has come.

use std::time::{Duration, Instant};

/// Names a timer. A key whose timer has fired or was cancelled names nothing, even when its place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    node: u32,
    generation: u32,
}

/// Timers that each carry a token, hashed by their tick into slots.
///
/// Memory is that of the most timers ever set at once. A timer further away than one turn (512 ticks, 5.12 s by default)
/// stays in its slot and is passed over once a turn.
#[derive(Debug)]
pub struct Wheel<T> {
    start: Instant,
    tick: Duration,
    /// Ticks up to and including this one have fired.
    current: u64,
    slots: Box<[Option<u32>]>,
    nodes: Vec<Node<T>>,
    free: Option<u32>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    token: T,
    /// The tick at which it fires.
    due: u64,
    generation: u32,
    set: bool,
    next: Option<u32>,
    previous: Option<u32>,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel with ticks of 10 ms.
    pub fn new(now: Instant) -> Wheel<T> {
        Wheel::with_tick(now, TICK)
    }

    /// An empty wheel; `tick` is how precise its timers are, at least 1 µs.
    pub fn with_tick(now: Instant, tick: Duration) -> Wheel<T> {
        let tick = tick.max(Duration::from_micros(1));
        Wheel { start: now, tick, current: 0, slots: vec![None; SLOTS].into(), nodes: Vec::new(), free: None, len: 0 }
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. One that is already due fires at the next tick.
    pub fn insert(&mut self, deadline: Instant, token: T) -> Key {
        let due = self.ticks(deadline, true).max(self.current + 1);
        let node = match self.free {
            Some(node) => {
                let reused = self.node_mut(node);
                (reused.token, reused.due, reused.set) = (token, due, true);
                self.free = self.node_mut(node).next;
                node
            }
            None => {
                let node = u32::try_from(self.nodes.len()).expect("fewer than 2^32 timers");
                self.nodes.push(Node { token, due, generation: 0, set: true, next: None, previous: None });
                node
            }
        };
        let slot = slot_of(due);
        let head = self.slots[slot].replace(node);
        if let Some(head) = head {
            self.node_mut(head).previous = Some(node);
        }
        let inserted = self.node_mut(node);
        (inserted.next, inserted.previous) = (head, None);
        self.len += 1;
        Key { node, generation: self.nodes[node as usize].generation }
    }

    /// Takes a timer off; its token, unless it has fired or was cancelled before.
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let node = self.nodes.get(key.node as usize)?;
        if !node.set || node.generation != key.generation {
            return None;
        }
        Some(self.remove(key.node))
    }

    /// Appends the tokens of all timers that are due by `now`: tick by tick, unless more than a turn has passed at once;
    /// within a tick in no order.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<T>) {
        let target = self.ticks(now, false);
        // After a long pause one look at each slot is enough.
        let first = (self.current + 1).max(target.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=target {
            if self.len == 0 {
                break;
            }
            let mut next = self.slots[slot_of(tick)];
            while let Some(node) = next {
                next = self.nodes[node as usize].next;
                if self.nodes[node as usize].due <= target {
                    let token = self.remove(node);
                    fired.push(token);
                }
            }
        }
        self.current = self.current.max(target);
    }

    /// When to call [`advance`](Self::advance) next; `None` while no timer is set.
    ///
    /// It is the tick of the nearest timer within one turn, found by looking at the slots in order, or else a turn ahead.
    pub fn next_tick(&self, _now: Instant) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let turn = self.current + SLOTS as u64;
        let tick = (self.current + 1..turn).find(|&tick| self.is_due_at(tick)).unwrap_or(turn);
        Some(self.start + mul(self.tick, tick))
    }

    fn is_due_at(&self, tick: u64) -> bool {
        let mut next = self.slots[slot_of(tick)];
        while let Some(node) = next {
            let node = &self.nodes[node as usize];
            if node.due <= tick {
                return true;
            }
            next = node.next;
        }
        false
    }

    fn remove(&mut self, index: u32) -> T {
        let free = self.free.replace(index);
        let node = self.node_mut(index);
        let (next, previous, token, due) = (node.next, node.previous, node.token, node.due);
        node.set = false;
        node.generation = node.generation.wrapping_add(1);
        node.next = free;
        if let Some(next) = next {
            self.node_mut(next).previous = previous;
        }
        match previous {
            Some(previous) => self.node_mut(previous).next = next,
            None => self.slots[slot_of(due)] = next,
        }
        self.len -= 1;
        token
    }

    fn node_mut(&mut self, node: u32) -> &mut Node<T> {
        &mut self.nodes[node as usize]
    }

    /// Whole ticks from the start to `at`.
    fn ticks(&self, at: Instant, up: bool) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let tick = self.tick.as_nanos();
        let ticks = if up { since.div_ceil(tick) } else { since / tick };
        u64::try_from(ticks).unwrap_or(u64::MAX / 2)
    }
}

fn mul(tick: Duration, count: u64) -> Duration {
    let nanos = tick.as_nanos() * u128::from(count);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
}

#[expect(clippy::cast_possible_truncation, reason = "less than the number of slots")]
fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

/// Precision that no client notices and that spares the machine.
const TICK: Duration = Duration::from_millis(10);

const SLOTS: usize = 512;

#[cfg(test)]
mod tests;
