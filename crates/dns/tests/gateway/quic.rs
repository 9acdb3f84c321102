//! DNS over QUIC and over HTTP/3 to upstreams: what is theirs alone, and a server that we did not write.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use keepwarm_dns::{
    config::{Transport, UpstreamConfig},
    server::Server,
};
use keepwarm_lab::{Ca, CloseKind, Faults};

use crate::support::*;

const QUIC: [Transport; 2] = [Transport::Quic, Transport::H3];

#[tokio::test]
async fn a_second_quic_connection_resumes_the_session_of_the_first() {
    for transport in QUIC {
        let bench = Bench::with(transport, [Faults::default()], |config| config.pool.min_idle = 0).await;
        assert_eq!(bench.ask("first.example").await, Ok(()), "{transport:?}");
        bench.labs[0].close_all(CloseKind::Fin);
        while bench.pool(0).open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(bench.ask("second.example").await, Ok(()), "{transport:?}");
        let row = bench.pool(0);
        assert_eq!((row.handshakes_full, row.handshakes_resumed), (1, 1), "{transport:?}: as keepwarm sees it");
        let lab = counted(&bench.labs[0], transport);
        assert_eq!((lab.handshakes_full, lab.handshakes_resumed), (1, 1), "{transport:?}: as the lab sees it");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_quic_server_that_stops_is_noticed_without_a_query() {
    for transport in QUIC {
        let bench = Bench::with(transport, [Faults::default()], |config| config.pool.min_idle = 0).await;
        assert_eq!(bench.ask("here.example").await, Ok(()), "{transport:?}");
        assert_eq!(bench.pool(0).open, 1, "{transport:?}");
        bench.labs[0].close_all(CloseKind::Notify);
        let noticed = tokio::time::timeout(Duration::from_secs(10), async {
            while bench.pool(0).open > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        noticed.await.expect("the connection leaves the pool");
        assert_eq!(counted(&bench.labs[0], transport).closed_by_lab, 1, "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn the_idle_time_out_that_a_quic_server_names_is_learned() {
    for transport in QUIC {
        let bench = Bench::with(transport, [Faults::default()], |config| {
            config.pool.idle_timeout = Duration::from_secs(3600);
        })
        .await;
        assert_eq!(bench.ask("limit.example").await, Ok(()));
        let learned = bench.pool(0).idle_limit.expect("max_idle_timeout (RFC 9000 section 10.1) is read");
        // The lab names 300 s.
        assert!(learned <= Duration::from_secs(300), "{transport:?}: {learned:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn streams_that_are_never_answered_do_not_use_up_a_quic_connection() {
    let faults = Faults { stream_loss: 0.3, h2_max_streams: Some(4), ..Faults::default() };
    let bench = Bench::with(Transport::Quic, [faults, Faults::default()], |config| {
        config.timeout = Duration::from_secs(2);
    })
    .await;
    assert_eq!(storm(bench.address, "lost", 200, 8).await, Vec::<String>::new());
    bench.labs[0].update_faults(|faults| faults.stream_loss = 0.0);
    assert_eq!(storm(bench.address, "found", 200, 8).await, Vec::<String>::new());
    bench.stop().await;
}

/// An aioquic server in a process of its own, which ends with its standard input.
struct Foreign {
    child: Child,
    port: u16,
}

impl Foreign {
    /// `None`, and a word of it, where aioquic is not installed.
    fn start(protocol: &str, ca: &Ca) -> Option<Foreign> {
        let python = std::env::var("KEEPWARM_PYTHON").unwrap_or_else(|_| "python3".into());
        let there = Command::new(&python).args(["-c", "import aioquic, dns.message"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            println!("SKIPPED: {python} has no aioquic and dnspython (KEEPWARM_PYTHON names another interpreter)");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/quic_server.py");
        let mut child = Command::new(python)
            .args([script, protocol])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter was there just now");
        let (chain, key) = ca.issue(&["upstream.lab"]).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let stdin = child.stdin.as_mut().unwrap();
        writeln!(stdin, "{}\n{}", hex(&chain[0]), hex(key.secret_der())).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server prints its port");
        Some(Foreign { child, port })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aioquic_answers_over_quic_and_over_http_3() {
    for (transport, protocol) in QUIC.into_iter().zip(["doq", "h3"]) {
        let ca = Ca::new();
        let Some(foreign) = Foreign::start(protocol, &ca) else { return };
        let mut config = config(&[], &ca, transport);
        config.timeout = Duration::from_secs(2);
        config.upstreams = vec![UpstreamConfig {
            server_name: Some("upstream.lab".into()),
            ..UpstreamConfig::new("foreign", transport, "127.0.0.1", foreign.port)
        }];
        let server = Server::start(config).unwrap();
        let address = server.listening()[0].address;
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..200 {
            asked.spawn(async move { exchange_udp(address, &query(&format!("n{number}.example"), 1)).await });
        }
        while let Some(answer) = asked.join_next().await {
            let answer = answer.unwrap().unwrap();
            assert_eq!(rcode(&answer), 0, "{transport:?}");
            assert!(answer.windows(4).any(|bytes| bytes == [192, 0, 2, 1]), "{transport:?}: {answer:?}");
        }
        let row = &server.pools()[0];
        // As many as are dialled while the first query waits, and far fewer than queries.
        assert!(row.handshakes_full + row.handshakes_resumed <= 10, "{transport:?}: {row:?}");
        // A stream that is reset, and a connection that is closed: each is tried once more, and fails alone.
        for (name, expected) in [("reset.example", 2), ("well.example", 0), ("close.example", 2), ("again.example", 0)]
        {
            let answer = exchange_udp(address, &query(name, 1)).await.unwrap();
            assert_eq!(rcode(&answer), expected, "{transport:?}: {name}");
        }
        server.stop(Duration::from_secs(2)).await;
    }
}

/// The connection's driver is dropped with requests under way on it.
#[tokio::test]
async fn a_server_that_stops_with_queries_in_flight_leaves_in_order() {
    for transport in QUIC {
        let bench = Bench::with(transport, [Faults { silent: true, ..Faults::default() }], |_| {}).await;
        let server = bench.address;
        let asked = tokio::spawn(async move { ask(server, "silent.example").await });
        while bench.labs[0].counters().quic.queries + bench.labs[0].counters().h3.queries == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked.abort();
        assert!(bench.server.stop(Duration::from_millis(100)).await <= 1, "{transport:?}");
        for lab in bench.labs {
            lab.stop().await;
        }
    }
}
