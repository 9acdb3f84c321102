//! Another config for a client that runs: what stays, what goes, and that nobody notices.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use keepwarm_https::{
    Client, ErrorKind, StartError,
    config::{AddressSource, HttpVersions, HttpsConfig, OriginConfig, PoolConfig, Validate},
};
use keepwarm_lab::{OriginLab, OriginSpec, loopback_addresses};
use keepwarm_pool::HostView;
use keepwarm_transport::{reload::Drained, resolve::Fixed, tls::TlsRoots};

use crate::setup::{authority, eventually, first, lab, origin, url, whole};

const NO_NAMES: [&str; 0] = [];

/// A lab with another name and so many addresses.
async fn other_lab(host: &str, addresses: usize) -> OriginLab {
    let spec = OriginSpec { host: host.to_owned(), addresses: loopback_addresses(addresses), ..OriginSpec::default() };
    OriginLab::start(spec).await.expect("a lab on loopback")
}

fn config(labs: &[&OriginLab], origins: Vec<OriginConfig>) -> HttpsConfig {
    let roots = TlsRoots::only(labs.iter().map(|lab| lab.ca_der()));
    HttpsConfig { origins, roots, ..HttpsConfig::default() }
}

fn start(config: &HttpsConfig) -> Client {
    Client::new(config.clone(), Arc::new(Fixed(Vec::new()))).expect("a client")
}

fn name(lab: &OriginLab) -> String {
    format!("https.origin.{}", authority(lab))
}

fn hosts(client: &Client) -> Vec<HostView> {
    let mut hosts = client.pools()[0].pool.hosts();
    hosts.sort_by(|left, right| left.name.cmp(&right.name));
    hosts
}

/// Which connections are open.
fn ids(client: &Client) -> Vec<u64> {
    let mut ids: Vec<_> = hosts(client).iter().flat_map(|host| &host.connections).map(|one| one.id).collect();
    ids.sort_unstable();
    ids
}

async fn warm(client: &Client, lab: &OriginLab, wanted: usize) {
    let report = client.warm_up(&authority(lab), wanted, |_| {}).await.expect("connections");
    assert_eq!(report.open, wanted);
}

