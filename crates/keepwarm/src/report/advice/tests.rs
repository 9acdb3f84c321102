use std::time::Duration;

use super::{
    super::summary::{Summary, tests::hour},
    *,
};
use keepwarm_control::rows::{
    ConfigRow, ConfigValue, CountersRow, HistoryRow, Job, LimitsRow, PoolRow, PoolSeries, TimesRow, UpstreamSeries,
};

/// A pool of this name with the limits of the defaults, an hour of it, and who looks.
fn material(row: PoolRow, series: PoolSeries) -> Material {
    let limits = LimitsRow {
        max_total: 512,
        max_per_host: 10,
        max_idle: 512,
        max_idle_per_host: 10,
        max_in_flight: 128,
        max_waiters: 4096,
        ..LimitsRow::default()
    };
    let row = PoolRow { hosts: 1, limits: if row.limits == LimitsRow::default() { limits } else { row.limits }, ..row };
    Material {
        pools: vec![row],
        history: HistoryRow { step: 10, pools: vec![series], ..HistoryRow::default() },
        ..Material::default()
    }
}

fn advice(material: &Material) -> Vec<Advice> {
    let summaries: Vec<Summary> = material.history.pools.iter().map(|series| Summary::of(series, 10, 1.0)).collect();
    advise(material, &summaries)
}

/// The settings that are to be changed, in order.
fn settings(material: &Material) -> Vec<String> {
    advice(material).iter().filter_map(Advice::setting).collect()
}

fn pool(name: &str, counters: CountersRow) -> PoolRow {
    PoolRow { name: name.into(), counters, ..PoolRow::default() }
}

fn counted<const N: usize>(counts: [(&str, u64); N]) -> std::collections::BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn a_pool_that_is_well_is_left_alone() {
    let all = advice(&material(pool("dns", CountersRow::default()), hour("dns", 1000, 995, 1, 2)));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].weight, Weight::Fine);
    assert_eq!(all[0].evidence, "never full, 2 of 10 in use (p99), 99.5 % reused: nothing to change");
    let silent = material(pool("dns", CountersRow::default()), hour("dns", 0, 0, 0, 0));
    assert_eq!(advice(&silent), []);
}

#[test]
fn a_full_pool_is_sized_by_littles_law() {
    // 60 acquires a second of 0.2 s each hold 12 at a time, over 10 connections that carry one each.
    let mut series = hour("dns", 600, 595, 1, 10);
    series.leased = vec![120.0; 360];
    series.full[..11].fill(10);
    let row = PoolRow {
        limits: LimitsRow { max_total: 512, max_per_host: 10, max_in_flight: 1, ..LimitsRow::default() },
        ..pool("dns", CountersRow::default())
    };
    let material = material(row, series);
    let all = advice(&material);
    assert_eq!(all[0].weight, Weight::Urgent);
    // 12 + 2.33 x sqrt(12) = 20.07
    assert_eq!(all[0].setting().unwrap(), "dns.pool.max_per_host = 21");
    assert_eq!(all[0].now.as_deref(), Some("10"));
    assert_eq!(all[0].command.as_deref(), Some("keepwarm pools set dns max_per_host=21"));
    insta::assert_snapshot!(all[0].evidence, @"full in 3.1 % of looks (110 of 3600); at 60.0 acquires/s of 200 ms each 12.0 are held at a time, 12.0 in the busiest steps, and max_per_host is 10");
}

#[test]
fn a_pool_at_its_total_is_raised_there_and_bursts_by_a_quarter() {
    let mut series = hour("https", 100, 99, 1, 100);
    series.open = vec![100; 360];
    series.full[0] = 10;
    let limits = LimitsRow { max_total: 100, max_per_host: 50, max_in_flight: 1, ..LimitsRow::default() };
    let mut material = material(PoolRow { limits, ..pool("https", CountersRow::default()) }, series);
    material.pools[0].hosts = 4;
    material.config = ConfigRow {
        values: vec![ConfigValue { path: "https.pool.max_total".into(), value: "100".into(), origin: "file:3".into() }],
        ..ConfigRow::default()
    };
    assert_eq!(settings(&material), ["https.pool.max_total = 125"]);
    material.history.pools[0].full[0] = 2;
    assert_eq!(advice(&material)[0].weight, Weight::Fine, "two looks are chance");
}

