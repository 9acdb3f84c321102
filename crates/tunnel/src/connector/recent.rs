//! The last tunnels that were slow, or were not made, for who looks for the reason.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use tokio::time::Instant as Clock;

use super::{Connector, Tunnel};
use crate::error::{Error, ErrorKind};

/// A tunnel that was slow, or was not made.
///
/// It names the destination as the client did: whoever runs the daemon may see it, nobody else. Neither the client nor a byte of the
/// tunnel is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecentTunnel {
    /// Time since it was there, or had failed.
    pub age: Duration,
    /// Where it was to lead.
    pub target: Target,
    /// Name of the upstream that served it or was tried last; `None`: none was asked.
    pub upstream: Option<Arc<str>>,
    /// What went wrong, in a kind and in words; `None`: it was slow.
    pub error: Option<(ErrorKind, String)>,
    /// Wait for the permits.
    pub waited: Duration,
    /// From its being asked for to its end or to the destination's word, the wait included.
    pub elapsed: Duration,
    /// Age of the spare that served it; `None`: there was none, or it was not made.
    pub spare: Option<Duration>,
    /// Upstream connections that were tried.
    pub tries: u32,
}

impl RecentTunnel {
    /// As many are remembered.
    pub const MAX: usize = 128;
}

/// How far a tunnel has come.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) waited: Duration,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) tries: u32,
}

/// The last of them.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<(Clock, RecentTunnel)>>);

impl Recent {
    /// Remembers a tunnel that was asked for at `start`, if it took `slow` or was not made. What a rule of ours forbids is counted only:
    /// it would leave no room for the rest.
    pub(super) fn ended(
        &self,
        target: &Target,
        result: &Result<Tunnel, Error>,
        attempt: Attempt,
        start: Clock,
        slow: Duration,
    ) {
        let now = Clock::now();
        let (upstream, spare, tries, error) = match result {
            Ok(_) if now - start < slow => return,
            Ok(tunnel) => {
                let trace = tunnel.trace();
                (Some(Arc::clone(&trace.upstream)), trace.spare, trace.tries, None)
            }
            Err(error) if error.kind() == ErrorKind::Rejected => return,
            Err(error) => (attempt.upstream, None, attempt.tries, Some((error.kind(), error.to_string()))),
        };
        let (age, elapsed) = (Duration::ZERO, now - start);
        let row = RecentTunnel {
            age,
            target: target.clone(),
            upstream,
            error,
            waited: attempt.waited,
            elapsed,
            spare,
            tries,
        };
        let mut rows = self.0.lock();
        if rows.len() == RecentTunnel::MAX {
            rows.pop_front();
        }
        rows.push_back((now, row));
    }

    fn rows(&self) -> Vec<RecentTunnel> {
        let rows = self.0.lock().clone();
        let now = Clock::now();
        rows.into_iter().rev().map(|(at, row)| RecentTunnel { age: now.saturating_duration_since(at), ..row }).collect()
    }
}

impl Connector {
    /// The last [`RecentTunnel::MAX`] tunnels that took [`TunnelConfig::slow`](crate::config::TunnelConfig::slow) or longer, or were not
    /// made, the latest first.
    pub fn recent(&self) -> Vec<RecentTunnel> {
        self.inner.recent.rows()
    }
}
