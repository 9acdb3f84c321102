//! What a config makes of a server: all that a reload may change, made whole before any of it is in force.
//!
//! What of the old one still serves is taken over, so an upstream that stays is the same object, with its connections and all that is
//! known of it. Not here: sockets on which clients come in ([`bind`](super::bind)), and how the new one gets into force
//! ([`reload`](super::reload)).

use std::sync::{Arc, atomic::AtomicU64};

use tokio::time::Instant as Clock;

use super::{
    StartError,
    access::Access,
    limit::Limiter,
    pools::Pools,
    query_log::{LogThread, QueryLog},
    tls::Encryption,
};
use crate::{
    cache::Cache,
    config::DnsConfig,
    strategy::{budget::HedgeBudget, groups::Groups},
    upstream::{Upstream, resolver},
};

/// A config and what belongs to it.
pub(crate) struct Setup {
    pub(crate) config: DnsConfig,
    /// In the order of the config.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) groups: Groups,
    pub(crate) hedges: Arc<HedgeBudget>,
    pub(crate) access: Arc<Access>,
    pub(crate) encryption: Option<Arc<Encryption>>,
    /// What HTTP responses say of HTTP/3.
    pub(crate) alt_svc: Option<http::HeaderValue>,
    /// Limits of single clients; `None` when there are none.
    pub(crate) limiter: Option<Arc<Limiter>>,
    pub(crate) cache: Option<Arc<Cache>>,
    pub(crate) query_log: Option<Arc<QueryLog>>,
    /// Queries that this query log and those before it do not tell of.
    pub(crate) unlogged: Arc<AtomicU64>,
}

impl Setup {
    /// What `config` makes of a server whose setup was `old`, and the thread of its query log, if that is new.
    ///
    /// # Errors
    /// When something cannot be had. Nothing has changed then.
    pub(super) fn new(
        config: DnsConfig,
        pools: &Pools,
        old: Option<&Setup>,
    ) -> Result<(Setup, Option<LogThread>), StartError> {
        let workers = pools.datagrams.pools().len();
        Pools::check(&config, workers)?;
        let groups = Groups::new(&config).map_err(StartError::Groups)?;
        let upstreams = upstreams(&config, pools, old)?;
        let encryption = match old.filter(|old| Encryption::is_same(&old.config, &config)) {
            Some(Setup { encryption: Some(same), .. }) => Encryption::wanted(&config)?.map(|_| same.clone()),
            _ => Encryption::new(&config)?,
        };
        let unlogged = old.map_or_else(Arc::default, |old| old.unlogged.clone());
        let (query_log, thread) = match old.filter(|old| old.config.query_log == config.query_log) {
            Some(old) => (old.query_log.clone(), None),
            None => {
                let (log, thread) = QueryLog::open(&config.query_log, &unlogged).map_err(StartError::QueryLog)?.unzip();
                (log.map(Arc::new), thread)
            }
        };
        let hedges = old.filter(|old| old.config.hedge == config.hedge).map(|old| old.hedges.clone());
        let limiter = |old: &Setup| old.limiter.clone().filter(|_| old.config.clients == config.clients);
        let now = Clock::now().into_std();
        let setup = Setup {
            cache: cache(&config, &upstreams, workers, old),
            upstreams,
            groups,
            hedges: hedges.unwrap_or_else(|| Arc::new(HedgeBudget::new(config.hedge))),
            access: match old {
                Some(old) => old.access.renewed(config.allow.clone(), config.clients.clone()),
                None => Access::new(config.allow.clone(), config.clients.clone()),
            },
            encryption,
            alt_svc: None,
            limiter: match old {
                Some(old) => limiter(old).or_else(|| {
                    Limiter::renewed(old.limiter.as_deref(), &old.config.clients, &config.clients, now).map(Arc::new)
                }),
                None => Limiter::new(&config.clients, now).map(Arc::new),
            },
            query_log,
            unlogged,
            config,
        };
        Ok((setup, thread))
    }
}

fn upstreams(config: &DnsConfig, pools: &Pools, old: Option<&Setup>) -> Result<Vec<Arc<Upstream>>, StartError> {
    let resolver = resolver(&config.bootstrap);
    let mut known: Vec<_> =
        old.into_iter().flat_map(|old| old.config.upstreams.iter().zip(&old.upstreams)).map(Some).collect();
    let mut upstreams = Vec::new();
    for upstream in &config.upstreams {
        let same = known.iter_mut().find(|known| {
            known.zip(old).is_some_and(|((before, _), old)| {
                before.name == upstream.name && Upstream::is_same((before, &old.config), (upstream, config))
            })
        });
        upstreams.push(match same.and_then(Option::take) {
            Some((_, same)) => same.clone(),
            None => Arc::new(Upstream::new(upstream, config, &resolver, pools).map_err(StartError::Roots)?),
        });
    }
    Ok(upstreams)
}

/// The cache, with its answers where they still hold: those of other routes may be from another horizon, and those of other upstreams
/// from one that is trusted no more, or does not filter as the one that came. Queries in flight fill the cache that they began with.
fn cache(config: &DnsConfig, upstreams: &[Arc<Upstream>], workers: usize, old: Option<&Setup>) -> Option<Arc<Cache>> {
    let holds = |old: &&Setup| {
        old.config.routes == config.routes
            && old.config.fallback == config.fallback
            && sources(&old.config, &old.upstreams) == sources(config, upstreams)
    };
    let kept = old.filter(holds).and_then(|old| {
        let cache = old.cache.as_ref()?;
        if old.config.cache == config.cache { Some(cache.clone()) } else { cache.renewed(&config.cache).map(Arc::new) }
    });
    kept.or_else(|| Cache::new(&config.cache, workers, rand::random()).map(Arc::new))
}

/// Who answers, and in which group, in an order of its own: each upstream by its identity.
fn sources<'a>(config: &'a DnsConfig, upstreams: &[Arc<Upstream>]) -> Vec<(&'a str, *const Upstream)> {
    let groups = config.upstreams.iter().map(|upstream| &*upstream.group);
    let mut sources: Vec<_> = groups.zip(upstreams.iter().map(Arc::as_ptr)).collect();
    sources.sort_unstable();
    sources
}