async fn get(client: &Client, lab: &OriginLab) {
    let answer = client.get(&url(lab, "/")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    whole(answer).await;
}

#[tokio::test]
async fn an_equal_config_changes_nothing() {
    let lab = lab(3).await;
    let config = config(&[&lab], vec![origin(&lab)]);
    let client = start(&config);
    warm(&client, &lab, 3).await;
    let before = (ids(&client), client.inventory(&authority(&lab)).expect("known"));
    let changes = client.prepare(config).expect("prepared").apply();
    assert_eq!(changes.kept, [name(&lab), "https.pool".to_owned()]);
    assert_eq!((changes.added, changes.changed, changes.needs_restart), (vec![], vec![], vec![]));
    assert_eq!(changes.drained, []);
    get(&client, &lab).await;
    let after = client.inventory(&authority(&lab)).expect("known");
    assert_eq!((ids(&client), after.len()), (before.0, before.1.len()));
    assert_eq!(lab.total().accepted, 3);
}

#[tokio::test]
async fn settings_that_are_not_about_connections_keep_those_to_addresses_that_are_still_allowed() {
    let (lab, beside) = (lab(4).await, other_lab("beside.test", 2).await);
    let mut config = config(&[&lab, &beside], vec![origin(&lab), origin(&beside)]);
    let client = start(&config);
    warm(&client, &lab, 4).await;
    warm(&client, &beside, 2).await;
    get(&client, &lab).await;
    let before = ids(&client);
    let (denied, banned) = (lab.addresses()[3], lab.addresses()[2]);
    client.ban(&authority(&lab), banned.into()).expect("known");
    eventually("the banned one is closed", || ids(&client).len() == 5).await;
    let gone: Vec<_> = before.iter().filter(|id| !ids(&client).contains(id)).collect();
    assert_eq!(gone.len(), 1);

    config.origins[0] = OriginConfig {
        deny: vec![denied.into()],
        timeout: Duration::from_secs(7),
        validate: Some(Validate::default()),
        refresh: None,
        tries: 2,
        ..config.origins[0].clone()
    };
    let changes = client.prepare(config).expect("prepared").apply();
    assert_eq!(changes.changed, [name(&lab)]);
    assert_eq!(changes.kept, [name(&beside), "https.pool".to_owned()]);
    assert_eq!(changes.drained, [Drained { name: name(&lab), connections: 1 }]);
    let after = ids(&client);
    assert!(after.len() == 4 && after.iter().all(|id| before.contains(id)), "{before:?} {after:?}");
    lab.reset_counters();
    for _ in 0..40 {
        get(&client, &lab).await;
    }
    assert_eq!((lab.counters(denied).requests, lab.counters(banned).requests), (0, 0));
    assert_eq!(lab.total().accepted, 0, "the connections that were there served");
    let rows = client.inventory(&authority(&lab)).expect("known");
    assert!(rows.iter().all(|row| row.ip != denied), "{rows:?}");
    assert!(rows.iter().any(|row| row.ip == banned && row.banned), "{rows:?}");
    assert_eq!(
        client.stats().iter().find(|stats| stats.authority == authority(&lab)).expect("there").requests.came,
        41
    );
}

#[tokio::test]
async fn settings_that_are_about_connections_give_them_up_and_keep_addresses_and_bans() {
    let lab = lab(3).await;
    let mut config = config(&[&lab], vec![origin(&lab)]);
    let client = start(&config);
    warm(&client, &lab, 3).await;
    let (before, banned) = (ids(&client), lab.addresses()[2]);
    client.ban(&authority(&lab), banned.into()).expect("known");
    config.origins[0].http = HttpVersions::Http1;
    let changes = client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!(changes.changed, [name(&lab)]);
    assert_eq!(changes.drained, [Drained { name: name(&lab), connections: 2 }]);
    let rows = client.inventory(&authority(&lab)).expect("known");
    assert_eq!(rows.iter().filter(|row| row.banned).map(|row| row.ip).collect::<Vec<_>>(), [banned]);
    assert_eq!(rows.len(), 3, "requests need not wait for a look-up");
    get(&client, &lab).await;
    assert!(ids(&client).iter().all(|id| !before.contains(id)));
    assert_eq!(hosts(&client).iter().filter(|host| !host.connections.is_empty()).count(), 1);
    eventually("the old ones are closed", || lab.total().open == 1).await;

    let kept = ids(&client);
    client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!(ids(&client), kept);
    // More that is trusted now may be less the next time: a connection is of the roots that it was verified by.
    let more = other_lab("more.test", 1).await;
    for roots in [TlsRoots::only([lab.ca_der(), more.ca_der()]), config.roots.clone()] {
        config.roots = roots;
        let changes = client.prepare(config.clone()).expect("prepared").apply();
        assert_eq!(changes.changed, [name(&lab)]);
        assert_eq!(ids(&client), [0; 0]);
        get(&client, &lab).await;
    }
    config.roots = TlsRoots::only([more.ca_der()]);
    client.prepare(config).expect("prepared").apply();
    let error = client.get(&url(&lab, "/")).await.expect_err("not trusted any more");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(client.requests().answered, 3);
}

#[tokio::test]
async fn an_origin_that_is_gone_ends_what_is_in_flight_and_one_that_came_is_warm() {
    let (old, new) = (lab(2).await, other_lab("new.test", 2).await);
    let kept_ready = OriginConfig { min_idle: 2, ..origin(&old) };
    let client = start(&config(&[&old, &new], vec![kept_ready]));
    eventually("two are ready", || old.total().open == 2).await;
    old.addresses().iter().for_each(|ip| old.update_faults(*ip, |faults| faults.delay = Duration::from_millis(300)));
    let asked = tokio::spawn({
        let (client, url) = (client.clone(), url(&old, "/bytes/100000"));
        async move { client.get(&url).await }
    });
    eventually("the request is there", || old.total().requests == 1).await;
    let next = config(&[&old, &new], vec![OriginConfig { warm: 2, ..origin(&new) }]);
    let changes = client.prepare(next).expect("prepared").apply();
    assert_eq!((changes.added, changes.changed), (vec![name(&new)], vec![]));
    assert_eq!(changes.drained, [Drained { name: name(&old), connections: 2 }]);
    let error = client.get(&url(&old, "/")).await.expect_err("no origin any more");
    assert_eq!(error.kind(), ErrorKind::Request);
    eventually("the new one is warm", || new.total().open == 2).await;
    whole(asked.await.expect("no panic").expect("an answer")).await;
    eventually("the old one is left", || old.total().open == 0).await;
    let requests = client.requests();
    assert_eq!((requests.came, requests.answered), (1, 1), "what is gone stays counted");
    assert_eq!(client.stats().len(), 1);
}

#[tokio::test]
async fn hosts_that_no_origin_names_follow_their_settings() {
    let lab = lab(2).await;
    let any = |timeout| Some(Box::new(OriginConfig { timeout, ..OriginConfig::new("any") }));
    let mut config = config(&[&lab], vec![]);
    config.any_host = any(Duration::from_secs(30));
    let client = Client::new(config.clone(), Arc::new(Fixed(lab.addresses()))).expect("a client");
    get(&client, &lab).await;
    let before = ids(&client);
    let kept = client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!(kept.kept, ["https.any_host", "https.pool"]);
    config.any_host = any(Duration::from_millis(300));
    let changes = client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!((changes.changed, changes.drained), (vec!["https.any_host".to_owned()], vec![]));
    assert_eq!(ids(&client), before);
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.ignore_requests = true));
    assert!(client.get(&url(&lab, "/")).await.expect_err("silent").is_timeout());
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.ignore_requests = false));

    // It gets an origin of its own, and then none.
    config.origins = vec![OriginConfig { port: lab.port(), ..OriginConfig::new(lab.host()) }];
    let changes = client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!(changes.changed, [name(&lab)]);
    (config.origins, config.any_host) = (vec![], None);
    let changes = client.prepare(config).expect("prepared").apply();
    assert_eq!(changes.changed, ["https.any_host"]);
    assert!(changes.drained.iter().any(|drained| drained.name == name(&lab)), "{changes:?}");
    client.get(&url(&lab, "/")).await.expect_err("refused");
    assert_eq!(ids(&client), [0; 0]);
}

