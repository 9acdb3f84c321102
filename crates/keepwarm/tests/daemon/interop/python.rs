//! dnspython with aioquic and httpx: DoT, DoH, DoQ and DoH3.

use keepwarm_lab::expected_a;

use super::{gateway::*, program::*};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnspython_is_answered_over_tls_https_quic_and_http3() {
    let probe =
        "import aioquic, dns.query, dns.quic, dns.version; assert dns.query.have_doh; print(dns.version.version)";
    let (ok, shown) = run("python3", &["-c", probe]).await;
    if !ok {
        let why = shown.lines().last().unwrap_or_default();
        println!("SKIPPED: python3 has no dnspython with aioquic and httpx (PyPI: aioquic, dnspython[doq,doh]): {why}");
        return;
    }
    println!("dnspython {}", shown.trim());
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let ca = gateway.authority.root();
    let ports = ["tls", "https", "quic", "h3"].map(|scheme| gateway.port(scheme));
    let ways = [
        ("tls", "tls"),
        ("https-get", "https"),
        ("https-post", "https"),
        ("quic", "quic"),
        ("h3-get", "h3"),
        ("h3-post", "h3"),
    ];
    let mut arguments = vec!["-c", SCRIPT, NAME, &ca];
    arguments.extend(ports.iter().map(String::as_str));
    let (ok, shown) = run("python3", &arguments).await;
    let names = |way: &str| (0..QUERIES).map(|number| format!("{way}-{number}.example")).collect::<Vec<_>>();
    let expected: String =
        ways.iter().flat_map(|(way, _)| names(way)).map(|name| format!("{name} {}\n", expected_a(&name))).collect();
    assert!(ok && shown == expected, "{shown}");
    let log = gateway.stop().await;
    for (way, scheme) in ways {
        for name in names(way) {
            assert_eq!(transports(&log, &name), [scheme], "{name}");
        }
    }
}

/// Queries a way; those over QUIC share one connection.
const QUERIES: usize = 10;

const SCRIPT: &str = include_str!("clients.py");
