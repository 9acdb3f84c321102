//! What happens while nobody asks: warm-up, connections kept ready, pings, look-ups, the end.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_https::{
    Client, ErrorKind,
    config::{AddressSource, HttpVersions, HttpsConfig, OriginConfig, PoolConfig, Validate},
};
use keepwarm_lab::CloseKind;
use keepwarm_transport::{
    resolve::{LookingUp, Resolve, Resolved, Resolving},
    tls::TlsRoots,
};
use parking_lot::Mutex;

use crate::setup::{authority, client, client_of, eventually, first, lab, origin, url, whole};

/// Answers with what it was told, for as short a time as may be.
#[derive(Debug)]
struct Names {
    addresses: Mutex<Vec<IpAddr>>,
    lookups: AtomicUsize,
}

impl Resolve for Names {
    fn resolve(&self, _: &str) -> Resolving {
        let addresses = self.addresses.lock().clone();
        Box::pin(async move { Ok(addresses) })
    }

    fn lookup(&self, _: &str) -> LookingUp {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let addresses = self.addresses.lock().clone();
        Box::pin(async move { Ok(Resolved { addresses, ttl: Some(Duration::ZERO) }) })
    }
}

#[tokio::test]
async fn a_warm_up_opens_connections_over_all_addresses_and_tells_its_progress() {
    let lab = lab(5).await;
    let client = client(&lab);
    let mut told = Vec::new();
    let report = client.warm_up(&authority(&lab), 8, |progress| told.push(progress.open)).await.expect("connections");
    assert_eq!((report.wanted, report.open, report.addresses), (8, 8, 5));
    assert!(told.windows(2).all(|pair| pair[0] <= pair[1]) && told.last() == Some(&8), "{told:?}");
    assert!(lab.addresses().iter().all(|ip| (1..=2).contains(&lab.counters(*ip).open)));
    let answer = client.get(&url(&lab, "/")).await.expect("an answer");
    assert_eq!(lab.total().accepted, 8, "the request found a connection ready");
    whole(answer).await;
}

#[tokio::test]
async fn origins_with_warm_and_min_idle_are_connected_before_the_first_request() {
    let lab = lab(3).await;
    let config = OriginConfig { warm: 3, min_idle: 2, validate: Some(Validate::default()), ..origin(&lab) };
    let client = client_of(&lab, config, PoolConfig::default());
    eventually("three are open and good", || lab.total().open == 3 && client.stats()[0].addresses.validated == 3).await;
    assert_eq!(lab.total().paths["HEAD /"], 3, "each address was validated once");
    // Those that the server closes are replaced.
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.close_kind = CloseKind::Fin));
    lab.addresses().iter().for_each(|ip| lab.close_idle(*ip));
    eventually("two are open again", || lab.total().open >= 2).await;
    drop(client);
    eventually("all are closed with the client", || lab.total().open == 0).await;
}

#[tokio::test]
async fn no_address_gets_a_request_before_it_was_validated() {
    let lab = lab(4).await;
    for ip in &lab.addresses()[..3] {
        lab.update_faults(*ip, |faults| faults.status = Some(500));
    }
    let validate = Validate { path: "/echo".to_owned(), ..Validate::default() };
    let client = client_of(&lab, OriginConfig { validate: Some(validate), ..origin(&lab) }, PoolConfig::default());
    for _ in 0..20 {
        assert_eq!(client.get(&url(&lab, "/")).await.expect("an answer").status(), 200);
    }
    for ip in &lab.addresses()[..3] {
        assert!(!lab.counters(*ip).paths.contains_key("GET /"), "{ip}");
    }
}

