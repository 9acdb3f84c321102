//! A pool seen and steered without its types.

use std::{sync::Arc, time::Duration};

use keepwarm_pool::{Connected, ConnectionState, Connector, Pool, Slot, Steer};

struct Lab;

impl Connector for Lab {
    type Key = u16;
    type Connection = u16;
    type Error = std::io::Error;

    async fn connect(&self, key: &u16, _: Slot<Lab>) -> Result<Connected<u16>, std::io::Error> {
        match key {
            0 => Err(std::io::Error::other("nobody is there")),
            key => Ok(Connected::new(*key)),
        }
    }

    fn label(&self, key: &u16) -> String {
        format!("lab:{key}")
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_seen_and_steered_by_the_names_of_its_hosts() {
    let pool = Pool::builder(Lab).build();
    let steer: Arc<dyn Steer> = Arc::new(pool.clone());
    let lease = pool.acquire(&1).await.unwrap();
    drop(pool.acquire(&2).await.unwrap());
    tokio::time::advance(Duration::from_secs(2)).await;
    let mut hosts = steer.hosts();
    hosts.sort_by(|left, right| left.name.cmp(&right.name));
    let (first, second) = (&hosts[0].connections[0], &hosts[1].connections[0]);
    assert_eq!((&*hosts[0].name, first.id, first.state), ("lab:1", lease.id(), ConnectionState::InUse));
    assert_eq!((first.in_flight, first.uses, first.idle_for), (1, 1, None));
    assert_eq!((&*hosts[1].name, second.state, second.in_flight), ("lab:2", ConnectionState::Idle, 0));
    assert_eq!(second.idle_for, Some(second.age));

    assert_eq!(steer.pause(Some("lab:2")), 1);
    assert!(pool.acquire(&2).await.is_err());
    assert_eq!(steer.resume(None), 2);
    drop(pool.acquire(&2).await.unwrap());
    assert_eq!((steer.flush(Some("lab:3")), steer.flush(Some("lab:2"))), (0, 1));
    assert_eq!(steer.stats().gauges.open, 1);
    assert_eq!(steer.warm_up(None, 1).await, Ok(2));
    drop(pool.host(&0));
    let error = steer.warm_up(Some("lab:0"), 1).await.unwrap_err();
    assert!(error.starts_with("lab:0: ") && error.contains("nobody is there"), "{error}");
}
