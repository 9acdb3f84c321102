//! Stale answers and answers asked for ahead of their end.

use super::*;

const HIT: Lookup = Lookup::Hit { prefetch: false };
const PREFETCH: Lookup = Lookup::Hit { prefetch: true };

/// A bed with an answer that is fresh for 100 s.
fn kept(change: impl FnOnce(&mut CacheSettings)) -> (Bed, Vec<u8>) {
    let (bed, query) = (Bed::with(change), edns("www.example."));
    assert_eq!(bed.keep(&query, &answer(&query, vec![address("www.example.", 100)])), Some(100));
    (bed, query)
}

#[test]
fn an_answer_past_its_end_serves_for_as_long_as_is_set() {
    let (bed, query) = kept(|settings| settings.stale = Duration::from_secs(50));
    assert_eq!(bed.ask(&query, 149.9), Lookup::Stale { hold: false });
    let stale = bed.stale(&query, 149.9).unwrap();
    assert_eq!((stale.answers[0].ttl, option(&stale, 15)), (30, Some(vec![0, 3])));
    let plain = bed.stale(&plain("www.example."), 149.9).unwrap();
    assert_eq!((plain.answers[0].ttl, plain.edns.is_none()), (30, true));
    assert!(bed.stale(&query, 150.0).is_none());
    assert_eq!(bed.cache.len(), 1);
    assert_eq!(bed.ask(&query, 150.0), Lookup::Miss);
    assert_eq!((bed.cache.len(), bed.ask(&query, 0.0)), (0, Lookup::Miss), "it was removed");
}

#[test]
fn nothing_is_stale_when_that_is_off() {
    let (bed, query) = kept(|settings| settings.stale = Duration::ZERO);
    assert!(bed.stale(&query, 100.0).is_none());
    assert_eq!(bed.ask(&query, 100.0), Lookup::Miss);
}

#[test]
fn a_stale_denial_says_so() {
    let (bed, query) = (Bed::new(), edns("no.example."));
    let mut denial = reply(&query);
    denial.metadata.response_code = ResponseCode::NXDomain;
    denial.add_authorities([soa(60, 60)]);
    denial.edns = Some(opt(false, &[(65_001, b"kept")]));
    bed.keep(&query, &bytes(&denial));
    let stale = bed.stale(&query, 61.0).unwrap();
    assert_eq!((option(&stale, 15), option(&stale, 65_001)), (Some(vec![0, 19]), Some(b"kept".to_vec())));
    assert_eq!((stale.authorities[0].ttl, stale.metadata.response_code), (30, ResponseCode::NXDomain));
}

#[test]
fn a_record_not_past_its_own_end_is_not_lengthened() {
    let (bed, query) = (Bed::new(), plain("www.example."));
    let records = vec![alias("www.example.", "b.example.", 10), address("b.example.", 25), address("b.example.", 900)];
    bed.keep(&query, &answer(&query, records));
    let ttls: Vec<u32> = bed.stale(&query, 20.0).unwrap().answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [30, 5, 30]);
}

#[test]
fn what_came_in_meanwhile_is_no_stale_answer() {
    let (bed, query) = kept(|_| {});
    let fresh = bed.stale(&query, 10.0).unwrap();
    assert_eq!((fresh.answers[0].ttl, option(&fresh, 15)), (90, None));
    assert!(bed.stale(&edns("other.example."), 10.0).is_none());
}

#[test]
fn upstreams_are_left_alone_for_half_a_minute_after_a_failure() {
    let (bed, query) = kept(|_| {});
    let parsed = Query::parse(&query).unwrap();
    let key = bed.cache.key(&query, &parsed).unwrap();
    bed.cache.refresh_failed(&key, bed.at(110.25));
    assert_eq!(bed.ask(&query, 111.0), Lookup::Stale { hold: true });
    assert_eq!(bed.ask(&query, 140.2), Lookup::Stale { hold: true });
    assert_eq!(bed.ask(&query, 140.25), Lookup::Stale { hold: false });
    bed.cache.refresh_failed(&key, bed.at(141.0));
    bed.cache.insert(&query, &answer(&query, vec![address("www.example.", 1)]), bed.at(142.0));
    assert_eq!(bed.ask(&query, 143.5), Lookup::Stale { hold: false }, "a new answer is not held");
}

#[test]
fn a_popular_answer_is_asked_for_once_near_its_end() {
    let (bed, query) = kept(|_| {});
    assert_eq!([1.0, 95.0, 96.0, 97.0].map(|at| bed.ask(&query, at)), [HIT, HIT, PREFETCH, HIT]);
    bed.keep(&query, &answer(&query, vec![address("www.example.", 100)]));
    assert_eq!([1.0, 2.0, 89.9, 90.0, 90.0].map(|at| bed.ask(&query, at)), [HIT, HIT, HIT, PREFETCH, HIT]);
}

#[test]
fn nobody_prefetches_what_is_rare_failed_or_off() {
    let (bed, query) = kept(|_| {});
    assert_eq!([98.0, 99.0].map(|at| bed.ask(&query, at)), [HIT, HIT]);
    let (bed, query) = kept(|settings| settings.prefetch = false);
    assert_eq!([96.0, 97.0, 98.0, 99.0].map(|at| bed.ask(&query, at)), [HIT; 4]);
    let bed = Bed::new();
    bed.keep(&query, &negative(&query, ResponseCode::ServFail, vec![], vec![]));
    assert_eq!([0.95, 0.96, 0.97, 0.98].map(|at| bed.ask(&query, at)), [HIT; 4]);
}

#[test]
fn two_threads_prefetch_once() {
    let (bed, query) = kept(|_| {});
    bed.ask(&query, 1.0);
    bed.ask(&query, 1.0);
    let asked: usize = std::thread::scope(|scope| {
        let run = || (0..100).filter(|_| bed.ask(&query, 99.0) == PREFETCH).count();
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(asked, 1);
}

#[test]
fn a_clock_that_stands_before_the_answer_is_no_age() {
    let (bed, query) = kept(|_| {});
    bed.cache.insert(&query, &answer(&query, vec![address("www.example.", 100)]), bed.at(50.0));
    assert_eq!(bed.hit(&query, 10.0).answers[0].ttl, 100);
}
