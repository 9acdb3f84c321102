//! A machine that runs out of ports or files: the error is local by name, and no upstream is blamed for it.
//!
//! Both need a process of their own (limits, a network namespace), so each test starts this binary once more.

use std::{
    env,
    fs::File,
    process::{Command, Stdio},
    time::Duration,
};

use keepwarm_dns::{config::Transport, server::Server};
use keepwarm_lab::{Faults, answer_matches};
use tokio::net::UdpSocket;

use crate::support::*;

/// Runs the named test again behind `wrapper`; `false` when it is the inner run that has to do the work.
pub fn rerun(name: &str, wrapper: &[&str]) -> bool {
    if env::var_os(INNER).is_some() {
        return false;
    }
    let binary = env::current_exe().unwrap();
    let status = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(binary)
        .args(["--exact", name, "--nocapture"])
        .env(INNER, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{name}: the inner run failed");
    true
}

const INNER: &str = "KEEPWARM_TEST_INNER";

/// A network namespace with nothing but loopback and 200 ephemeral ports.
const NAMESPACE: [&str; 6] = ["unshare", "--map-root-user", "--net", "sh", "-c", SETUP];
const SETUP: &str =
    r#"ip link set lo up && echo "40000 40199" > /proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$@""#;

fn namespaces_work() -> bool {
    let run = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            "ip link set lo up && test -w /proc/sys/net/ipv4/ip_local_port_range",
        ])
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_ports_carry_two_thousand_queries_a_second() {
    let name = "shortage::two_hundred_ports_carry_two_thousand_queries_a_second";
    if env::var_os(INNER).is_none() && !namespaces_work() {
        println!("SKIPPED {name}: needs `unshare` and `ip` with the right to make a network namespace");
        return;
    }
    if rerun(name, &NAMESPACE) {
        return;
    }
    for transport in [Transport::Tcp, Transport::Tls] {
        for close_after in [None, Some(100)] {
            let faults = Faults { delay: Duration::from_millis(10), close_after, ..Faults::default() };
            let bench = Bench::with(transport, [faults], |_| {}).await;
            let sockets: Vec<UdpSocket> = {
                let mut sockets = Vec::new();
                for _ in 0..20 {
                    let socket = client().await;
                    socket.connect(bench.address).await.unwrap();
                    sockets.push(socket);
                }
                sockets
            };
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            let mut failures = Vec::new();
            for round in 0..300 {
                tick.tick().await;
                let asked = sockets.iter().enumerate().map(|(number, socket)| async move {
                    let query = query(&format!("r{round}s{number}.ports.example"), 1);
                    let mut buffer = vec![0; 2048];
                    socket.send(&query).await.map_err(|error| error.to_string())?;
                    let received = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer)).await;
                    let length = received.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                    answer_matches(&query, &buffer[..length])
                });
                failures.extend(futures_util::future::join_all(asked).await.into_iter().filter_map(Result::err));
            }
            assert_eq!(failures, Vec::<String>::new(), "{transport:?} close after {close_after:?}");
            let row = bench.pool(0);
            assert_eq!((row.breaker, row.failures), ("closed", 0), "{transport:?} close after {close_after:?}");
            bench.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_files_queries_fail_as_local_and_upstreams_stay_well() {
    let name = "shortage::without_files_queries_fail_as_local_and_upstreams_stay_well";
    if cfg!(not(unix)) {
        println!("SKIPPED {name}: needs a limit on open files");
        return;
    }
    if rerun(name, &["sh", "-c", r#"ulimit -n 256 && exec "$0" "$@""#]) {
        return;
    }
    for transport in TRANSPORTS {
        let bench = Bench::with(transport, [Faults::default()], |config| config.pool.min_idle = 0).await;
        let socket = client().await;
        socket.connect(bench.address).await.unwrap();
        let hoard = hoard().await;
        let query = query("shortage.example", 1);
        let mut buffer = vec![0; 2048];
        socket.send(&query).await.unwrap();
        let length = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer)).await.unwrap().unwrap();
        let answer = &buffer[..length];
        assert_eq!(rcode(answer), 2, "{transport:?}");
        let text = String::from_utf8_lossy(answer);
        assert!(text.contains("keepwarm: local shortage"), "{transport:?}: the client is told: {text:?}");
        let row = bench.pool(0);
        assert_eq!((row.breaker, row.failures), ("closed", 0), "{transport:?}: health untouched");
        assert!(row.local_errors > 0, "{transport:?}: counted as local");
        // The word that the alert of a shortage looks for, and no other one.
        let kinds: Vec<_> = row.dial_errors.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["files_exhausted"], "{transport:?}");
        drop(hoard);
        assert_eq!(bench.ask("plenty.example").await, Ok(()), "{transport:?}");
        bench.stop().await;
    }
}

/// Every file that there is. What others still had open for a moment is waited for: once nothing can be opened, nothing is freed any more.
async fn hoard() -> Vec<File> {
    let mut hoard = Vec::new();
    let mut quiet = 0;
    while quiet < 3 {
        let before = hoard.len();
        hoard.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        quiet = if hoard.len() == before { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    hoard
}

/// Behaviour 13: nothing is left behind, however often a server starts and stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_stop_leave_no_file_and_no_thread_behind() {
    let name = "shortage::servers_that_stop_leave_no_file_and_no_thread_behind";
    if !std::path::Path::new("/proc/self/fd").exists() {
        println!("SKIPPED {name}: needs /proc");
        return;
    }
    if rerun(name, &["env"]) {
        return;
    }
    let (labs, ca) = labs([Faults::default()]).await;
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let mut before = None;
    for round in 0..30 {
        for transport in TRANSPORTS {
            let server = Server::start(config(&labs, &ca, transport)).unwrap();
            let asked = ask(server.listening()[0].address, &format!("round{round}.example")).await;
            assert_eq!(asked, Ok(()), "{transport:?}");
            server.stop(Duration::from_secs(2)).await;
        }
        let now = (count("fd"), count("task"));
        // The first rounds open what stays: the test's own runtime grows to its size.
        if round == 5 {
            before = Some(now);
        }
        if let Some((files, threads)) = before {
            // The lab may still hold a connection that was just closed.
            assert!(now.0 <= files + 4 && now.1 <= threads + 1, "round {round}: {now:?}, in round 5 {before:?}");
        }
    }
}

/// A socket that was retired is closed: its reader does not keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retired_udp_sockets_are_closed() {
    let name = "shortage::retired_udp_sockets_are_closed";
    if !std::path::Path::new("/proc/self/fd").exists() {
        println!("SKIPPED {name}: needs /proc");
        return;
    }
    if rerun(name, &["env"]) {
        return;
    }
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| config.pool.udp_max_queries = 10).await;
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    assert_eq!(storm(bench.address, "retire", 1000, 4).await, Vec::<String>::new());
    let opened = bench.pool(0).opened;
    assert!(opened >= 90, "{opened} sockets for 1000 queries at 10 a socket");
    assert!(count() <= before + 20, "{} files open, {before} before", count());
    bench.stop().await;
}