#[tokio::test]
async fn the_host_that_comes_last_is_not_the_one_that_is_forgotten() {
    let lab = lab(1).await;
    let mut config = config(&[&lab], vec![]);
    (config.any_host, config.any_host_max) = (Some(Box::new(OriginConfig::new("any"))), 2);
    let client = Client::new(config.clone(), Arc::new(Fixed(lab.addresses()))).expect("a client");
    for host in ["one.test", "two.test"] {
        client.get(&format!("https://{host}:{}/", lab.port())).await.expect_err("another certificate");
    }
    get(&client, &lab).await;
    let known: Vec<_> = client.stats().into_iter().map(|row| row.authority).collect();
    assert_eq!(known, [authority(&lab), format!("two.test:{}", lab.port())]);
    config.any_host_max = 1;
    let changes = client.prepare(config).expect("prepared").apply();
    assert_eq!(changes.changed, ["https.any_host_max"]);
    assert_eq!(client.stats().len(), 1);
    get(&client, &lab).await;
    assert_eq!(lab.total().requests, 2);
}

#[tokio::test]
async fn limits_and_times_of_the_pool_hold_at_once() {
    let lab = lab(4).await;
    let mut config = config(&[&lab], vec![origin(&lab)]);
    let client = start(&config);
    warm(&client, &lab, 8).await;
    let pool = client.pools().remove(0).pool;
    config.pool = PoolConfig { max_idle: 2, max_per_host: 2, ..config.pool };
    let changes = client.prepare(config.clone()).expect("prepared").apply();
    assert_eq!((changes.changed, changes.needs_restart), (vec!["https.pool".to_owned()], vec![]));
    assert_eq!((ids(&client).len(), pool.limits().max_per_host), (2, 2));
    // What was set at run time stays until the config has other settings for the pool.
    let set = keepwarm_pool::Limits { max_total: 7, ..pool.limits() };
    pool.set_limits(set).expect("they agree");
    assert_eq!(client.prepare(config.clone()).expect("prepared").apply().changed, NO_NAMES);
    assert_eq!(pool.limits(), set);

    config.pool = PoolConfig {
        idle_timeout: Duration::from_millis(200),
        cleanup_interval: Duration::from_millis(10),
        connect_timeout: Duration::from_millis(300),
        ..config.pool
    };
    assert_eq!(client.prepare(config.clone()).expect("prepared").apply().changed, ["https.pool"]);
    assert_eq!(pool.limits().max_total, config.pool.max_total);
    eventually("idle ones are closed", || ids(&client).is_empty()).await;
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.hang_tls = true));
    let error = client.get(&url(&lab, "/")).await.expect_err("no handshake");
    let text = error.to_string();
    assert!(text.contains("handshake timed out after") && text.ends_with("ms"), "{text}");
}

