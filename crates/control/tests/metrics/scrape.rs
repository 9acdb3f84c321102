//! How a scrape is asked for, and the rules that its text keeps.

use std::collections::BTreeSet;

use keepwarm_control::{ControlOptions, Token};

use crate::{
    exposition::{Exposition, ask, scraped, served},
    fake::Fake,
};

#[tokio::test]
async fn openmetrics_is_for_who_asks_for_it() {
    let served = served(Fake::whole().await, ControlOptions::default()).await;
    let (open, plain) = ("application/openmetrics-text; version=1.0.0", "text/plain; version=0.0.4");
    for (accept, wanted) in [
        ("", plain),
        ("Accept: */*\r\n", plain),
        ("Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", plain),
        ("Accept: application/openmetrics-text\r\n", open),
        // As Prometheus 2 and 3 ask.
        (
            "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n",
            open,
        ),
        ("Accept: text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1\r\n", plain),
        ("Accept: application/openmetrics-text;q=0\r\n", plain),
    ] {
        let (status, head, body) = ask(served.address, accept).await;
        assert_eq!(status, 200);
        assert!(head.contains(&format!("content-type: {wanted}")), "{accept}: {head}");
        assert_eq!(body.ends_with("# EOF\n"), wanted == open, "{accept}");
    }
}

#[tokio::test]
async fn both_formats_say_the_same() {
    let served = served(Fake::whole().await, ControlOptions::default()).await;
    let (_, _, plain) = ask(served.address, "").await;
    let (_, _, open) = ask(served.address, "Accept: application/openmetrics-text\r\n").await;
    let series = |text: &str| -> BTreeSet<String> {
        let is_figure = |line: &&str| !line.starts_with('#') && !line.starts_with("process_");
        text.lines().filter(is_figure).map(str::to_owned).collect()
    };
    assert_eq!(series(&plain), series(&open));
    assert!(open.contains("# TYPE keepwarm_pool_opened counter\n"));
    assert!(plain.contains("# TYPE keepwarm_pool_opened_total counter\n"));
    assert!(open.contains("# UNIT keepwarm_pool_oldest_wait_seconds seconds\n"));
}

#[tokio::test]
async fn names_units_and_labels_keep_the_rules() {
    let seen = scraped(Fake::whole().await).await;
    assert!(seen.families.len() > 80, "{}", seen.families.len());
    for (name, (kind, help)) in &seen.families {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(name.starts_with("keepwarm_") || name.starts_with("process_"), "{name}");
        assert!(help.len() > 2, "{name}: {help:?}");
        assert!(!["_ms", "_micros", "_kib", "_percent"].iter().any(|unit| name.contains(unit)), "{name}");
        let of = |series: &&String| {
            let series = series.split(' ').next().unwrap();
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part));
            series == name || (kind == "histogram" && stem == Some(name))
        };
        assert!(seen.series.keys().any(|series| of(&series)), "{name} has no series");
    }
    let labels = BTreeSet::from_iter(seen.series.keys().flat_map(|series| {
        series.split(' ').skip(1).filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect::<Vec<_>>()
    }));
    let known = [
        "arch",
        "direction",
        "kind",
        "le",
        "limit",
        "os",
        "outcome",
        "phase",
        "pool",
        "protocol",
        "reason",
        "result",
        "service",
        "state",
        "transport",
        "upstream",
        "version",
    ];
    assert_eq!(labels, BTreeSet::from(known));
}

#[tokio::test]
async fn a_daemon_without_anything_has_a_scrape_too() {
    let served = served(Fake::of(&[], 0), ControlOptions::default()).await;
    let (_, _, body) = ask(served.address, "").await;
    assert!(Exposition::read(&body).names().iter().all(|name| !name.starts_with("keepwarm_pool_")));
}

#[tokio::test]
async fn a_scrape_needs_the_token_where_there_is_one() {
    let token = Token::new("0123456789abcdef0123456789abcdef").unwrap();
    let options = ControlOptions { token: Some(token), ..ControlOptions::default() };
    let served = served(Fake::whole().await, options).await;
    let (status, _, body) = ask(served.address, "").await;
    assert!(status == 401 && !body.contains("keepwarm_pool"), "{status} {body}");
    let (status, ..) = ask(served.address, "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n").await;
    assert_eq!(status, 200);
}
