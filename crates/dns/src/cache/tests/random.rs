//! Answers of all sorts for clients of all sorts, and bytes that are no answers.

use hickory_proto::rr::rdata::TXT;
use proptest::prelude::*;

use super::*;

fn owner() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-zA-Z0-9]{1,12}", 1..4).prop_map(|labels| labels.join(".") + ".")
}

fn record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| RData::A(A(ip.into()))),
        owner().prop_map(|target| RData::CNAME(CNAME(name(&target)))),
        owner().prop_map(|target| RData::NS(NS(name(&target)))),
        "[ -~]{0,200}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
    ];
    (owner(), 1_u32..200_000, data).prop_map(|(owner, ttl, data)| Record::from_rdata(name(&owner), ttl, data))
}

fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 0..most)
}

/// The name's letters in another case.
fn other_case(query: &[u8], bits: u64) -> Vec<u8> {
    let mut query = query.to_vec();
    let end = Query::parse(&query).unwrap().question.end;
    crate::message::randomize_case(&mut query[12..end], || bits);
    query
}

/// As the cache has it at an age: clamped, then counted down.
fn aged(records: &[Record], age: u32) -> Vec<Record> {
    let mut records = records.to_vec();
    for record in &mut records {
        record.ttl = record.ttl.min(86_400) - age;
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_hit_is_the_answer_with_less_ttl(
        owner in owner(),
        first in 1_u32..200_000,
        (answers, authorities, additionals) in (records(12), records(4), records(6)),
        upstream_edns: bool,
        flags in prop::sample::select(vec![0, DO]),
        client_edns: bool,
        (age, bits, id) in (any::<prop::sample::Index>(), any::<u64>(), any::<[u8; 2]>()),
        max in prop::sample::select(vec![512, 800, 1232, u16::MAX]),
    ) {
        let bed = Bed::new();
        let query = asked(&owner, TYPE_A, RD, (client_edns || flags != 0).then_some((flags, b"")));
        let mut upstream = reply(&query);
        upstream.add_answers([address(&owner, first)]);
        upstream.add_answers(answers);
        upstream.add_authorities(authorities);
        upstream.add_additionals(additionals);
        upstream.edns = upstream_edns.then(|| opt(flags != 0, &[]));
        let upstream_bytes = bytes(&upstream);
        // The records as the codec reads them: TXT strings and empty names come back as they went.
        let upstream = Message::from_vec(&upstream_bytes).unwrap();
        let all = upstream.answers.iter().chain(&upstream.authorities).chain(&upstream.additionals);
        let smallest = all.map(|record| record.ttl).min().unwrap().min(86_400);
        prop_assert_eq!(bed.keep(&query, &upstream_bytes), Some(u64::from(smallest)));

        let mut client = other_case(&query, bits);
        client[..2].copy_from_slice(&id);
        let age = u32::try_from(age.index(smallest as usize)).unwrap();
        let (lookup, out) = bed.ask_within(&client, max, f64::from(age) + 0.5);
        let hit_found = matches!(lookup, Lookup::Hit { .. });
        prop_assert!(hit_found);
        let hit = Message::from_vec(&out).unwrap();
        let client_message = Message::from_vec(&client).unwrap();
        prop_assert_eq!(&out[..2], &id);
        prop_assert_eq!(&out[12..Query::parse(&client).unwrap().question.end], &client[12..Query::parse(&client).unwrap().question.end]);
        prop_assert_eq!(hit.edns.is_some(), client_message.edns.is_some());
        prop_assert_eq!(hit.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok), flags != 0);
        let limit = if max == u16::MAX { max } else if client_message.edns.is_some() { max.min(1232) } else { 512 };
        prop_assert!(out.len() <= usize::from(limit));
        if hit.metadata.truncation {
            prop_assert!(hit.answers.is_empty() && hit.authorities.is_empty() && hit.additionals.is_empty());
            prop_assert!(upstream_bytes.len() > usize::from(limit) - 11);
        } else {
            prop_assert_eq!(&hit.answers, &aged(&upstream.answers, age));
            prop_assert_eq!(&hit.authorities, &aged(&upstream.authorities, age));
            let dropped = hit.additionals.is_empty() && upstream_bytes.len() > usize::from(limit) - 11;
            prop_assert!(dropped || hit.additionals == aged(&upstream.additionals, age));
        }
    }

    #[test]
    fn garbage_never_panics_and_is_never_malformed_on_the_way_out(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        noise in prop::collection::vec(any::<u8>(), 0..80),
        records in records(5),
        at in 0.0..5000.0,
    ) {
        let (bed, query) = (Bed::new(), edns("www.example."));
        let mut upstream = reply(&query);
        upstream.add_answers([alias("www.example.", "b.example.", 100), address("b.example.", 200)]);
        upstream.add_authorities([soa(60, 60)]);
        upstream.add_additionals(records);
        upstream.edns = Some(opt(false, &[(15, &[0, 4]), (8, &[0, 1, 0, 0])]));
        for original in [bytes(&upstream), noise] {
            let mut answer = original;
            for (index, byte) in changes.iter().filter(|_| !answer.is_empty()).collect::<Vec<_>>() {
                // The question stays, or nothing would ever be kept.
                let index = index.index(answer.len());
                if index >= query.len() - 11 || index < 12 {
                    answer[index] = *byte;
                }
            }
            if let Some(cut) = cut.filter(|_| !answer.is_empty()) {
                answer.truncate(cut.index(answer.len()));
            }
            let _ = bed.keep(&query, &answer);
            for client in [&query, &plain("WWW.example.")] {
                let (_, out) = bed.ask_within(client, 1232, at);
                prop_assert!(out.is_empty() || crate::message::verify_answer(&out).is_ok());
                let parsed = Query::parse(client).unwrap();
                let key = bed.cache.key(client, &parsed).unwrap();
                let mut out = Vec::new();
                if bed.cache.stale(&key, &ClientView::new(&parsed, 1232, 1232), bed.at(at), &mut out) {
                    prop_assert!(crate::message::verify_answer(&out).is_ok());
                }
            }
            let _ = bed.cache.insert(&answer, &answer, bed.start);
        }
    }
}
