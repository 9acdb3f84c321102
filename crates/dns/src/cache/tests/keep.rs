//! What is kept, and for how long.

use super::*;

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;

#[test]
fn an_answer_is_fresh_for_its_smallest_ttl() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let mut reply = reply(&query);
    reply.add_answers([address("www.example.", 300)]);
    reply.add_authorities([server("example.", 200)]);
    reply.add_additionals([address("ns.example.", 100)]);
    assert_eq!(bed.keep(&query, &bytes(&reply)), Some(100));
    assert!(matches!(bed.ask(&query, 99.9), Lookup::Hit { .. }));
    assert_eq!(bed.ask(&query, 100.0), Lookup::Stale { hold: false });
}

#[test]
fn the_ttl_of_opt_is_none() {
    let (bed, query) = (Bed::new(), edns("www.example."));
    let mut reply = reply(&query);
    reply.add_answers([address("www.example.", 300)]);
    reply.edns = Some(opt(false, &[]));
    assert_eq!(bed.keep(&query, &bytes(&reply)), Some(300));
}

#[test]
fn ttls_are_clamped() {
    let bed = Bed::with(|settings| {
        settings.min_ttl = Duration::from_secs(10);
        settings.max_ttl = Duration::from_secs(60);
    });
    let query = plain("www.example.");
    let records = vec![alias("www.example.", "b.example.", 5), address("b.example.", 1000)];
    assert_eq!(bed.keep(&query, &answer(&query, records)), Some(10));
    let ttls: Vec<u32> = bed.hit(&query, 0.0).answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [10, 60]);
}

#[test]
fn a_ttl_of_zero_is_not_kept_and_neither_is_one_with_the_top_bit() {
    let query = plain("www.example.");
    for ttl in [0, 0x8000_0000, u32::MAX] {
        let answer = answer(&query, vec![address("www.example.", ttl)]);
        assert_eq!(Bed::new().keep(&query, &answer), None, "{ttl}");
        let floor = Bed::with(|settings| settings.min_ttl = Duration::from_secs(5));
        assert_eq!(floor.keep(&query, &answer), Some(5), "{ttl}");
    }
    let most = answer(&query, vec![address("www.example.", 0x7fff_ffff)]);
    assert_eq!(Bed::new().keep(&query, &most), Some(86_400));
}

#[test]
fn negative_answers_last_as_long_as_their_soa_says() {
    let query = plain("no.example.");
    for code in [NX, OK] {
        let kept = |ttl, minimum| Bed::new().keep(&query, &negative(&query, code, vec![], vec![soa(ttl, minimum)]));
        assert_eq!(kept(100, 60), Some(60), "the minimum");
        assert_eq!(kept(50, 60), Some(50), "the ttl");
        assert_eq!(kept(9000, 9000), Some(300), "the ceiling");
        assert_eq!(kept(100, 0), None);
        assert_eq!(Bed::new().keep(&query, &negative(&query, code, vec![], vec![])), None, "no soa");
        let mut elsewhere = reply(&query);
        elsewhere.metadata.response_code = code;
        elsewhere.add_additionals([soa(100, 60)]);
        assert_eq!(Bed::new().keep(&query, &bytes(&elsewhere)), None, "a soa in another section");
    }
}

#[test]
fn the_soa_of_a_negative_answer_tells_how_long_it_lasts() {
    let (bed, query) = (Bed::new(), plain("no.example."));
    bed.keep(&query, &negative(&query, NX, vec![], vec![soa(100, 60)]));
    assert_eq!(bed.hit(&query, 20.0).authorities[0].ttl, 40);
}

#[test]
fn a_chain_that_ends_in_nothing_is_capped_by_its_links() {
    let query = plain("www.example.");
    for code in [NX, OK] {
        let chain = |ttl| vec![alias("www.example.", "no.example.", ttl)];
        let kept = |ttl| Bed::new().keep(&query, &negative(&query, code, chain(ttl), vec![soa(100, 60)]));
        assert_eq!((kept(20), kept(2000)), (Some(20), Some(60)));
        assert_eq!(Bed::new().keep(&query, &negative(&query, code, chain(20), vec![])), None);
    }
}

#[test]
fn a_referral_is_not_kept() {
    let query = plain("www.example.");
    assert_eq!(Bed::new().keep(&query, &negative(&query, OK, vec![], vec![server("example.", 100)])), None);
}

