//! The cache as clients meet it: what is asked upstream, and what is answered without.

mod crossed;
mod flush;
mod hits;
mod kept;
mod keys;
mod prefetch;
mod stale;

use std::time::Duration;

use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};
use keepwarm_lab::{answer_matches, build_query};

use crate::support::*;

/// Asks over UDP; the answer has to be the one of the lab.
async fn answer(bench: &Bench, query: &[u8]) -> Message {
    let answer = exchange_udp(bench.address, query).await.unwrap();
    assert_eq!(answer_matches(query, &answer), Ok(()));
    Message::from_vec(&answer).unwrap()
}

/// Queries that the first lab got over UDP.
fn asked(bench: &Bench) -> u64 {
    bench.labs[0].counters().udp.queries
}

/// Questions put to the first lab, repetitions of lost datagrams not counted.
fn questions(bench: &Bench) -> u64 {
    let row = bench.pool(0);
    row.queries - row.resends
}

/// The smallest TTL of the answers, or of the SOA where there are none.
fn ttl(answer: &Message) -> u32 {
    answer.answers.iter().chain(&answer.authorities).map(|record| record.ttl).min().expect("the answer has records")
}

/// The code of the extended error (RFC 8914).
fn extended_error(answer: &Message) -> Option<u16> {
    match answer.edns.as_ref()?.option(EdnsCode::from(15))? {
        EdnsOption::Unknown(_, data) => data.first_chunk().map(|code| u16::from_be_bytes(*code)),
        _ => None,
    }
}

/// A query of a client that does not speak EDNS.
fn query_without_edns(name: &str, qtype: u16) -> Vec<u8> {
    build_query(rand::random(), name, qtype, None)
}

/// Waits for the end of answers that live one second and have been received.
async fn one_second_passes() {
    tokio::time::sleep(Duration::from_millis(1010)).await;
}

/// Looks again until it is so; a test that waits in vain fails after 6 s.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 6 s");
}