#[test]
fn a_queue_that_refuses_is_made_longer() {
    let counters = CountersRow { errors: counted([("queue_full", 7), ("dial", 3)]), ..CountersRow::default() };
    let all = advice(&material(pool("dns", counters), hour("dns", 1000, 999, 0, 1)));
    assert_eq!(all[0].setting().unwrap(), "dns.pool.max_waiters = 8192");
    assert!(all[0].evidence.starts_with("7 acquires were refused"));
}

#[test]
fn waits_longer_than_a_dial_want_connections_ahead() {
    let counters = CountersRow { acquires: 360_000, waited: 30_000, ..CountersRow::default() };
    let mut series = hour("dns", 1000, 999, 0, 1);
    series.wait_p50 = vec![0.12; 360];
    let slow = material(pool("dns", counters.clone()), series.clone());
    // 100 a second for 20 ms: 2 + 2.33 x sqrt(2) = 5.3
    assert_eq!(settings(&slow), ["dns.pool.min_idle = 6"]);
    series.wait_p50 = vec![0.03; 360];
    assert_eq!(settings(&material(pool("dns", counters), series)), [""; 0], "a wait for one dial is what it takes");
}

#[test]
fn silence_that_ends_cold_wants_one_kept_ready() {
    let mut series = hour("https", 0, 0, 0, 0);
    for step in [20, 60, 90, 200] {
        (series.acquires[step], series.opened[step], series.leased[step]) = (4, 2, 0.1);
    }
    let mut material = material(pool("https", CountersRow::default()), series);
    assert_eq!(settings(&material), ["https.origin.min_idle = 2"]);
    material.pools[0].limits.min_idle = 1;
    assert_eq!(settings(&material), [""; 0], "it is kept ready already");
}

#[test]
fn little_reuse_is_blamed_on_what_ends_connections() {
    let reuse = |name: &str, reason: &str| {
        let counters = CountersRow { closed: counted([(reason, 90), ("lifetime", 10)]), ..CountersRow::default() };
        let row = PoolRow {
            limits: LimitsRow {
                max_total: 100,
                max_per_host: 10,
                max_idle: 20,
                max_idle_per_host: 10,
                ..LimitsRow::default()
            },
            idle_age: TimesRow { max: Some(Duration::from_secs(170)), ..TimesRow::default() },
            ..pool(name, counters)
        };
        let mut material = material(row, hour(name, 100, 60, 40, 3));
        material.pools[0].hosts = 9;
        material.history.pools[0].open = vec![34; 360];
        material
    };
    for (reason, setting) in [
        ("idle_timeout", "https.pool.idle_timeout = \"6m\""),
        ("max_idle", "https.pool.max_idle = 34"),
        ("evicted", "https.pool.max_total = 125"),
    ] {
        assert_eq!(settings(&reuse("https", reason)), [setting], "{reason}");
    }
    let by_peer = advice(&reuse("https", "peer_closed"));
    assert_eq!((by_peer[0].weight, by_peer[0].setting()), (Weight::Look, None));
    for name in ["dns.udp", "tunnel.exit-a"] {
        assert_eq!(advice(&reuse(name, "max_uses"))[0].weight, Weight::Fine, "{name} is not there to be reused");
    }
}

#[test]
fn an_upstream_that_closes_early_is_named_with_its_limit() {
    let counters = CountersRow { closed: counted([("idle_timeout", 90)]), ..CountersRow::default() };
    let mut material = material(pool("dns", counters), hour("dns", 100, 60, 40, 3));
    let upstream = |name: &str, limit| UpstreamRow {
        name: name.into(),
        pool: Some("dns".into()),
        idle_limit: Some(Duration::from_secs(limit)),
        ..UpstreamRow::default()
    };
    material.upstreams = vec![upstream("patient", 300), upstream("quad9", 8)];
    let all = advice(&material);
    assert_eq!(all[0].setting().unwrap(), "dns.pool.min_idle = 1");
    assert!(all[0].evidence.contains("quad9 closes after 8.00 s"), "{}", all[0].evidence);
}

#[test]
fn dials_that_fail_are_told_by_their_kind() {
    let of = |kind: &str| {
        let counters = CountersRow { dials: 100, dial_errors: counted([(kind, 30)]), ..CountersRow::default() };
        advice(&material(pool("dns", counters), hour("dns", 1000, 999, 0, 1))).remove(0)
    };
    assert_eq!(of("files_exhausted").weight, Weight::Urgent);
    assert!(of("files_exhausted").evidence.contains("LimitNOFILE"));
    for (kind, words) in [
        ("certificate", "server_name"),
        ("refused", "not there"),
        ("timeout_tls", "connect_timeout"),
        ("proxy", "30.0 % of 100"),
    ] {
        let advice = of(kind);
        assert!(advice.weight == Weight::Look && advice.evidence.contains(words), "{kind}: {}", advice.evidence);
    }
}

