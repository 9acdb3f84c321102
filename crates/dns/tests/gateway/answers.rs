//! What a client gets: its id, question and case, whatever the transport upstream.

use keepwarm_lab::{Faults, answer_matches};

use crate::support::*;

#[tokio::test]
async fn each_transport_answers() {
    for transport in TRANSPORTS {
        let bench = Bench::plain(transport).await;
        assert_eq!(bench.ask("www.example").await, Ok(()), "{transport:?}");
        let query = query("MiXeD.CaSe.ExAmPlE", 28);
        let answer = exchange_udp(bench.address, &query).await.unwrap();
        assert_eq!(answer_matches(&query, &answer), Ok(()), "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn each_transport_answers_tcp_clients_out_of_order() {
    for transport in TRANSPORTS {
        let bench = Bench::plain(transport).await;
        let mut client = TcpClient::connect(bench.address).await;
        let queries = ["delay-300.example", "fast.example"].map(|name| query(name, 1));
        for query in &queries {
            client.send(query).await;
        }
        let first = client.receive().await.unwrap();
        assert_eq!(answer_matches(&queries[1], &first), Ok(()), "{transport:?}: the fast one comes first");
        let second = client.receive().await.unwrap();
        assert_eq!(answer_matches(&queries[0], &second), Ok(()), "{transport:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn nxdomain_and_nodata_pass_and_do_not_count_as_failures() {
    let bench = Bench::plain(keepwarm_dns::config::Transport::Tls).await;
    for _ in 0..10 {
        for name in ["nx.example", "nodata.example"] {
            assert_eq!(bench.ask(name).await, Ok(()));
        }
    }
    let row = bench.pool(0);
    assert_eq!((row.failures, row.breaker), (0, "closed"));
    bench.stop().await;
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_over_tcp_and_cut_to_the_clients_size() {
    let bench = Bench::plain(keepwarm_dns::config::Transport::Udp).await;
    let query = query("big.example", 16);
    let answer = exchange_udp(bench.address, &query).await.unwrap();
    assert!(answer.len() <= 1232, "{} bytes", answer.len());
    assert_eq!(answer[2] & 2, 2, "TC is set: the whole answer does not fit the client's datagram");
    let counters = bench.labs[0].counters();
    assert_eq!(counters.tcp.queries, 1, "the upstream was asked over tcp");
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query).await;
    let answer = client.receive().await.unwrap();
    assert!(answer.len() > 2000, "{} bytes", answer.len());
    assert_eq!(answer_matches(&query, &answer), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn identical_queries_in_flight_are_asked_once_and_each_gets_its_own_id_and_case() {
    let faults = Faults { delay: std::time::Duration::from_millis(300), ..Faults::default() };
    let bench = Bench::with(keepwarm_dns::config::Transport::Udp, [faults], |config| config.workers = 1).await;
    let names = ["same.example", "SAME.example", "sAmE.eXaMpLe", "same.example"];
    let asked = names.map(|name| {
        let server = bench.address;
        tokio::spawn(async move { ask(server, name).await })
    });
    for client in asked {
        assert_eq!(client.await.unwrap(), Ok(()));
    }
    assert_eq!(bench.labs[0].counters().udp.queries, 1);
    assert_eq!(bench.server.status().coalesced, 3);
    bench.stop().await;
}

#[tokio::test]
async fn queries_that_differ_in_more_than_case_are_not_coalesced() {
    let faults = Faults { delay: std::time::Duration::from_millis(300), ..Faults::default() };
    let bench = Bench::with(keepwarm_dns::config::Transport::Udp, [faults], |config| config.workers = 1).await;
    let plain = query("differs.example", 1);
    let mut checking_disabled = query("differs.example", 1);
    checking_disabled[3] |= 0x10;
    let other_type = query("differs.example", 28);
    let clients = [plain, checking_disabled, other_type].map(|query| {
        let server = bench.address;
        tokio::spawn(async move {
            let answer = exchange_udp(server, &query).await?;
            answer_matches(&query, &answer)
        })
    });
    for client in clients {
        assert_eq!(client.await.unwrap(), Ok(()));
    }
    assert_eq!(bench.labs[0].counters().udp.queries, 3);
    bench.stop().await;
}
