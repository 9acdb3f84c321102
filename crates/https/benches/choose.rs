//! What it costs to choose an address, with its release.

#![expect(clippy::disallowed_methods, reason = "no paused clock in a bench")]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use divan::{Bencher, black_box};
use keepwarm_https::{
    config::OriginConfig,
    inventory::{Choice, Inventory, Settings, SourceId},
};

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 10, 50, 64, 1000])]
fn choose_and_release(bencher: Bencher<'_, '_>, addresses: u32) {
    let (mut inventory, now) = inventory(addresses);
    let mut random = 1_u64;
    bencher.bench_local(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = black_box(inventory.choose(black_box(&[]), now, random));
        choice.into_iter().for_each(|choice| inventory.release(choice.id));
    });
}

#[divan::bench(args = [10, 64])]
fn choose_for_a_third_try(bencher: Bencher<'_, '_>, addresses: u32) {
    let (mut inventory, now) = inventory(addresses);
    let tried: Vec<_> = (1..=2).filter_map(|random| inventory.choose(&[], now, random)).map(|it| it.id).collect();
    let mut random = 1_u64;
    bencher.bench_local(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = black_box(inventory.choose(black_box(&tried), now, random));
        choice.into_iter().for_each(|choice| inventory.release(choice.id));
    });
}

#[divan::bench(args = [10, 64])]
fn whole_request(bencher: Bencher<'_, '_>, addresses: u32) {
    let (mut inventory, now) = inventory(addresses);
    let mut random = 1_u64;
    bencher.bench_local(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Some(Choice { id, .. }) = inventory.choose(black_box(&[]), now, random) {
            inventory.succeeded(id, Duration::from_millis(10), now);
            let ruling = inventory.answered(id, http::StatusCode::OK, None, now);
            inventory.release(id);
            black_box(ruling);
        }
    });
}

/// All validated, with latencies from 10 ms on.
///
/// # Panics
/// When one of them is not: then something else would be measured.
fn inventory(addresses: u32) -> (Inventory, Instant) {
    let now = Instant::now();
    let mut inventory = Inventory::new(Settings::new(&OriginConfig::new("tiles.example"), 1));
    let first = u32::from(Ipv4Addr::new(192, 0, 2, 0));
    let ips: Vec<IpAddr> = (0..addresses).map(|index| Ipv4Addr::from(first + index).into()).collect();
    inventory.found(SourceId::Config, ips.iter().copied(), now);
    for (index, ip) in (0..).zip(ips) {
        if let Ok(choice) = inventory.reserve(ip, now) {
            inventory.succeeded(choice.id, Duration::from_millis(10 + index % 20), now);
            inventory.release(choice.id);
        }
    }
    assert_eq!(inventory.counts().validated, addresses as usize, "all are known good");
    (inventory, now + Duration::from_secs(1))
}
