//! Clients that err: malformed messages, wrong versions, too many connections, no right to ask.

use std::time::Duration;

use keepwarm_dns::config::Transport;
use keepwarm_lab::answer_matches;

use crate::support::*;

#[tokio::test]
async fn malformed_messages_get_formerr_or_nothing_and_never_end_the_server() {
    let bench = Bench::plain(Transport::Udp).await;
    let good = query("still.there.example", 1);
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    let mut cut = good.clone();
    cut.truncate(20);
    for bad in [two_questions, cut] {
        let answer = exchange_udp(bench.address, &bad).await.unwrap();
        assert_eq!((&answer[..2], rcode(&answer)), (&bad[..2], 1), "FORMERR with the client's id");
    }
    let mut status = good.clone();
    status[2] = 2 << 3;
    assert_eq!(rcode(&exchange_udp(bench.address, &status).await.unwrap()), 4, "NOTIMP for another opcode");
    // An answer is not answered, or two servers could talk for ever; nor is what is too short to have an id.
    let socket = client().await;
    let mut response = good.clone();
    response[2] |= 0x80;
    for bad in [&response[..], &good[..5], &[]] {
        socket.send_to(bad, bench.address).await.unwrap();
    }
    let mut state = 0x9e37_79b9_u32;
    for length in 0..400 {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        socket.send_to(&noise, bench.address).await.unwrap();
    }
    assert_eq!(bench.ask("after.noise.example").await, Ok(()));
    assert!(bench.server.status().malformed >= 3);
    bench.stop().await;
}

#[tokio::test]
async fn an_unknown_edns_version_gets_badvers() {
    let bench = Bench::plain(Transport::Udp).await;
    let mut query = query("version.example", 1);
    // The OPT record is last: root, type 41, size, extended rcode, version.
    let opt = query.len() - 11;
    query[opt + 6] = 1;
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    let opt = answer.len() - 11;
    assert_eq!((rcode(&answer), answer[opt + 5]), (0, 1), "extended rcode 16, RFC 6891 section 6.1.3");
    bench.stop().await;
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused() {
    let bench = Bench::with(Transport::Udp, [keepwarm_lab::Faults::default()], |config| {
        config.allow = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    let query = query("refused.example", 1);
    assert_eq!(rcode(&exchange_udp(bench.address, &query).await.unwrap()), 5);
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query).await;
    assert_eq!(rcode(&client.receive().await.unwrap()), 5);
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    bench.stop().await;
}

#[tokio::test]
async fn tcp_clients_are_limited_and_idle_ones_leave() {
    let bench = Bench::with(Transport::Udp, [keepwarm_lab::Faults::default()], |config| {
        config.clients.tcp_max_per_client = 2;
        config.clients.tcp_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpClient::connect(bench.address).await;
        let query = query("limited.example", 1);
        client.send(&query).await;
        assert_eq!(answer_matches(&query, &client.receive().await.unwrap()), Ok(()));
        clients.push(client);
    }
    let mut third = TcpClient::connect(bench.address).await;
    assert_eq!(third.receive().await, None, "one too many is closed");
    assert_eq!(bench.server.status().tcp_rejected, 1);
    for client in &mut clients {
        assert_eq!(client.receive().await, None, "idle for longer than the limit");
    }
    assert_eq!(bench.ask("next.example").await, Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn a_tcp_client_that_pipelines_more_than_the_limit_gets_all_answers() {
    let bench = Bench::with(Transport::Tcp, [keepwarm_lab::Faults::default()], |config| {
        config.clients.tcp_max_in_flight = 4;
    })
    .await;
    let mut client = TcpClient::connect(bench.address).await;
    let queries: Vec<_> = (0..100).map(|number| query(&format!("p{number}.example"), 1)).collect();
    for query in &queries {
        client.send(query).await;
    }
    let mut open = queries;
    while !open.is_empty() {
        let answer = client.receive().await.expect("the connection stays");
        let before = open.len();
        open.retain(|query| query[..2] != answer[..2] || answer_matches(query, &answer).is_err());
        assert_eq!(open.len(), before - 1, "each answer belongs to exactly one query");
    }
    bench.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_queries_of_clients_that_are_gone() {
    let bench = Bench::with(Transport::Udp, [keepwarm_lab::Faults::default()], |config| {
        config.timeout = Duration::from_secs(60);
    })
    .await;
    let mut gone = TcpClient::connect(bench.address).await;
    gone.send(&query("drop.gone.example", 1)).await;
    while bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    // A reset: half-closed connections of patient clients look like closed ones.
    gone.0.set_zero_linger().unwrap();
    drop(gone);
    let stopped = tokio::time::timeout(Duration::from_secs(10), bench.server.stop(Duration::from_secs(30))).await;
    assert_eq!(stopped, Ok(0), "its upstream never answers");
}

#[tokio::test]
async fn stopping_waits_for_a_client_that_has_said_all_it_wants() {
    let bench = Bench::plain(Transport::Udp).await;
    let mut client = TcpClient::connect(bench.address).await;
    let query = query("delay-400.example", 1);
    client.send(&query).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
    while bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.server.stop(Duration::from_secs(5)).await, 0);
    assert_eq!(answer_matches(&query, &client.receive().await.unwrap()), Ok(()));
}
