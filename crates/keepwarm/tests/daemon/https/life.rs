//! Start, stop, what keeps it from starting, and names found through the daemon's own DNS.

use http_body_util::BodyExt as _;

use super::support::*;
use crate::support::{Daemon as DnsDaemon, free_address, text};

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_ends_whole_after_sigterm_and_no_new_one_comes_in() {
    let daemon = Bench::new(1, &Keys::default()).await.start().await;
    let gateway = daemon.bench.gateway;
    // A hundred pieces, ten milliseconds apart.
    let answer = daemon.get("/stream/100").await;
    assert_eq!(answer.status(), 200);
    daemon.signal("TERM");
    let body = tokio::spawn(answer.into_body().collect());
    while tokio::net::TcpStream::connect(gateway).await.is_ok() {
        assert!(!body.is_finished(), "the gateway listens until its last answer has ended");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let body = body.await.unwrap().unwrap().to_bytes();
    assert_eq!(body.len(), 100 * 64);
    let output = daemon.wait().await;
    let log = text(&output);
    assert_eq!(output.status.code(), Some(0), "{log}");
    for line in ["https gateway listens", "created 1/10", "closed 0/10: drained", "SIGTERM", "stopped"] {
        assert!(log.contains(line), "the log has no `{line}`:\n{log}");
    }
    assert!(!log.contains("cut off"), "{log}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_cut_off_and_said_so() {
    let daemon = Bench::new(1, &Keys::default()).await.start().await;
    let answer = daemon.get("/stream").await;
    daemon.signal("INT");
    let body = tokio::spawn(answer.into_body().collect());
    let output = daemon.wait().await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("some were cut off"), "{}", text(&output));
    assert!(body.await.unwrap().is_err(), "a body that was cut off is no whole one");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_up_does_not_hold_up_the_end() {
    let bench = Bench::new(1, &Keys::default()).await;
    bench.lab.update_faults(bench.ip(0), |faults| faults.hang = true);
    let daemon = bench.start().await;
    let (control, origin) = (daemon.bench.control.to_string(), daemon.bench.origin());
    let warming = tokio::spawn(async move { run(vec!["warm", &origin, "-n", "1", "--control", &control]).await });
    while daemon.bench.lab.total().accepted == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    daemon.signal("TERM");
    let output = tokio::time::timeout(std::time::Duration::from_secs(25), daemon.wait()).await;
    let output = output.expect("it ends before the time-out of the dial, which is 30 s");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let (code, _, stderr) = warming.await.unwrap();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the daemon is stopping"), "{stderr}");
}

/// As many requests without their bodies as the status endpoint has connections; each is being read.
#[cfg(unix)]
async fn unfinished_requests(control: std::net::SocketAddr) -> Vec<tokio::net::TcpStream> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const HEAD: &[u8] = b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = tokio::net::TcpStream::connect(control).await.unwrap();
        stream.write_all(HEAD).await.unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100");
        streams.push(stream);
    }
    streams
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_status_request_does_not_hold_up_the_end() {
    let dns = DnsDaemon::start("udp").await;
    let https = Bench::new(1, &Keys::default()).await.start().await;
    let (dns_streams, https_streams) =
        (unfinished_requests(dns.control).await, unfinished_requests(https.bench.control).await);
    dns.signal("TERM");
    https.signal("TERM");
    let dns = tokio::task::spawn_blocking(|| dns.wait());
    let both = async { (dns.await.unwrap(), https.wait().await) };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), both).await;
    let (dns, https) = ended.expect("they end though their clients neither go on nor go away");
    for output in [dns, https] {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("requests to the status endpoint did not end: cut off"), "{}", text(&output));
    }
    drop((dns_streams, https_streams));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dns_the_name_is_found_through_the_daemons_own_server() {
    let (dns, nobody) = (free_address(), free_address());
    let sections = format!(
        "[dns]\nlisten = [\"{dns}\"]\n[dns.local]\nrecords = [\"tiles.example. 300 A 127.0.1.1\", \"tiles.example. 300 A 127.0.1.2\"]\n\
         [[dns.upstream]]\nname = \"nobody\"\naddress = \"udp://{nobody}\"\n"
    );
    let keys = Keys { sections, origin: "validate = true\nwarm = 2".into(), ..Keys::default() };
    let daemon = Bench::new(2, &keys).await.start().await;
    let rows = daemon
        .until("both addresses of the record are good", |rows| {
            rows.len() == 2 && rows.iter().all(|row| row["state"] == "validated" && row["source"] == "dns")
        })
        .await;
    assert_eq!((&rows[0]["ip"], &rows[1]["ip"]), (&"127.0.1.1".into(), &"127.0.1.2".into()));
    assert_eq!(daemon.fetch("/").await.0, 200);
    // The pools of both, and the upstreams of both.
    let (code, table, stderr) = daemon.run(&["pools"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(table.contains("\ndns ") && table.contains("\nhttps "), "{table}");
    let (code, table, stderr) = daemon.run(&["upstreams"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(table.contains("nobody") && table.contains(&daemon.bench.origin()), "{table}");
    let report = daemon.json(&["query", "tiles.example", "--json"]).await;
    assert_eq!((&report["rcode"], &report["local"]), (&"NOERROR".into(), &true.into()), "{report}");
    // A file with both needs no daemon for it either.
    let (file, origin) = (daemon.bench.config().display().to_string(), daemon.bench.origin());
    let (code, stdout, stderr) = run(vec!["addresses", &origin, "-c", &file, "-o", "csv"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("127.0.1.1,validated,") && stdout.contains("127.0.1.2,validated,"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_named_with_its_exit_code() {
    let bench = Bench::new(1, &Keys::default()).await;
    let taken = std::net::TcpListener::bind(bench.gateway).unwrap();
    let (code, said) = refused(&bench.config());
    assert_eq!(code, Some(69), "{said}");
    let gateway = format!("https gateway: listen on {}: address already in use", bench.gateway);
    assert!(said.contains(&gateway) && said.contains("change https.gateway"), "{said}");
    drop(taken);
    let file = write(bench.folder.path(), "none.toml", "version = 1\n[https]\n");
    let (code, said) = refused(&file);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("there is no origin to connect to"), "{said}");
    let file =
        write(bench.folder.path(), "typo.toml", "version = 1\n[[https.origin]]\nhost = \"a\"\nprofile = \"plian\"\n");
    let (code, said) = refused(&file);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("did you mean \"plain\"?"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dns_there_is_no_cache_and_it_is_said_so() {
    let daemon = Bench::new(1, &Keys::default()).await.start().await;
    for command in [&["cache"][..], &["cache", "--json"], &["cache", "flush", "--all"], &["cache", "flush", "a.test"]] {
        let (code, stdout, stderr) = daemon.run(command).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{command:?}: {stderr}");
        assert!(stderr.contains("the daemon's config has no [dns]: there is no cache"), "{command:?}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_has_the_threads_that_the_config_gives_it() {
    // One worker is the main thread itself.
    for (workers, threads) in [(3, 3), (1, 0)] {
        let sections = format!("[limits]\nworkers = {workers}");
        let daemon = Bench::new(1, &Keys { sections, ..Keys::default() }).await.start().await;
        let mut names = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap() {
            names.push(std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned());
        }
        assert_eq!(names.iter().filter(|name| *name == "gateway").count(), threads, "{workers}: {names:?}");
    }
}
