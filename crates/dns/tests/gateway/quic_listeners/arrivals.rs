//! Who gets in over QUIC, and with what.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicUsize, Ordering},
};

use keepwarm_dns::config::ListenTransport;
use keepwarm_lab::answer_matches;
use quinn::{ConnectionError, TransportErrorCode};
use tokio::net::UdpSocket;

use super::client::*;
use crate::support::*;

#[tokio::test]
async fn another_protocol_is_refused() {
    for (transport, wrong) in [(ListenTransport::Quic, &b"h3"[..]), (ListenTransport::H3, b"doq")] {
        let bench = QuicBench::start(transport, |_| {}).await;
        let error = bench.try_connect(wrong, "dns.lab").await.unwrap_err();
        let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
        assert_eq!(close.error_code, TransportErrorCode::crypto(120), "no_application_protocol");
        bench.stop().await;
    }
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused_before_the_handshake() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| {
        config.allow = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let stranger = bench.client(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), b"doq");
    let error = within(stranger.connect(bench.address, "dns.lab").unwrap()).await.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
    assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
    assert_eq!(bench.bench.server.status().refused, 1);
    let query = query_0("listed.example");
    assert_eq!(answer_matches(&query, &ask_doq(&bench.connect().await, &query).await.unwrap()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn connections_are_limited_per_client_together_with_tcp_and_given_back() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| config.clients.tcp_max_per_client = 2).await;
    let first = bench.connect().await;
    let query = query_0("limited.example");
    assert_eq!(answer_matches(&query, &ask_doq(&first, &query).await.unwrap()), Ok(()));
    let mut tcp = TcpClient::connect(bench.bench.address).await;
    tcp.send(&query).await;
    assert_eq!(answer_matches(&query, &tcp.receive().await.unwrap()), Ok(()));
    let error = bench.try_connect(b"doq", "dns.lab").await.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
    assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
    assert_eq!(bench.bench.server.status().tcp_rejected, 1);
    first.close(0_u32.into(), b"");
    while bench.bench.server.status().tcp_clients > 1 {
        tokio::task::yield_now().await;
    }
    let next = bench.connect().await;
    assert_eq!(answer_matches(&query, &ask_doq(&next, &query).await.unwrap()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let bench = QuicBench::doq().await;
    let old = bench.connect().await;
    assert!(bench.try_connect(b"doq", "new.lab").await.is_err(), "the certificate is for another name");
    issue(&bench.ca, &bench.folder, "new.lab");
    let new = within(async {
        loop {
            if let Ok(connection) = bench.try_connect(b"doq", "new.lab").await {
                return connection;
            }
        }
    })
    .await;
    for connection in [&old, &new] {
        let query = query_0("certificate.example");
        assert_eq!(answer_matches(&query, &ask_doq(connection, &query).await.unwrap()), Ok(()));
    }
    assert!(bench.try_connect(b"doq", "dns.lab").await.is_err());
    bench.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed_and_no_early_data_is_taken() {
    let bench = QuicBench::doq().await;
    let client = bench.client(Ipv4Addr::LOCALHOST.into(), b"doq");
    let query = query_0("resumed.example");
    for round in 0..3 {
        let connecting = client.connect(bench.address, "dns.lab").unwrap();
        let Err(connecting) = connecting.into_0rtt() else { panic!("round {round}: the server let early data in") };
        let connection = within(connecting).await.unwrap();
        assert_eq!(answer_matches(&query, &ask_doq(&connection, &query).await.unwrap()), Ok(()));
        connection.close(0_u32.into(), b"");
    }
    bench.stop().await;
}

#[tokio::test]
async fn forged_clients_are_told_to_prove_their_address_and_take_nobodys_place() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| {
        config.workers = 1;
        config.clients.tcp_max = 2;
    })
    .await;
    // First packets of clients that hear nothing of what is sent to them: quinn writes them, and this socket carries them on.
    let between = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = bench.client(Ipv4Addr::LOCALHOST.into(), b"doq");
    let (mut packets, mut forged) = (Vec::new(), Vec::new());
    while packets.len() < 150 {
        // Each of them needs two packets at most, for its keys are large.
        forged.push(client.connect(between.local_addr().unwrap(), "dns.lab").unwrap());
        let mut packet = vec![0; 2048];
        let (length, _) = within(between.recv_from(&mut packet)).await.unwrap();
        packet.truncate(length);
        packets.push(packet);
    }
    let forger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for packet in &packets {
        forger.send_to(packet, bench.address).await.unwrap();
    }
    within(async {
        let mut packet = vec![0; 2048];
        loop {
            let length = forger.recv(&mut packet).await.unwrap();
            // RFC 9000 section 17.2.5: the type of a Retry packet of version 1.
            if length > 5 && packet[0] & 0xf0 == 0xf0 && packet[1..5] == [0, 0, 0, 1] {
                return;
            }
        }
    })
    .await;
    assert_eq!(bench.bench.server.status().tcp_clients, 0, "no forger holds a place");
    let query = query_0("proven.example");
    let connection = bench.connect().await;
    assert_eq!(answer_matches(&query, &ask_doq(&connection, &query).await.unwrap()), Ok(()));
    assert_eq!(bench.bench.server.status().tcp_clients, 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_padded_query_gets_a_padded_answer_and_no_other_does() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    let plain = query_0("padded.example");
    let mut padded = plain.clone();
    let length = padded.len();
    padded[length - 1] = 8;
    padded.extend_from_slice(&[0, 12, 0, 4, 0, 0, 0, 0]);
    assert_eq!(ask_doq(&connection, &padded).await.unwrap().len(), 468, "RFC 8467 section 4.1");
    assert_ne!(ask_doq(&connection, &plain).await.unwrap().len(), 468);
    bench.stop().await;
}

#[tokio::test]
async fn noise_on_streams_ends_nothing_but_its_connection() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Tasks that panic are nobody's to join: the threads of the server say whose they were.
        if std::thread::current().name().is_some_and(|name| name.starts_with("dns-")) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    let mut state = 0x9e37_79b9_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Small numbers are the types and lengths of frames.
            if state & 0x100 == 0 { state.to_be_bytes()[0] } else { state.to_be_bytes()[0] & 7 }
        };
        (0..length).map(byte).collect()
    };
    for (transport, alpn) in [(ListenTransport::Quic, &b"doq"[..]), (ListenTransport::H3, b"h3")] {
        let bench = QuicBench::start(transport, |_| {}).await;
        let client = bench.client(Ipv4Addr::LOCALHOST.into(), alpn);
        for round in 0..60 {
            let connection = within(client.connect(bench.address, "dns.lab").unwrap()).await.unwrap();
            for stream in 0..4 {
                let opened = if transport == ListenTransport::H3 && stream % 2 == 0 {
                    connection.open_uni().await
                } else {
                    connection.open_bi().await.map(|(send, _)| send)
                };
                // The connection ends at the first breach.
                let Ok(mut send) = opened else { break };
                // Now and then a HEADERS frame whose length is right.
                let fields = noise(round);
                let bytes = match stream {
                    1 => [&[1, u8::try_from(round).unwrap()][..], &fields, &noise(9)].concat(),
                    _ => fields,
                };
                let _ = send.write_all(&bytes).await;
                let _ = if round % 3 == 0 { send.reset(7_u32.into()) } else { send.finish() };
            }
            connection.close(0_u32.into(), b"");
        }
        while bench.bench.server.status().tcp_clients > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.bench.ask("after.noise.example").await, Ok(()));
        bench.stop().await;
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
