//! Which address a request goes to. Looks only; the reservation is [`Book::reserve`].

use std::time::{Duration, Instant};

use super::{
    address::AddressId,
    book::{Book, List},
    dice::Dice,
};

/// See [`Inventory::choose`](super::Inventory::choose).
pub(super) fn choose(book: &Book, tried: &[AddressId], focus: usize, now: Instant, dice: &mut Dice) -> Option<u32> {
    let is_untried = |slot: u32| tried.is_empty() || !tried.contains(&book.id(slot));
    if tried.is_empty()
        && let Some(slot) = explore(book, focus, dice)
    {
        return Some(slot);
    }
    best(book, is_untried, focus, now, dice)
        .or_else(|| least(some(book.list(List::Fresh), tried, dice), is_untried, |slot| book.address(slot).in_flight))
        .or_else(|| book.rests().find(|slot| is_untried(*slot)))
        .or_else(|| least(some(book.list(List::Out), tried, dice), is_untried, |slot| badness(book, slot)))
}

/// Now and then one that would not be the best.
fn explore(book: &Book, focus: usize, dice: &mut Dice) -> Option<u32> {
    let (ready, fresh) = (book.list(List::Ready), book.list(List::Fresh));
    let odds = if ready.len() < ENOUGH { OFTEN } else { SELDOM };
    if !ready.is_empty() && !fresh.is_empty() && dice.one_in(odds) {
        // One that is tried already has not answered yet: it may be one that never does.
        let is_untouched = |slot: u32| book.address(slot).in_flight == 0;
        return some(fresh, &[], dice).find(|slot| is_untouched(*slot));
    }
    let (focus, reserve) = ready.split_at(focus.min(ready.len()));
    if focus.len() > 1 && dice.one_in(SELDOM) {
        return focus.get(dice.below(focus.len())).copied();
    }
    if !reserve.is_empty() && dice.one_in(RARELY) {
        return reserve.get(dice.below(reserve.len())).copied();
    }
    None
}

/// The least loaded of the known good ones; of many, of a sample.
fn best(book: &Book, is_untried: impl Fn(u32) -> bool, focus: usize, now: Instant, dice: &mut Dice) -> Option<u32> {
    let all = book.list(List::Ready);
    let ready = all.get(..focus).unwrap_or(all);
    let mut field = Field::new();
    let mut enter = |slot: u32| {
        let address = book.address(slot);
        if is_untried(slot) {
            field.enter(slot, address.latency.score(address.in_flight, now));
        }
    };
    if ready.len() <= FIELD {
        ready.iter().for_each(|slot| enter(*slot));
    } else {
        (0..SAMPLE).for_each(|_| enter(ready[dice.below(ready.len())]));
    }
    let sampled = field.draw(dice);
    // All of a sample, or of those in focus, may have been tried.
    sampled.or_else(|| all.iter().copied().find(|slot| all.len() > field.len && is_untried(*slot)))
}

/// Those who may win, with their scores.
struct Field {
    slots: [u32; FIELD],
    scores: [f32; FIELD],
    len: usize,
    least: f32,
}

impl Field {
    fn new() -> Field {
        Field { slots: [0; FIELD], scores: [0.0; FIELD], len: 0, least: f32::INFINITY }
    }

    fn enter(&mut self, slot: u32, score: f32) {
        if let (Some(place), Some(kept)) = (self.slots.get_mut(self.len), self.scores.get_mut(self.len)) {
            (*place, *kept) = (slot, score);
            self.len += 1;
            self.least = self.least.min(score);
        }
    }

    /// Draws one of those that are nearly as good as the best: a small difference in what was measured is no reason to leave one alone.
    fn draw(&self, dice: &mut Dice) -> Option<u32> {
        let limit = self.least * NEARLY;
        let scores = self.scores.get(..self.len)?;
        let equals = scores.iter().filter(|score| **score <= limit).count();
        let drawn = dice.below(equals);
        let mut winners = self.slots.iter().zip(scores).filter(|(_, score)| **score <= limit);
        winners.nth(drawn).map(|(slot, _)| *slot)
    }
}

/// All of a short list, and a stretch of a long one, which begins anywhere and has room for those that were tried.
fn some(list: &[u32], tried: &[AddressId], dice: &mut Dice) -> impl Iterator<Item = u32> {
    let start = dice.below(list.len());
    let (end, beginning) = list.split_at(start.min(list.len()));
    beginning.iter().chain(end).copied().take(FIELD + tried.len())
}

fn least<K: Ord>(
    slots: impl Iterator<Item = u32>,
    is_untried: impl Fn(u32) -> bool,
    key: impl Fn(u32) -> K,
) -> Option<u32> {
    slots.filter(|slot| is_untried(*slot)).min_by_key(|slot| key(*slot))
}

/// Of addresses in quarantine: who failed the fewest probes, then who has the least to do.
fn badness(book: &Book, slot: u32) -> (Duration, u32) {
    let address = book.address(slot);
    (address.pause, address.in_flight)
}

/// Up to so many are compared one by one.
const FIELD: usize = 64;

/// So many of a longer list.
const SAMPLE: usize = 16;

/// Scores within a quarter of the least are equal.
const NEARLY: f32 = 1.25;

/// So many known good addresses are enough.
const ENOUGH: usize = 8;

/// An unknown address is tried once in so many requests, while there are not enough known good ones.
const OFTEN: usize = 4;

/// And once in so many requests otherwise; so is any known good one.
const SELDOM: usize = 100;

/// One in reserve gets one request in so many: it costs a handshake, mostly.
const RARELY: usize = 1000;