#[tokio::test]
async fn an_origin_whose_addresses_are_all_bad_says_so() {
    let lab = lab(2).await;
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.refuse = true));
    let error = client(&lab).get(&url(&lab, "/")).await.expect_err("refused");
    assert!(error.to_string().contains("connection refused"), "{error}");
    let config = HttpsConfig {
        origins: vec![OriginConfig::new("nowhere.test")],
        roots: TlsRoots::only([lab.ca_der()]),
        ..HttpsConfig::default()
    };
    let client = Client::new(config, Arc::new(keepwarm_transport::resolve::Fixed(Vec::new()))).expect("a client");
    let error = client.get("https://nowhere.test/").await.expect_err("no such name");
    assert_eq!(error.kind(), ErrorKind::NoAddress, "{error}");
    assert!(error.to_string().contains("nowhere.test"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_when_their_records_end() {
    let lab = lab(3).await;
    let names = Arc::new(Names { addresses: Mutex::new(lab.addresses()[..1].to_vec()), lookups: AtomicUsize::new(0) });
    let config = HttpsConfig {
        origins: vec![OriginConfig { port: lab.port(), ..OriginConfig::new(lab.host()) }],
        roots: TlsRoots::only([lab.ca_der()]),
        ..HttpsConfig::default()
    };
    let client = Client::new(config, names.clone()).expect("a client");
    client.find_addresses(&authority(&lab)).await.expect("found");
    assert_eq!(client.inventory(&authority(&lab)).expect("known").len(), 1);
    *names.addresses.lock() = lab.addresses()[1..].to_vec();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(names.lookups.load(Ordering::SeqCst), 1, "not sooner than in ten seconds");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(names.lookups.load(Ordering::SeqCst), 2);
    let ips: Vec<_> = client.inventory(&authority(&lab)).expect("known").into_iter().map(|row| row.ip).collect();
    assert_eq!(ips, lab.addresses()[1..]);
}

#[tokio::test]
async fn addresses_come_from_files_with_networks_too() {
    let lab = lab(4).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "# addresses of the lab\n127.0.1.1\n127.0.1.2/31   # two of them\n").expect("written");
    let deny = vec!["127.0.1.3/32".parse().expect("valid")];
    let config = OriginConfig { addresses: vec![AddressSource::File(file.path().to_owned())], deny, ..origin(&lab) };
    let client = client_of(&lab, config, PoolConfig::default());
    client.find_addresses(&authority(&lab)).await.expect("found");
    let rows = client.inventory(&authority(&lab)).expect("known");
    let ips: Vec<_> = rows.iter().map(|row| row.ip.to_string()).collect();
    assert_eq!(ips, ["127.0.1.1", "127.0.1.2"]);
}

#[tokio::test]
async fn idle_http2_connections_are_pinged_and_a_dead_one_is_replaced_before_its_use() {
    let lab = lab(1).await;
    let pool = PoolConfig { check_interval: Duration::from_millis(100), ..PoolConfig::default() };
    let client = client_of(&lab, origin(&lab), pool);
    whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    eventually("it is pinged", || lab.total().pings >= 2).await;
    assert_eq!(lab.total().accepted, 1);
}

#[tokio::test]
async fn http1_connections_are_never_probed() {
    let lab = lab(1).await;
    let pool = PoolConfig { check_interval: Duration::from_millis(20), ..PoolConfig::default() };
    let client = client_of(&lab, OriginConfig { http: HttpVersions::Http1, ..origin(&lab) }, pool);
    for _ in 0..3 {
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((lab.total().requests, lab.total().accepted), (3, 1));
}

#[tokio::test]
async fn closing_waits_for_answers_and_then_refuses() {
    let lab = lab(1).await;
    let client = client(&lab);
    lab.update_faults(first(&lab), |faults| faults.delay = Duration::from_millis(200));
    let asked = {
        let (client, url) = (client.clone(), url(&lab, "/"));
        tokio::spawn(async move { client.get(&url).await })
    };
    eventually("the request is there", || lab.total().requests == 1).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(Duration::from_secs(5)).await }
    });
    whole(asked.await.expect("no panic").expect("an answer")).await;
    assert_eq!(closing.await.expect("no panic"), 0);
    assert_eq!(client.get(&url(&lab, "/")).await.expect_err("closed").kind(), ErrorKind::Closed);
    eventually("nothing is open", || lab.total().open == 0).await;
}

#[tokio::test]
async fn a_warm_up_that_asks_for_more_than_there_may_be_ends() {
    let lab = lab(1).await;
    let pool = PoolConfig { max_idle: 3, ..PoolConfig::default() };
    let client = client_of(&lab, origin(&lab), pool);
    let authority = authority(&lab);
    let warm = client.warm_up(&authority, 8, |_| {});
    let report = tokio::time::timeout(Duration::from_secs(20), warm).await.expect("it ends").expect("some are open");
    assert!(report.open < 8, "{report:?}");
    assert!(lab.total().accepted <= 20, "{}", lab.total().accepted);
}

#[tokio::test]
async fn closing_ends_a_search_for_addresses() {
    #[derive(Debug)]
    struct Never;
    impl Resolve for Never {
        fn resolve(&self, _: &str) -> Resolving {
            Box::pin(std::future::pending())
        }
    }
    let config = HttpsConfig { origins: vec![OriginConfig::new("slow.test")], ..HttpsConfig::default() };
    let client = Client::new(config, Arc::new(Never)).expect("a client");
    let search = tokio::spawn({
        let client = client.clone();
        async move { client.find_addresses("slow.test").await }
    });
    tokio::task::yield_now().await;
    client.close(Duration::from_secs(1)).await;
    search.await.expect("no panic").expect_err("closed");
}

#[tokio::test]
async fn an_origin_that_was_forgotten_and_came_back_learns_of_dials_that_fail() {
    let lab = lab(2).await;
    lab.update_faults(first(&lab), |faults| faults.refuse = true);
    let config = HttpsConfig {
        any_host: Some(Box::new(OriginConfig::new("any"))),
        any_host_max: 1,
        roots: TlsRoots::only([lab.ca_der()]),
        ..HttpsConfig::default()
    };
    let client = Client::new(config, Arc::new(keepwarm_transport::resolve::Fixed(lab.addresses()))).expect("a client");
    for _ in 0..2 {
        for _ in 0..40 {
            whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
        }
        let rows = client.inventory(&authority(&lab)).expect("known");
        let refusing = rows.iter().find(|row| row.ip == first(&lab)).expect("there");
        assert_eq!(refusing.state.as_str(), "quarantined", "{refusing:?}");
        // Another host takes its place.
        client.get(&format!("https://other.test:{}/", lab.port())).await.expect_err("another certificate");
    }
}
