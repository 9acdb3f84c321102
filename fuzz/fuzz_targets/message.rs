//! Queries and answers of any content: read, rewritten, kept, shown.
#![no_main]

use std::time::Instant;

use keepwarm_dns::{
    cache::Cache,
    config::CacheSettings,
    message::{
        ClientView, Query, SERVFAIL, answer_matches, build_error, build_query_error, hash_key, normalise,
        prepare_answer, randomize_case, render, same_key, tcp_keepalive, verify_answer,
    },
};
use libfuzzer_sys::fuzz_target;

// Two bytes with the length of the query (the highest bit: over UDP), the query, then what becomes its answer.
fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk() else { return };
    let head = u16::from_be_bytes(*head);
    let datagram = head & 0x8000 != 0;
    let (query, tail) = rest.split_at(usize::from(head & 0x7fff).min(rest.len()));
    let mut out = Vec::new();
    let parsed = match Query::parse(query) {
        Ok(parsed) => parsed,
        Err(error) => {
            if build_query_error(query, &error, 1232, &mut out) {
                assert!(verify_answer(&out).is_ok());
            }
            // Bytes that are no query may be an answer.
            return answer(tail, query, &ClientView::new(&any_query(), 1232, 1232), &[0, 0, 1, 0, 1]);
        }
    };
    let mut forwarded = Vec::new();
    normalise(query, &parsed, &mut forwarded);
    let again = Query::parse(&forwarded).expect("what is forwarded is a query");
    normalise(&forwarded, &again, &mut out);
    assert_eq!(out, forwarded, "normal is normal");
    assert!(same_key(&forwarded, &out) && hash_key(&forwarded, 7) == hash_key(&out, 7));

    let question = &query[12..parsed.question.end];
    let mut other = question.to_vec();
    let mut bits = u64::from(query[0]) << 8 | u64::from(query[1]);
    randomize_case(&mut other, || {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        bits
    });
    assert!(other.eq_ignore_ascii_case(question));

    let view = ClientView::new(&parsed, if datagram { 1232 } else { u16::MAX }, 1232);
    build_error(query, &view, SERVFAIL, Some("keepwarm: fuzz"), &mut out);
    assert!(verify_answer(&out).is_ok() && answer_matches(query, &out, true, false));

    // An answer to this very question: the flags and counts of the tail, and its records.
    let Some((head, records)) = tail.split_first_chunk::<8>() else { return };
    let mut message = forwarded[..2].to_vec();
    message.extend_from_slice(&[head[0] & 0x87 | 0x80, head[1], 0, 1, 0, head[2], 0, head[3], 0, head[4]]);
    message.extend_from_slice(&forwarded[12..again.question.end]);
    message.extend_from_slice(records);
    answer(&message, &forwarded, &view, question);
});

/// What is done with an upstream's answer.
fn answer(message: &[u8], query: &[u8], view: &ClientView, question: &[u8]) {
    let _ = (answer_matches(query, message, true, true), render(message), tcp_keepalive(message));
    let Ok(info) = verify_answer(message) else { return };
    let mut out = Vec::new();
    prepare_answer(message, view, question, &mut out);
    assert!(verify_answer(&out).is_ok());
    assert!(out.len() <= view.max_size().max(12 + question.len() + 11));
    if !answer_matches(query, message, false, false) || info.tc {
        return;
    }
    let settings = CacheSettings { size: 1 << 20, ..CacheSettings::default() };
    let cache = Cache::new(&settings, 1, 7).expect("its size is above zero");
    #[allow(clippy::disallowed_methods, reason = "nothing waits here")]
    let now = Instant::now();
    if cache.insert(query, message, now).is_some() {
        let parsed = Query::parse(query).expect("it was parsed before");
        let key = cache.key(query, &parsed).expect("it was kept");
        let _ = cache.answer(&key, view, now, &mut out);
        assert!(verify_answer(&out).is_ok());
    }
}

fn any_query() -> Query {
    Query::parse(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]).expect("a query for the root")
}
