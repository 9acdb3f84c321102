//! Another network, or the same one after a sleep: what is known of peers no longer holds, and connections may be dead without a word.
//!
//! Routers and containers change routes all the time, so a notice alone is no reason for anything: a change is when the way to a peer is
//! another one, or when the machine slept.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{NetworkWatch, Notice, Way};

/// Finds out when the ways to peers are others than they were.
#[derive(Debug)]
pub struct Changes {
    watch: NetworkWatch,
    /// How each peer was reached when last looked at; `None` before the first look.
    ways: Option<Ways>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Peers that are reached in another way.
    pub turned: usize,
    /// For how long the machine slept, if it did.
    pub slept: Option<Duration>,
}

type Ways = HashMap<IpAddr, Option<Way>>;

impl Changes {
    /// Peers that are looked at, the first that are told.
    pub const PEERS_MAX: usize = 256;

    /// Begins to watch. Must be called on a tokio runtime.
    pub fn new() -> Changes {
        Changes { watch: NetworkWatch::new(), ways: None }
    }

    /// Waits for a change. `peers` is asked whenever the ways are looked at: those with connections first.
    ///
    /// # Cancel safety
    /// What happens while nobody waits is noticed at the next call; a change that was being looked at may be missed.
    pub async fn next(&mut self, peers: impl Fn() -> Vec<IpAddr>) -> Change {
        if self.ways.is_none() {
            self.ways = Some(self.look(peers()).await);
        }
        loop {
            let Ok(notice) = timeout(NEW_PEERS, self.watch.next()).await else {
                // Peers were found in the meantime: how they are reached now is what a change is measured by.
                let now = self.look(peers()).await;
                let ways = self.ways.get_or_insert_default();
                ways.retain(|peer, _| now.contains_key(peer));
                for (peer, way) in now {
                    ways.entry(peer).or_insert(way);
                }
                continue;
            };
            let mut slept = asleep(notice);
            // One change comes as many notices: an address goes, a route goes, another address comes.
            let until = Instant::now() + SETTLE_MAX;
            while let Ok(Ok(more)) = timeout_at(until, timeout(SETTLE, self.watch.next())).await {
                slept = slept.or(asleep(more));
            }
            let now = self.look(peers()).await;
            let before = self.ways.replace(now.clone()).unwrap_or_default();
            let turned = turned(&before, &now);
            if slept.is_some() || turned > 0 {
                return Change { turned, slept };
            }
        }
    }

    async fn look(&self, peers: Vec<IpAddr>) -> Ways {
        let mut ways = Ways::new();
        for peer in peers {
            if ways.len() < Changes::PEERS_MAX && !ways.contains_key(&peer) {
                ways.insert(peer, self.watch.way_to(peer).await);
            }
        }
        ways
    }
}

impl Default for Changes {
    fn default() -> Self {
        Changes::new()
    }
}

fn asleep(notice: Notice) -> Option<Duration> {
    match notice {
        Notice::Look => None,
        Notice::Slept(asleep) => Some(asleep),
    }
}

/// How many peers are reached in another way than they were.
fn turned(before: &Ways, now: &Ways) -> usize {
    now.iter().filter(|(peer, way)| before.get(*peer).is_some_and(|before| before != *way)).count()
}

/// A change is over when nothing more is heard for so long, or at the latest after `SETTLE_MAX`.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// How often the ways to peers that are new are looked at.
const NEW_PEERS: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_peers_that_were_known_before_can_have_turned() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let way = |interface| Some(Way { source: Some(ip("192.0.2.1")), gateway: None, interface: Some(interface) });
        let before = Ways::from([(ip("192.0.2.2"), way(1)), (ip("192.0.2.3"), way(1)), (ip("192.0.2.4"), None)]);
        let now = Ways::from([
            (ip("192.0.2.2"), way(2)),
            (ip("192.0.2.3"), way(1)),
            (ip("192.0.2.4"), way(1)),
            (ip("192.0.2.5"), way(2)),
        ]);
        assert_eq!(turned(&before, &now), 2);
        assert_eq!(turned(&now, &now), 0);
        assert_eq!(turned(&now, &Ways::new()), 0);
    }

    #[tokio::test]
    async fn no_more_peers_are_looked_at_than_the_limit() {
        let peers = (0..=255).flat_map(|third| [1, 2].map(|last| IpAddr::from([127, 0, third, last])));
        let ways = Changes::new().look(peers.collect()).await;
        assert_eq!(ways.len(), Changes::PEERS_MAX);
        assert!(ways.values().all(Option::is_some), "{ways:?}");
    }
}
