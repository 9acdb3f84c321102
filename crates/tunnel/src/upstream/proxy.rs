//! A tunnel over a proxy: a spare and one CONNECT.
//!
//! A spare that turns out to be dead is replaced by a fresh connection, once and unseen, as long as no payload left; one that is silent
//! gets a fresh connection beside it. Only what a fresh connection then proves is learned from: a destination that a proxy answers with
//! its end, or slowly, says nothing about the age of spares.

use std::{
    io,
    pin::pin,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Blame, ProxyProtocol, Target},
};
use tokio::time::Instant as Clock;

use super::{Missed, Reached, Upstream};
use crate::spares::{Pipelining, Spares, Taken};

impl Upstream {
    pub(super) async fn over_proxy(
        &self,
        spares: &Spares,
        target: &Target,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<Reached, Missed> {
        spares.asked();
        let Some(taken) = spares.take_ready() else {
            self.missed();
            return self.dialled(spares, target, deadline).await;
        };
        self.counters.ages.lock().record(taken.idle_for);
        if !payload.is_empty() && spares.level() == Pipelining::Handshake && spares.is_young(taken.idle_for) {
            self.hit();
            return with_payload(taken, target, payload, deadline).await;
        }
        let age = taken.idle_for;
        let mut first = pin!(over(taken, target, deadline));
        match tokio::time::timeout(self.patience(), &mut first).await {
            Ok(Ok(reached)) => {
                self.hit();
                spares.worked(age);
                return Ok(reached);
            }
            Ok(Err(failed)) if failed.is_dead() => {
                self.missed();
                return self.again(spares, target, &failed, age, deadline).await;
            }
            Ok(Err(failed)) => {
                self.hit();
                return Err(failed.missed(1));
            }
            Err(_) => {}
        }
        // The proxy may have forgotten it, or the destination may be slow: whichever answers first is right.
        self.counters.hedged.fetch_add(1, Ordering::Relaxed);
        let begun = Clock::now();
        let mut second = pin!(self.fresh(spares, target, deadline));
        tokio::select! {
            reached = &mut first => match reached {
                Ok(reached) => {
                    self.hit();
                    Ok(Reached { tries: 2, ..reached })
                }
                Err(failed) if failed.is_dead() => {
                    self.missed();
                    second.await
                }
                Err(failed) => {
                    self.hit();
                    Err(failed.missed(2))
                }
            },
            reached = &mut second => match reached {
                Ok(reached) => {
                    self.missed();
                    // A destination that answers one at once and keeps the other waiting for longer than that is rare.
                    if begun.elapsed() < self.patience() / 2 {
                        spares.silent(age);
                    }
                    Ok(reached)
                }
                Err(missed) if missed.is_answer() => {
                    self.missed();
                    Err(missed)
                }
                Err(_) => {
                    let reached = first.await;
                    match &reached {
                        Err(failed) if failed.is_dead() => self.missed(),
                        _ => self.hit(),
                    }
                    reached.map(|reached| Reached { tries: 2, ..reached }).map_err(|failed| failed.missed(2))
                }
            },
        }
    }

    /// A spare was dead: once more, over a connection that is dialled from now on. If that gets an answer, it was the spare's age.
    async fn again(
        &self,
        spares: &Spares,
        target: &Target,
        failed: &Failed,
        age: Duration,
        deadline: Instant,
    ) -> Result<Reached, Missed> {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        let reached = self.fresh(spares, target, deadline).await;
        let has_answered = match &reached {
            Ok(_) => true,
            Err(missed) => missed.is_answer(),
        };
        if has_answered && !matches!(failed, Failed::Early(_)) {
            spares.stale(age);
        }
        reached
    }

    /// There is no spare: over the next connection that is made, whoever it was made for.
    async fn dialled(&self, spares: &Spares, target: &Target, deadline: Instant) -> Result<Reached, Missed> {
        let (missed, limit) = (|error| Missed::new(error, 1), self.dial_deadline(deadline));
        if spares.level() == Pipelining::Handshake {
            match spares.connected(target, limit, deadline).await {
                Ok(stream) => {
                    return Ok(Reached { stream: stream.into(), local: None, spare: None, tries: 1, sent: false });
                }
                // It may not bear it any more; step by step it is known to work.
                Err(error) if Blame::of(&error) == Blame::Proxy => return self.fresh(spares, target, deadline).await,
                Err(error) => {
                    let missed = missed(error);
                    // What this machine lacks, or the proxy's own name, says nothing of the destination.
                    return Err(if missed.blame == Blame::Local { missed.not_asked() } else { missed });
                }
            }
        }
        let taken = spares.take(false, limit).await.map_err(|error| missed(error).not_asked())?;
        let (was_ready, age) = (taken.was_ready, taken.idle_for);
        match over(taken, target, deadline).await {
            Ok(reached) => Ok(reached),
            // A spare that became ready meanwhile, and is no better than any other.
            Err(failed) if was_ready && failed.is_dead() => self.again(spares, target, &failed, age, deadline).await,
            Err(failed) => Err(failed.missed(1)),
        }
    }

    /// Over a connection that is dialled now, after another one was tried.
    pub(super) async fn fresh(&self, spares: &Spares, target: &Target, deadline: Instant) -> Result<Reached, Missed> {
        let taken = spares.take(true, self.dial_deadline(deadline)).await;
        let taken = taken.map_err(|error| Missed::new(error, 2).not_asked())?;
        let reached = over(taken, target, deadline).await.map_err(|failed| failed.missed(2))?;
        Ok(Reached { tries: 2, ..reached })
    }

    /// For how long a spare may be silent before a fresh connection is tried beside it.
    pub(super) fn patience(&self) -> Duration {
        self.vitals.latency().map_or(PATIENCE_UNKNOWN, |latency| (latency * 4).clamp(PATIENCE_MIN, PATIENCE_MAX))
    }

    /// A spare served.
    fn hit(&self) {
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// There was no spare, or it was of no use.
    fn missed(&self) {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why there is no tunnel over one connection.
#[derive(Debug)]
pub(super) enum Failed {
    /// An answer that was there before the proxy can have been asked: it belongs to nobody.
    Early(Error),
    /// What the connection ended with, or the proxy said.
    Said(Error),
    /// The proxy greeted us a moment ago, and answers this destination with its end: `ssh -D` does where others reply. It is alive.
    Declined(Error),
}

impl Failed {
    /// Whether the connection ended, or said something that is no answer. A refusal is one.
    pub(super) fn is_dead(&self) -> bool {
        match self {
            Failed::Early(_) => true,
            Failed::Said(error) => is_dead(error),
            Failed::Declined(_) => false,
        }
    }

    pub(super) fn missed(self, tries: u32) -> Missed {
        match self {
            Failed::Early(error) | Failed::Said(error) => Missed::new(error, tries),
            Failed::Declined(error) => Missed { blame: Blame::Declined, ..Missed::new(error, tries) },
        }
    }
}

/// Asks for the destination over one connection.
pub(super) async fn over(taken: Taken, target: &Target, deadline: Instant) -> Result<Reached, Failed> {
    let Taken { greeted, idle_for, was_ready, round_trip } = taken;
    let start = Clock::now();
    let has_greeted = greeted.proxy().protocol == ProxyProtocol::Socks5;
    let stream = greeted.connect(target, deadline).await.map_err(|error| match error {
        error if has_greeted && !was_ready && has_ended(&error) => Failed::Declined(error),
        error => Failed::Said(error),
    })?;
    if was_ready {
        not_early(start, round_trip, target)?;
    }
    Ok(Reached { stream: stream.into(), local: None, spare: was_ready.then_some(idle_for), tries: 1, sent: false })
}

/// Over a young spare, with the first bytes ahead of the proxy's word. What fails now is not tried again unless the proxy refused: they
/// may have arrived.
async fn with_payload(taken: Taken, target: &Target, payload: &[u8], deadline: Instant) -> Result<Reached, Missed> {
    let Taken { greeted, idle_for, round_trip, .. } = taken;
    let start = Clock::now();
    let reached = match greeted.connect_with(target, payload, deadline).await {
        Ok(stream) => not_early(start, round_trip, target).map(|()| stream),
        Err(error) => Err(Failed::Said(error)),
    };
    match reached {
        Ok(stream) => Ok(Reached { stream: stream.into(), local: None, spare: Some(idle_for), tries: 1, sent: true }),
        Err(failed) => {
            let missed = failed.missed(1);
            Err(Missed { sent: !missed.is_answer(), ..missed })
        }
    }
}

/// Refuses an answer that came sooner than any can: it had been written before the proxy was asked.
fn not_early(asked: Clock, round_trip: Duration, target: &Target) -> Result<(), Failed> {
    if round_trip <= ROUND_TRIP_MIN || asked.elapsed() >= round_trip / 4 {
        return Ok(());
    }
    let tried = format!("connect to {target} through the upstream");
    let happened = "the proxy answered before it can have been asked";
    Err(Failed::Early(Error::new(ErrorKind::Proxy, Phase::Proxy, tried, happened)))
}

/// Whether the proxy ended the connection, and did not say something that is no answer.
fn has_ended(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    is_dead(error)
        && source.is_some_and(|source| {
            matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            )
        })
}

/// Whether a connection was dead.
pub(super) fn is_dead(error: &Error) -> bool {
    error.kind() == ErrorKind::Proxy
}

/// Round trips below this are too short to tell an answer from what was there before.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(5);

/// Bounds of the time that a spare may be silent.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// The same before the upstream's latency is known.
const PATIENCE_UNKNOWN: Duration = Duration::from_secs(3);
