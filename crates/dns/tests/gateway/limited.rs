//! Limits for single clients: queries a second, queries in flight.

use std::time::Duration;

use keepwarm_dns::config::{CacheSettings, ListenTransport, Transport};
use keepwarm_lab::{Faults, answer_matches};
use tokio::net::{TcpSocket, UdpSocket};

use crate::{certificate::*, support::*};

/// A connection from this address.
async fn connect_from(source: &str, server: std::net::SocketAddr) -> Messages<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    Messages(socket.connect(server).await.unwrap())
}

/// The code and text of an answer's extended error (RFC 8914), which is its last option.
fn reason(answer: &[u8]) -> Option<String> {
    let start = answer.windows(8).position(|window| window == b"keepwarm")?;
    Some(String::from_utf8_lossy(&answer[start..]).into_owned())
}

#[tokio::test]
async fn beyond_the_rate_every_second_datagram_gets_tc_and_the_others_nothing() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.clients.rate_limit = 1;
        config.workers = 1;
    })
    .await;
    let socket = client().await;
    let queries: Vec<_> = (0..40).map(|number| query(&format!("fast{number}.example"), 1)).collect();
    for query in &queries {
        socket.send_to(query, bench.address).await.unwrap();
    }
    let (mut answered, mut truncated) = (0, 0);
    let mut buffer = [0; 512];
    // One of the others, for whom nothing has changed, comes behind all of it.
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let last = query("other.example", 1);
    other.send_to(&last, bench.address).await.unwrap();
    let length = other.recv(&mut buffer).await.unwrap();
    assert_eq!(answer_matches(&last, &buffer[..length]), Ok(()));
    while bench.server.status().queries < 41 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let limited = usize::try_from(bench.server.status().rate_limited).unwrap();
    assert!((1..40).contains(&limited), "{limited}");
    while answered + truncated < 40 - limited + limited.div_ceil(2) {
        let received = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer)).await;
        let answer = &buffer[..received.expect("an answer within 6 s").unwrap()];
        let query = queries.iter().find(|query| query[..2] == answer[..2]).expect("an answer to one of the queries");
        assert!(answer.len() <= query.len() || answer[2] & 2 == 0, "no more comes out than came in");
        if answer[2] & 2 != 0 {
            assert_eq!((rcode(answer), &answer[6..8]), (0, &[0, 0][..]));
            truncated += 1;
        } else {
            assert_eq!(answer_matches(query, answer), Ok(()));
            answered += 1;
        }
    }
    assert_eq!((answered, truncated), (40 - limited, limited.div_ceil(2)));
    bench.stop().await;
}

#[tokio::test]
async fn beyond_the_rate_streams_are_refused_with_the_reason_and_the_connection_stays() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[ListenTransport::Tcp, ListenTransport::Tls]);
        config.clients.rate_limit = 1;
    })
    .await;
    let listening = bench.server.listening();
    let [tcp, dot] = &listening[..] else { panic!("two listeners") };
    let (mut tcp, mut tls) = (connect_from("127.0.0.1", tcp.address).await, certificate.dot(dot.address).await);
    let mut refused = 0;
    for number in 0..20 {
        let query = query(&format!("fast{number}.example"), 1);
        for answer in [tcp.ask(&query).await, tls.ask(&query).await] {
            if rcode(&answer) == 5 {
                assert!(reason(&answer).unwrap().starts_with("keepwarm: too many queries a second"));
                refused += 1;
            } else {
                assert_eq!(answer_matches(&query, &answer), Ok(()));
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(bench.server.status().rate_limited, refused);
    bench.stop().await;
}

#[tokio::test]
async fn a_client_with_too_many_queries_in_flight_is_refused_and_others_are_not() {
    let bench = Bench::with(Transport::Udp, [Faults { silent: true, ..Faults::default() }], |config| {
        config.clients.max_in_flight_per_client = 3;
        config.timeout = Duration::from_millis(1500);
    })
    .await;
    let mut client = connect_from("127.0.0.1", bench.address).await;
    for number in 0..5 {
        client.send(&query(&format!("wait{number}.example"), 1)).await;
    }
    // Those beyond the limit are answered at once, ahead of those that wait.
    for _ in 0..2 {
        let answer = client.receive().await.unwrap();
        assert_eq!(rcode(&answer), 5);
        assert!(reason(&answer).unwrap().starts_with("keepwarm: too many queries in flight"));
    }
    assert_eq!(
        rcode(&exchange_udp(bench.address, &query("wait9.example", 1)).await.unwrap()),
        5,
        "over all its sockets"
    );
    assert_eq!(bench.server.status().client_limited, 3);
    // One that joins a flight of others counts too.
    let mut other = connect_from("127.0.0.2", bench.address).await;
    for name in ["wait0.example", "wait1.example", "more.example", "wait2.example"] {
        other.send(&query(name, 1)).await;
    }
    assert_eq!(rcode(&other.receive().await.unwrap()), 5);
    assert_eq!(bench.server.status().client_limited, 4);
    for client in [&mut client, &mut other] {
        for _ in 0..3 {
            assert_eq!(rcode(&client.receive().await.unwrap()), 2, "the upstream says nothing");
        }
    }
    bench.labs[0].update_faults(|faults| faults.silent = false);
    for number in 0..10 {
        let query = query(&format!("again{number}.example"), 1);
        let answer = client.ask(&query).await;
        assert_ne!(rcode(&answer), 5, "all places were given back");
    }
    assert_eq!(bench.server.status().client_limited, 4);
    bench.stop().await;
}

#[tokio::test]
async fn what_the_cache_answers_takes_no_place_in_flight() {
    let bench = Bench::cached([Faults::default()], |config| config.clients.max_in_flight_per_client = 1).await;
    assert_eq!(bench.ask("kept.example").await, Ok(()));
    bench.labs[0].update_faults(|faults| faults.silent = true);
    let mut client = connect_from("127.0.0.1", bench.address).await;
    client.send(&query("silent.example", 1)).await;
    let kept = query("kept.example", 1);
    for _ in 0..5 {
        assert_eq!(answer_matches(&kept, &client.ask(&kept).await), Ok(()));
    }
    assert_eq!(rcode(&client.ask(&query("other.example", 1)).await), 5);
    assert_eq!(bench.server.status().client_limited, 1);
    bench.stop().await;
}

#[tokio::test]
async fn without_limits_nothing_is_limited() {
    let bench =
        Bench::with(Transport::Udp, [Faults::default()], |config| config.cache = CacheSettings::default()).await;
    assert_eq!(storm(bench.address, "free", 300, 20).await, Vec::<String>::new());
    let status = bench.server.status();
    assert_eq!((status.rate_limited, status.client_limited), (0, 0));
    bench.stop().await;
}
