//! The connections of one upstream as an operator sees and steers them.
//!
//! While an upstream is paused no tunnel is made over it: tunnels go to the next one of their group, and where there is none they fail
//! and say why. Live tunnels stay.

use std::sync::Arc;

use keepwarm_pool::{HostView, Limits, LimitsError, NamedPool, Stats, Steer, WarmUp};
use keepwarm_transport::error::{Error, ErrorKind, Phase};

use super::{Upstream, Way};

/// The pool of an upstream that has one.
struct OfUpstream(Arc<Upstream>);

impl Upstream {
    /// Its pool, by the name `tunnel.NAME`; none where this machine connects itself.
    pub(crate) fn pool(self: &Arc<Self>) -> Option<NamedPool> {
        self.steered()?;
        Some(NamedPool { name: format!("tunnel.{}", self.name()), pool: Arc::new(OfUpstream(Arc::clone(self))) })
    }

    fn steered(&self) -> Option<&dyn Steer> {
        match &self.way {
            Way::Direct(_) => None,
            Way::Proxy(spares) => Some(spares),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => Some(sessions),
        }
    }

    /// Whether an operator has said that nothing may be made over it.
    pub(crate) fn is_paused(&self) -> bool {
        match &self.way {
            Way::Direct(_) => false,
            Way::Proxy(spares) => spares.is_paused(),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.is_paused(),
        }
    }

    /// Why nothing may be made over it, where an operator has said so.
    pub(super) fn paused(&self) -> Option<Error> {
        let error = |tried| Error::new(ErrorKind::Other, Phase::Proxy, tried, "an operator has paused it");
        self.is_paused().then(|| error(format!("connect to upstream {}", self.name())))
    }
}

impl OfUpstream {
    fn pool(&self) -> &dyn Steer {
        self.0.steered().expect("it was made of one that has a pool")
    }
}

impl Steer for OfUpstream {
    fn limits(&self) -> Limits {
        self.pool().limits()
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        self.pool().set_limits(limits)
    }

    fn stats(&self) -> Stats {
        self.pool().stats()
    }

    fn hosts(&self) -> Vec<HostView> {
        self.pool().hosts()
    }

    fn flush(&self, host: Option<&str>) -> usize {
        self.pool().flush(host)
    }

    fn pause(&self, host: Option<&str>) -> usize {
        self.pool().pause(host)
    }

    fn resume(&self, host: Option<&str>) -> usize {
        self.pool().resume(host)
    }

    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp {
        self.pool().warm_up(host, n)
    }
}