#[tokio::test]
async fn a_config_that_cannot_work_changes_nothing() {
    let lab = lab(2).await;
    let good = config(&[&lab], vec![origin(&lab)]);
    let client = start(&good);
    warm(&client, &lab, 2).await;
    let before = ids(&client);
    let changed = OriginConfig { timeout: Duration::from_secs(1), ..origin(&lab) };
    let mut twice = good.clone();
    twice.origins = vec![changed.clone(), OriginConfig::new("a.test"), OriginConfig::new("a.test")];
    let mut host = good.clone();
    host.origins = vec![changed.clone(), OriginConfig::new("no host")];
    let mut roots = good.clone();
    (roots.origins, roots.roots) = (vec![changed.clone()], TlsRoots::only([]));
    let mut any = roots.clone();
    (any.origins, any.any_host) = (vec![], Some(Box::new(OriginConfig::new("any"))));
    let mut limits = good.clone();
    (limits.origins, limits.pool.max_total) = (vec![changed], 1);
    for (bad, words) in [
        (twice, "two origins are a.test"),
        (host, "neither a host name"),
        (roots, "tls of tiles.test"),
        (any, "tls of any_host"),
        (limits, "limits: "),
    ] {
        let error = client.prepare(bad).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
    // One at a time; and one that is dropped is none.
    let prepared = client.prepare(HttpsConfig { origins: vec![], ..good.clone() }).expect("prepared");
    assert!(matches!(client.prepare(good.clone()), Err(StartError::Busy)));
    drop(prepared);
    get(&client, &lab).await;
    assert_eq!(ids(&client), before);
    let changes = client.prepare(good).expect("prepared").apply();
    assert_eq!(changes.kept, [name(&lab), "https.pool".to_owned()]);
    assert_eq!(changes.changed, NO_NAMES);
}

#[tokio::test]
async fn requests_wait_for_the_first_look_at_new_sources() {
    let lab = lab(3).await;
    let named = |ips: &[IpAddr]| ips.iter().map(|ip| AddressSource::Net((*ip).into())).collect::<Vec<_>>();
    let with = |addresses| config(&[&lab], vec![OriginConfig { addresses, ..origin(&lab) }]);
    let client = Client::new(with(named(&lab.addresses()[..1])), Arc::new(Fixed(lab.addresses()[2..].to_vec())));
    let client = client.expect("a client");
    get(&client, &lab).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lab.addresses()[1].to_string()).expect("written");
    for (sources, expected) in [
        (vec![AddressSource::Dns], 2),
        (vec![AddressSource::File(file.path().to_owned())], 1),
        (named(&lab.addresses()[..1]), 0),
    ] {
        lab.reset_counters();
        client.prepare(with(sources)).expect("prepared").apply();
        for _ in 0..5 {
            get(&client, &lab).await;
        }
        assert_eq!(lab.counters(lab.addresses()[expected]).requests, 5);
        let rows = client.inventory(&authority(&lab)).expect("known");
        assert_eq!(rows.iter().map(|row| row.ip).collect::<Vec<_>>(), [lab.addresses()[expected]]);
    }
}

#[tokio::test]
async fn files_of_addresses_are_read_again_although_the_config_is_equal() {
    let lab = lab(2).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lab.addresses()[0].to_string()).expect("written");
    let addresses = vec![AddressSource::File(file.path().to_owned())];
    let config = config(&[&lab], vec![OriginConfig { addresses, refresh: None, ..origin(&lab) }]);
    let client = start(&config);
    get(&client, &lab).await;
    std::fs::write(file.path(), lab.addresses()[1].to_string()).expect("written");
    client.prepare(config).expect("prepared").apply();
    let is_new = || client.inventory(&authority(&lab)).expect("known").iter().all(|row| row.ip == lab.addresses()[1]);
    eventually("the new address is known", is_new).await;
    get(&client, &lab).await;
    assert_eq!(lab.counters(lab.addresses()[1]).requests, 1);
}