#[test]
fn connections_that_were_dead_are_checked_sooner() {
    let counters = CountersRow { reused: 1000, reuse_failures: 40, ..CountersRow::default() };
    assert_eq!(
        settings(&material(pool("https", counters), hour("https", 1000, 999, 0, 1))),
        ["https.pool.check_interval = \"10s\""]
    );
}

#[test]
fn spares_are_as_many_as_tunnels_come_while_one_is_made() {
    let row = PoolRow {
        dial: TimesRow { p99: Some(Duration::from_millis(400)), ..TimesRow::default() },
        limits: LimitsRow { max_total: 64, max_idle_per_host: 64, ..LimitsRow::default() },
        ..pool("tunnel.exit-a", CountersRow::default())
    };
    let mut material = material(row, hour("tunnel.exit-a", 100, 0, 100, 2));
    material.upstreams = vec![UpstreamRow {
        job: Job::Tunnel,
        name: "exit-a".into(),
        transport: "socks5".into(),
        pool: Some("tunnel.exit-a".into()),
        figures: counted([("hits", 70), ("misses", 30), ("spares_target", 8)]),
        ..UpstreamRow::default()
    }];
    material.history.upstreams = vec![UpstreamSeries {
        job: "tunnel".into(),
        name: "exit-a".into(),
        transport: "socks5".into(),
        requests: vec![250; 360],
        ..UpstreamSeries::default()
    }];
    // 25 a second x 0.4 s = 10 at a time; 10 + 2.33 x sqrt(10) = 17.4
    assert!(settings(&material).contains(&"tunnel.pool.spares = 18".to_owned()), "{:?}", advice(&material));
    material.pools[0].limits.max_idle_per_host = 12;
    assert!(settings(&material).contains(&"tunnel.pool.spares_max = 18".to_owned()));
    material.upstreams[0].figures.insert("misses".into(), 1);
    assert_eq!(settings(&material), [""; 0]);
}

#[test]
fn pools_with_a_key_in_common_agree_on_the_larger_value() {
    let mut series = hour("dns", 600, 595, 1, 10);
    series.leased = vec![120.0; 360];
    series.full = vec![5; 360];
    let limits = LimitsRow { max_total: 512, max_per_host: 10, max_in_flight: 1, ..LimitsRow::default() };
    let mut material = material(PoolRow { limits, ..pool("dns", CountersRow::default()) }, series.clone());
    let udp = PoolRow { name: "dns.udp".into(), ..material.pools[0].clone() };
    material.pools.push(udp);
    series.pool = "dns.udp".into();
    series.leased = vec![240.0; 360];
    material.history.pools.push(series);
    // 24 + 2.33 x sqrt(24) = 35.4
    assert_eq!(settings(&material), ["dns.pool.max_per_host = 36"; 2]);
}

#[test]
fn acquires_that_failed_are_no_want_of_reuse() {
    let counters = CountersRow { closed: counted([("shrunk", 1)]), ..CountersRow::default() };
    let all = advice(&material(pool("dns", counters), hour("dns", 1000, 550, 1, 2)));
    assert_eq!(all[0].weight, Weight::Fine, "{all:?}");
}

#[test]
fn what_is_urgent_comes_first_and_what_is_down_is_named() {
    let mut series = hour("dns", 600, 100, 500, 10);
    series.full = vec![5; 360];
    let counters = CountersRow { closed: counted([("peer_closed", 9)]), ..CountersRow::default() };
    let mut material = material(pool("dns", counters), series);
    let down = UpstreamRow {
        name: "quad9".into(),
        health: Health::Down,
        reason: Some("connection refused".into()),
        ..UpstreamRow::default()
    };
    // A client named it; whether it is there is not for the operator to mend.
    let came = UpstreamRow { name: "gone.example".into(), job: Job::Https, configured: false, ..down.clone() };
    material.upstreams = vec![down, came];
    material.status.config.last_error = Some("a.toml:3: unknown key".into());
    let all = advice(&material);
    let weights: Vec<Weight> = all.iter().map(|advice| advice.weight).collect();
    assert_eq!(weights, [Weight::Urgent, Weight::Look, Weight::Look, Weight::Look]);
    assert!(all.iter().any(|advice| advice.evidence == "it is down: connection refused"));
}