#[test]
fn other_errors_are_not_kept() {
    let query = plain("www.example.");
    let codes = [
        ResponseCode::FormErr,
        ResponseCode::NotImp,
        ResponseCode::Refused,
        ResponseCode::YXDomain,
        ResponseCode::NotAuth,
    ];
    for code in codes {
        let with_everything = negative(&query, code, vec![address("www.example.", 60)], vec![soa(60, 60)]);
        assert_eq!(Bed::new().keep(&query, &with_everything), None, "{code}");
    }
    let query = edns("www.example.");
    let mut extended = reply(&query);
    extended.metadata.response_code = ResponseCode::BADVERS;
    extended.edns = Some(opt(false, &[]));
    extended.add_answers([address("www.example.", 60)]);
    assert_eq!(Bed::new().keep(&query, &bytes(&extended)), None, "its lower bits say NOERROR");
}

#[test]
fn what_is_truncated_malformed_or_about_something_else_is_not_kept() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let good = answer(&query, vec![address("www.example.", 60)]);
    let mut truncated = good.clone();
    truncated[2] |= 2;
    assert_eq!(bed.keep(&query, &truncated), None);
    assert_eq!(bed.keep(&query, &good[..good.len() - 1]), None);
    assert_eq!(bed.keep(&query, &query), None, "a query");
    assert_eq!(bed.keep(&query, &answer(&plain("wwx.example."), vec![address("www.example.", 60)])), None);
    let other_type = asked("www.example.", 28, RD, None);
    assert_eq!(bed.keep(&other_type, &good), None);
    let mut bare = good[..12].to_vec();
    (bare[3], bare[5], bare[7]) = (0x82, 0, 0);
    assert_eq!(bed.keep(&query, &bare), None, "a failure without its question");
    assert_eq!(bed.cache.len(), 0);
    assert_eq!(bed.keep(&query, &good), Some(60));
}

#[test]
fn what_is_longer_than_a_message_is_not_kept() {
    let (bed, query) = (Bed::with(|settings| settings.size = 16 << 20), edns("www.example."));
    let mut long = answer(&query, vec![address("www.example.", 60); 1000]);
    let length = 60_000_u16;
    long[11] = 1;
    long.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
    long.extend_from_slice(&(length + 4).to_be_bytes());
    long.extend_from_slice(&[0xff, 0xee]);
    long.extend_from_slice(&length.to_be_bytes());
    long.resize(long.len() + usize::from(length), 0);
    assert!(long.len() > 65_535 && crate::message::verify_answer(&long).is_ok());
    assert_eq!(bed.keep(&query, &long), None);
}

#[test]
fn a_signed_answer_is_not_kept() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let mut signed = answer(&query, vec![address("www.example.", 60)]);
    signed[11] += 1;
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bed.keep(&query, &signed), None);
}

#[test]
fn a_failure_is_kept_for_a_second_and_never_stale() {
    let (bed, query) = (Bed::new(), edns("www.example."));
    let mut failure = reply(&query);
    failure.metadata.response_code = ResponseCode::ServFail;
    failure.edns = Some(opt(false, &[(15, &[0, 22])]));
    assert_eq!(bed.keep(&query, &bytes(&failure)), Some(1));
    let hit = bed.hit(&query, 0.9);
    assert_eq!((hit.metadata.response_code, option(&hit, 15)), (ResponseCode::ServFail, Some(vec![0, 22])));
    assert!(bed.stale(&query, 1.1).is_none());
    assert_eq!(bed.ask(&query, 1.0), Lookup::Miss);
    assert_eq!(bed.cache.len(), 0, "and removed");
}

#[test]
fn a_failure_never_takes_the_place_of_what_still_serves() {
    let (bed, query) = (Bed::with(|settings| settings.stale = Duration::from_secs(100)), plain("www.example."));
    let good = answer(&query, vec![address("www.example.", 60)]);
    let failure = negative(&query, ResponseCode::ServFail, vec![], vec![]);
    bed.keep(&query, &good);
    for seconds in [0.0, 59.0, 60.0, 159.0] {
        assert_eq!(bed.cache.insert(&query, &failure, bed.at(seconds)), None);
    }
    assert!(bed.stale(&query, 159.0).is_some());
    let second = Some(Duration::from_secs(1));
    let kept = |answer: &[u8], at| bed.cache.insert(&query, answer, bed.at(at)).map(|inserted| inserted.lifetime);
    assert_eq!(kept(&failure, 160.0), second);
    assert_eq!(kept(&failure, 160.5), second, "a failure gives way to a failure");
    assert_eq!(kept(&good, 161.0), Some(Duration::from_secs(60)));
    assert_eq!(bed.hit(&query, 161.0).answers.len(), 1);
}
