//! How one tunnel comes about: what is ready, else a permit and then the upstreams that the rules allow, one after another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_transport::proxy::{Blame, Target};
use tokio::time::Instant as Clock;

use super::{ConnectOptions, Inner, Live, Trace, Tunnel, recent::Attempt, route::Route, state::State};
use crate::{
    error::{Error, ErrorKind, Side},
    meaning,
    permits::Refused,
    stream::Stream,
    upstream::{Missed, Reached, Upstream},
};

impl Inner {
    pub(super) async fn connect(
        self: &Arc<Self>,
        target: &Target,
        ConnectOptions { deadline, payload, remote }: ConnectOptions,
        attempt: &mut Attempt,
    ) -> Result<Tunnel, Error> {
        let state = self.state();
        let (route, speculate) = state.route(target)?;
        let start = Clock::now();
        if let Some(tunnel) = self.make_of_ready(&state, target, route, &payload, deadline, start).await? {
            self.used(target, speculate);
            return Ok(tunnel);
        }
        let by = |limit: Duration, since: Clock| {
            // A time without an end is one that is far away.
            let own = since.checked_add(limit).unwrap_or_else(|| since + FAR);
            deadline.map_or(own, |deadline| own.min(deadline.into()))
        };
        let limit = by(state.config.acquire_timeout, start);
        let permit = self.permits.acquire(target, limit, || self.ready.give_way()).await;
        let begun = Clock::now();
        attempt.waited = begun - start;
        let permit = permit.map_err(|refused| self.refused(target, refused, attempt.waited))?;
        self.counters.waits.lock().record(attempt.waited);
        // The wait may have been long, and another config be in force.
        let state = self.state();
        let (route, speculate) = state.route(target)?;
        let limit = by(state.config.timeout, begun).into_std();
        let (upstream, reached) = self.reach(&state, target, route, &payload, remote, limit, attempt).await?;
        let trace = Trace {
            upstream: Arc::clone(upstream.name()),
            local: reached.local,
            spare: reached.spare,
            ready: false,
            tries: attempt.tries,
            waited: attempt.waited,
            elapsed: begun.elapsed(),
        };
        tracing::debug!(%target, upstream = &*trace.upstream, spare = ?trace.spare, tries = trace.tries, elapsed = ?trace.elapsed, "tunnel");
        self.used(target, speculate);
        Ok(Tunnel::new(reached.stream, Live::new(permit, upstream.live(), trace, state.ways)))
    }

    fn used(self: &Arc<Self>, target: &Target, speculate: usize) {
        if speculate > 0 && self.ready.used(target) {
            self.open_ahead(target, speculate);
        }
    }

