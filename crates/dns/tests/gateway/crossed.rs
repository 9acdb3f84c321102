//! Nothing ever crosses: many clients against a lab that swaps, delays, duplicates and forges answers.
//!
//! `KEEPWARM_CROSSED=250000 cargo test --release -p keepwarm-dns crossed` runs the million of the proof.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_dns::config::Transport;
use keepwarm_lab::{Faults, answer_matches};

use crate::support::*;

async fn no_answer_crosses(transport: Transport) {
    let count = std::env::var("KEEPWARM_CROSSED").map_or(4000, |count| count.parse().expect("a number of queries"));
    let faults = || Faults {
        jitter: Duration::from_millis(3),
        swap: 0.002,
        late: 0.002,
        late_by: Duration::from_millis(700),
        duplicate: 0.01,
        forge: 0.002,
        ..Faults::default()
    };
    let bench = Bench::with(transport, [faults(), faults()], |config| {
        config.strategy = keepwarm_dns::config::Strategy::RoundRobin;
        config.timeout = Duration::from_secs(10);
    })
    .await;
    let next = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let (next, server) = (next.clone(), bench.address);
        tokio::spawn(async move {
            let socket = client().await;
            socket.connect(server).await.unwrap();
            let mut buffer = vec![0; 4096];
            let (mut wrong, mut unanswered) = (Vec::new(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return (wrong, unanswered);
                }
                let query = query(&format!("c{number}.crossed.example"), if number % 3 == 0 { 28 } else { 1 });
                socket.send(&query).await.unwrap();
                loop {
                    match tokio::time::timeout(Duration::from_secs(12), socket.recv(&mut buffer)).await {
                        // An answer to the query before, given up here and answered since, is late, not crossed.
                        Ok(Ok(length)) if buffer[..2] != query[..2] && length > 2 => {}
                        Ok(Ok(length)) if rcode(&buffer[..length]) == 2 => {
                            unanswered += 1;
                            break;
                        }
                        Ok(Ok(length)) => {
                            if let Err(error) = answer_matches(&query, &buffer[..length]) {
                                wrong.push(error);
                            }
                            break;
                        }
                        Ok(Err(_)) | Err(_) => {
                            unanswered += 1;
                            break;
                        }
                    }
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let (mut wrong, mut unanswered) = (Vec::new(), 0);
    for client in clients {
        let result = client.await.unwrap();
        wrong.extend(result.0);
        unanswered += result.1;
    }
    let dropped = bench.pool(0).wrong_answers + bench.server.status().wrong_answers;
    println!(
        "{transport:?}: {count} queries, {} wrong, {unanswered} unanswered, {dropped} wrong answers dropped",
        wrong.len()
    );
    assert_eq!(wrong, Vec::<String>::new(), "{transport:?}");
    assert!(dropped > 0, "{transport:?}: the lab did what it was told");
    assert!(unanswered * 1000 <= count, "{transport:?}: {unanswered} of {count} unanswered");
    bench.stop().await;
}

const CLIENTS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_udp() {
    no_answer_crosses(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_tcp() {
    no_answer_crosses(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_tls() {
    no_answer_crosses(Transport::Tls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_https() {
    no_answer_crosses(Transport::Https).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_quic() {
    no_answer_crosses(Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_crosses_over_http_3() {
    no_answer_crosses(Transport::H3).await;
}
