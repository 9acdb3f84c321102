//! The settings of a server as one worker uses them: the same for all that begins while they are in force, until it has ended.

use std::{ops::Deref, rc::Rc, sync::Arc};

use super::{
    Shared,
    flight::Token,
    pools::Pools,
    route::{Designated, Path, Route},
    setup::Setup,
    worker::Chooser,
};
use crate::{config::Strategy, upstream::Upstream};

/// What a config makes of one worker.
pub(crate) struct Era {
    setup: Arc<Setup>,
    /// In the order of the config. One whose upstream stays is the same in the next era, with what the worker knows of it.
    pub(super) routes: Vec<Rc<Route>>,
    /// Where upstreams are not simply all asked in the order of the config.
    pub(super) chooser: Option<Chooser>,
    /// Some plain upstream has an encrypted face, or is asked for it.
    pub(super) designates: bool,
    /// Queries that the worker may have in flight.
    pub(super) flights_max: usize,
}

impl Deref for Era {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        &self.setup
    }
}

impl Era {
    /// The era of worker `number` after `old`.
    pub(super) fn new(shared: &Shared, setup: Arc<Setup>, number: usize, old: Option<&Era>) -> Era {
        let strategy = setup.config.strategy;
        let route = |upstream: &Arc<Upstream>| {
            let known =
                old.and_then(|old| old.routes.iter().find(|route| Arc::ptr_eq(&route.main.endpoint, &upstream.main)));
            match known {
                Some(route) if old.is_some_and(|old| old.config.strategy == strategy) => route.clone(),
                known => Rc::new(make(upstream, &shared.pools, number, strategy, known)),
            }
        };
        let routes: Vec<_> = setup.upstreams.iter().map(route).collect();
        let flights_max = setup.config.clients.max_in_flight / shared.workers;
        Era {
            chooser: Chooser::new(&setup.config, &setup.groups),
            designates: routes.iter().any(|route| route.designated.is_some()),
            flights_max: flights_max.clamp(1, Token::FLIGHTS_MAX - 1),
            routes,
            setup,
        }
    }
}

/// A way to an upstream. Of one that is `known` what was measured holds on.
fn make(upstream: &Upstream, pools: &Pools, number: usize, strategy: Strategy, known: Option<&Rc<Route>>) -> Route {
    let path = |endpoint, known: Option<&Path>| {
        let (pool, key) = pools.of(endpoint, number);
        let path = Path::new(endpoint, pool, &key, strategy);
        match known {
            Some(known) => path.after(known),
            None => path,
        }
    };
    Route {
        main: path(&upstream.main, known.map(|route| &route.main)),
        tcp: upstream.tcp.as_ref().map(|tcp| path(tcp, known.and_then(|route| route.tcp.as_ref()))),
        designated: upstream.ddr.as_ref().map(|ddr| Designated::new(ddr, &pools.streams, strategy)),
    }
}