    /// Uses a tunnel that waits for this destination.
    async fn make_of_ready(
        &self,
        state: &State,
        target: &Target,
        route: &Route,
        payload: &[u8],
        deadline: Option<Instant>,
        start: Clock,
    ) -> Result<Option<Tunnel>, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed(target));
        }
        let leads = |name: &str| route.members.iter().any(|&index| &**state.upstreams[index].name() == name);
        // What was made by other rules or upstreams may not be what this destination gets now.
        let may = |live: &Live| live.ways() == state.ways && leads(&live.trace().upstream);
        let Some((mut stream, mut live)) = self.ready.take(target, may) else { return Ok(None) };
        if !payload.is_empty() {
            use tokio::io::AsyncWriteExt as _;
            // The peer reads, or the buffers of the kernel take what a client's first packets hold.
            let own = start.checked_add(state.config.timeout).unwrap_or_else(|| start + FAR);
            let limit = deadline.map_or(own, |deadline| own.min(deadline.into()));
            let written = tokio::time::timeout_at(limit, stream.write_all(payload)).await;
            if !matches!(written, Ok(Ok(()))) {
                let text =
                    format!("tunnel to {target}: the connection ended under its first bytes, which may have arrived");
                return Err(Error::new(ErrorKind::HostUnreachable, Side::Upstream, text));
            }
        }
        live.begin_again(start.elapsed());
        Ok(Some(Tunnel::new(stream, live)))
    }

    /// Tries the upstreams of a route in order, until one reaches the destination or the destination itself says no.
    #[expect(clippy::too_many_arguments, reason = "one wish, and what it is fulfilled with")]
    async fn reach(
        &self,
        state: &State,
        target: &Target,
        route: &Route,
        payload: &[u8],
        remote: bool,
        deadline: Instant,
        attempt: &mut Attempt,
    ) -> Result<(Arc<Upstream>, Reached), Error> {
        let may = |ip| state.rules.allows(target, ip, remote);
        let order = route.order(state, Clock::now().into_std());
        let mut last = None;
        let mut silent: Vec<(usize, keepwarm_transport::error::Error)> = Vec::new();
        for (position, &index) in order.iter().enumerate() {
            let upstream = &state.upstreams[index];
            attempt.upstream = Some(Arc::clone(upstream.name()));
            let left = order.len() - position;
            let missed = match upstream.reach(target, payload, &may, share(deadline, left)).await {
                Ok(reached) => {
                    // Where one of a group gets through, the silence of those before it was their own.
                    silent.iter().for_each(|(index, error)| state.upstreams[*index].was_silent(target, error));
                    route.served_by(index);
                    attempt.tries += reached.tries;
                    return Ok((Arc::clone(upstream), reached));
                }
                Err(missed) => missed,
            };
            attempt.tries += missed.tries;
            let Missed { error, blame, sent, asked, silent: is_silence, .. } = missed;
            let is_final = sent || blame == Blame::Destination && !is_silence;
            if is_silence {
                silent.push((index, error.clone()));
            }
            let error = meaning::of(target, error, asked, sent);
            if is_final || left == 1 || Clock::now().into_std() >= deadline {
                return Err(meaning::more_telling(last, error));
            }
            self.counters.failovers.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%target, upstream = &**upstream.name(), %error, "the next upstream is tried");
            last = Some(meaning::more_telling(last, error));
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Upstream, Side::Local, format!("tunnel to {target}: no upstream is configured"))
        }))
    }

    /// Opens tunnels to a hot destination ahead, as many as the rule says and permits are free.
    fn open_ahead(self: &Arc<Self>, target: &Target, count: usize) {
        while let Some(opening) = self.ready.opening(target, count) {
            let Some(permit) = self.permits.try_acquire(target) else { return };
            let (inner, target) = (Arc::downgrade(self), target.clone());
            tokio::spawn(async move {
                // Counted as one that is coming until it is there, or not.
                let _opening = opening;
                let Some(inner) = inner.upgrade() else { return };
                let state = inner.state();
                let Ok((route, _)) = state.route(&target) else { return };
                let (begun, mut attempt) = (Clock::now(), Attempt::default());
                let deadline = (begun + state.config.timeout.min(AHEAD_WITHIN)).into_std();
                // Nobody asked for it: a failure is found out again by whoever does.
                let reached = inner.reach(&state, &target, route, &[], true, deadline, &mut attempt).await;
                let Ok((upstream, reached)) = reached else { return };
                inner.counters.ahead.fetch_add(1, Ordering::Relaxed);
                let trace = Trace {
                    upstream: Arc::clone(upstream.name()),
                    local: reached.local,
                    spare: reached.spare,
                    ready: true,
                    tries: attempt.tries,
                    waited: Duration::ZERO,
                    elapsed: begun.elapsed(),
                };
                let live = Live::new(permit, upstream.live(), trace, state.ways);
                inner.keep(&target, reached.stream, live, AHEAD_FOR, count);
            });
        }
    }

    /// Keeps a tunnel for the next that wants one, unless it came about by what is no longer in force.
    pub(super) fn keep(&self, target: &Target, stream: Stream, live: Live, keep: Duration, max: usize) {
        if live.ways() == self.state().ways {
            self.ready.put(target, stream, live, keep, max);
        }
    }

    fn refused(&self, target: &Target, refused: Refused, waited: Duration) -> Error {
        let busy = |text: String| Error::new(ErrorKind::Busy, Side::Local, format!("tunnel to {target}: {text}"));
        let config = &self.state().config;
        let (live, max) = (config.max_per_destination, config.max_waiters);
        match refused {
            Refused::QueueFull => busy(format!("{max} wait for it already, max_waiters")),
            Refused::Destination => {
                busy(format!("its {live} live tunnels (max_per_destination) were in use for {waited:.1?}"))
            }
            Refused::All => {
                busy(format!("all {} tunnels (max_tunnels) were in use for {waited:.1?}", config.max_tunnels))
            }
            Refused::Closed => closed(target),
        }
    }
}

fn closed(target: &Target) -> Error {
    Error::new(ErrorKind::Closed, Side::Local, format!("tunnel to {target}: tunnels are closed"))
}

/// The part of the time that one of `left` upstreams gets: enough for each of those behind it, but no less than a slow one needs.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Clock::now().into_std();
    let remaining = deadline.saturating_duration_since(now);
    let equal = remaining / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + equal.max(SHARE_MIN.min(remaining / 2)).min(remaining)
}

/// A tunnel that was opened ahead is closed when nobody wants it by then.
const AHEAD_FOR: Duration = Duration::from_secs(5);

/// Longest time to open one ahead.
const AHEAD_WITHIN: Duration = Duration::from_secs(5);

/// Further away than anything that is waited for.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// What an upstream gets in any case before the next one is tried.
const SHARE_MIN: Duration = Duration::from_secs(5);
