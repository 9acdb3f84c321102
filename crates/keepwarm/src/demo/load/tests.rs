use std::{collections::HashSet, time::Duration};

use keepwarm_lab::{Faults, Lab, LabSpec};
use tokio::task::LocalSet;

use super::*;

fn quiet() -> OnAnswer {
    OnAnswer(Rc::new(|| ()))
}

async fn lab(faults: Faults) -> Lab {
    let spec = LabSpec { tcp: None, tls: None, https: None, faults, ..LabSpec::default() };
    Lab::start(spec).await.unwrap()
}

#[test]
fn names_differ_from_each_other_and_come_again_with_their_seed() {
    let many = |seed, part| {
        let mut names = Names::new(seed, part);
        (0..5_000).map(|_| names.next()).collect::<Vec<_>>()
    };
    let names: HashSet<String> = many(1, "udp").into_iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), 5_000);
    assert_eq!(many(1, "udp"), many(1, "udp"));
    assert_ne!(many(1, "udp")[0].1, many(2, "udp")[0].1);
    assert_ne!(many(1, "udp")[0].0, many(1, "tcp")[0].0);
}

#[test]
fn a_failure_is_not_a_wrong_answer() {
    let query = build_query(7, "a.demo.example", TYPE_A, Some(EDNS_SIZE));
    let mut servfail = query[..query.len() - OPT_LENGTH].to_vec();
    servfail[2] |= 0x80;
    servfail[3] = SERVFAIL;
    servfail[11] = 0;
    assert_eq!(judge(&query, &servfail), Verdict::Failed);
    let mut of_another = servfail.clone();
    of_another[HEADER + 1] ^= 1;
    assert!(matches!(judge(&query, &of_another), Verdict::Wrong(_)));
    assert!(matches!(judge(&query, &query), Verdict::Wrong(_)));
    assert!(matches!(judge(&query, &[]), Verdict::Wrong(_)));
}

#[tokio::test]
async fn a_burst_comes_from_as_many_ports_as_clients_and_all_is_answered() {
    let lab = lab(Faults { delay: Duration::from_millis(20), ..Faults::default() }).await;
    let outcome = LocalSet::new()
        .run_until(async {
            let clients = Clients::open(lab.udp_addr(), 300, 1, "burst", quiet()).await.unwrap();
            clients.burst().await.unwrap()
        })
        .await;
    assert_eq!((outcome.queries, outcome.answered, outcome.wrong, outcome.failed), (300, 300, 0, 0));
    assert_eq!((outcome.unanswered, outcome.times.len()), (0, 300));
    let counters = lab.counters().udp;
    assert_eq!((counters.queries, counters.source_ports, counters.bad), (300, 300, 0));
    // The lab holds each answer back for 20 ms, so a load that waits for answers never has so many in flight.
    assert!(counters.in_flight_max > 1);
    assert!(outcome.times.iter().all(|(_, took)| *took >= Duration::from_millis(20)));
}

#[tokio::test]
async fn a_paced_load_spreads_its_queries_over_clients_and_time() {
    let lab = lab(Faults::default()).await;
    let length = Duration::from_millis(200);
    let outcome = LocalSet::new()
        .run_until(async {
            let clients = Clients::open(lab.udp_addr(), 50, 1, "paced", quiet()).await.unwrap();
            clients.paced(100, length).await.unwrap()
        })
        .await;
    assert_eq!((outcome.queries, outcome.answered, outcome.wrong), (100, 100, 0));
    assert_eq!(lab.counters().udp.source_ports, 50);
    let last = outcome.times.iter().map(|(left, _)| *left).max().unwrap();
    assert!(last >= length.mul_f64(0.99), "{last:?}");
}

#[tokio::test]
async fn wrong_answers_are_seen_and_counted() {
    let lab = lab(Faults { forge: 1.0, ..Faults::default() }).await;
    let outcome = LocalSet::new()
        .run_until(async {
            let clients = Clients::open(lab.udp_addr(), 100, 1, "forged", quiet()).await.unwrap();
            clients.burst().await.unwrap()
        })
        .await;
    // A forged answer comes first: one with the right id takes the query's place, any other was not asked for.
    assert!(outcome.wrong >= 100, "{outcome:?}");
    assert!(outcome.first_wrong.is_some());
}

#[tokio::test(start_paused = true)]
async fn silence_is_unanswered_after_the_clients_patience() {
    let lab = lab(Faults { silent: true, ..Faults::default() }).await;
    let ended = Rc::new(Cell::new(0));
    let count = Rc::clone(&ended);
    let outcome = LocalSet::new()
        .run_until(async {
            let on_answer = OnAnswer(Rc::new(move || count.set(count.get() + 1)));
            let clients = Clients::open(lab.udp_addr(), 10, 1, "silent", on_answer).await.unwrap();
            clients.burst().await.unwrap()
        })
        .await;
    assert_eq!((outcome.queries, outcome.answered, outcome.unanswered), (10, 0, 10));
    assert_eq!(ended.get(), 10);
}
