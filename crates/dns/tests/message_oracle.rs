//! `message` against an independent codec (hickory-proto), and against bytes that are no messages at all.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::HashSet, net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as OracleQuery, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, MX, SOA, SRV, TXT,
            opt::{EdnsCode, EdnsOption},
        },
    },
};
use keepwarm_dns::message::{
    self, ClientView, Header, Query, QueryError, addresses, answer_matches, build_error, build_query,
    build_query_error, hash_key, normalise, prepare_answer, randomize_case, render, same_key, tcp_keepalive,
    verify_answer,
};
use proptest::prelude::*;

fn query(name: &str, edns: Option<&[(u16, &[u8])]>) -> Vec<u8> {
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(OracleQuery::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(options) = edns {
        query.set_edns(oracle_edns(4096, options));
    }
    query.to_vec().unwrap()
}

fn oracle_edns(payload: u16, options: &[(u16, &[u8])]) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(0).set_dnssec_ok(true);
    for (code, data) in options {
        edns.options_mut().insert(EdnsOption::Unknown(*code, data.to_vec()));
    }
    edns
}

fn record(name: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), 300, data)
}

fn answer_to(query: &[u8], answers: Vec<Record>, additionals: Vec<Record>, edns: Option<Edns>) -> Vec<u8> {
    let mut answer = Message::from_vec(query).unwrap().into_response();
    answer.metadata.recursion_available = true;
    answer.edns = edns;
    answer.add_answers(answers);
    answer.add_additionals(additionals);
    answer.to_vec().unwrap()
}

fn parse(bytes: &[u8]) -> Query {
    Query::parse(bytes).unwrap()
}

fn normal(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![9; 3];
    normalise(bytes, &parse(bytes), &mut out);
    out
}

/// The question as it stands in a query.
fn question(bytes: &[u8]) -> &[u8] {
    &bytes[Header::LEN..parse(bytes).question.end]
}

fn prepared(query: &[u8], answer: &[u8], max: u16) -> (Vec<u8>, Message) {
    let mut out = Vec::new();
    prepare_answer(answer, &ClientView::new(&parse(query), max, 1232), question(query), &mut out);
    let oracle = Message::from_vec(&out).unwrap();
    (out, oracle)
}

const A1: RData = RData::A(A(std::net::Ipv4Addr::new(192, 0, 2, 1)));

#[test]
fn forwarding_drops_hop_by_hop_options_and_keeps_the_rest() {
    let options: [(u16, &[u8]); 5] = [(10, b"cookie!!"), (65_001, b"own"), (11, b""), (12, &[0; 50]), (65_002, b"")];
    let sent = query("www.Example.com.", Some(&options));
    let forwarded = normal(&sent);
    let expected = query("www.Example.com.", Some(&[(65_001, b"own"), (65_002, b"")]));
    let mut expected = Message::from_vec(&expected).unwrap();
    expected.metadata.id = 0;
    expected.edns.as_mut().unwrap().set_max_payload(1232);
    assert_eq!(Message::from_vec(&forwarded).unwrap(), expected);
    assert_eq!(normal(&forwarded), forwarded, "a second time changes nothing");
}

#[test]
fn a_query_without_edns_goes_on_without() {
    let sent = query("example.com.", None);
    let forwarded = normal(&sent);
    assert_eq!((&forwarded[..2], &forwarded[2..]), (&[0, 0][..], &sent[2..]));
}

#[test]
fn malformed_queries_get_the_error_that_is_theirs() {
    let good = query("example.com.", Some(&[]));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Query::parse(&bytes).map(|_| ())
    };
    assert_eq!(Query::parse(&good[..11]), Err(QueryError::Drop));
    assert_eq!(changed(2, 0x81), Err(QueryError::Drop), "an answer");
    assert_eq!(changed(2, 0x28), Err(QueryError::NotImp), "UPDATE");
    assert_eq!(changed(5, 2), Err(QueryError::FormErr), "two questions");
    assert_eq!(changed(5, 0), Err(QueryError::FormErr), "none");
    assert_eq!(changed(7, 1), Err(QueryError::FormErr), "an answer record");
    assert_eq!(changed(12, 0xc0), Err(QueryError::FormErr), "a compressed name");
    assert_eq!(changed(11, 0), Err(QueryError::FormErr), "bytes behind the end");
    assert_eq!(changed(11, 2), Err(QueryError::FormErr), "a record too few");
    assert_eq!(changed(26, 252), Err(QueryError::Refused), "a zone transfer");
    let edns = parse(&good).edns.unwrap();
    assert_eq!(changed(edns.record.start + 6, 1), Err(QueryError::BadVers));
    let mut two = good.clone();
    two.extend_from_slice(&good[edns.record]);
    two[11] = 2;
    assert_eq!(Query::parse(&two), Err(QueryError::FormErr), "two OPT records");
}

