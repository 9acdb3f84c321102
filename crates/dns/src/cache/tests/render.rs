//! What a hit looks like.

use super::*;

#[test]
fn the_ttl_of_every_record_counts_down() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let mut reply = reply(&query);
    reply.add_answers([alias("www.example.", "b.example.", 100), address("b.example.", 200)]);
    reply.add_authorities([server("example.", 300)]);
    reply.add_additionals([address("ns.example.", 400)]);
    bed.keep(&query, &bytes(&reply));
    let hit = bed.hit(&query, 41.9);
    let ttls = |records: &[Record]| records.iter().map(|record| record.ttl).collect::<Vec<_>>();
    assert_eq!(ttls(&hit.answers), [59, 159]);
    assert_eq!((ttls(&hit.authorities), ttls(&hit.additionals)), (vec![259], vec![359]));
    assert_eq!(hit.metadata.id, 0x1234);
    assert_eq!(hit.metadata.response_code, ResponseCode::NoError);
    assert!(hit.metadata.recursion_available && hit.metadata.recursion_desired);
}

#[test]
fn opt_is_there_if_and_only_if_the_client_sent_one() {
    let bed = Bed::new();
    let with = edns("www.example.");
    let mut reply = reply(&with);
    reply.add_answers([address("www.example.", 60)]);
    reply.edns = Some(opt(false, &[(12, &[0; 30]), (15, &[0, 4]), (10, &[9; 8])]));
    bed.keep(&with, &bytes(&reply));
    let hit = bed.hit(&with, 0.0);
    assert_eq!(hit.edns.as_ref().unwrap().max_payload(), 1232);
    assert_eq!(hit.edns.as_ref().unwrap().options().as_ref().len(), 1, "hop-by-hop options are gone");
    assert_eq!(option(&hit, 15), Some(vec![0, 4]));
    let without = bed.hit(&plain("www.example."), 0.0);
    assert!(without.edns.is_none());
    assert_eq!((without.answers.len(), without.additionals.len()), (1, 0));
}

#[test]
fn the_do_bit_comes_back_whether_the_upstream_repeats_it_or_speaks_no_edns() {
    for upstream in [None, Some(opt(true, &[]))] {
        let (bed, query) = (Bed::new(), asked("www.example.", TYPE_A, RD, Some((DO, b""))));
        let mut reply = reply(&query);
        reply.add_answers([address("www.example.", 60)]);
        reply.edns = upstream;
        bed.keep(&query, &bytes(&reply));
        assert!(bed.hit(&query, 0.0).edns.unwrap().flags().dnssec_ok);
    }
}

#[test]
fn flags_are_the_upstreams() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let mut reply = reply(&query);
    reply.metadata.authoritative = true;
    reply.metadata.authentic_data = true;
    reply.metadata.recursion_available = false;
    reply.add_answers([address("www.example.", 60)]);
    bed.keep(&query, &bytes(&reply));
    let flags = bed.hit(&query, 0.0).metadata;
    assert!(flags.authoritative && flags.authentic_data && !flags.recursion_available);
}

#[test]
fn an_answer_too_large_loses_additionals_first_and_then_everything() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let keep = |answers, additionals| {
        let mut reply = reply(&query);
        reply.add_answers(vec![address("www.example.", 60); answers]);
        reply.add_additionals(vec![address("www.example.", 60); additionals]);
        bed.keep(&query, &bytes(&reply));
    };
    keep(10, 40);
    let hit = bed.hit(&query, 1.0);
    assert_eq!((hit.answers.len(), hit.additionals.len(), hit.metadata.truncation), (10, 0, false));
    assert_eq!(hit.answers[9].ttl, 59);
    let with = edns("www.example.");
    let hit = bed.hit(&with, 1.0);
    assert_eq!((hit.answers.len(), hit.additionals.len(), hit.edns.is_some()), (10, 40, true));
    keep(80, 0);
    for query in [&query, &with] {
        let (_, out) = bed.ask_within(query, 1232, 0.0);
        let hit = Message::from_vec(&out).unwrap();
        assert!(hit.metadata.truncation && hit.answers.is_empty() && out.len() <= 512);
        assert_eq!(hit.edns.is_some(), query == &with);
        let (_, out) = bed.ask_within(query, u16::MAX, 0.0);
        let whole = Message::from_vec(&out).unwrap();
        assert!(!whole.metadata.truncation, "the kept answer is whole");
        assert_eq!(whole.answers.len(), 80);
    }
}

#[test]
fn a_hit_is_what_the_upstreams_answer_would_have_been() {
    let options: [&[(u16, &[u8])]; 2] = [&[], &[(15, &[0, 4]), (65_001, b"x")]];
    for (number, options) in options.into_iter().enumerate() {
        for query in [edns("www.Example."), plain("www.Example.")] {
            let (bed, parsed) = (Bed::new(), Query::parse(&query).unwrap());
            let mut upstream = reply(&query);
            upstream.add_answers([alias("www.example.", "b.example.", 100), address("b.example.", 200)]);
            upstream.edns = Some(opt(false, options));
            let upstream = bytes(&upstream);
            bed.keep(&query, &upstream);
            for max in [512, u16::MAX] {
                let mut prepared = Vec::new();
                let view = ClientView::new(&parsed, max, 1232);
                crate::message::prepare_answer(&upstream, &view, &query[12..parsed.question.end], &mut prepared);
                assert_eq!(bed.ask_within(&query, max, 0.0).1, prepared, "{number}");
            }
        }
    }
}
