//! Names that are answered without any upstream, as clients see them.

use std::time::Duration;

use keepwarm_dns::{
    config::{RouteConfig, Transport},
    local::Rule,
    message::{self, Rendered},
    server::{LocalError, Server, StartError},
};
use keepwarm_lab::Faults;

use crate::support::*;

/// The answer over UDP, in words, with single spaces.
async fn answers(bench: &Bench, name: &str, qtype: &str) -> (String, Vec<String>) {
    let query = query(name, message::type_from_name(qtype).unwrap());
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    assert_eq!(answer[..2], query[..2], "the id of the query");
    let Rendered { rcode, answers, .. } = message::render(&answer).unwrap();
    (rcode, answers.iter().map(|line| line.replace('\t', " ")).collect())
}

async fn with_records(records: &[&str]) -> Bench {
    let records = records.iter().map(|line| (*line).into()).collect();
    Bench::cached([Faults::default()], |config| config.local.records = records).await
}

/// Asks until the answer is this one, for hosts files are looked at every 2 s.
async fn until(bench: &Bench, name: &str, expected: &[&str]) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, answers) = answers(bench, name, "A").await;
        if answers == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name}: {answers:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_local_record_is_answered_over_udp_and_tcp_without_an_upstream() {
    let bench = with_records(&["nas.lan. 300 IN A 192.168.1.10"]).await;
    let expected = ("NOERROR".to_owned(), vec!["nas.lan. 300 IN A 192.168.1.10".to_owned()]);
    assert_eq!(answers(&bench, "nas.lan", "A").await, expected);
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query("nas.lan", 1)).await;
    assert_eq!(message::render(&client.receive().await.unwrap()).unwrap().answers.len(), 1);
    assert_eq!(answers(&bench, "nas.lan", "AAAA").await, ("NOERROR".to_owned(), vec![]));
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    let status = bench.server.status();
    assert_eq!((status.local_answers, status.queries, status.cache_misses), (3, 3, 0));
    bench.stop().await;
}

#[tokio::test]
async fn the_trace_of_a_local_answer_says_local() {
    let bench = with_records(&["nas.lan. A 192.168.1.10"]).await;
    let trace = bench.server.query("nas.lan", 1).await.unwrap();
    assert_eq!(trace.local, Some(Rule::Record));
    assert!(!trace.cached && trace.exchange.is_none());
    let trace = bench.server.query("www.example", 1).await.unwrap();
    assert!(trace.local.is_none() && trace.exchange.is_some());
    bench.stop().await;
}

#[tokio::test]
async fn a_large_local_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let lines: Vec<String> = (0..200).map(|number| format!("big.lan. A 10.0.0.{number}")).collect();
    let bench = with_records(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let query = query("big.lan", 1);
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    assert!(answer.len() <= 1232 && message::is_truncated(&answer));
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query).await;
    assert_eq!(message::verify_answer(&client.receive().await.unwrap()).unwrap().answer_count, 200);
    bench.stop().await;
}

#[tokio::test]
async fn an_alias_that_leads_out_is_answered_with_the_upstreams_records() {
    let bench = with_records(&["www.lan. 60 CNAME target.example."]).await;
    let (rcode, direct) = answers(&bench, "target.example", "A").await;
    assert_eq!(rcode, "NOERROR");
    for _ in 0..2 {
        let (rcode, all) = answers(&bench, "wWw.lan", "A").await;
        assert_eq!((&*rcode, &*all[0]), ("NOERROR", "wWw.lan. 60 IN CNAME target.example."));
        let data = |line: &String| line.rsplit(' ').next().unwrap().to_owned();
        assert_eq!(all[1..].iter().map(data).collect::<Vec<_>>(), direct.iter().map(data).collect::<Vec<_>>());
    }
    let status = bench.server.status();
    assert_eq!((status.queries, status.cache_hits, bench.labs[0].counters().udp.queries), (3, 2, 1));
    let trace = bench.server.query("www.lan", 1).await.unwrap();
    assert_eq!(
        (trace.local, message::render(&trace.answer).unwrap().answers.len()),
        (Some(Rule::Record), 1 + direct.len())
    );
    bench.stop().await;
}

#[tokio::test]
async fn an_alias_whose_target_no_upstream_answers_is_a_failure_with_the_clients_question() {
    let silent = Faults { silent: true, ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [silent], |config| {
        config.local.records = vec!["www.lan. CNAME gone.example.".into()];
        config.timeout = Duration::from_millis(300);
    })
    .await;
    let query = query("www.lan", 1);
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    assert_eq!((rcode(&answer), &answer[12..25]), (2, &query[12..25]));
    bench.stop().await;
}

#[tokio::test]
async fn special_names_never_reach_an_upstream_unless_there_is_a_route() {
    let bench = Bench::cached([Faults::default()], |config| {
        config.routes = vec![RouteConfig { suffixes: vec!["corp.local".into()], group: "default".into() }];
    })
    .await;
    for (name, rcode) in
        [("localhost", "NOERROR"), ("a.test", "NXDOMAIN"), ("x.onion", "NXDOMAIN"), ("pc.local", "NXDOMAIN")]
    {
        assert_eq!(answers(&bench, name, "A").await.0, rcode, "{name}");
    }
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    assert_eq!(answers(&bench, "dc.corp.local", "A").await.0, "NOERROR");
    assert_eq!(bench.labs[0].counters().udp.queries, 1);
    bench.stop().await;
}

