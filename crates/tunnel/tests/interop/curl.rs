//! curl.

use keepwarm_tunnel::{ErrorKind, HandshakeFailure};

use super::gateway::{BYTES, Gateway, PASSWORD, is_whole, upload};
use super::program::{Program, Ran};

/// Runs curl with a proxy and other options.
async fn curl(curl: &Program, proxy: &[&str], options: &[&str]) -> Ran {
    curl.run(&[&["-q", "-sS", "--max-time", "30"], proxy, options].concat()).await
}

/// Every way in, with where it ends in the server's figures, and whether it gives names.
const WAYS: [(&str, bool); 5] =
    [("socks5h", true), ("socks5", false), ("socks4a", true), ("socks4", false), ("http", true)];

#[tokio::test]
async fn curl_downloads_and_uploads_by_every_protocol() {
    let Some(program) = Program::find("curl", "curl") else { return };
    let gateway = Gateway::open().await;
    let (file, checksum) = upload(gateway.folder());
    for (scheme, by_name) in WAYS {
        let address = format!("{scheme}://{}", gateway.address);
        let proxy = ["--proxy", &*address];
        if !by_name {
            let url = format!("http://{}{BYTES}", gateway.plain);
            is_whole(curl(&program, &proxy, &["--fail", &url]).await);
            continue;
        }
        let (plain, tls, ca) = (gateway.plain_url(BYTES), gateway.tls_url(BYTES), gateway.ca());
        is_whole(curl(&program, &proxy, &["--fail", &plain]).await);
        for version in ["--http1.1", "--http2"] {
            is_whole(curl(&program, &proxy, &["--fail", version, "--cacert", &ca, &tls]).await);
        }
        for (url, more) in [(gateway.plain_url("/upload"), &[][..]), (gateway.tls_url("/upload"), &["--cacert", &ca])] {
            for expect in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
                let options = [&["-T", &file, "-H", expect, &url], more].concat();
                let answer = curl(&program, &proxy, &options).await.text();
                assert!(answer.contains(&checksum), "{scheme} {expect} {url}: {answer}");
            }
        }
    }
    // A tunnel by CONNECT to what is in the clear, and the older names of the options.
    let (plain, address) = (gateway.plain_url(BYTES), gateway.address.to_string());
    is_whole(curl(&program, &["--proxy", &address, "--proxytunnel"], &["--fail", &plain]).await);
    for option in ["--socks5-hostname", "--socks4a"] {
        is_whole(curl(&program, &[option, &address], &["--fail", &plain]).await);
    }
    let stats = gateway.watch.stats();
    assert!(stats.socks5 >= 9 && stats.socks4 >= 8 && stats.http >= 8, "{stats:?}");
    gateway.check().await;
}

#[tokio::test]
async fn curl_at_many_at_a_time_waits_in_order_and_loses_nothing() {
    let Some(program) = Program::find("curl", "curl") else { return };
    let gateway = Gateway::open().await;
    for scheme in ["socks5h", "http"] {
        let address = format!("{scheme}://{}", gateway.address);
        let many = format!("http://plain.test:{}/bytes/[20000-20039]", gateway.plain.port());
        // Kept connections would be ten idle ones that the other thirty wait for.
        let close = ["-H", "Connection: close"];
        let options = ["-Z", "--parallel-immediate", "--parallel-max", "40", "--fail", "-o", "/dev/null", "-w"];
        let told =
            curl(&program, &["--proxy", &address], &[&options[..], &["%{http_code} "], &close, &[&many]].concat())
                .await;
        assert_eq!(told.text(), "200 ".repeat(40), "{scheme}");
    }
    let most = gateway.proxy.counters().destinations[&format!("plain.test:{}", gateway.plain.port())];
    println!("{most:?}");
    // Where tests share a process, a child that another one has just spawned has our sockets until it becomes its program, so that what
    // is closed meanwhile stays open. Under nextest each has its own.
    assert!(most.max == 10 || std::env::var_os("NEXTEST").is_none(), "{most:?}");
    gateway.check().await;
}

