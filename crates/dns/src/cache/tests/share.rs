//! Who shares an answer and who does not.

use super::*;

const SUBNET: [u8; 11] = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
const OTHER_SUBNET: [u8; 11] = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 3];
const COOKIE: [u8; 12] = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];

fn shared(query: &[u8]) -> bool {
    let bed = Bed::new();
    bed.cache.key(query, &Query::parse(query).unwrap()).is_some()
}

#[test]
fn letters_case_does_not_separate() {
    let (bed, lower) = (Bed::new(), plain("www.example."));
    bed.keep(&lower, &answer(&lower, vec![address("www.example.", 60)]));
    let mixed = plain("wWW.eXample.");
    let (_, out) = bed.ask_within(&mixed, 1232, 0.0);
    assert_eq!(out[12..mixed.len()], mixed[12..], "the question is as this client wrote it");
}

#[test]
fn every_part_of_the_key_separates() {
    let variants = [
        asked("www.example.", TYPE_A, RD, None),
        asked("wwx.example.", TYPE_A, RD, None),
        asked("example.", TYPE_A, RD, None),
        asked("www.example.", 28, RD, None),
        // Types 65 and 97 differ as the letters A and a do.
        asked("www.example.", 65, RD, None),
        asked("www.example.", 97, RD, None),
        asked("www.example.", TYPE_A, 0, None),
        asked("www.example.", TYPE_A, RD | AD, None),
        asked("www.example.", TYPE_A, RD | CD, None),
        asked("www.example.", TYPE_A, RD, Some((DO, b""))),
        asked("www.example.", TYPE_A, RD, Some((1, b""))),
        asked("www.example.", TYPE_A, RD, Some((0x4000, b""))),
        asked("www.example.", TYPE_A, RD, Some((0, &SUBNET))),
        asked("www.example.", TYPE_A, RD, Some((0, &OTHER_SUBNET))),
        asked("www.example.", TYPE_A, RD, Some((DO, &SUBNET))),
        chaos(),
    ];
    for kept in &variants {
        let bed = Bed::new();
        // Failures may be kept for any type.
        assert_eq!(bed.keep(kept, &negative_failure(kept)), Some(1));
        let key = bed.cache.key(kept, &Query::parse(kept).unwrap()).unwrap();
        for other in variants.iter().filter(|other| *other != kept) {
            assert!(bed.misses(other), "{kept:?} {other:?}");
            let parsed = Query::parse(other).unwrap();
            let colliding = key.colliding(&bed.cache.key(other, &parsed).unwrap());
            assert!(bed.cache.store.find(&colliding).is_none(), "with equal hashes: {kept:?} {other:?}");
        }
        assert!(!bed.misses(kept));
    }
}

fn chaos() -> Vec<u8> {
    let mut query = asked("www.example.", TYPE_A, RD, None);
    *query.last_mut().unwrap() = 3;
    query
}

/// SERVFAIL, made of the query's bytes.
fn negative_failure(query: &[u8]) -> Vec<u8> {
    let end = Query::parse(query).unwrap().question.end;
    let mut failure = query[..end].to_vec();
    (failure[2], failure[3], failure[11]) = (failure[2] | 0x80, failure[3] | 2, 0);
    failure
}

#[test]
fn with_and_without_edns_share_when_no_flag_is_set() {
    let (bed, with, without) = (Bed::new(), edns("www.example."), plain("www.example."));
    bed.keep(&with, &answer(&with, vec![address("www.example.", 60)]));
    assert!(!bed.misses(&without));
    assert!(bed.hit(&without, 0.0).edns.is_none() && bed.hit(&with, 0.0).edns.is_some());
}

#[test]
fn hop_by_hop_options_do_not_matter() {
    let mut options = COOKIE.to_vec();
    options.extend_from_slice(&[0, 11, 0, 0]);
    options.extend_from_slice(&SUBNET);
    options.extend_from_slice(&[0, 12, 0, 2, 0, 0]);
    let (bed, many) = (Bed::new(), asked("www.example.", TYPE_A, RD, Some((0, &options))));
    let bare = asked("www.example.", TYPE_A, RD, Some((0, &SUBNET)));
    let mut forwarded = Vec::new();
    crate::message::normalise(&many, &Query::parse(&many).unwrap(), &mut forwarded);
    bed.keep(&forwarded, &answer(&forwarded, vec![address("www.example.", 60)]));
    assert!(!bed.misses(&many) && !bed.misses(&bare));
}

#[test]
fn in_doubt_there_is_no_key() {
    let with_options = |options: &[u8]| asked("www.example.", TYPE_A, RD, Some((0, options)));
    assert!(shared(&with_options(&COOKIE)));
    assert!(!shared(&with_options(&[0, 3, 0, 0])), "NSID");
    assert!(!shared(&with_options(&[SUBNET, OTHER_SUBNET].concat())), "two subnets");
    for qtype in [0, 41, 128, 249, 255] {
        assert!(!shared(&asked("www.example.", qtype, RD, None)), "{qtype}");
    }
    for class in [0, 254, 255] {
        let mut query = plain("www.example.");
        *query.last_mut().unwrap() = class;
        assert!(!shared(&query), "class {class}");
    }
    for flag in [0x0400, 0x0200, 0x0080, 0x0040, 0x0001] {
        assert!(!shared(&asked("www.example.", TYPE_A, RD | flag, None)), "{flag:04x}");
    }
    let mut signed = plain("www.example.");
    signed[11] = 1;
    let other = [&signed[..], &[0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]].concat();
    assert!(!shared(&other), "a record that is not OPT");
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    assert!(!shared(&signed), "TSIG");
    let mut extended = edns("www.example.");
    let at = extended.len() - 6;
    extended[at] = 1;
    assert!(!shared(&extended), "an extended code in a query");
}

#[test]
fn equal_hashes_alone_do_not_make_a_hit() {
    let bed = Bed::new();
    let (one, two) = (plain("one.example."), plain("two.example."));
    bed.keep(&one, &answer(&one, vec![address("one.example.", 60)]));
    let (one_parsed, two_parsed) = (Query::parse(&one).unwrap(), Query::parse(&two).unwrap());
    let (own, other) = (bed.cache.key(&one, &one_parsed).unwrap(), bed.cache.key(&two, &two_parsed).unwrap());
    assert!(bed.cache.store.find(&own).is_some());
    assert!(bed.cache.store.find(&own.colliding(&other)).is_none());
}

#[test]
fn a_key_takes_another_case_and_nothing_else() {
    let bed = Bed::new();
    let query = plain("www.example.");
    let key = bed.cache.key(&query, &Query::parse(&query).unwrap()).unwrap();
    let (mixed, other) = (plain("WWW.example."), plain("wwx.example."));
    assert_eq!(key.with_question(&mixed[12..]).question(), &mixed[12..]);
    assert_eq!(key.with_question(&other[12..]).question(), &query[12..]);
}