#[test]
fn errors_of_our_own_are_well_formed() {
    let mut bytes = query("example.com.", Some(&[]));
    let view = ClientView::new(&parse(&bytes), 1232, 1232);
    let mut out = Vec::new();
    build_error(&bytes, &view, message::SERVFAIL, Some(&"ä".repeat(500)), &mut out);
    let error = Message::from_vec(&out).unwrap();
    assert_eq!((error.metadata.id, error.metadata.response_code), (0x1234, ResponseCode::ServFail));
    assert_eq!((error.queries.len(), error.metadata.message_type), (1, MessageType::Response));
    assert!(error.metadata.recursion_desired && error.metadata.recursion_available);
    let edns = error.edns.unwrap();
    let Some(EdnsOption::Unknown(15, data)) = edns.option(EdnsCode::from(15)) else { panic!("no extended error") };
    assert_eq!((&data[..2], data.len()), (&[0, 0][..], 202));
    assert!(out.len() <= 512);

    let at = parse(&bytes).edns.unwrap().record.start + 6;
    bytes[at] = 1;
    assert!(build_query_error(&bytes, &QueryError::BadVers, 1232, &mut out));
    let info = verify_answer(&out).unwrap();
    assert_eq!(info.rcode, message::BADVERS);
    assert_eq!(Message::from_vec(&out).unwrap().edns.unwrap().version(), 0);
    assert!(!build_query_error(&bytes, &QueryError::Drop, 1232, &mut out));
    assert!(build_query_error(&bytes[..14], &QueryError::FormErr, 1232, &mut out));
    assert_eq!((out.len(), verify_answer(&out).unwrap().rcode), (12, message::FORMERR));
}

#[test]
fn an_answer_goes_back_with_the_clients_id_case_and_edns() {
    let sent = query("wWw.eXample.com.", Some(&[]));
    let upstream = answer_to(
        &query("www.example.com.", Some(&[])),
        vec![record("www.example.com.", A1)],
        vec![],
        Some(oracle_edns(4096, &[(11, &[0, 40]), (65_001, b"kept"), (12, &[0; 99])])),
    );
    assert_eq!(tcp_keepalive(&upstream), Some(Duration::from_secs(4)));
    let (bytes, answer) = prepared(&sent, &upstream, 1232);
    assert_eq!(&bytes[..2], &sent[..2]);
    assert_eq!(&bytes[12..12 + question(&sent).len()], question(&sent));
    let edns = answer.edns.unwrap();
    assert_eq!(edns.max_payload(), 1232);
    assert_eq!(edns.options().as_ref().len(), 1, "keep-alive and padding are gone");
    assert_eq!(answer.answers.len(), 1);
    let (_, plain) = prepared(&query("www.example.com.", None), &upstream, 1232);
    assert!(plain.edns.is_none(), "a client without EDNS gets none");
    assert_eq!(plain.answers.len(), 1);
}

#[test]
fn a_client_with_edns_gets_opt_from_an_upstream_without() {
    let plain = query("example.com.", None);
    let (_, answer) = prepared(&query("example.com.", Some(&[])), &answer_to(&plain, vec![], vec![], None), 1232);
    assert!(answer.edns.is_some_and(|edns| edns.flags().dnssec_ok));
}

