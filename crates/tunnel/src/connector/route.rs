//! What a rule's `via` stands for: the upstreams that may be tried, and how they take turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::state::State;
use crate::{
    config::{Rule, UpstreamConfig, Via},
    order::{self, Ordering as By},
};

/// All that rules can lead to.
#[derive(Debug)]
pub(super) struct Routes {
    groups: Vec<(Arc<str>, Route)>,
    upstreams: Vec<(Arc<str>, Route)>,
    direct: Route,
}

/// Upstreams that may be tried, by their place.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) members: Vec<usize>,
    turn: AtomicUsize,
    /// Place of the upstream that served last, and one; 0: none did.
    current: AtomicUsize,
}

impl Routes {
    /// Checks that every rule leads somewhere. The place after the last upstream is that of this machine itself.
    pub(super) fn new(upstreams: &[UpstreamConfig], rules: &[Rule], default: &Via) -> Result<Routes, String> {
        let mut routes = Routes { groups: Vec::new(), upstreams: Vec::new(), direct: Route::of(upstreams.len()) };
        for (index, upstream) in upstreams.iter().enumerate() {
            if routes.upstreams.iter().any(|(name, _)| *name == upstream.name) {
                return Err(format!("there are two upstreams named {}", upstream.name));
            }
            routes.upstreams.push((Arc::clone(&upstream.name), Route::of(index)));
            match routes.groups.iter_mut().find(|(name, _)| *name == upstream.group) {
                Some((_, route)) => route.members.push(index),
                None => routes.groups.push((Arc::clone(&upstream.group), Route::of(index))),
            }
        }
        for via in rules.iter().map(|rule| &rule.via).chain([default]) {
            if routes.find(via).is_none() && *via != Via::Reject {
                return Err(format!("a rule leads to {via:?}, which there is not"));
            }
        }
        Ok(routes)
    }

    /// Goes on where others stopped: a group's stand-in stays the one that it was. `place` tells where an upstream of theirs is now.
    pub(super) fn go_on(&self, before: &Routes, place: impl Fn(usize) -> Option<usize>) {
        for (name, route) in &self.groups {
            let Some((_, before)) = before.groups.iter().find(|(own, _)| own == name) else { continue };
            route.turn.store(before.turn.load(Ordering::Relaxed), Ordering::Relaxed);
            let current = before.current().and_then(&place);
            if let Some(index) = current.filter(|index| route.members.contains(index)) {
                route.served_by(index);
            }
        }
    }

    /// The upstreams of a rule; `None`: it leads nowhere.
    pub(super) fn find(&self, via: &Via) -> Option<&Route> {
        let named = |list: &'_ [(Arc<str>, Route)], name: &str| list.iter().position(|(own, _)| **own == *name);
        match via {
            Via::Direct => Some(&self.direct),
            Via::Reject => None,
            Via::Upstream(name) => named(&self.upstreams, name).map(|at| &self.upstreams[at].1),
            Via::Group(name) => named(&self.groups, name).map(|at| &self.groups[at].1),
        }
    }
}

impl Route {
    fn of(index: usize) -> Route {
        Route { members: vec![index], ..Route::default() }
    }

    /// In which order its upstreams are tried now.
    pub(super) fn order(&self, state: &State, now: Instant) -> Vec<usize> {
        if let [only] = *self.members {
            return vec![only];
        }
        let candidate = |&index: &usize| state.upstreams[index].candidate(index, state.priority(index), now);
        let mut candidates: Vec<_> = self.members.iter().map(candidate).collect();
        let by = By {
            strategy: state.config.strategy,
            switch_back: state.config.switch_back,
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            current: self.current(),
        };
        order::sort(&mut candidates, &by, now);
        candidates.iter().map(|candidate| candidate.index).collect()
    }

    fn current(&self) -> Option<usize> {
        self.current.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn served_by(&self, index: usize) {
        self.current.store(index + 1, Ordering::Relaxed);
    }
}
