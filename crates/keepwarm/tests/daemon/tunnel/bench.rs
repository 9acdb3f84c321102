//! `keepwarm bench tunnel`: which connections its runs make, by the proxy's own count.

use serde_json::Value;

use super::support::*;
use crate::https::support::run;

async fn json(arguments: &[&str], wanted: i32) -> Value {
    let (code, stdout, stderr) = run([&["bench", "tunnel", "--json"], arguments].concat()).await;
    assert_eq!(code, Some(wanted), "{stdout}{stderr}");
    assert!(!stdout.contains(PASSWORD) && !stderr.contains(PASSWORD), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// Tunnels, failures, and those left out.
fn counts(report: &Value, run: usize) -> [u64; 3] {
    ["tunnels", "failed", "left_out"].map(|key| report["runs"][run][key].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_flags_the_lab_is_measured_and_counts_the_same() {
    let report = json(&["--count", "20", "--rate", "40"], 0).await;
    let [fresh, spare] = &report["runs"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&fresh["kind"], &spare["kind"]), (&"fresh".into(), &"spare".into()));
    assert_eq!((counts(&report, 0), counts(&report, 1)), ([20, 0, 0], [20, 0, 0]));
    assert_eq!((&fresh["hits"], &fresh["misses"], &fresh["handshakes"]), (&0.into(), &20.into(), &20.into()));
    let lab = &report["lab"];
    // Beside the measured ones: the first tunnel of each run.
    assert_eq!((&lab["connects"], &lab["foreign_bytes"]), (&42.into(), &0.into()), "{report}");
    assert_eq!(spare["hits"].as_u64().unwrap() + spare["misses"].as_u64().unwrap(), 20);
    for run in [fresh, spare] {
        let of = |what: &str| ["p50", "p90", "p99", "max"].map(|rank| run[what][rank].as_f64().unwrap());
        assert!(of("ready").is_sorted() && of("first_byte").is_sorted(), "{run}");
        // The round trip is the lab's; no tunnel can be ready sooner than in one, and its first byte takes one more.
        assert!(of("ready")[0] >= 0.05 && of("first_byte")[0] >= 0.1, "{run}");
    }
    // TCP, greeting and password come before the request.
    assert!(fresh["ready"]["p50"].as_f64().unwrap() >= 0.2, "{fresh}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_or_a_config_is_measured_as_it_is_named() {
    let bench = Bench::new("").await;
    let proxy = format!("socks5://ann:{PASSWORD}@{}", bench.proxy.addr());
    let target = format!("{ECHO}:{}", bench.echo.addr(0).port());
    let report = json(&["--proxy", &proxy, "--target", &target, "--count", "5", "--rate", "100"], 0).await;
    assert_eq!((counts(&report, 0), counts(&report, 1)), ([5, 0, 0], [5, 0, 0]));
    assert_eq!((&report["lab"], &report["runs"][0]["first_byte"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&report["target"], &report["upstreams"][0]),
        (&target.clone().into(), &format!("socks5://{}", bench.proxy.addr()).into())
    );
    assert_eq!(bench.proxy.counters().connects_ok, 12);

    bench.echo.set_mode(0, keepwarm_lab::EchoMode::Silent);
    let config = bench.config().display().to_string();
    let report = json(&["--config", &config, "--target", &target, "--seconds", "1", "--rate", "8"], 0).await;
    assert_eq!((counts(&report, 0), counts(&report, 1)), ([8, 0, 0], [8, 0, 0]));
    assert_eq!(bench.proxy.counters().connects_ok, 12 + 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_once_is_not_asked_for_again() {
    let bench = Bench::new("").await;
    let target = format!("{ECHO}:{}", bench.echo.addr(0).port());
    let proxy = format!("socks5://ann:wr0ng@{}", bench.proxy.addr());
    let (code, stdout, stderr) = run(vec!["bench", "tunnel", "--proxy", &proxy, "--target", &target]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("tunnel to") && !stderr.contains("wr0ng"), "{stderr}");
    assert_eq!(bench.proxy.counters().auth_failed, 1);
    for (flags, code, words) in [
        (vec!["--proxy", "socks5://192.0.2.1:1080", "--target", "a.test:1", "--count", "1001"], 2, "--yes"),
        (vec!["--proxy", "ftp://ann:wr0ng@a.test", "--target", "a.test:1"], 2, "--proxy"),
        (vec!["--proxy", "socks5://a.test", "--target", "a.test"], 2, "it has no port"),
        (vec!["--config", "none.toml", "--target", "a.test:1"], 78, "none.toml"),
    ] {
        let (ended, stdout, stderr) = run([&["bench", "tunnel"][..], &flags].concat()).await;
        assert_eq!((ended, stdout.as_str()), (Some(code), ""), "{flags:?}: {stderr}");
        assert!(stderr.contains(words) && !stderr.contains("wr0ng"), "{flags:?}: {stderr}");
    }
}
