//! Limits hold on every path, in order, and nothing is lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn a_hundred_clients_for_one_destination_are_served_ten_at_a_time_in_order() {
    let (proxy, echo, connector) = one(with_password(), 1).await;
    let order = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..100_usize {
        let (connector, order) = (connector.clone(), Arc::clone(&order));
        let (target, address) = (Target::from(echo.addr(0)), echo.addr(0));
        clients.spawn(async move {
            let mut tunnel = connector.connect(&target).await.unwrap();
            let served = order.fetch_add(1, Ordering::SeqCst);
            exchange(&mut tunnel, &mut Tagged::random(address), 10).await;
            tokio::time::sleep(5 * MS).await;
            (number, served)
        });
        tokio::task::yield_now().await;
    }
    let mut served = clients.join_all().await;
    served.sort_unstable();
    // Those of one batch of ten race each other through the proxy; nobody is served before a batch ahead of it.
    let late = served.iter().filter(|(number, served)| served / 10 > number / 10 + 1 || number / 10 > served / 10 + 1);
    assert_eq!(late.count(), 0, "{served:?}");
    let counters = proxy.counters();
    let destination = &counters.destinations[&echo.addr(0).to_string()];
    assert_eq!((destination.max, counters.connects), (10, 100), "never above the limit, none lost");
    let stats = connector.stats();
    assert_eq!((stats.live, stats.waiting, stats.destinations.len()), (0, 0, 0));
    assert_eq!((stats.opened, echo.foreign()), (100, 0));
}

#[tokio::test]
async fn a_wait_that_is_too_long_or_a_queue_that_is_full_is_an_error_of_its_own() {
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    let config = group(vec![upstream("exit", &proxy)]);
    let connector = start(TunnelConfig { max_per_destination: 1, max_waiters: 1, acquire_timeout: 200 * MS, ..config });
    let held = proved(&connector, &echo, 0).await.unwrap();
    let waiting = tokio::spawn({
        let (connector, target) = (connector.clone(), Target::from(echo.addr(0)));
        async move { connector.connect(&target).await.map(drop) }
    });
    until("one waits", || connector.stats().waiting == 1).await;
    let full = connector.connect(&Target::from(echo.addr(0))).await.unwrap_err();
    assert!(full.to_string().contains("max_waiters"), "{full}");
    let late = waiting.await.unwrap().unwrap_err();
    assert_eq!(late.kind(), keepwarm_tunnel::ErrorKind::Busy);
    assert!(late.to_string().contains("max_per_destination"), "{late}");
    assert_eq!(stats(&connector, "exit").failed, 0, "no upstream is to blame for it");
    drop(held);
    assert!(proved(&connector, &echo, 0).await.is_ok());
}

#[tokio::test]
async fn a_name_and_its_address_are_two_destinations_and_ports_count() {
    let (proxy, echo, connector) = one(with_password(), 2).await;
    proxy.pin("echo.test", echo.addr(0));
    let name = Target::new("echo.test", echo.addr(0).port()).unwrap();
    let (_a, _b) = (connector.connect(&name).await.unwrap(), proved(&connector, &echo, 0).await.unwrap());
    let _c = proved(&connector, &echo, 1).await.unwrap();
    let rows = connector.stats().destinations;
    assert_eq!(rows.iter().map(|row| row.live).collect::<Vec<_>>(), [1, 1, 1]);
}