#[tokio::test]
async fn a_probe_that_a_reload_cuts_off_is_made_again_at_once() {
    let lab = lab(1).await;
    lab.update_faults(first(&lab), |faults| faults.ignore_requests = true);
    let mut config = config(&[&lab], vec![OriginConfig { validate: Some(Validate::default()), ..origin(&lab) }]);
    let client = start(&config);
    let asked = tokio::spawn({
        let (client, url) = (client.clone(), url(&lab, "/"));
        async move { client.get(&url).await }
    });
    eventually("it is probed", || lab.total().requests == 1).await;
    lab.update_faults(first(&lab), |faults| faults.ignore_requests = false);
    config.origins[0].tries = 2;
    client.prepare(config).expect("prepared").apply();
    // The request began under the old settings, and waits for the probe of the new ones.
    let answer = tokio::time::timeout(Duration::from_secs(8), asked).await.expect("not after ten seconds");
    whole(answer.expect("no panic").expect("an answer")).await;
}

/// Files and sockets of this process.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_fail_nothing_and_leave_nothing_behind() {
    let (lab, beside) = (lab(6).await, other_lab("beside.test", 2).await);
    let validate = || Some(Validate::default());
    let changing = OriginConfig { min_idle: 3, validate: validate(), ..origin(&lab) };
    let base = config(&[&lab, &beside], vec![changing, origin(&beside)]);
    let client = start(&base);
    warm(&client, &lab, 6).await;
    warm(&client, &beside, 2).await;
    let stable: Vec<u64> = beside_ids(&client);
    let (is_over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for turn in 0..8 {
        let (client, is_over, done) = (client.clone(), is_over.clone(), done.clone());
        let url = url(if turn % 4 == 0 { &beside } else { &lab }, "/bytes/2000");
        load.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let answer = client.get(&url).await.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(whole(answer).await.len(), 2000);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for turn in 0..100_usize {
        let before = done.load(Ordering::Relaxed);
        let mut next = base.clone();
        let one = &mut next.origins[0];
        match turn % 5 {
            0 => one.timeout = Duration::from_secs(20),
            1 => one.deny = vec![lab.addresses()[turn % 6].into()],
            2 => one.http = HttpVersions::Http1,
            3 => one.validate = None,
            _ => (next.pool.max_total, next.pool.max_per_host) = (60, 6),
        }
        let changes = client.prepare(next).expect("prepared").apply();
        assert!(changes.kept.contains(&name(&beside)), "{changes:?}");
        eventually("the load goes on", || done.load(Ordering::Relaxed) > before + 8).await;
    }
    client.prepare(base).expect("prepared").apply();
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("every request was answered");
    }
    assert_eq!(beside_ids(&client), stable, "the other origin's connections are the same");
    assert!(done.load(Ordering::Relaxed) >= 900);
    let requests = client.requests();
    assert_eq!((requests.failed, requests.answered), (0, done.load(Ordering::Relaxed)));
    // What one config needs, and no more: two tasks for the one origin, one for the other, and those of the connections.
    let open = || ids(&client).len() as u64;
    eventually("drained connections are closed", || lab.total().open + beside.total().open == open()).await;
    let (few_tasks, few_files) = (tasks(), files());
    for turn in 0..20 {
        let mut next = config(&[&lab, &beside], vec![origin(&lab), origin(&beside)]);
        next.origins[0] = OriginConfig { min_idle: 3, validate: validate(), tries: 1 + turn % 2, ..origin(&lab) };
        client.prepare(next).expect("prepared").apply();
    }
    eventually("as many tasks and files as before", || tasks() <= few_tasks && files() <= few_files).await;
}

fn beside_ids(client: &Client) -> Vec<u64> {
    let hosts = hosts(client);
    let beside = hosts.iter().filter(|host| host.name.starts_with("beside.test"));
    beside.flat_map(|host| &host.connections).map(|one| one.id).collect()
}
