//! What may be sent ahead of the proxy's word, as a canary has shown.
//!
//! A SOCKS5 client that waits for each answer pays a round trip for each step. Proxies that read what comes whenever it comes bear all
//! steps in one write; others lose it, or close. Nothing is assumed: a connection that no client is waiting for tries it first, and the
//! first failure ends it.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far one upstream may be run ahead of.
#[derive(Debug)]
pub(crate) struct Ahead {
    level: AtomicU8,
    /// Whether a canary still has something to find out.
    untried: AtomicU8,
}

/// What may go ahead; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pipelining {
    /// Nothing: each step waits for the answer to the one before it.
    None,
    /// The password, before the method was chosen.
    Greeting,
    /// The CONNECT with its first payload, before anything was answered.
    Handshake,
}

impl Pipelining {
    const ALL: [Pipelining; 3] = [Pipelining::None, Pipelining::Greeting, Pipelining::Handshake];

    /// `none`, `greeting` or `handshake`.
    pub fn as_str(self) -> &'static str {
        match self {
            Pipelining::None => "none",
            Pipelining::Greeting => "greeting",
            Pipelining::Handshake => "handshake",
        }
    }
}

impl Ahead {
    /// Nothing is known; with `allowed` canaries may find out as much as `most`.
    pub(super) fn new(most: Pipelining, allowed: bool) -> Ahead {
        let most = if allowed { most } else { Pipelining::None };
        Ahead { level: AtomicU8::new(Pipelining::None as u8), untried: AtomicU8::new(most as u8) }
    }

    pub(crate) fn level(&self) -> Pipelining {
        Pipelining::ALL[usize::from(self.level.load(Ordering::Relaxed)).min(2)]
    }

    /// What a canary is to try next.
    pub(crate) fn to_try(&self) -> Option<Pipelining> {
        let (level, untried) = (self.level.load(Ordering::Relaxed), self.untried.load(Ordering::Relaxed));
        (level < untried).then(|| Pipelining::ALL[usize::from(level + 1).min(2)])
    }

    /// A canary went through.
    pub(crate) fn proved(&self, level: Pipelining) {
        self.level.fetch_max(level as u8, Ordering::Relaxed);
    }

    /// What was sent ahead was not borne: no more of it, for good.
    pub(crate) fn failed(&self, level: Pipelining) {
        let below = (level as u8).saturating_sub(1);
        self.level.fetch_min(below, Ordering::Relaxed);
        self.untried.fetch_min(below, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_tried_after_the_one_before_it_and_given_up_for_good() {
        let ahead = Ahead::new(Pipelining::Handshake, true);
        assert_eq!((ahead.level(), ahead.to_try()), (Pipelining::None, Some(Pipelining::Greeting)));
        ahead.proved(Pipelining::Greeting);
        assert_eq!((ahead.level(), ahead.to_try()), (Pipelining::Greeting, Some(Pipelining::Handshake)));
        ahead.failed(Pipelining::Handshake);
        assert_eq!((ahead.level(), ahead.to_try()), (Pipelining::Greeting, None));
        ahead.failed(Pipelining::Greeting);
        assert_eq!((ahead.level(), ahead.to_try()), (Pipelining::None, None));
        assert_eq!(Ahead::new(Pipelining::Handshake, false).to_try(), None);
    }
}
