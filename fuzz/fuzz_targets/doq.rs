//! A stream of DNS over QUIC is one query or breaks a rule, in pieces of any size.
#![no_main]

use keepwarm_dns::{
    fuzzing::doq_query,
    message::{Header, Query},
};
use libfuzzer_sys::fuzz_target;

// The size of the pieces, the stream.
fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = doq_query(stream, usize::MAX);
    assert_eq!(doq_query(stream, usize::from(*piece)), whole);
    let length = stream.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest));
    match whole {
        Ok(query) => {
            assert_eq!(length, Some((query.len(), &query[..])));
            assert!(Header::read(&query).is_some_and(|header| header.id() == 0 && !header.is_answer()));
            let _ = Query::parse(&query);
        }
        Err(rule) => assert!(!rule.is_empty()),
    }
});
