//! Another network, or the same one after a sleep: connections may be dead without a word, and addresses in quarantine good again.

use std::net::IpAddr;

use keepwarm_https::Client;
use keepwarm_transport::network::{Change, Changes};

/// Watches until the task is dropped. `proxies` are looked at beside the addresses of the origins.
pub(super) async fn watch(client: Client, proxies: Vec<IpAddr>) {
    let mut changes = Changes::new();
    loop {
        let Change { turned, slept } = changes.next(|| peers(&client, &proxies)).await;
        tracing::info!(origin_addresses = turned, ?slept, "the network changed: https connections are given up");
        client.network_changed();
    }
}

/// Proxies and addresses with connections first, then others that are known.
fn peers(client: &Client, proxies: &[IpAddr]) -> Vec<IpAddr> {
    let connected = client.host_stats().into_iter().map(|(key, _)| key.ip());
    let known = client.stats().into_iter().flat_map(|origin| client.inventory(&origin.authority).unwrap_or_default());
    let known = known.map(|row| row.ip).take(Changes::PEERS_MAX);
    proxies.iter().copied().chain(connected).chain(known).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepwarm_https::config::{AddressSource, HttpsConfig, OriginConfig};
    use keepwarm_transport::resolve::Fixed;

    use super::*;

    #[tokio::test]
    async fn proxies_come_before_the_addresses_of_origins() {
        let origin = OriginConfig {
            addresses: vec![AddressSource::Net("127.0.1.0/28".parse().unwrap())],
            ..OriginConfig::new("tiles.test")
        };
        let config = HttpsConfig { origins: vec![origin], ..HttpsConfig::default() };
        let client = Client::new(config, Arc::new(Fixed(Vec::new()))).unwrap();
        client.find_addresses("tiles.test").await.unwrap();
        let proxy = IpAddr::from([127, 0, 0, 1]);
        let peers = peers(&client, &[proxy]);
        assert_eq!((peers[0], peers.len()), (proxy, 17));
    }
}