#[test]
fn an_error_without_its_question_gets_it_back() {
    let sent = query("example.com.", Some(&[]));
    let bare = [0, 0, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(answer_matches(&sent, &bare, false, true));
    assert!(!answer_matches(&sent, &bare, false, false));
    let (_, answer) = prepared(&sent, &bare, 1232);
    assert_eq!((answer.queries.len(), answer.metadata.response_code), (1, ResponseCode::ServFail));
    assert!(!answer.metadata.truncation);
}

#[test]
fn an_answer_too_large_loses_additionals_first_and_then_everything() {
    let plain = query("example.com.", None);
    let many = |count| vec![record("example.com.", A1); count];
    let (bytes, answer) = prepared(&plain, &answer_to(&plain, many(10), many(40), None), 1232);
    assert!(bytes.len() <= 512 && !answer.metadata.truncation);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (10, 0));
    let large = answer_to(&plain, many(40), vec![], None);
    let (bytes, answer) = prepared(&plain, &large, 1232);
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    assert_eq!(bytes.len(), plain.len());
    assert_eq!(prepared(&plain, &large, u16::MAX).1.answers.len(), 40, "streams have room");
    let edns = query("example.com.", Some(&[]));
    assert_eq!(prepared(&edns, &large, 1232).1.answers.len(), 40, "and so has a client that says so");
    let larger = answer_to(&plain, many(80), vec![], None);
    let (bytes, answer) = prepared(&edns, &larger, 1232);
    assert!(answer.metadata.truncation && answer.edns.is_some() && bytes.len() <= 1232);
}

#[test]
fn what_an_answer_says() {
    let sent = query("example.com.", None);
    let info = |answers| verify_answer(&answer_to(&sent, answers, vec![], None)).unwrap();
    assert!(info(vec![]).is_nodata);
    assert!(info(vec![record("example.com.", RData::CNAME(CNAME(Name::from_ascii("b.").unwrap())))]).is_nodata);
    let address = info(vec![record("example.com.", A1)]);
    assert_eq!((address.is_nodata, address.answer_count, address.rcode, address.tc), (false, 1, 0, false));
    let mut bad = Message::from_vec(&answer_to(&sent, vec![], vec![], Some(oracle_edns(1232, &[])))).unwrap();
    bad.metadata.response_code = ResponseCode::BADVERS;
    assert_eq!(verify_answer(&bad.to_vec().unwrap()).unwrap().rcode, message::BADVERS);
    let whole = answer_to(&sent, vec![record("example.com.", A1)], vec![], None);
    let mut cut = whole[..whole.len() - 3].to_vec();
    assert!(verify_answer(&cut).is_err());
    cut[2] |= 2;
    assert!(verify_answer(&cut).unwrap().tc, "a truncated answer may end anywhere");
    assert!(prepared(&sent, &cut, 1232).1.metadata.truncation);
}

#[test]
fn pointers_that_lead_forwards_or_to_themselves_are_refused() {
    let sent = query("example.com.", None);
    let mut looped = answer_to(&sent, vec![record("example.com.", A1)], vec![], None);
    let at = sent.len();
    looped[at + 1] = u8::try_from(at).unwrap();
    assert!(verify_answer(&looped).is_err());
    assert!(render(&looped).is_err());
}

#[test]
fn only_the_answer_to_the_question_matches() {
    let sent = query("a.Example.", None);
    let right = answer_to(&sent, vec![], vec![], None);
    assert!(answer_matches(&sent, &right, true, false));
    let lower = answer_to(&query("a.example.", None), vec![], vec![], None);
    assert!(answer_matches(&sent, &lower, false, false));
    assert!(!answer_matches(&sent, &lower, true, false));
    for other in ["b.example.", "a.exampl.", "example.", "."] {
        assert!(!answer_matches(&sent, &answer_to(&query(other, None), vec![], vec![], None), false, true), "{other}");
    }
    assert!(!answer_matches(&sent, &sent, false, true), "a query is no answer");
}

#[test]
fn queries_share_only_when_all_but_the_names_case_is_equal() {
    let key = |name: &str, edns: Option<&[(u16, &[u8])]>| normal(&query(name, edns));
    let base = key("www.example.com.", Some(&[(8, &[0, 1, 24, 0, 192, 0, 2])]));
    let other_case = key("WWW.exAmple.com.", Some(&[(8, &[0, 1, 24, 0, 192, 0, 2]), (10, b"cookie!!")]));
    assert!(same_key(&base, &other_case));
    assert_eq!(hash_key(&base, 7), hash_key(&other_case, 7));
    assert_ne!(hash_key(&base, 7), hash_key(&base, 8));
    for other in [
        key("www.example.com.", Some(&[(8, &[0, 1, 24, 0, 192, 0, 3])])),
        key("www.example.com.", Some(&[])),
        key("www.example.com.", None),
        key("wwx.example.com.", Some(&[(8, &[0, 1, 24, 0, 192, 0, 2])])),
    ] {
        assert!(!same_key(&base, &other));
        assert_ne!(hash_key(&base, 7), hash_key(&other, 7));
    }
    let hashes: HashSet<u64> = (0..20_000).map(|n| hash_key(&key(&format!("h{n}.example."), None), 1)).collect();
    assert_eq!(hashes.len(), 20_000);
}

