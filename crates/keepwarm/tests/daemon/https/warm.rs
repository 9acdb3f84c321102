//! `keepwarm warm`.

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_ready_over_all_addresses_and_serve() {
    let daemon = Bench::new(3, &Keys::default()).await.start().await;
    let origin = daemon.bench.origin();
    let (code, stdout, stderr) = daemon.run(&["warm", &origin, "-n", "6"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, format!("{origin}: 6 of 6 connections ready, 3 good addresses\n"));
    assert!(stderr.lines().count() >= 2 && stderr.contains("of 6 connections ready"), "{stderr}");
    for ip in daemon.bench.lab.addresses() {
        assert_eq!(daemon.bench.lab.counters(ip).open, 2, "{ip}");
    }
    assert_eq!(daemon.page("/api/v1/https").await["origins"][0]["open"], 6);
    let before = daemon.bench.lab.total().accepted;
    for _ in 0..6 {
        assert_eq!(daemon.fetch("/").await.0, 200);
    }
    assert_eq!(daemon.bench.lab.total().accepted, before, "requests went over what was ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_than_asked_for_is_a_failure_with_the_reason() {
    let keys = Keys { pool: "max_per_host = 2\nmax_idle = 8".into(), ..Keys::default() };
    let bench = Bench::new(2, &keys).await;
    bench.lab.update_faults(bench.ip(0), |faults| faults.refuse = true);
    let daemon = bench.start().await;
    let origin = daemon.bench.origin();
    let (code, stdout, stderr) = daemon.run(&["warm", &origin, "-n", "4"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout, format!("{origin}: 2 of 4 connections ready, 1 good address, 1 failed\n"));
    let (code, _, stderr) = daemon.run(&["warm", &origin, "-n", "9"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("9 connections cannot be ready") && stderr.contains("max_idle"), "{stderr}");
    // Nobody at all.
    let refusing = Bench::new(1, &Keys::default()).await;
    refusing.lab.update_faults(refusing.ip(0), |faults| faults.refuse = true);
    let daemon = refusing.start().await;
    let (code, stdout, stderr) = daemon.run(&["warm", &daemon.bench.origin(), "-n", "1"]).await;
    assert_eq!(code, Some(1));
    assert!(stdout.contains("0 of 1 connections ready"), "{stdout}");
    assert!(stderr.lines().last().is_some_and(|line| line.contains("refused")), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_it_is_tried_and_closed_again() {
    let bench = Bench::new(2, &Keys::default()).await;
    let (file, origin) = (bench.config().display().to_string(), bench.origin());
    let (code, stdout, stderr) = run(vec!["warm", &origin, "-n", "4", "-c", &file]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, format!("{origin}: 4 of 4 connections ready, 2 good addresses\n"));
    // The lab notices the end of a handshake after the client.
    let handshakes = || bench.lab.total().handshakes_full + bench.lab.total().handshakes_resumed;
    for _ in 0..1000 {
        if handshakes() == 4 && bench.lab.total().open == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let total = bench.lab.total();
    assert_eq!((handshakes(), total.requests, total.open), (4, 0, 0));
    let (code, _, stderr) = run(vec!["warm", &origin, "-n", "21", "-c", &file]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("21 connections cannot be ready"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_gives_up_the_warm_up() {
    let bench = Bench::new(1, &Keys { pool: "connect_timeout = \"5m\"".into(), ..Keys::default() }).await;
    bench.lab.update_faults(bench.ip(0), |faults| faults.hang = true);
    let daemon = bench.start().await;
    let origin = daemon.bench.origin();
    // More than are let in at a time: each one's place is free again once it has gone.
    for _ in 0..6 {
        let mut command = crate::support::keepwarm();
        command.args(["warm", &origin, "-n", "1", "--control", &daemon.bench.control.to_string()]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut said, &mut line).unwrap();
            line
        });
        let line = line.await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(line, "0 of 1 connections ready, 1 good address\n");
    }
}