#[tokio::test]
async fn curl_says_who_asks() {
    let Some(program) = Program::find("curl", "curl") else { return };
    let gateway = Gateway::guarded().await;
    let (plain, tls, ca) = (gateway.plain_url(BYTES), gateway.tls_url(BYTES), gateway.ca());
    let right = format!("ann:{PASSWORD}");
    for scheme in ["socks5h", "http"] {
        let address = format!("{scheme}://{}", gateway.address);
        let proxy = ["--proxy", &*address];
        for url in [&plain, &tls] {
            let asked = ["--fail", "--cacert", &ca, url];
            is_whole(curl(&program, &[&proxy[..], &["--proxy-user", &right]].concat(), &asked).await);
            for wrong in [&["--proxy-user", "ann:wrong"][..], &["--proxy-user", "eve:p"], &[]] {
                let ran = curl(&program, &[&proxy[..], wrong].concat(), &asked).await;
                // 97: the SOCKS handshake; 22 and 56: a status, of CONNECT or of a plain request.
                let codes = if scheme == "socks5h" { [97, 97] } else { [22, 56] };
                let is_told = ran.code.is_some_and(|code| codes.contains(&code));
                assert!(is_told && ran.output.is_empty(), "{scheme} {url} {wrong:?}: {ran:?}");
            }
        }
    }
    // In the URL, quoted.
    let quoted = format!("socks5h://ann:p%40ss%3A%20w%2Frd@{}", gateway.address);
    is_whole(curl(&program, &["--proxy", &quoted], &["--fail", &plain]).await);
    // SOCKS4 has no place for a password.
    let old = format!("socks4a://ann@{}", gateway.address);
    assert_eq!(curl(&program, &["--proxy", &old], &[&plain]).await.code, Some(97));
    let stats = gateway.watch.stats();
    assert_eq!(stats.handshakes_failed(HandshakeFailure::Method), 2, "{stats:?}");
    // SOCKS5 with two wrong users, twice; HTTP with three, twice; SOCKS4.
    assert_eq!(stats.handshakes_failed(HandshakeFailure::User), 4 + 6 + 1, "{stats:?}");
    gateway.check().await;
}

#[tokio::test]
async fn curl_is_told_why_there_is_no_tunnel() {
    let Some(program) = Program::find("curl", "curl") else { return };
    let gateway = Gateway::open().await;
    let nobody = format!("nobody.test:{}", gateway.nobody.address().port());
    for (host, code, status) in
        [(&*nobody, "(5)", "502"), ("blocked.test:80", "(2)", "403"), ("unknown.test:80", "(4)", "502")]
    {
        let url = format!("http://{host}/");
        let socks = format!("socks5h://{}", gateway.address);
        let ran = curl(&program, &["--proxy", &socks], &[&url]).await;
        assert!(ran.code == Some(97) && ran.errors.contains(code), "{host}: {}", ran.errors);
        let old = format!("socks4a://{}", gateway.address);
        let ran = curl(&program, &["--proxy", &old], &[&url]).await;
        assert!(ran.code == Some(97) && ran.errors.contains("(91)"), "{host}: {}", ran.errors);
        let http = format!("http://{}", gateway.address);
        let told = ["-o", "/dev/null", "-w", "%{http_code} %{http_connect}", &url];
        let ran = curl(&program, &["--proxy", &http], &told).await;
        assert_eq!(ran.text(), format!("{status} 000"), "{host}");
        let ran = curl(&program, &["--proxy", &http, "--proxytunnel"], &told).await;
        assert_eq!((ran.code, ran.output), (Some(56), format!("000 {status}").into_bytes()), "{host}: {}", ran.errors);
    }
    let stats = gateway.watch.stats();
    let failed =
        [ErrorKind::Refused, ErrorKind::Rejected, ErrorKind::HostUnreachable].map(|kind| stats.tunnels_failed(kind));
    assert_eq!(failed, [4; 3], "{stats:?}");
    // None of it is the upstream's fault.
    assert!(gateway.connector.stats().upstreams[0].is_well());
}
