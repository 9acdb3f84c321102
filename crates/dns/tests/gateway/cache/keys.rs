//! Who shares an answer with whom.

use keepwarm_lab::{Faults, answer_matches};

use super::*;

/// A query with this option; its OPT record is the last thing in it.
fn with_option(name: &str, code: u16, data: &[u8]) -> Vec<u8> {
    with_options(name, &[(code, data)])
}

fn with_options(name: &str, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut query = query(name, 1);
    let length_at = query.len() - 2;
    for (code, data) in options {
        query.extend_from_slice(&code.to_be_bytes());
        query.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        query.extend_from_slice(data);
    }
    let length = u16::try_from(query.len() - length_at - 2).unwrap();
    query[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    query
}

/// A query with other bits in one byte.
fn flipped(mut query: Vec<u8>, at: usize, bits: u8) -> Vec<u8> {
    query[at] ^= bits;
    query
}

/// Family 1, a prefix of 24 bits, scope 0 (RFC 7871 section 6).
const SUBNET: u16 = 8;

#[tokio::test]
async fn queries_that_may_be_answered_differently_are_kept_apart() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let plain = || query("apart.example", 1);
    let (do_at, class_at) = (plain().len() - 4, plain().len() - 12);
    let variants = [
        ("plain", plain()),
        ("CD", flipped(plain(), 3, 0x10)),
        ("AD", flipped(plain(), 3, 0x20)),
        ("RD", flipped(plain(), 2, 0x01)),
        ("DO", flipped(plain(), do_at, 0x80)),
        ("DO and CD", flipped(flipped(plain(), do_at, 0x80), 3, 0x10)),
        ("another flag of EDNS", flipped(plain(), do_at + 1, 0x01)),
        ("type AAAA", query("apart.example", 28)),
        ("class CH", flipped(plain(), class_at, 1 ^ 3)),
        ("a subnet", with_option("apart.example", SUBNET, &[0, 1, 24, 0, 192, 0, 2])),
        ("another subnet", with_option("apart.example", SUBNET, &[0, 1, 24, 0, 192, 0, 3])),
        ("no subnet, please", with_option("apart.example", SUBNET, &[0, 1, 0, 0])),
        ("another name", query("apart.exampls", 1)),
    ];
    for round in 0..3 {
        for (number, (what, query)) in variants.iter().enumerate() {
            let answer = answer(&bench, query).await;
            let expected = if round == 0 { number + 1 } else { variants.len() };
            assert_eq!(asked(&bench), expected as u64, "{what}, round {round}");
            assert_eq!(answer.metadata.checking_disabled, query[3] & 0x10 != 0, "{what}");
            assert_eq!(answer.edns.unwrap().flags().dnssec_ok, query[do_at] & 0x80 != 0, "{what}");
        }
    }
    let status = bench.server.status();
    assert_eq!((status.cache_misses, status.cache_entries), (variants.len() as u64, variants.len()));
    assert_eq!(status.cache_hits, 2 * variants.len() as u64);
    bench.stop().await;
}

#[tokio::test]
async fn what_an_answer_may_depend_on_in_unknown_ways_passes_the_cache_by() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    answer(&bench, &query("bypass.example", 1)).await;
    let subnet = [0, 1, 24, 0, 192, 0, 2];
    let queries = [
        with_option("bypass.example", 3, &[]),
        with_option("bypass.example", 65_001, b"x"),
        with_options("bypass.example", &[(SUBNET, &subnet), (65_001, b"x")]),
        with_options("bypass.example", &[(SUBNET, &subnet), (SUBNET, &subnet)]),
        query("bypass.example", 255),
    ];
    let mut expected = 1;
    for query in &queries {
        for _ in 0..2 {
            let answer = exchange_udp(bench.address, query).await.unwrap();
            assert_eq!(answer_matches(query, &answer), Ok(()));
            expected += 1;
            assert_eq!(asked(&bench), expected, "{query:02x?}");
        }
    }
    let status = bench.server.status();
    assert_eq!((status.cache_hits, status.cache_misses, status.cache_entries), (0, 1, 1));
    bench.stop().await;
}

#[tokio::test]
async fn clients_with_and_without_edns_share_and_each_is_answered_in_its_way() {
    for edns_first in [true, false] {
        let bench = Bench::cached([Faults::default()], |_| {}).await;
        let mut order = [true, false];
        order.sort_by_key(|edns| *edns != edns_first);
        for edns in order.into_iter().cycle().take(6) {
            let query = if edns { query("both.example", 1) } else { query_without_edns("both.example", 1) };
            assert_eq!(answer(&bench, &query).await.edns.is_some(), edns);
        }
        assert_eq!(asked(&bench), 1);
        bench.stop().await;
    }
}

#[tokio::test]
async fn hop_by_hop_options_and_payload_sizes_keep_nobody_apart() {
    const COOKIE: u16 = 10;
    const PADDING: u16 = 12;
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let mut large = query("hops.example", 1);
    let payload_at = large.len() - 8;
    large[payload_at..payload_at + 2].copy_from_slice(&4096_u16.to_be_bytes());
    let cookie = with_option("hops.example", COOKIE, &[7; 8]);
    let padded = with_option("hops.example", PADDING, &[0; 64]);
    for query in [cookie, padded, large, query("hops.example", 1)] {
        assert!(answer(&bench, &query).await.edns.unwrap().options().as_ref().is_empty());
    }
    assert_eq!(asked(&bench), 1);
    bench.stop().await;
}
