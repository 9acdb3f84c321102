//! A worker under other settings: new ones between two events, while queries in flight end under theirs.

use std::{rc::Rc, time::Instant};

use super::{Worker, WorkerState, wheel};
use crate::{
    config::Strategy,
    local::Local,
    server::{era::Era, flight::Token, reload::News},
};

impl Worker {
    /// Puts other settings in force.
    pub(super) fn reload(self: &Rc<Worker>, News { setup, local, sockets, done }: News, now: Instant) {
        let old = self.era();
        let new = Rc::new(Era::new(&self.shared, setup, self.number, Some(&old)));
        let hedges = |era: &Era| era.config.strategy == Strategy::Hedged;
        if hedges(&old) != hedges(&new) {
            self.rewind(new.config.strategy, now);
        }
        *self.era.borrow_mut() = new;
        let former = local.map(|(number, local)| {
            let state = &mut *self.state.borrow_mut();
            state.local_number = number;
            std::mem::replace(&mut state.local, local)
        });
        if !self.stopped.get() {
            self.listen(sockets);
        }
        // Nobody may wait any more.
        let _ = done.send(former);
    }

    /// Hosts files changed. What is of settings that are no longer in force is of no account.
    pub(super) fn renamed(&self, number: u64, local: Local) {
        let state = &mut *self.state.borrow_mut();
        if state.local_number == number {
            state.local = local;
        }
    }

    /// Moves all timers to a wheel with the tick of this strategy.
    fn rewind(&self, strategy: Strategy, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let WorkerState { flights, wheel: old, .. } = state;
        let mut new = wheel(strategy, now);
        for (index, flight) in flights.iter_mut() {
            if let Some((key, at)) = &mut flight.timer {
                let token = Token { index, generation: flight.generation, exchange: 0 };
                *key = new.insert(*at, token.pack());
            }
        }
        *old = new;
        self.asleep_until.set(None);
        self.sooner.notify_one();
    }
}
