//! What a query costs on the way in, and an answer on the way back, piece by piece.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "no paused clock in a bench")]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use divan::{Bencher, black_box};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, TXT},
    },
};
use keepwarm_dns::{
    cache::{Cache, Lookup},
    config::CacheSettings,
    message::{ClientView, Header, Query, answer_matches, hash_key, normalise, prepare_answer, verify_answer},
};

fn main() {
    divan::main();
}

/// Answers of three sizes.
#[derive(Debug, Clone, Copy)]
enum Shape {
    A,
    Chain,
    Txt,
}

const SHAPES: [Shape; 3] = [Shape::A, Shape::Chain, Shape::Txt];

#[divan::bench]
fn parse_query(bencher: Bencher<'_, '_>) {
    let query = query("www.example.com.", RecordType::A);
    bencher.bench(|| Query::parse(black_box(&query)));
}

#[divan::bench]
fn normalise_and_hash(bencher: Bencher<'_, '_>) {
    let query = query("www.example.com.", RecordType::A);
    let parsed = Query::parse(&query).unwrap();
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        normalise(black_box(&query), &parsed, &mut out);
        hash_key(&out, 7)
    });
}

#[divan::bench(args = SHAPES)]
fn verify(bencher: Bencher<'_, '_>, shape: Shape) {
    let (_, answer) = exchange(shape);
    bencher.bench(|| verify_answer(black_box(&answer)));
}

#[divan::bench(args = SHAPES)]
fn matches(bencher: Bencher<'_, '_>, shape: Shape) {
    let (query, answer) = exchange(shape);
    bencher.bench(|| answer_matches(black_box(&query), black_box(&answer), false, false));
}

#[divan::bench(args = SHAPES)]
fn prepare(bencher: Bencher<'_, '_>, shape: Shape) {
    let (query, answer) = exchange(shape);
    let parsed = Query::parse(&query).unwrap();
    let view = ClientView::new(&parsed, u16::MAX, 1232);
    let mut out = Vec::with_capacity(8192);
    bencher
        .bench_local(|| prepare_answer(black_box(&answer), &view, &query[Header::LEN..parsed.question.end], &mut out));
}

/// Key, look-up and rendering: everything between a parsed query and the bytes to send.
#[divan::bench(args = SHAPES, sample_size = 1000)]
fn cache_hit(bencher: Bencher<'_, '_>, shape: Shape) {
    let (cache, now) = filled();
    let (query, answer) = exchange(shape);
    cache.insert(&query, &answer, now).unwrap();
    let parsed = Query::parse(&query).unwrap();
    let mut out = Vec::with_capacity(8192);
    let later = now + Duration::from_secs(1);
    bencher.bench_local(|| {
        let key = cache.key(black_box(&query), &parsed).unwrap();
        let view = ClientView::new(&parsed, u16::MAX, 1232);
        assert!(matches!(cache.answer(&key, &view, later, &mut out), Lookup::Hit { .. }));
    });
}

/// The query is parsed too, and each asks for another of ten thousand names, so that entries are not in the nearest cache.
#[divan::bench(threads = [1, 2])]
fn cache_hit_of_many(bencher: Bencher<'_, '_>) {
    let (cache, now) = filled();
    let queries: Vec<Vec<u8>> = (0..FILL).map(|n| query(&format!("host-{n}.example."), RecordType::A)).collect();
    bencher.counter(divan::counter::ItemsCount::new(queries.len())).with_inputs(|| Vec::with_capacity(512)).bench_refs(
        |out| {
            for query in &queries {
                let parsed = Query::parse(query).unwrap();
                let key = cache.key(query, &parsed).unwrap();
                let view = ClientView::new(&parsed, 1232, 1232);
                assert!(matches!(cache.answer(&key, &view, now, out), Lookup::Hit { .. }));
            }
        },
    );
}

#[divan::bench]
fn cache_miss(bencher: Bencher<'_, '_>) {
    let (cache, now) = filled();
    let query = query("missing.example.", RecordType::A);
    let parsed = Query::parse(&query).unwrap();
    let view = ClientView::new(&parsed, u16::MAX, 1232);
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        let key = cache.key(black_box(&query), &parsed).unwrap();
        assert_eq!(cache.answer(&key, &view, now, &mut out), Lookup::Miss);
    });
}

#[divan::bench(args = SHAPES, sample_size = 1000)]
fn cache_insert(bencher: Bencher<'_, '_>, shape: Shape) {
    let (cache, now) = filled();
    let (query, answer) = exchange(shape);
    bencher.bench(|| cache.insert(black_box(&query), black_box(&answer), now).unwrap());
}

fn filled() -> (Cache, Instant) {
    let now = Instant::now();
    let cache = Cache::new(&CacheSettings::default(), 2, 7).unwrap();
    for number in 0..FILL {
        let query = query(&format!("host-{number}.example."), RecordType::A);
        let answer = answer(&query, vec![address(&format!("host-{number}.example."))]);
        cache.insert(&query, &answer, now).unwrap();
    }
    (cache, now)
}

fn exchange(shape: Shape) -> (Vec<u8>, Vec<u8>) {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let alias = |from: &str, to: &str| Record::from_rdata(name(from), 300, RData::CNAME(CNAME(name(to))));
    let (qtype, records) = match shape {
        Shape::A => (RecordType::A, vec![address("www.example.com.")]),
        Shape::Chain => {
            let mut records = vec![
                alias("www.example.com.", "www.example.com.cdn.example.net."),
                alias("www.example.com.cdn.example.net.", "edge-7.cdn.example.net."),
            ];
            records.extend((0..4).map(|_| address("edge-7.cdn.example.net.")));
            (RecordType::A, records)
        }
        Shape::Txt => {
            let text = RData::TXT(TXT::new(vec!["x".repeat(250); 16]));
            (RecordType::TXT, vec![Record::from_rdata(name("www.example.com."), 300, text)])
        }
    };
    let query = query("www.example.com.", qtype);
    let answer = answer(&query, records);
    (query, answer)
}

fn address(name: &str) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), 300, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

fn query(name: &str, qtype: RecordType) -> Vec<u8> {
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Question::query(Name::from_ascii(name).unwrap(), qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_version(0);
    query.set_edns(edns);
    query.to_vec().unwrap()
}

fn answer(query: &[u8], records: Vec<Record>) -> Vec<u8> {
    let mut answer = Message::from_vec(query).unwrap().into_response();
    answer.metadata.recursion_available = true;
    answer.add_answers(records);
    answer.to_vec().unwrap()
}

const FILL: u64 = 10_000;
