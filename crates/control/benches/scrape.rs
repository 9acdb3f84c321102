//! What a scrape costs: 5 pools with 10 hosts each, 20 upstreams, every counter of every job.

#![expect(clippy::unwrap_used, reason = "a bench is a test")]

use std::sync::Arc;

use keepwarm_control::metrics;
use keepwarm_pool::{Limits, NamedPool};

#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/metrics/fake.rs"]
mod fake;

fn main() {
    divan::main();
}

#[divan::bench]
fn scrape(bencher: divan::Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let daemon = runtime.block_on(daemon());
    let bytes = metrics::text(&daemon).len();
    bencher.counter(divan::counter::BytesCount::new(bytes)).bench(|| metrics::text(divan::black_box(&daemon)));
}

async fn daemon() -> fake::Fake {
    let mut daemon = fake::Fake::of(&[], 20);
    for name in ["dns", "dns.udp", "https", "tunnel.exit-a", "tunnel.exit-b"] {
        let pool = fake::lab(Limits::per_host(10));
        for host in 1..=10 {
            drop(pool.acquire(&host).await.unwrap());
        }
        pool.acquire(&0).await.unwrap_err();
        daemon.pools.push(NamedPool { name: name.into(), pool: Arc::new(pool) });
    }
    daemon
}
