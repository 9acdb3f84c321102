//! The relay: carries a tunnel's bytes both ways until both ends have ended, one failed, or nothing moved for too long.
//!
//! One future, two directions, one timer. An end of one side is passed on as an end, after all its bytes; an error as a reset, so
//! that a truncated stream is never taken for a whole one. A direction holds memory or a pipe only while it has bytes that their
//! receiver does not take yet, and reads nothing more until it took them.
//!
//! What is deliberately not here: permits, and what is told about a tunnel that has ended.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Traffic, config::TunnelConfig, stream::Stream};

mod copy;
mod direction;
mod part;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(test)]
mod tests;

use direction::{Direction, End};

/// How long a tunnel may be silent, and by what means its bytes are carried.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Without a byte in either direction the tunnel ends after this.
    pub idle_timeout: Duration,
    /// The same, once one side has ended.
    pub half_open_timeout: Duration,
    /// Whether bulk between two plain TCP streams is spliced on Linux. Off for comparison.
    pub splice: bool,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayEnd {
    /// What ended it.
    pub reason: RelayReason,
}

/// What ended a tunnel. All but [`Closed`](RelayReason::Closed) are passed on as a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayReason {
    /// Both sides ended their streams, and each got all bytes of the other.
    Closed,
    /// No byte in either direction for `idle_timeout`.
    IdleTimeout,
    /// One side had ended; no byte came from the other for `half_open_timeout`.
    HalfOpenTimeout,
    /// The client's connection failed. What it had sent before was delivered.
    ClientFailed(io::ErrorKind),
    /// The upstream's connection failed. What it had sent before was delivered.
    UpstreamFailed(io::ErrorKind),
}

/// Carries bytes between `client` and `upstream` until the tunnel has ended, and counts in `traffic` what each side was given.
///
/// Sockets should have `TCP_NODELAY`, as those of a tunnel and of a server's clients have: what comes in small pieces leaves in them.
///
/// Memory is bounded: at most 256 KiB or a pipe of 1 MiB for a direction whose receiver is slower than its sender, nothing for one
/// that is silent. After a failure, what the other side still has to get is sent before that side is reset, for 10 s at most.
///
/// # Cancel safety
/// Dropping the future closes both connections; bytes on their way are lost.
pub async fn relay(client: Stream, upstream: Stream, options: &RelayOptions, traffic: &Traffic) -> RelayEnd {
    relay_from((client, Bytes::new()), (upstream, Bytes::new()), options, traffic).await
}

/// The same for streams of which some bytes were read already. Those are delivered, and counted, like all others.
///
/// # Cancel safety
/// As [`relay`].
pub(crate) async fn relay_from(
    client: (Stream, Bytes),
    upstream: (Stream, Bytes),
    options: &RelayOptions,
    traffic: &Traffic,
) -> RelayEnd {
    let mut relay = Relay::new(client, upstream, options, traffic);
    let reason = {
        let mut timer = pin!(sleep_until(relay.deadline()));
        poll_fn(|cx| relay.poll(cx, timer.as_mut())).await
    };
    relay.part(reason).await;
    RelayEnd { reason }
}

struct Relay<'a> {
    client: Stream,
    upstream: Stream,
    /// From the client to the upstream.
    up: Direction,
    /// From the upstream to the client.
    down: Direction,
    /// When a byte last moved, or a side ended.
    active: Instant,
    /// Whether the timer was set with one side ended.
    half_open: bool,
    /// Whether the timer was set to look at a side that is not read.
    watched: bool,
    options: &'a RelayOptions,
    traffic: &'a Traffic,
}