#[test]
fn addresses_are_those_of_the_answer_section() {
    let sent = query("example.com.", None);
    let v6 = RData::AAAA(AAAA("2001:db8::1".parse().unwrap()));
    let records = vec![record("example.com.", A1), record("other.", v6)];
    let answer = answer_to(&sent, records, vec![record("glue.", A1)], None);
    let ttl = Duration::from_secs(300);
    let expected: [(IpAddr, Duration); 2] =
        [("192.0.2.1".parse().unwrap(), ttl), ("2001:db8::1".parse().unwrap(), ttl)];
    assert_eq!(addresses(&answer).collect::<Vec<_>>(), expected);
}

#[test]
fn records_are_shown_as_in_a_zone_file() {
    let sent = query("example.com.", None);
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let records = [
        (A1, "A\t192.0.2.1"),
        (RData::MX(MX::new(10, name("mail.example.com."))), "MX\t10 mail.example.com."),
        (RData::TXT(TXT::new(vec!["a \"b\"".into(), "c".into()])), "TXT\t\"a \\\"b\\\"\" \"c\""),
        (RData::SRV(SRV::new(1, 2, 443, name("s.example.com."))), "SRV\t1 2 443 s.example.com."),
        (
            RData::SOA(SOA::new(name("ns.example.com."), name("host.example.com."), 7, 1, 2, 3, 4)),
            "SOA\tns.example.com. host.example.com. 7 1 2 3 4",
        ),
    ];
    let answer =
        answer_to(&sent, records.iter().map(|(data, _)| record("example.com.", data.clone())).collect(), vec![], None);
    let expected: Vec<String> = records.iter().map(|(_, text)| format!("example.com.\t300\tIN\t{text}")).collect();
    let shown = render(&answer).unwrap();
    assert_eq!((shown.rcode.as_str(), shown.answers), ("NOERROR", expected));
}

/// An answer with one record of this type and data.
fn raw(rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&rtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn newer_and_unknown_types_have_their_forms() {
    let shown = |rtype, data: &[u8]| render(&raw(rtype, data)).unwrap().answers[0].clone();
    let https = b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x01\xbb\0\x04\0\x04\xc0\0\x02\x01";
    assert_eq!(shown(65, https), ".\t60\tIN\tHTTPS\t1 . alpn=h2,h3 port=443 ipv4hint=192.0.2.1");
    assert_eq!(shown(257, b"\0\x05issueca.example"), ".\t60\tIN\tCAA\t0 issue \"ca.example\"");
    assert_eq!(shown(65_280, b"\x01\xff"), ".\t60\tIN\tTYPE65280\t\\# 2 01FF");
    assert_eq!(shown(1, b"\x01"), ".\t60\tIN\tA\t\\# 1 01", "data that does not fit its type");
}

#[test]
fn names_and_types_are_read_as_people_write_them() {
    for (text, same) in [("example.com", "example.com."), (".", "."), (r"a\.b.c", r"a\.b.c."), (r"\097b", "ab.")] {
        assert_eq!(build_query(text, 1), build_query(same, 1));
        let built = build_query(text, 1).unwrap();
        let oracle = Message::from_vec(&built).unwrap();
        assert_eq!(oracle.queries[0].name(), &Name::from_ascii(same).unwrap());
        assert_eq!(parse(&built).question.qtype, 1);
    }
    for bad in ["", "a..b", ".a", r"a\", r"a\25", r"a\256", &"a".repeat(64), &"a.".repeat(128)] {
        assert_eq!(build_query(bad, 1), None, "{bad}");
    }
    assert!(build_query(&"a.".repeat(127), 1).is_some());
    for (name, number) in [
        ("AAAA", Some(28)),
        ("https", Some(65)),
        ("TYPE65", Some(65)),
        ("type99999", None),
        ("X", None),
        ("TYPE+1", None),
    ] {
        assert_eq!(message::type_from_name(name), number, "{name}");
    }
    assert_eq!((message::type_name(28), message::type_name(65_280)), ("AAAA".into(), "TYPE65280".into()));
    assert_eq!(message::rcode_name(3), "NXDOMAIN");
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?"
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..6).prop_map(|labels| labels.join(".") + ".")
}

