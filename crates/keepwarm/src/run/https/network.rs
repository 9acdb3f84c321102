//! Another network, or the same one after a sleep: connections may be dead without a word, and addresses in quarantine good again.
//!
//! As for the upstreams of DNS, a notice alone is no reason: connections are only given up when the way to an address of an origin is
//! another one, or when the machine slept.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use keepwarm_https::Client;
use keepwarm_transport::network::{NetworkWatch, Notice, Way};
use tokio::time::{Instant, timeout, timeout_at};

/// How each address was reached when last looked at.
type Ways = HashMap<IpAddr, Option<Way>>;

/// Watches until the task is dropped. `proxies` are looked at beside the addresses of the origins.
pub(super) async fn watch(client: Client, proxies: Vec<IpAddr>) {
    let mut watch = NetworkWatch::new();
    let mut ways = look(&watch, &client, &proxies).await;
    loop {
        let Ok(notice) = timeout(NEW_ADDRESSES, watch.next()).await else {
            // Addresses were found in the meantime: how they are reached now is what a change is measured by.
            let now = look(&watch, &client, &proxies).await;
            ways.retain(|address, _| now.contains_key(address));
            for (address, way) in now {
                ways.entry(address).or_insert(way);
            }
            continue;
        };
        let mut slept = asleep(notice);
        // One change comes as many notices: an address goes, a route goes, another address comes.
        let until = Instant::now() + SETTLE_MAX;
        while let Ok(Ok(more)) = timeout_at(until, timeout(SETTLE, watch.next())).await {
            slept = slept.or(asleep(more));
        }
        let before = std::mem::replace(&mut ways, look(&watch, &client, &proxies).await);
        let turned = turned(&before, &ways);
        if slept.is_some() || turned > 0 {
            tracing::info!(origin_addresses = turned, ?slept, "the network changed: https connections are given up");
            client.network_changed();
        }
    }
}

fn asleep(notice: Notice) -> Option<Duration> {
    match notice {
        Notice::Look => None,
        Notice::Slept(asleep) => Some(asleep),
    }
}

/// How many addresses are reached in another way.
fn turned(before: &Ways, now: &Ways) -> usize {
    now.iter().filter(|(address, way)| before.get(*address).is_some_and(|before| before != *way)).count()
}

/// The ways to addresses with connections first, then to others that are known.
async fn look(watch: &NetworkWatch, client: &Client, proxies: &[IpAddr]) -> Ways {
    let connected = client.pools().into_iter().map(|(key, _)| key.ip());
    let known = client.stats().into_iter().flat_map(|origin| client.inventory(&origin.authority).unwrap_or_default());
    let known: Vec<IpAddr> = known.map(|row| row.ip).take(ADDRESSES_MAX).collect();
    let mut ways = Ways::new();
    for address in proxies.iter().copied().chain(connected).chain(known) {
        if ways.len() < ADDRESSES_MAX && !ways.contains_key(&address) {
            ways.insert(address, watch.way_to(address).await);
        }
    }
    ways
}

/// A change is over when nothing more is heard for so long, or at the latest after `SETTLE_MAX`.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// How often the ways to addresses that are new are looked at.
const NEW_ADDRESSES: Duration = Duration::from_secs(60);

/// Addresses that are looked at.
const ADDRESSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepwarm_https::config::{AddressSource, HttpsConfig, OriginConfig};
    use keepwarm_transport::resolve::Fixed;

    use super::*;

    #[test]
    fn only_addresses_that_were_known_before_can_have_turned() {
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
    async fn proxies_and_known_addresses_are_looked_at_within_the_limit() {
        let origin = OriginConfig {
            addresses: vec![
                AddressSource::Net("127.0.1.0/24".parse().unwrap()),
                AddressSource::Net("127.0.2.0/24".parse().unwrap()),
            ],
            ..OriginConfig::new("tiles.test")
        };
        let config = HttpsConfig { origins: vec![origin], ..HttpsConfig::default() };
        let client = Client::new(config, Arc::new(Fixed(Vec::new()))).unwrap();
        client.find_addresses("tiles.test").await.unwrap();
        let proxy = IpAddr::from([127, 0, 0, 1]);
        let ways = look(&NetworkWatch::new(), &client, &[proxy]).await;
        assert_eq!(ways.len(), ADDRESSES_MAX);
        assert!(ways.contains_key(&proxy) && ways.values().all(Option::is_some), "{ways:?}");
    }
}
