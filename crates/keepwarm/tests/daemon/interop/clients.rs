//! Clients from Debian: kdig, dig, curl, dnsperf, openssl.

use std::io::Write as _;

use keepwarm_lab::expected_a;

use super::{browser::Page, gateway::*, program::*};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kdig_and_dig_are_answered_over_tls_https_and_quic() {
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let (ca, hostname) = (format!("+tls-ca={}", gateway.authority.root()), format!("+tls-hostname={NAME}"));
    let mut asked = Vec::new();
    for (program, package) in [("kdig", "knot-dnsutils"), ("dig", "bind9-dnsutils")] {
        if !has(program, package) {
            continue;
        }
        let (_, help) = run(program, &["-h"]).await;
        let ways = [("tls", "+tls"), ("https", "+https"), ("https", "+https-get"), ("quic", "+quic")];
        for (number, (scheme, way)) in ways.into_iter().enumerate() {
            if !help.contains(&format!("]{scheme}")) {
                println!("SKIPPED: {} has no +{scheme}", version(program, "-v"));
                continue;
            }
            let port = gateway.port(scheme);
            // kdig's +https-get says how and not that, and an option about TLS turns TLS over TCP on, so that the way comes last.
            let also = if way == "+https-get" { "+https" } else { way };
            let ask = |hostname: String, name: String| {
                let (ca, port) = (ca.clone(), port.clone());
                async move {
                    let arguments =
                        ["@127.0.0.1", "-p", &port, &ca, &hostname, also, way, "+short", "+dnssec", &name, "A"];
                    run(program, &arguments).await
                }
            };
            let name = format!("{program}{number}.example");
            let (ok, shown) = ask(hostname.clone(), name.clone()).await;
            assert!(ok && shown.trim() == expected_a(&name).to_string(), "{program} {way}: {shown}");
            // The program verifies what we show, so its answer is one over a connection that it trusts.
            let (_, shown) = ask("+tls-hostname=other.example".into(), "refused.example".into()).await;
            assert!(!shown.contains(&expected_a("refused.example").to_string()), "{program} {way}: {shown}");
            asked.push((name, scheme));
        }
    }
    let log = gateway.stop().await;
    for (name, scheme) in asked {
        assert_eq!(transports(&log, &name), [scheme], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_opens_a_page_whose_name_it_has_from_us_with_doh_url() {
    if !has("curl", "curl") {
        return;
    }
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let page = Page::serve().await;
    let (ca, doh) = (gateway.authority.root(), gateway.doh_url());
    let asked = ["-sS", "--noproxy", "*", "--max-time", "20", "--doh-url", &doh];
    let (ok, shown) = run("curl", &[&asked[..], &["--cacert", &ca, &page.url()]].concat()).await;
    assert!(ok && shown.contains(Page::TITLE), "{shown}");
    // Without the authority it does not trust us, and so does not know the name.
    let (ok, shown) = run("curl", &[&asked[..], &[&page.url()]].concat()).await;
    assert!(!ok && !shown.contains(Page::TITLE), "{shown}");
    assert_eq!(transports(&gateway.stop().await, PAGE), ["https"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnsperf_completes_all_queries_over_dot_and_doh() {
    if !has("dnsperf", "dnsperf") {
        return;
    }
    let (_, help) = run("dnsperf", &["-h"]).await;
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let mut names = tempfile::NamedTempFile::new().unwrap();
    for number in 0..QUERIES {
        writeln!(names, "perf{number}.example A").unwrap();
    }
    let names = names.path().to_str().unwrap();
    let uri = format!("doh-uri={}", gateway.doh_url());
    // Asked side by side over one HTTP/2 connection, dnsperf 2.10 reports responses as lost though it counted them with status
    // 200, as its issue 240 tells. Whether that is all of it was not traced; one at a time it loses none.
    for (mode, scheme, limits, options) in [
        ("dot", "tls", ["-c", "10", "-q", "100"], &[][..]),
        ("doh", "https", ["-c", "1", "-q", "1"], &["-O", &uri, "-O", "doh-method=GET"]),
        ("doh", "https", ["-c", "1", "-q", "1"], &["-O", &uri, "-O", "doh-method=POST"]),
    ] {
        if !help.contains(mode) {
            println!("SKIPPED: {} has no -m {mode}", version("dnsperf", "-h"));
            continue;
        }
        let port = gateway.port(scheme);
        let asked = ["-s", "127.0.0.1", "-p", &port, "-m", mode, "-n", "1", "-l", "50", "-d", names];
        let (_, shown) = run("dnsperf", &[&asked[..], &limits, options].concat()).await;
        let completed = format!("Queries completed:    {QUERIES} (100.00%)");
        assert!(shown.contains(&completed), "{mode} {options:?}: {shown}");
        assert!(shown.contains(&format!("NOERROR {QUERIES} (100.00%)")), "{mode} {options:?}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_verifies_the_chain_and_agrees_on_the_protocol_of_each_listener() {
    if !has("openssl", "openssl") {
        return;
    }
    let (gateway, _lab) = Gateway::before_a_lab().await;
    let ca = gateway.authority.root();
    for (scheme, protocol) in [("tls", "dot"), ("https", "h2"), ("https", "http/1.1")] {
        let address = gateway.address(scheme).to_string();
        let asked = ["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error", "-alpn", protocol];
        let names = ["-servername", NAME, "-verify_hostname", NAME];
        let (ok, shown) = run("openssl", &[&asked[..], &names].concat()).await;
        assert!(ok && shown.contains("Verify return code: 0 (ok)"), "{scheme} {protocol}: {shown}");
        assert!(shown.contains(&format!("ALPN protocol: {protocol}")), "{scheme} {protocol}: {shown}");
        let (ok, shown) = run("openssl", &[&asked[..], &["-verify_hostname", "other.example"]].concat()).await;
        assert!(!ok && shown.contains("hostname mismatch"), "{scheme} {protocol}: {shown}");
    }
}

/// Queries of one run of dnsperf, which takes about 40 ms for each POST (1 ms for GET). That looks like Nagle in dnsperf, and was not
/// traced.
const QUERIES: usize = 200;
