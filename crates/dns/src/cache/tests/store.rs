//! The bound, and forgetting.

use super::*;
use crate::message::build_query;

fn fill(bed: &Bed, names: u32, records: impl Fn(u32) -> usize) {
    for number in 0..names {
        let owner = format!("host-{number}.example.");
        let query = plain(&owner);
        let answer = answer(&query, vec![address(&owner, 60); records(number)]);
        assert_eq!(bed.keep(&query, &answer), Some(60));
        assert!(bed.cache.bytes() <= 1 << 20, "{}", bed.cache.bytes());
    }
}

#[test]
fn ten_times_as_much_as_fits_stays_within_the_size() {
    let bed = Bed::new();
    fill(&bed, 40_000, |number| 1 + number as usize * 7 % 13);
    assert!(bed.cache.bytes() > 1 << 19, "and most of it is used: {}", bed.cache.bytes());
    assert!((1000..4000).contains(&bed.cache.len()), "{}", bed.cache.len());
}

#[test]
fn few_large_answers_after_many_small_ones_stay_within_the_size() {
    let bed = Bed::new();
    fill(&bed, 10_000, |_| 1);
    let small = bed.cache.len();
    for number in 0..2000 {
        let owner = format!("large-{number}.example.");
        let query = plain(&owner);
        bed.keep(&query, &answer(&query, vec![address(&owner, 60); 100]));
        // What is asked for comes to stay.
        bed.ask(&query, 0.0);
        assert!(bed.cache.bytes() <= 1 << 20, "{}", bed.cache.bytes());
    }
    assert!(bed.cache.len() < small / 4, "{} {small}", bed.cache.len());
}

#[test]
fn an_empty_cache_takes_next_to_nothing_and_none_is_none() {
    let bed = Bed::with(|settings| settings.size = 64 << 20);
    assert_eq!((bed.cache.bytes(), bed.cache.len(), bed.cache.is_empty()), (0, 0, true));
    assert!(Cache::new(&CacheSettings { size: 0, ..CacheSettings::default() }, 2, 1).is_none());
}

#[test]
fn tiny_sizes_and_many_workers_are_borne() {
    for (size, workers) in [(1, 1), (1000, 0), (4096, 64), (100_000, 1000), (1 << 20, usize::MAX)] {
        let cache = Cache::new(&CacheSettings { size, ..CacheSettings::default() }, workers, 1).unwrap();
        let now = tokio::time::Instant::now().into_std();
        for number in 0..100 {
            let query = plain(&format!("{number}.example."));
            let _ = cache.insert(&query, &answer(&query, vec![address("www.example.", 60)]), now);
            assert!(cache.bytes() <= size, "{} of {size}", cache.bytes());
        }
    }
}

#[test]
fn one_answer_may_take_a_small_share_only() {
    let bed = Bed::with(|settings| settings.size = 32 << 10);
    let query = plain("www.example.");
    let sized = |records| answer(&query, vec![address("www.example.", 60); records]);
    assert_eq!(bed.keep(&query, &sized(150)), None);
    assert_eq!(bed.keep(&query, &sized(30)), Some(60));
    assert_eq!(bed.keep(&query, &sized(150)), None);
    assert_eq!(bed.hit(&edns("www.example."), 0.0).answers.len(), 30, "what was there stays");
}

#[test]
fn flush_forgets_all_about_a_name_and_nothing_else() {
    let bed = Bed::new();
    let keep = |query: &[u8]| {
        assert!(bed.keep(query, &negative(query, ResponseCode::NXDomain, vec![], vec![soa(60, 60)])).is_some());
    };
    let gone = [plain("www.example."), asked("www.example.", 28, RD, None), asked("WWW.example.", 28, RD | CD, None)];
    let stay = [plain("example."), plain("a.www.example."), plain("www.example.com."), plain("xww.example.")];
    gone.iter().chain(&stay).for_each(|query| keep(query));
    assert_eq!(bed.cache.len(), 7);
    assert_eq!(bed.cache.flush(Some(&name_from_text("wWw.Example").unwrap())), 3);
    assert!(gone.iter().all(|query| bed.misses(query)) && stay.iter().all(|query| !bed.misses(query)));
    assert_eq!(bed.cache.flush(Some(&name_from_text("nobody.example").unwrap())), 0);
    assert_eq!(bed.cache.flush(Some(b"")), 0, "no name at all");
    assert_eq!((bed.cache.flush(None), bed.cache.len()), (4, 0));
}

/// More names than fit, of which every thread inserts and reads all, while one of them forgets.
#[test]
fn no_answer_crosses_from_one_name_to_another() {
    let bed = Bed::with(|settings| settings.size = 64 << 10);
    let exchanges: Vec<_> = (0..500_u16)
        .map(|number| {
            let owner = format!("host-{number}.example.");
            let query = plain(&owner);
            let [high, low] = number.to_be_bytes();
            let record = Record::from_rdata(name(&owner), 60, RData::A(A(Ipv4Addr::new(10, 0, high, low))));
            let answer = answer(&query, vec![record]);
            (query, answer)
        })
        .collect();
    let hits: usize = std::thread::scope(|scope| {
        let run = |thread: usize| {
            let (bed, exchanges) = (&bed, &exchanges);
            move || {
                let mut hits = 0;
                for step in 0..20_000 {
                    let (query, answer) = &exchanges[(step * (thread + 1) * 7) % exchanges.len()];
                    let (lookup, out) = bed.ask_within(query, 1232, 0.0);
                    match lookup {
                        Lookup::Hit { .. } => assert_eq!(&out, answer),
                        _ => drop(bed.keep(query, answer)),
                    }
                    hits += usize::from(!out.is_empty());
                    if thread == 0 && step % 5000 == 0 {
                        bed.cache.flush(None);
                    }
                }
                hits
            }
        };
        let threads = [0, 1, 2].map(|thread| scope.spawn(run(thread)));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert!(hits > 1000, "{hits}");
    assert!(bed.cache.bytes() <= 64 << 10);
}

#[test]
fn queries_of_the_daemon_itself_are_kept() {
    let (bed, query) = (Bed::new(), build_query("www.example", TYPE_A).unwrap());
    assert_eq!(bed.keep(&query, &answer(&query, vec![address("www.example.", 60)])), Some(60));
    assert_eq!(bed.hit(&plain("www.example."), 0.0).answers.len(), 1);
}
