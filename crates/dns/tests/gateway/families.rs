//! Upstreams with addresses of both families, of which one leads nowhere.

use std::net::IpAddr;

use keepwarm_lab::Faults;

use crate::support::*;

#[tokio::test]
async fn an_address_family_that_leads_nowhere_costs_no_query() {
    if tokio::net::UdpSocket::bind("[::1]:0").await.is_err() {
        println!("SKIPPED: this machine has no IPv6 loopback");
        return;
    }
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            // Nobody listens on ::1 at that port; the lab is on 127.0.0.1.
            config.upstreams[0].host = "both.example".into();
            config.upstreams[0].addresses =
                ["::1", "127.0.0.1"].map(|address| address.parse::<IpAddr>().unwrap()).into();
        })
        .await;
        assert_eq!(storm(bench.address, "family", 50, 5).await, Vec::<String>::new(), "{transport:?}");
        assert_eq!(bench.pool(0).breaker, "closed", "{transport:?}");
        bench.stop().await;
    }
}
