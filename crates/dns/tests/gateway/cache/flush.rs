//! Answers that the operator has forgotten.

use keepwarm_lab::Faults;

use super::*;

#[tokio::test]
async fn what_was_flushed_is_asked_again() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let queries = [query("a.example", 1), query("a.example", 28), query("b.example", 1), query("sub.a.example", 1)];
    let ask_all = async || {
        for query in &queries {
            answer(&bench, query).await;
        }
        asked(&bench)
    };
    assert_eq!(ask_all().await, 4);
    assert_eq!(ask_all().await, 4);
    assert_eq!(bench.server.flush_cache(Some("A.Example.")), Some(2), "all types of that name and no other name");
    assert_eq!(bench.server.status().cache_entries, 2);
    assert_eq!(ask_all().await, 6);
    assert_eq!(bench.server.flush_cache(None), Some(4));
    assert_eq!(bench.server.status().cache_entries, 0);
    assert_eq!(ask_all().await, 10);
    assert_eq!(bench.server.flush_cache(Some("c.example")), Some(0));
    assert_eq!(bench.server.flush_cache(Some("bad..name")), None);
    assert_eq!(ask_all().await, 10);
    bench.stop().await;
}
