//! Notices that the network may be another one: addresses or routes changed, or the machine slept.
//!
//! On Linux the kernel says so (rtnetlink, and a timer that is cancelled when the clock steps, as it does when a machine wakes
//! up): nothing is polled. Elsewhere, and where a sandbox forbids the socket, it is looked at once a second. What is
//! deliberately not here: what is done about it, and which peers matter.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

mod changes;
#[cfg(target_os = "linux")]
mod linux;
mod polling;

pub use changes::{Change, Changes};

/// Watches the network that this machine is in.
#[derive(Debug)]
pub struct NetworkWatch {
    source: Source,
    clocks: Clocks,
}

#[derive(Debug)]
enum Source {
    #[cfg(target_os = "linux")]
    Kernel(linux::Watch),
    Polling,
}

/// What was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Addresses or routes may have changed: compare [`NetworkWatch::way_to`] the peers that matter with what it was.
    Look,
    /// The machine slept: connections may be dead, though the ways are the same.
    Slept(Duration),
}

/// How this machine reaches a peer. Two that are equal take the same way; where the system tells less, fields are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The address that connections come from.
    pub source: Option<IpAddr>,
    /// The next router; `None` on the peer's own network.
    pub gateway: Option<IpAddr>,
    /// Number of the interface.
    pub interface: Option<u32>,
}

impl NetworkWatch {
    /// Begins to watch. Must be called on a tokio runtime.
    pub fn new() -> NetworkWatch {
        NetworkWatch { source: Source::new(), clocks: Clocks::read() }
    }

    /// Waits for something to look at. One change may be noticed several times in a row.
    ///
    /// # Cancel safety
    /// Cancel safe: what happens while nobody waits is noticed at the next call.
    pub async fn next(&mut self) -> Notice {
        loop {
            let look = match &mut self.source {
                #[cfg(target_os = "linux")]
                Source::Kernel(watch) => match watch.next().await {
                    Some(woken) => woken,
                    None => {
                        tracing::warn!(
                            "the kernel no longer tells of network changes: they are looked for each second"
                        );
                        self.source = Source::Polling;
                        continue;
                    }
                },
                Source::Polling => polling::next().await,
            };
            let before = std::mem::replace(&mut self.clocks, Clocks::read());
            match self.clocks.asleep_since(before) {
                Some(asleep) => return Notice::Slept(asleep),
                None if look == Woken::Network => return Notice::Look,
                // The clock was set, which is no reason to do anything.
                None => {}
            }
        }
    }

    /// How `peer` is reached now; `None` when it is not.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn way_to(&self, peer: IpAddr) -> Option<Way> {
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Kernel(watch) => watch.way_to(peer).await,
            Source::Polling => polling::way_to(peer),
        }
    }
}

impl Default for NetworkWatch {
    fn default() -> Self {
        NetworkWatch::new()
    }
}

impl Source {
    #[cfg(target_os = "linux")]
    fn new() -> Source {
        match linux::Watch::new() {
            Ok(watch) => Source::Kernel(watch),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell of network changes: they are looked for each second");
                Source::Polling
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Source {
        Source::Polling
    }
}

/// Why a source woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Addresses or routes may have changed.
    Network,
    /// The wall clock made a step.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only the kernel of Linux tells the two apart"))]
    Clock,
}

/// Our clock, which stands still while the machine sleeps, and the wall clock, which does not.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    own: Instant,
    wall: SystemTime,
}

impl Clocks {
    #[expect(clippy::disallowed_methods, reason = "the wall clock is where a sleep shows")]
    fn read() -> Clocks {
        Clocks { own: tokio::time::Instant::now().into_std(), wall: SystemTime::now() }
    }

    /// For how long the machine slept since `before`.
    fn asleep_since(self, before: Clocks) -> Option<Duration> {
        let own = self.own.saturating_duration_since(before.own);
        // A wall clock that was set back says nothing.
        let wall = self.wall.duration_since(before.wall).unwrap_or_default();
        wall.checked_sub(own).filter(|&asleep| asleep >= ASLEEP_MIN)
    }
}

/// How much further than ours the wall clock must have gone to mean that the machine slept.
const ASLEEP_MIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_wall_clock_that_went_on_alone_means_sleep_and_one_set_back_nothing() {
        let start = Clocks::read();
        let later = |own: u64, wall: i64| Clocks {
            own: start.own + Duration::from_secs(own),
            wall: match u64::try_from(wall) {
                Ok(ahead) => start.wall + Duration::from_secs(ahead),
                Err(_) => start.wall - Duration::from_secs(wall.unsigned_abs()),
            },
        };
        for (own, wall, asleep) in
            [(0, 0, None), (60, 60, None), (60, 62, None), (60, 63, Some(3)), (1, 3601, Some(3600)), (60, -60, None)]
        {
            assert_eq!(later(own, wall).asleep_since(start), asleep.map(Duration::from_secs), "{own} {wall}");
        }
    }

    #[tokio::test]
    async fn the_way_to_loopback_is_known_and_stays() {
        let watch = NetworkWatch::new();
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let way = watch.way_to(loopback).await.expect("loopback is always reached");
        assert_eq!((way.source, way.gateway), (Some(loopback), None));
        assert_eq!(watch.way_to(loopback).await, Some(way));
        assert_eq!(polling::way_to(loopback).and_then(|way| way.source), Some(loopback));
    }
}
