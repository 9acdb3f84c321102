//! The cache against an independent codec (hickory-proto), on a clock of the test's own.

mod keep;
mod random;
mod render;
mod share;
mod store;
mod time;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{
            A, CNAME, NS, SOA,
            opt::{EdnsCode, EdnsOption},
        },
    },
};

use super::{Cache, Lookup};
use crate::{
    config::CacheSettings,
    message::{ClientView, Query, name_from_text},
};

const RD: u16 = 0x0100;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
const DO: u16 = 0x8000;
const TYPE_A: u16 = 1;

/// A cache and the time at which it began.
struct Bed {
    cache: Cache,
    start: Instant,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut CacheSettings)) -> Bed {
        let mut settings = CacheSettings { size: 1 << 20, ..CacheSettings::default() };
        change(&mut settings);
        let cache = Cache::new(&settings, 2, 0x5eed).unwrap();
        Bed { cache, start: tokio::time::Instant::now().into_std() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// Keeps an answer at the start; for how many seconds it is fresh.
    fn keep(&self, query: &[u8], answer: &[u8]) -> Option<u64> {
        self.cache.insert(query, answer, self.start).map(|inserted| inserted.lifetime.as_secs())
    }

    fn ask_within(&self, query: &[u8], max: u16, seconds: f64) -> (Lookup, Vec<u8>) {
        let parsed = Query::parse(query).unwrap();
        let key = self.cache.key(query, &parsed).unwrap();
        let mut out = vec![7; 9];
        let view = ClientView::new(&parsed, max, 1232);
        let lookup = self.cache.answer(&key, &view, self.at(seconds), &mut out);
        assert_eq!(matches!(lookup, Lookup::Hit { .. }), !out.is_empty(), "only a hit writes");
        (lookup, out)
    }

    fn ask(&self, query: &[u8], seconds: f64) -> Lookup {
        self.ask_within(query, 1232, seconds).0
    }

    fn hit(&self, query: &[u8], seconds: f64) -> Message {
        let (lookup, out) = self.ask_within(query, 1232, seconds);
        assert!(matches!(lookup, Lookup::Hit { .. }), "{lookup:?}");
        Message::from_vec(&out).unwrap()
    }

    fn misses(&self, query: &[u8]) -> bool {
        self.ask(query, 0.0) == Lookup::Miss
    }

    fn stale(&self, query: &[u8], seconds: f64) -> Option<Message> {
        let parsed = Query::parse(query).unwrap();
        let key = self.cache.key(query, &parsed).unwrap();
        let mut out = vec![7; 9];
        let view = ClientView::new(&parsed, 1232, 1232);
        let found = self.cache.stale(&key, &view, self.at(seconds), &mut out);
        assert_eq!(found, !out.is_empty());
        found.then(|| Message::from_vec(&out).unwrap())
    }
}

/// A query as bytes: its type, flags of the header, and flags and options of OPT.
fn asked(name: &str, qtype: u16, flags: u16, edns: Option<(u16, &[u8])>) -> Vec<u8> {
    let mut query = vec![0x12, 0x34];
    query.extend_from_slice(&flags.to_be_bytes());
    query.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    query.extend_from_slice(&name_from_text(name).unwrap());
    query.extend_from_slice(&qtype.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    if let Some((flags, options)) = edns {
        query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0]);
        query.extend_from_slice(&flags.to_be_bytes());
        query.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
        query.extend_from_slice(options);
    }
    query
}

/// A query for an address without EDNS.
fn plain(name: &str) -> Vec<u8> {
    asked(name, TYPE_A, RD, None)
}

/// A query for an address with EDNS.
fn edns(name: &str) -> Vec<u8> {
    asked(name, TYPE_A, RD, Some((0, b"")))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

fn alias(owner: &str, target: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn server(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::NS(NS(name("ns.example."))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("host.example."), 7, 1, 2, 3, minimum);
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}

/// An answer to be changed and turned to bytes.
fn reply(query: &[u8]) -> Message {
    let mut reply = Message::from_vec(query).unwrap().into_response();
    reply.metadata.recursion_available = true;
    reply.edns = None;
    reply
}

fn bytes(reply: &Message) -> Vec<u8> {
    reply.to_vec().unwrap()
}

/// An answer with these records in the answer section.
fn answer(query: &[u8], records: Vec<Record>) -> Vec<u8> {
    let mut reply = reply(query);
    reply.add_answers(records);
    bytes(&reply)
}

/// An answer with this code, answers and authority.
fn negative(query: &[u8], code: ResponseCode, answers: Vec<Record>, authority: Vec<Record>) -> Vec<u8> {
    let mut reply = reply(query);
    reply.metadata.response_code = code;
    reply.add_answers(answers);
    reply.add_authorities(authority);
    bytes(&reply)
}

fn opt(flags_do: bool, options: &[(u16, &[u8])]) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0).set_dnssec_ok(flags_do);
    for (code, data) in options {
        edns.options_mut().insert(EdnsOption::Unknown(*code, data.to_vec()));
    }
    edns
}

/// The data of an option of an answer.
fn option(message: &Message, code: u16) -> Option<Vec<u8>> {
    match message.edns.as_ref()?.option(EdnsCode::from(code))? {
        EdnsOption::Unknown(_, data) => Some(data.clone()),
        _ => None,
    }
}
