//! Encrypted listeners asked by programs that we did not write, from Debian: kdig, curl, dnsperf, openssl.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use keepwarm_dns::config::{ListenTransport, Transport};
use keepwarm_lab::{Faults, answer_matches, build_query, expected_a};

use crate::{certificate::*, support::*};

/// A server with a DoT and a DoH listener, over a lab without faults.
struct Listeners {
    bench: Bench,
    certificate: Certificate,
    dot: String,
    doh: String,
}

impl Listeners {
    async fn start() -> Listeners {
        let certificate = Certificate::new();
        let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
            certificate.serve(config, &[ListenTransport::Tls, ListenTransport::Https]);
        })
        .await;
        let port = |number: usize| bench.server.listening()[number].address.port().to_string();
        let (dot, doh) = (port(0), port(1));
        Listeners { bench, certificate, dot, doh }
    }

    fn ca(&self) -> String {
        self.certificate.ca_file().to_str().unwrap().to_owned()
    }
}

/// Whether a program is there; says so where it is not.
fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: {program} is not installed (Debian: {package})");
    }
    found
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kdig_is_answered_over_tls_and_https_with_get_and_post() {
    if !has("kdig", "knot-dnsutils") {
        return;
    }
    let listeners = Listeners::start().await;
    let ca = format!("+tls-ca={}", listeners.ca());
    for (number, (port, transport)) in
        [(&listeners.dot, &["+tls"][..]), (&listeners.doh, &["+https"]), (&listeners.doh, &["+https", "+https-get"])]
            .into_iter()
            .enumerate()
    {
        let name = format!("kdig{number}.example");
        let hostname = format!("+tls-hostname={NAME}");
        let asked = ["@127.0.0.1", "-p", port, &ca, &hostname, "+padding", &name, "A"];
        let (ok, shown) = run("kdig", &[&asked[..], transport].concat());
        assert!(ok && shown.contains(&expected_a(&name).to_string()), "{transport:?}: {shown}");
        // RFC 8467: kdig pads its query, so the answer is padded to a block.
        assert!(shown.contains("Received 468 B"), "{transport:?}: {shown}");
        // Another name than the certificate's is refused by kdig, which so checks what we show.
        let (_, shown) = run(
            "kdig",
            &[&["@127.0.0.1", "-p", port, &ca, "+tls-hostname=other.example", &name][..], transport].concat(),
        );
        assert!(!shown.contains("NOERROR"), "{transport:?}: {shown}");
    }
    listeners.bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_answers_over_http_1_1_and_http_2_and_resolves_through_us() {
    if !has("curl", "curl") {
        return;
    }
    let listeners = Listeners::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let (asked, answered) = (folder.path().join("asked"), folder.path().join("answered"));
    let query = build_query(0, "curl.example", 1, Some(1232));
    std::fs::write(&asked, &query).unwrap();
    let url = format!("https://{NAME}:{}/dns-query", listeners.doh);
    let resolve = format!("{NAME}:{}:127.0.0.1", listeners.doh);
    let in_url = format!("{url}?dns={}", URL_SAFE_NO_PAD.encode(&query));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (body, output, ca) = (format!("@{}", text(&asked)), text(&answered), listeners.ca());
    let common = [
        "-sS",
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
        "-o",
        &output,
        "-w",
        "%{http_version} %{http_code} %{content_type}",
    ];
    let post = ["--data-binary", &body, "-H", "content-type: application/dns-message", &url];
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for request in [&[&*in_url][..], &post] {
            let (ok, shown) = run("curl", &[&common[..], &[flag], request].concat());
            assert!(ok, "{shown}");
            assert_eq!(shown, format!("{version} 200 application/dns-message"));
            assert_eq!(answer_matches(&query, &std::fs::read(&answered).unwrap()), Ok(()));
        }
    }
    // As its resolver. Nobody is at the address that the lab answers with; where curl then goes is the proof.
    let doh = format!("https://127.0.0.1:{}/dns-query", listeners.doh);
    let name = "resolved.example";
    let (_, shown) = run(
        "curl",
        &[
            "-sSv",
            "-4",
            "--noproxy",
            "*",
            "--cacert",
            &ca,
            "--doh-url",
            &doh,
            "--connect-timeout",
            "2",
            "http://resolved.example:9/",
        ],
    );
    assert!(shown.contains(&format!("{}:9", expected_a(name))), "{shown}");
    listeners.bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnsperf_completes_all_queries_over_tls_and_https() {
    if !has("dnsperf", "dnsperf") {
        return;
    }
    let listeners = Listeners::start().await;
    let mut names = tempfile::NamedTempFile::new().unwrap();
    for number in 0..QUERIES {
        writeln!(names, "perf{number}.example A").unwrap();
    }
    let names = names.path().to_str().unwrap();
    let uri = format!("doh-uri=https://127.0.0.1:{}/dns-query", listeners.doh);
    // Asked side by side over one HTTP/2 connection, dnsperf 2.10 reports responses as lost though it counted them with status
    // 200, as its issue 240 tells. Whether that is all of it was not traced; one at a time it loses none.
    for (mode, port, (clients, at_once), options) in [
        ("dot", &listeners.dot, ("10", "100"), &[][..]),
        ("doh", &listeners.doh, ("1", "1"), &["-O", &uri, "-O", "doh-method=GET"]),
        ("doh", &listeners.doh, ("1", "1"), &["-O", &uri, "-O", "doh-method=POST"]),
    ] {
        let asked = ["-s", "127.0.0.1", "-p", port, "-m", mode, "-n", "1", "-t", "2", "-d", names];
        let limits = ["-c", clients, "-q", at_once, "-l", "60"];
        let (_, shown) = run("dnsperf", &[&asked[..], &limits, options].concat());
        let completed = format!("Queries completed:    {QUERIES} (100.00%)");
        assert!(shown.contains(&completed), "{mode} {options:?}: {shown}");
        assert!(shown.contains(&format!("NOERROR {QUERIES} (100.00%)")), "{mode} {options:?}: {shown}");
    }
    listeners.bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_agrees_on_tls_1_2_and_1_3_and_resumes() {
    if !has("openssl", "openssl") {
        return;
    }
    let listeners = Listeners::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let session = folder.path().join("session").to_str().unwrap().to_owned();
    let (connect, ca) = (format!("127.0.0.1:{}", listeners.dot), listeners.ca());
    for version in ["-tls1_2", "-tls1_3"] {
        let asked = [
            "s_client",
            "-connect",
            &connect,
            "-servername",
            NAME,
            "-CAfile",
            &ca,
            "-alpn",
            "dot",
            "-verify_return_error",
            version,
        ];
        let (ok, shown) = run("openssl", &asked);
        assert!(ok && shown.contains("Verify return code: 0 (ok)"), "{version}: {shown}");
        assert!(shown.contains("ALPN protocol: dot"), "{version}: {shown}");
        // Tickets of TLS 1.3 come behind the handshake, where s_client waits for its input: of 1.2 alone they are sure to be
        // in the file.
        if version == "-tls1_2" {
            run("openssl", &[&asked[..], &["-sess_out", &session]].concat());
            let (_, shown) = run("openssl", &[&asked[..], &["-sess_in", &session]].concat());
            assert!(shown.contains("Reused, TLSv1.2"), "{shown}");
        }
    }
    let asked = ["s_client", "-connect", &connect, "-CAfile", &ca, "-alpn", "http/1.1"];
    let (_, shown) = run("openssl", &asked);
    assert!(shown.contains("no application protocol"), "{shown}");
    listeners.bench.stop().await;
}

/// Queries of one run of dnsperf.
const QUERIES: usize = 500;
