//! What a config comes to: rules, routes and upstreams. Never changed; another config comes to another one, with the upstreams that
//! stand.

use std::sync::Arc;

use keepwarm_transport::{proxy::Target, resolve::Resolve};

use super::route::{Route, Routes};
use crate::{
    config::{PoolConfig, TunnelConfig, UpstreamConfig, UpstreamKind},
    error::{Error, ErrorKind, Side},
    rules::Rules,
    upstream::Upstream,
};

/// What a config comes to.
pub(super) struct State {
    pub(super) config: Arc<TunnelConfig>,
    pub(super) rules: Rules,
    pub(super) routes: Routes,
    /// Those of the config, and at the end the one that is always there: this machine itself.
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// Another number with each change of where tunnels go and by which way.
    pub(super) ways: u64,
}

impl State {
    /// Takes the upstreams of `before` whose settings are the same, and makes the others; they do nothing until they are begun.
    pub(super) fn new(
        config: TunnelConfig,
        before: Option<&State>,
        resolver: &Arc<dyn Resolve>,
    ) -> Result<State, String> {
        check(&config)?;
        let routes = Routes::new(&config.upstreams, &config.rules, &config.default)?;
        let own = UpstreamConfig::new("direct", UpstreamKind::Direct);
        let make = |upstream: &UpstreamConfig| {
            let known = before.iter().flat_map(|before| &before.upstreams);
            if let Some(same) = known.into_iter().find(|known| known.is_made_of(upstream, &config.roots)) {
                return Ok(Arc::clone(same));
            }
            let made = Upstream::new(upstream.clone(), &config.pool, config.breaker, resolver, &config.roots);
            made.map(Arc::new).map_err(|error| format!("upstream {}: {error}", upstream.name))
        };
        let mut upstreams: Vec<_> = config.upstreams.iter().map(make).collect::<Result<_, _>>()?;
        match before.and_then(|before| before.upstreams.last()) {
            Some(direct) => upstreams.push(Arc::clone(direct)),
            None => upstreams.push(make(&own)?),
        }
        let ways = before.map_or(0, |before| before.ways + u64::from(!before.leads_alike(&config, &upstreams)));
        let rules = Rules::new(config.rules.clone(), config.default.clone());
        Ok(State { config: Arc::new(config), rules, routes, upstreams, ways })
    }

    /// Whether every destination goes by the same upstreams.
    fn leads_alike(&self, config: &TunnelConfig, upstreams: &[Arc<Upstream>]) -> bool {
        let groups = |config: &TunnelConfig| -> Vec<_> {
            config.upstreams.iter().map(|upstream| Arc::clone(&upstream.group)).collect()
        };
        self.config.rules == config.rules
            && self.config.default == config.default
            && groups(&self.config) == groups(config)
            && self.upstreams.len() == upstreams.len()
            && self.upstreams.iter().zip(upstreams).all(|(before, now)| Arc::ptr_eq(before, now))
    }

    /// The upstreams that may be tried for a destination, and how many tunnels are opened ahead.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`].
    pub(super) fn route(&self, target: &Target) -> Result<(&Route, usize), Error> {
        let decision = self.rules.decide(target);
        let route = self.routes.find(decision.via).ok_or_else(|| {
            Error::new(ErrorKind::Rejected, Side::Client, format!("tunnel to {target}: forbidden by a rule"))
        })?;
        Ok((route, decision.speculate))
    }

    /// Whether this machine may come to connect to a destination itself.
    pub(super) fn is_direct(&self, target: &Target) -> bool {
        let route = self.routes.find(self.rules.decide(target).via);
        route.is_some_and(|route| route.members.iter().any(|&index| self.upstreams[index].is_direct()))
    }

    /// Group and priority of an upstream by its place.
    pub(super) fn place(&self, index: usize) -> (Arc<str>, u32) {
        match self.config.upstreams.get(index) {
            Some(upstream) => (Arc::clone(&upstream.group), upstream.priority),
            None => ("default".into(), self.priority(index)),
        }
    }

    /// The priority of an upstream by its place.
    pub(super) fn priority(&self, index: usize) -> u32 {
        self.config.upstreams.get(index).map_or(1, |upstream| upstream.priority)
    }
}

/// That counts agree with each other.
fn check(config: &TunnelConfig) -> Result<(), String> {
    let PoolConfig { spares, spares_min, spares_max, .. } = config.pool;
    match () {
        () if spares_min > spares || spares > spares_max => Err(format!(
            "spares_min = {spares_min}, spares = {spares} and spares_max = {spares_max} are not in this order"
        )),
        () if config.max_per_destination == 0 || config.max_tunnels == 0 => {
            Err("max_per_destination and max_tunnels must be at least 1".to_owned())
        }
        () => Ok(()),
    }
}