#[tokio::test]
async fn the_aaaa_filter_keeps_aaaa_queries_from_upstreams() {
    let bench = Bench::cached([Faults::default()], |config| config.local.filter_aaaa = true).await;
    assert_eq!(answers(&bench, "www.example", "AAAA").await, ("NOERROR".to_owned(), vec![]));
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    assert_eq!(bench.ask("www.example").await, Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn who_may_not_ask_is_refused_local_names_too() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.allow = vec!["192.0.2.0/24".parse().unwrap()];
        config.local.records = vec!["nas.lan. A 192.168.1.10".into()];
    })
    .await;
    assert_eq!(answers(&bench, "nas.lan", "A").await, ("REFUSED".to_owned(), vec![]));
    bench.stop().await;
}

#[tokio::test]
async fn a_hosts_file_that_changes_is_read_again_and_one_that_vanishes_holds_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    std::fs::write(&path, "192.0.2.1 nas.lan\n").unwrap();
    let bench = Bench::cached([Faults::default()], |config| config.local.hosts = vec![path.clone()]).await;
    assert_eq!(answers(&bench, "nas.lan", "A").await.1, ["nas.lan. 60 IN A 192.0.2.1"]);
    std::fs::write(&path, "192.0.2.2 nas.lan\n192.0.2.3 new.lan\n").unwrap();
    until(&bench, "new.lan", &["new.lan. 60 IN A 192.0.2.3"]).await;
    // All workers have heard of it: a client's port decides which of them answers.
    until(&bench, "nas.lan", &["nas.lan. 60 IN A 192.0.2.2"]).await;
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(answers(&bench, "new.lan", "A").await.1, ["new.lan. 60 IN A 192.0.2.3"]);
    std::fs::write(&path, "192.0.2.4 new.lan\n").unwrap();
    until(&bench, "new.lan", &["new.lan. 60 IN A 192.0.2.4"]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_server_does_not_start_with_records_or_hosts_files_that_cannot_be_read() {
    let start = |change: fn(&mut keepwarm_dns::config::LocalSettings)| {
        let mut config = keepwarm_dns::config::DnsConfig::default();
        change(&mut config.local);
        match Server::start(config) {
            Err(StartError::Local(error)) => error,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started"),
        }
    };
    let error = start(|local| local.hosts = vec!["/does/not/exist".into()]);
    assert!(matches!(error, LocalError::Hosts { .. }));
    assert!(error.to_string().contains("/does/not/exist") && error.to_string().contains("dns.local.hosts"), "{error}");
    assert!(matches!(start(|local| local.hosts = vec!["/".into()]), LocalError::Hosts { .. }));
    assert!(matches!(start(|local| local.records = vec!["nonsense".into()]), LocalError::Record(_)));
    let twice = start(|local| local.records = vec!["a. CNAME b.".into(), "a. A 192.0.2.1".into()]);
    assert!(matches!(twice, LocalError::Table(_)));
}

#[tokio::test]
async fn what_answered_here_is_said_by_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    std::fs::write(&path, "192.168.1.7 printer\n").unwrap();
    let bench = Bench::cached([Faults::default()], |config| {
        config.local.records =
            ["nas.lan. A 192.168.1.10", "*.dev.lan. A 10.0.0.1", "a.b.dev.lan. A 10.0.0.2"].map(Into::into).into();
        config.local.hosts = vec![path];
        config.local.filter_aaaa = true;
    })
    .await;
    for (name, qtype, rule) in [
        ("nas.lan", 1, Some(Rule::Record)),
        ("NAS.lan", 28, Some(Rule::Record)),
        ("x.dev.lan", 1, Some(Rule::Wildcard)),
        ("b.dev.lan", 1, Some(Rule::Covered)),
        ("x.b.dev.lan", 1, Some(Rule::Covered)),
        ("printer", 1, Some(Rule::Hosts)),
        ("7.1.168.192.in-addr.arpa", 12, Some(Rule::Hosts)),
        ("8.1.168.192.in-addr.arpa", 12, Some(Rule::Special("168.192.in-addr.arpa".into()))),
        ("a.test", 1, Some(Rule::Special("test".into()))),
        ("www.example", 28, Some(Rule::AaaaFilter)),
        ("www.example", 1, None),
    ] {
        let trace = bench.server.query(name, qtype).await.unwrap();
        assert_eq!(trace.local, rule, "{name}");
        assert_eq!(trace.exchange.is_none(), rule.is_some(), "{name}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn an_alias_that_leads_out_is_explained_to_its_end() {
    let bench = with_records(&["www.lan. 60 CNAME target.example."]).await;
    let trace = bench.server.query("www.lan", 1).await.unwrap();
    let explanation = trace.explanation.as_ref().expect("its rest was asked for");
    assert_eq!((trace.local, explanation.candidates.len(), trace.attempts.len()), (Some(Rule::Record), 1, 1));
    assert_eq!(message::render(&trace.answer).unwrap().answers.len(), 2, "the client's answer, not the upstream's");
    assert!(trace.attempts[0].connection.is_some());
    bench.stop().await;
}
