//! Start, stop, and what keeps it from starting.

use std::net::UdpSocket;

use keepwarm_lab::Tagged;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::*;
use crate::{
    https::support::{refused, write},
    support::{free_address, text},
};

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_tunnel_may_end_by_itself_after_sigterm_and_no_new_one_comes_in() {
    // As many threads as there are cores, and a single one for everything.
    for lines in ["", "[limits]\nworkers = 1"] {
        let daemon = Bench::new(lines).await.start().await;
        let listen = daemon.bench.listen;
        let (mut stream, mut tagged) = daemon.tunnel().await;
        say(&mut stream, &mut tagged, 100).await;
        daemon.signal("TERM");
        while TcpStream::connect(listen).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        say(&mut stream, &mut tagged, 10_000).await;
        drop(stream);
        let output = daemon.wait().await;
        let log = text(&output);
        assert_eq!(output.status.code(), Some(0), "{log}");
        for line in ["tunnel listens", "SIGTERM", "stopped"] {
            assert!(log.contains(line), "the log has no `{line}`:\n{log}");
        }
        assert!(!log.contains("cut off"), "{log}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_tunnel_that_does_not_end_is_cut_off_and_said_so() {
    let daemon = Bench::new("").await.start().await;
    let (mut stream, mut tagged) = daemon.tunnel().await;
    say(&mut stream, &mut tagged, 100).await;
    daemon.signal("INT");
    let output = tokio::time::timeout(std::time::Duration::from_secs(30), daemon.wait()).await;
    let output = output.expect("the drain has an end though the tunnel has none");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("some were cut off") && text(&output).contains("\"tunnels\":1"),
        "{}",
        text(&output)
    );
    assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)), "the tunnel has ended");
}

/// What this machine connects to itself is found through the daemon's own DNS; what a proxy connects to is looked up by nobody here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_found_through_the_daemons_own_dns_or_by_the_proxy() {
    let (dns, resolver) = (free_address(), UdpSocket::bind("127.0.0.1:0").unwrap());
    resolver.set_nonblocking(true).unwrap();
    let lines = format!(
        "[[tunnel.rule]]\nmatch = [\"near.example\"]\nvia = \"direct\"\n\
         [dns]\nlisten = [\"{dns}\"]\ntimeout = \"1s\"\n[dns.local]\nrecords = [\"near.example. 300 A 127.0.0.1\"]\n\
         [[dns.upstream]]\nname = \"resolver\"\naddress = \"udp://{}\"\n",
        resolver.local_addr().unwrap()
    );
    let daemon = Bench::new(&lines).await.start().await;
    let echo = daemon.bench.echo.addr(0);
    daemon.bench.proxy.pin("far.example", echo);
    for host in ["near.example", "far.example"] {
        let mut stream = socks5(daemon.bench.listen, host, echo.port()).await;
        say(&mut stream, &mut Tagged::random(echo), 100).await;
    }
    let served = daemon.status().await.upstreams.into_iter().map(|row| (row.name, row.tunnels)).collect::<Vec<_>>();
    assert_eq!(served, [("exit".to_owned(), 1), ("direct".to_owned(), 1)]);
    // Whoever is asked for a name in earnest hears of it, and has heard of none of these.
    let report = daemon.run(&["query", "elsewhere.example", "--json"]).await;
    let mut heard = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(length) = resolver.recv(&mut buffer) {
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert!(heard.iter().any(|query| query.contains("elsewhere")), "{report:?}: {heard:?}");
    assert!(!heard.iter().any(|query| query.contains("near") || query.contains("far")), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_named_with_its_exit_code() {
    let bench = Bench::new("").await;
    let taken = std::net::TcpListener::bind(bench.listen).unwrap();
    let (code, said) = refused(&bench.config());
    assert_eq!(code, Some(69), "{said}");
    let address = bench.listen.to_string();
    assert!(said.contains(&address) && said.contains("address already in use"), "{said}");
    assert!(said.contains("stop it, or change tunnel.listen"), "{said}");
    drop(taken);
    let file = write(bench.folder.path(), "typo.toml", &bench.text("strategy = \"ordred\""));
    let (code, said) = refused(&file);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("ordered") && !said.contains(PASSWORD), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_led_to_the_status_endpoint() {
    let daemon = Bench::new("[[tunnel.rule]]\nmatch = [\"127.0.0.0/8\"]\nvia = \"direct\"").await.start().await;
    let Bench { listen, control, echo, .. } = &daemon.bench;
    // Its port counts, not that it is on this machine.
    for (address, code) in [(*control, 2), (*listen, 2), (echo.addr(0), 0)] {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let request = format!("\x05\x01\0\x05\x01\0\x03\x09{}", address.ip());
        stream.write_all(&[request.as_bytes(), &address.port().to_be_bytes()].concat()).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [5, 0, 5, code], "{address}");
    }
}