/// Everything that reads bytes from the network.
fn read_all(bytes: &[u8], client: &[u8]) {
    let mut out = Vec::new();
    match Query::parse(bytes) {
        Ok(parsed) => {
            normalise(bytes, &parsed, &mut out);
            assert!(Query::parse(&out).is_ok(), "what is forwarded is well formed");
            let _ = hash_key(&out, 1);
            assert!(same_key(&out, &out));
            build_error(bytes, &ClientView::new(&parsed, 1232, 1232), message::SERVFAIL, Some("x"), &mut out);
            assert!(verify_answer(&out).is_ok());
        }
        Err(error) => {
            if build_query_error(bytes, &error, 1232, &mut out) {
                assert!(verify_answer(&out).is_ok());
            }
        }
    }
    let _ = (hash_key(bytes, 1), same_key(bytes, client), same_key(client, bytes));
    let _ = (answer_matches(client, bytes, false, true), answer_matches(bytes, client, true, false));
    let _ = (tcp_keepalive(bytes), addresses(bytes).count(), message::is_truncated(bytes), render(bytes));
    randomize_case(&mut bytes.to_vec(), || 5);
    for max in [512, 1232, u16::MAX] {
        prepare_answer(bytes, &ClientView::new(&parse(client), max, 1232), question(client), &mut out);
        assert!(max == u16::MAX || out.len() <= usize::from(max));
        if verify_answer(bytes).is_ok() && answer_matches(client, bytes, false, true) {
            assert!(verify_answer(&out).is_ok());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes, &query("example.com.", Some(&[])));
    }

    #[test]
    fn mutated_messages_never_panic_nor_match_falsely(
        name in name(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let sent = query(&name, Some(&[(10, b"cookie!!"), (65_001, b"x")]));
        let edns = oracle_edns(1232, &[(12, &[0; 20]), (65_001, b"y")]);
        let answer = answer_to(&sent, vec![record(&name, A1); 3], vec![record(&name, A1)], Some(edns));
        for whole in [&sent, &answer] {
            let mut bytes = whole.clone();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            read_all(&bytes, &sent);
            if answer_matches(&sent, &bytes, true, false) {
                prop_assert_eq!(bytes.get(12..12 + question(&sent).len()), Some(question(&sent)));
                prop_assert!(bytes[2] & 0x80 != 0);
            }
        }
    }

    #[test]
    fn the_oracle_reads_what_goes_out(name in name(), id: u16, count in 0_usize..40, edns: bool, bits: u64) {
        let mut sent = query(&name, edns.then_some(&[(10, b"cookie!!".as_slice())]));
        sent[..2].copy_from_slice(&id.to_be_bytes());
        let mut forwarded = normal(&sent);
        let end = parse(&forwarded).question.end;
        randomize_case(&mut forwarded[12..end], || bits);
        prop_assert!(forwarded[12..end].eq_ignore_ascii_case(question(&sent)));
        let answer = answer_to(&forwarded, vec![record(&name, A1); count], vec![], edns.then(|| oracle_edns(4096, &[])));
        prop_assert!(answer_matches(&forwarded, &answer, true, false));
        prop_assert!(answer_matches(&sent, &answer, false, false));
        let (bytes, read) = prepared(&sent, &answer, 1232);
        prop_assert_eq!(read.metadata.id, id);
        prop_assert_eq!(&bytes[12..12 + question(&sent).len()], question(&sent));
        prop_assert_eq!(read.edns.is_some(), edns);
        prop_assert_eq!(read.answers.len(), if read.metadata.truncation { 0 } else { count });
        let limit = if edns { 1232 } else { 512 };
        prop_assert!(bytes.len() <= limit);
    }

    #[test]
    fn names_survive_text(bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..8)) {
        let mut wire = Vec::new();
        for label in &bytes {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend_from_slice(label);
        }
        wire.push(0);
        let shown = render(&raw(2, &wire)).unwrap().answers[0].clone();
        let text = shown.rsplit('\t').next().unwrap();
        let built = build_query(text, 1).unwrap();
        prop_assert_eq!(&built[12..12 + wire.len()], &wire[..]);
    }
}
