//! What may be sent ahead of the proxy's word, as a canary has shown.
//!
//! A SOCKS5 client that waits for each answer pays a round trip for each step. Proxies that read what comes whenever it comes bear all
//! steps in one write; others lose it, or close. Nothing is assumed: a connection that no client is waiting for tries it first, and the
//! first failure ends it for a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How far one upstream may be run ahead of.
#[derive(Debug)]
pub(crate) struct Ahead(Mutex<State>);

#[derive(Debug)]
struct State {
    level: Pipelining,
    /// What canaries may find out at most.
    most: Pipelining,
    /// Nothing is tried before this.
    rest_until: Option<Instant>,
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
        Ahead(Mutex::new(State { level: Pipelining::None, most, rest_until: None }))
    }

    pub(crate) fn level(&self) -> Pipelining {
        self.0.lock().level
    }

    /// What a canary is to try next.
    pub(crate) fn to_try(&self, now: Instant) -> Option<Pipelining> {
        let state = self.0.lock();
        let may = state.level < state.most && state.rest_until.is_none_or(|until| now >= until);
        may.then(|| match state.level {
            Pipelining::None => Pipelining::Greeting,
            Pipelining::Greeting | Pipelining::Handshake => Pipelining::Handshake,
        })
    }

    /// A canary went through.
    pub(crate) fn proved(&self, level: Pipelining) {
        let mut state = self.0.lock();
        state.level = state.level.max(level);
    }

    /// What was sent ahead was not borne: no more of it, and nothing is tried for a while.
    pub(crate) fn failed(&self, level: Pipelining, now: Instant) {
        let mut state = self.0.lock();
        let below = match level {
            Pipelining::None | Pipelining::Greeting => Pipelining::None,
            Pipelining::Handshake => Pipelining::Greeting,
        };
        state.level = state.level.min(below);
        state.rest_until = Some(now + REST);
    }
}

/// Between what failed and the next canary.
const REST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_tried_after_the_one_before_it_and_again_a_while_after_it_failed() {
        let (ahead, now) = (Ahead::new(Pipelining::Handshake, true), Instant::now());
        assert_eq!((ahead.level(), ahead.to_try(now)), (Pipelining::None, Some(Pipelining::Greeting)));
        ahead.proved(Pipelining::Greeting);
        assert_eq!((ahead.level(), ahead.to_try(now)), (Pipelining::Greeting, Some(Pipelining::Handshake)));
        ahead.proved(Pipelining::Handshake);
        assert_eq!((ahead.level(), ahead.to_try(now)), (Pipelining::Handshake, None));
        ahead.failed(Pipelining::Handshake, now);
        assert_eq!((ahead.level(), ahead.to_try(now)), (Pipelining::Greeting, None));
        ahead.failed(Pipelining::Greeting, now);
        assert_eq!((ahead.level(), ahead.to_try(now)), (Pipelining::None, None));
        assert_eq!(ahead.to_try(now + REST), Some(Pipelining::Greeting));
        assert_eq!(Ahead::new(Pipelining::Handshake, false).to_try(now), None);
    }
}
