//! The breaker: when it opens, that it lets go again, and what never moves it.

use std::time::Duration;

use keepwarm_dns::config::Transport;
use keepwarm_lab::Faults;

use crate::support::*;

#[tokio::test]
async fn a_dead_upstream_is_left_alone_and_found_again() {
    for transport in TRANSPORTS {
        let silent = Faults { silent: true, ..Faults::default() };
        let bench = Bench::with(transport, [silent, Faults::default()], |config| {
            config.breaker.open = Duration::from_millis(500);
            config.breaker.open_max = Duration::from_millis(500);
        })
        .await;
        let mut asked = 0;
        while bench.pool(0).breaker == "closed" {
            assert_eq!(storm(bench.address, &format!("dead{asked}-"), 4, 4).await, Vec::<String>::new());
            asked += 4;
            assert!(asked < 200, "{transport:?}: the breaker does not open");
        }
        bench.labs[0].update_faults(|faults| faults.silent = false);
        let mut asked = 0;
        while bench.pool(0).breaker != "closed" {
            assert_eq!(storm(bench.address, &format!("back{asked}-"), 2, 2).await, Vec::<String>::new());
            asked += 2;
            assert!(asked < 20_000, "{transport:?}: the breaker does not close again");
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn when_every_breaker_is_open_the_least_bad_one_is_tried() {
    let silent = Faults { silent: true, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [silent], |config| {
        config.timeout = Duration::from_millis(800);
        config.breaker.open = Duration::from_secs(60);
    })
    .await;
    let mut asked = 0;
    while bench.pool(0).breaker == "closed" {
        let answer = exchange_udp(bench.address, &query(&format!("gone{asked}.example"), 1)).await.unwrap();
        assert_eq!(rcode(&answer), 2);
        asked += 1;
        assert!(asked < 20, "the breaker does not open");
    }
    bench.labs[0].update_faults(|faults| faults.silent = false);
    assert_eq!(bench.ask("least.bad.example").await, Ok(()), "asked although its breaker is open");
    bench.stop().await;
}
