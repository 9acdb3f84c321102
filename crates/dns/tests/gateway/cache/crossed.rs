//! Nothing crosses through the cache: hot names in all variants, upstreams that swap, delay and repeat answers, and a cache
//! so small and short-lived that it always evicts and renews.
//!
//! `KEEPWARM_CROSSED` is the number of queries, as for the tests without a cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_dns::config::Strategy;
use keepwarm_lab::{Faults, answer_matches};

use super::*;

const CLIENTS: usize = 32;
const NAMES: u32 = 200;
const TYPES: [u16; 4] = [1, 28, 16, 15];
const SIZE: usize = 64 << 10;

/// One of a few thousand queries: name, type, DO, CD and EDNS make 4,000 answers, the case of the letters many more queries.
fn any_query() -> Vec<u8> {
    let [name, kind, marks] = rand::random::<[u32; 3]>();
    let mut letters = format!("host{}.hot.example", name % NAMES).into_bytes();
    for letter in &mut letters {
        if rand::random::<bool>() {
            letter.make_ascii_uppercase();
        }
    }
    let name = String::from_utf8(letters).unwrap();
    let kind = TYPES[kind as usize % TYPES.len()];
    let mut query = if marks & 3 == 0 { query_without_edns(&name, kind) } else { query(&name, kind) };
    if marks & 3 == 1 {
        let do_at = query.len() - 4;
        query[do_at] |= 0x80;
    }
    if marks & 12 == 0 {
        query[3] |= 0x10;
    }
    query
}

/// What a client sees: not only the answer to its question, but the one to its flags.
fn check(query: &[u8], answer: &[u8]) -> Result<(), String> {
    answer_matches(query, answer)?;
    let answer = Message::from_vec(answer).map_err(|error| error.to_string())?;
    let (edns, cd) = (query[11] == 1, query[3] & 0x10 != 0);
    let dnssec_ok = edns && query[query.len() - 4] & 0x80 != 0;
    let answered_dnssec_ok = answer.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    if (answer.edns.is_some(), answer.metadata.checking_disabled, answered_dnssec_ok) != (edns, cd, dnssec_ok) {
        return Err(format!("EDNS {edns}, CD {cd}, DO {dnssec_ok}: {answer}"));
    }
    if ttl(&answer) > 60 {
        return Err(format!("a TTL of {} s", ttl(&answer)));
    }
    Ok(())
}

/// Asks one query after the other; returns what was wrong and how many were not answered.
async fn ask_many(server: std::net::SocketAddr, next: Arc<AtomicUsize>, count: usize) -> (Vec<String>, usize) {
    let socket = client().await;
    socket.connect(server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let (mut wrong, mut unanswered) = (Vec::new(), 0);
    while next.fetch_add(1, Ordering::Relaxed) < count {
        let query = any_query();
        socket.send(&query).await.unwrap();
        match tokio::time::timeout(Duration::from_secs(12), socket.recv(&mut buffer)).await {
            Ok(Ok(length)) if rcode(&buffer[..length]) == 2 => unanswered += 1,
            // One answer for each query and no other: a late one would be taken for the next query's, and be wrong.
            Ok(Ok(length)) => wrong.extend(check(&query, &buffer[..length]).err()),
            Ok(Err(_)) | Err(_) => unanswered += 1,
        }
    }
    (wrong, unanswered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_through_the_cache() {
    let count = std::env::var("KEEPWARM_CROSSED").map_or(50_000, |count| count.parse().expect("a number of queries"));
    let faults = || Faults {
        jitter: Duration::from_millis(3),
        swap: 0.002,
        late: 0.002,
        late_by: Duration::from_millis(700),
        duplicate: 0.01,
        forge: 0.002,
        ..Faults::default()
    };
    let bench = Bench::cached([faults(), faults()], |config| {
        config.strategy = Strategy::RoundRobin;
        config.timeout = Duration::from_secs(10);
        config.cache.size = SIZE;
        config.cache.max_ttl = Duration::from_secs(1);
    })
    .await;
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask_many(bench.address, next.clone(), count))).collect();
    let (mut wrong, mut unanswered) = (Vec::new(), 0);
    for client in clients {
        let result = client.await.unwrap();
        wrong.extend(result.0);
        unanswered += result.1;
    }
    let status = bench.server.status();
    println!("{count} queries, {} wrong, {unanswered} unanswered, {status:?}", wrong.len());
    assert_eq!(wrong, Vec::<String>::new());
    assert!(unanswered * 1000 <= count, "{unanswered} of {count} unanswered");
    assert!(status.wrong_answers > 0, "the lab did what it was told");
    assert!(status.cache_hits * 20 > count as u64 && status.cache_misses * 20 > count as u64, "{status:?}");
    assert!(status.cache_bytes <= SIZE && status.cache_entries < 1000, "most had to give way: {status:?}");
    bench.stop().await;
}
