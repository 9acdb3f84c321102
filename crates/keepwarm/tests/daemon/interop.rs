//! Programs that we did not write, on both sides of the daemon. Here: kdig, dig and dnsperf over UDP and TCP.

pub mod browser;
mod clients;
pub mod gateway;
pub mod program;
mod python;
mod upstreams;

use std::{io::Write as _, process::Command};

use keepwarm_lab::expected_a;
use program::has;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kdig_and_dig_get_their_answers_over_udp_and_tcp() {
    let daemon = Daemon::start("tls").await;
    let port = daemon.dns.port().to_string();
    for (program, package) in [("kdig", "knot-dnsutils"), ("dig", "bind9-dnsutils")] {
        if !has(program, package) {
            continue;
        }
        for transport in ["+notcp", "+tcp"] {
            let name = format!("{program}.example");
            let output = Command::new(program)
                .args(["@127.0.0.1", "-p", &port, "+short", "+dnssec", transport, &name, "A"])
                .output()
                .unwrap();
            let shown = text(&output);
            assert_eq!(shown.trim(), expected_a(&name).to_string(), "{program} {transport}: {shown}");
        }
        let output = Command::new(program).args(["@127.0.0.1", "-p", &port, "nx.example", "A"]).output().unwrap();
        assert!(text(&output).contains("NXDOMAIN"), "{}", text(&output));
        let output = Command::new(program)
            .args(["@127.0.0.1", "-p", &port, "big.example", "TXT", "+bufsize=512"])
            .output()
            .unwrap();
        let shown = text(&output);
        // A truncated answer makes both ask again over TCP, where the whole of it comes.
        assert!(shown.to_lowercase().contains("truncated"), "{program}: {shown}");
        assert!(shown.len() > 3000, "{program}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnsperf_completes_all_queries_over_udp_and_tcp() {
    if !has("dnsperf", "dnsperf") {
        return;
    }
    let mut names = tempfile::NamedTempFile::new().unwrap();
    for number in 0..2000 {
        writeln!(names, "perf{number}.example A").unwrap();
    }
    for scheme in ["udp", "https"] {
        let daemon = Daemon::start(scheme).await;
        let port = daemon.dns.port().to_string();
        for mode in ["udp", "tcp"] {
            let output = Command::new("dnsperf")
                .args(["-s", "127.0.0.1", "-p", &port, "-m", mode, "-n", "1", "-c", "10", "-q", "100", "-d"])
                .arg(names.path())
                .output()
                .unwrap();
            let shown = text(&output);
            assert!(shown.contains("Queries completed:    2000 (100.00%)"), "{scheme} {mode}: {shown}");
            assert!(shown.contains("NOERROR 2000 (100.00%)"), "{scheme} {mode}: {shown}");
        }
    }
}