impl Relay<'_> {
    fn new<'a>(
        (client, of_client): (Stream, Bytes),
        (upstream, of_upstream): (Stream, Bytes),
        options: &'a RelayOptions,
        traffic: &'a Traffic,
    ) -> Relay<'a> {
        let splice = options.splice && client.as_tcp().is_some() && upstream.as_tcp().is_some();
        Relay {
            client,
            upstream,
            up: Direction::new(&of_client, splice),
            down: Direction::new(&of_upstream, splice),
            active: Instant::now(),
            half_open: false,
            watched: false,
            options,
            traffic,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<RelayReason> {
        let before = (self.up.progress(), self.down.progress());
        let passes_end = is_told(&self.upstream, &self.down);
        self.up.poll(cx, &mut self.client, &mut self.upstream, &self.traffic.sent, passes_end);
        let passes_end = is_told(&self.client, &self.up);
        self.down.poll(cx, &mut self.upstream, &mut self.client, &self.traffic.received, passes_end);
        if let Some(reason) = self.verdict() {
            return Poll::Ready(reason);
        }
        if before != (self.up.progress(), self.down.progress()) {
            self.active = Instant::now();
        }
        let half_open = self.up.source_ended() || self.down.source_ended();
        let watched = half_open || self.up.is_held() || self.down.is_held();
        if half_open && !self.half_open || watched && !self.watched {
            (self.half_open, self.watched) = (half_open, watched);
            timer.as_mut().reset(self.deadline());
        }
        self.poll_timer(cx, timer)
    }

    /// What the ends of both directions come to.
    fn verdict(&self) -> Option<RelayReason> {
        match (self.up.end(), self.down.end()) {
            (Some(End::Closed), Some(End::Closed)) => Some(RelayReason::Closed),
            // Reading it failed: all that came of it was delivered, and nothing can be given to it. Or it takes nothing any more, and
            // what it had sent was delivered.
            (Some(End::FromFailed(kind)), _) => Some(RelayReason::ClientFailed(kind)),
            (_, Some(End::FromFailed(kind))) | (Some(End::ToFailed(kind)), Some(_)) => {
                Some(RelayReason::UpstreamFailed(kind))
            }
            (Some(_), Some(End::ToFailed(kind))) => Some(RelayReason::ClientFailed(kind)),
            _ => None,
        }
    }

    /// Ends the tunnel when it was silent for too long. The timer is not touched when bytes move, but for the first that their receiver
    /// does not take: it looks at the last of them when it fires, and is set anew.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<RelayReason> {
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.silent_until() {
                let reason = if self.half_open { RelayReason::HalfOpenTimeout } else { RelayReason::IdleTimeout };
                return Poll::Ready(reason);
            }
            if let Some(reason) = self.hidden_failure() {
                return Poll::Ready(reason);
            }
            self.watched = self.half_open || self.up.is_held() || self.down.is_held();
            timer.as_mut().reset(self.deadline());
        }
        Poll::Pending
    }

    /// When the tunnel ends if nothing moves.
    fn silent_until(&self) -> Instant {
        let timeout = if self.half_open { self.options.half_open_timeout } else { self.options.idle_timeout };
        self.active.checked_add(timeout).unwrap_or_else(|| self.active + FAR)
    }

    /// When to look next.
    fn deadline(&self) -> Instant {
        let silent = self.silent_until();
        if self.watched { silent.min(Instant::now() + CHECK) } else { silent }
    }

    /// A side is not read once it has ended, and while the other takes nothing: only a look tells that it was reset since.
    ///
    /// What it had sent still goes to the other, as long as that takes some of it.
    fn hidden_failure(&mut self) -> Option<RelayReason> {
        let is_stalled = self.active.elapsed() >= self.patience();
        let client = failure(&self.client, &mut self.up, &self.down, is_stalled);
        let upstream = failure(&self.upstream, &mut self.down, &self.up, is_stalled);
        client.map(RelayReason::ClientFailed).or(upstream.map(RelayReason::UpstreamFailed))
    }

    /// How long a side that takes nothing is waited for once the other has failed.
    fn patience(&self) -> Duration {
        LINGER.min(self.options.half_open_timeout)
    }

    /// Leaves both sides so that each can tell whether it has all of the other.
    async fn part(self, reason: RelayReason) {
        let wait = self.patience();
        match reason {
            RelayReason::Closed => {}
            RelayReason::IdleTimeout | RelayReason::HalfOpenTimeout => {
                part::reset(self.client);
                part::reset(self.upstream);
            }
            RelayReason::ClientFailed(_) => {
                part::reset(self.client);
                part::reset_after_delivery(self.upstream, wait).await;
            }
            RelayReason::UpstreamFailed(_) => {
                part::reset(self.upstream);
                part::reset_after_delivery(self.client, wait).await;
            }
        }
    }
}

/// Whether `stream` is told of the other side's end. `from` carries what it sends.
fn is_told(stream: &Stream, from: &Direction) -> bool {
    match from.end() {
        // Whoever cannot be given its bytes any more gets a reset in the end, so it is not told before that the stream is whole.
        Some(End::ToFailed(_)) => false,
        // It has ended itself and was read to its end: that its socket is closed now tells it, and spares a system call.
        Some(End::Closed) => stream.as_tcp().is_none(),
        Some(End::FromFailed(_)) | None => true,
    }
}

/// What `stream` has failed with, where nothing more comes of waiting: `from` carries what it sends, `to` what it is sent.
fn failure(stream: &Stream, from: &mut Direction, to: &Direction, is_stalled: bool) -> Option<io::ErrorKind> {
    if from.source_failure().is_none()
        && (from.source_ended() || from.is_held())
        && let Some(error) = part::socket(stream).and_then(|tcp| tcp.take_error().ok().flatten())
    {
        from.found(error.kind());
    }
    let refused = match to.end() {
        Some(End::ToFailed(kind)) if from.is_held() => Some(kind),
        _ => None,
    };
    from.source_failure().or(refused).filter(|_| is_stalled || from.end().is_some())
}

impl From<&TunnelConfig> for RelayOptions {
    fn from(config: &TunnelConfig) -> RelayOptions {
        RelayOptions { idle_timeout: config.idle_timeout, half_open_timeout: config.half_open_timeout, splice: true }
    }
}

/// How often a side that is not read is looked at.
const CHECK: Duration = Duration::from_secs(10);
/// Longest wait for the bytes of a failed side to leave before the other side is reset, and for one that takes none of them.
const LINGER: Duration = Duration::from_secs(10);
/// Stands for a time-out beyond what the clock can tell.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);
