//! Several pools, seen and steered as one.

use std::sync::Arc;

use keepwarm_pool::{Connected, Connector, Limits, Pool, Shards, Slot, Steer};

struct Sharded;

impl Connector for Sharded {
    type Key = (u16, usize);
    type Connection = u16;
    type Error = std::io::Error;

    async fn connect(&self, key: &(u16, usize), _: Slot<Sharded>) -> Result<Connected<u16>, std::io::Error> {
        Ok(Connected::new(key.0))
    }

    fn label(&self, key: &(u16, usize)) -> String {
        format!("lab:{}", key.0)
    }
}

#[tokio::test]
async fn two_pools_are_seen_and_steered_as_one() {
    let limits = Limits { max_per_host: 5, max_idle_per_host: 4, ..Limits::default() };
    let share = Shards::<Sharded>::share(&limits, 2);
    assert_eq!((share.max_total, share.max_per_host, share.max_idle_per_host), (512, 3, 2));
    let pools: Vec<_> = (0..2).map(|_| Pool::builder(Sharded).limits(share).build()).collect();
    let shards: Arc<dyn Steer> = Arc::new(Shards::new(pools.clone(), limits));
    let leases = [pools[0].acquire(&(1, 0)).await.unwrap(), pools[1].acquire(&(1, 1)).await.unwrap()];
    drop(pools[1].acquire(&(2, 1)).await.unwrap());

    let hosts = shards.hosts();
    assert_eq!(hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(), ["lab:1", "lab:2"]);
    let [first, second] = &hosts[0].connections[..] else { panic!("{hosts:?}") };
    assert_ne!(first.id, second.id);
    assert_eq!((hosts[0].stats.gauges.in_use, hosts[0].stats.counters.opened), (2, 2));
    assert_eq!((shards.stats().gauges.open, shards.stats().hosts, shards.limits()), (3, 2, limits));

    assert_eq!((shards.pause(Some("lab:1")), shards.pause(Some("lab:3"))), (1, 0));
    assert!(pools[0].try_acquire(&(1, 0)).is_err() && pools[1].acquire(&(1, 1)).await.is_err());
    assert!(shards.hosts()[0].stats.paused);
    assert_eq!(shards.resume(None), 2);
    drop(leases);
    assert_eq!(shards.warm_up(Some("lab:1"), 4).await, Ok(4));

    let lower = Limits { max_per_host: 2, max_idle_per_host: 2, ..limits };
    shards.set_limits(lower).unwrap();
    assert_eq!((shards.limits(), shards.hosts()[0].connections.len()), (lower, 2));
    let wrong = Limits { max_per_host: 0, max_idle_per_host: 0, ..limits };
    assert!(shards.set_limits(wrong).is_err());
    assert_eq!((shards.limits(), pools[0].limits().max_per_host), (lower, 1));
    assert_eq!(shards.flush(None), 2);
    assert_eq!(shards.stats().gauges.open, 0);
}
