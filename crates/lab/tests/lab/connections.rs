//! How connections over TCP and TLS end, and who is said to have ended them.

use std::io::ErrorKind;
use std::time::Duration;

use keepwarm_lab::{Ca, CloseKind, Faults, Lab, LabSpec, answer_matches, build_query};
use tokio::io::AsyncReadExt;

use crate::client::{A, ByteStream, lab, never, read_end, read_message, soon, tcp, tls, until, write_message};

async fn ask(stream: &mut dyn ByteStream, id: u16) -> std::io::Result<()> {
    let query = build_query(id, "a.test", A, None);
    write_message(stream, &query).await;
    answer_matches(&query, &read_message(stream).await?).map_err(std::io::Error::other)
}

/// What a client sees at the end of a TCP and of a TLS connection that the lab ends this way.
async fn expect_end(lab: &Lab, kind: CloseKind, tcp: &mut dyn ByteStream, tls: &mut dyn ByteStream) {
    match kind {
        CloseKind::Notify => {
            assert_eq!(read_end(tcp).await.unwrap(), 0);
            assert_eq!(read_end(tls).await.unwrap(), 0, "close_notify comes first");
        }
        CloseKind::Fin => {
            assert_eq!(read_end(tcp).await.unwrap(), 0);
            // What rustls says when FIN comes without close_notify.
            assert_eq!(read_end(tls).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        CloseKind::Reset => {
            assert_eq!(read_end(tcp).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(read_end(tls).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        CloseKind::Silence => {
            write_message(tcp, &build_query(9, "a.test", A, None)).await;
            never(tcp.read_u8()).await;
            write_message(tls, &build_query(9, "a.test", A, None)).await;
            never(tls.read_u8()).await;
            for counted in [lab.counters().tcp, lab.counters().tls] {
                assert_eq!((counted.open, counted.closed_by_lab, counted.closed_by_peer), (1, 0, 0));
            }
            return;
        }
    }
    for counted in [lab.counters().tcp, lab.counters().tls] {
        assert_eq!((counted.open, counted.closed_by_lab, counted.closed_by_peer), (0, 1, 0), "{kind:?}");
    }
}

const KINDS: [CloseKind; 4] = [CloseKind::Notify, CloseKind::Fin, CloseKind::Reset, CloseKind::Silence];

#[tokio::test]
async fn idle_connections_end_in_each_way() {
    for kind in KINDS {
        let lab = lab(Faults::default()).await;
        let (mut plain, mut secure) = (tcp(lab.tcp_addr()).await, tls(&lab).await);
        let start = tokio::time::Instant::now();
        ask(&mut plain, 1).await.unwrap();
        ask(&mut secure, 1).await.unwrap();
        lab.update_faults(|faults| faults.idle_close = Some((Duration::from_millis(150), kind)));
        if kind == CloseKind::Silence {
            // Nothing else tells when the connection has fallen silent; the lab's timer is on this thread and due first.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        expect_end(&lab, kind, &mut plain, &mut secure).await;
        assert!(start.elapsed() >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn a_connection_is_not_idle_while_a_query_waits() {
    let idle_close = Some((Duration::from_millis(300), CloseKind::Fin));
    let lab = lab(Faults { idle_close, delay: Duration::from_millis(700), ..Faults::default() }).await;
    ask(&mut tcp(lab.tcp_addr()).await, 1).await.unwrap();
}

#[tokio::test]
async fn all_connections_end_at_once_in_each_way() {
    for kind in KINDS {
        let lab = lab(Faults::default()).await;
        let (mut plain, mut secure) = (tcp(lab.tcp_addr()).await, tls(&lab).await);
        ask(&mut plain, 1).await.unwrap();
        ask(&mut secure, 1).await.unwrap();
        lab.close_all(kind);
        expect_end(&lab, kind, &mut plain, &mut secure).await;
        ask(&mut tcp(lab.tcp_addr()).await, 2).await.expect("new connections work");
    }
}

#[tokio::test]
async fn a_silenced_connection_can_still_be_reset() {
    let lab = lab(Faults::default()).await;
    let mut stream = tcp(lab.tcp_addr()).await;
    ask(&mut stream, 1).await.unwrap();
    lab.close_all(CloseKind::Silence);
    never(stream.read_u8()).await;
    lab.close_all(CloseKind::Reset);
    assert_eq!(read_end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((lab.counters().tcp.open, lab.counters().tcp.closed_by_lab), (0, 1));
}

#[tokio::test]
async fn a_connection_closes_in_order_after_so_many_queries() {
    let lab = lab(Faults { close_after: Some(3), delay: Duration::from_millis(30), ..Faults::default() }).await;
    let streams: [Box<dyn ByteStream>; 2] = [Box::new(tcp(lab.tcp_addr()).await), Box::new(tls(&lab).await)];
    for mut stream in streams {
        for id in 1..=5 {
            write_message(&mut stream, &build_query(id, "a.test", A, None)).await;
        }
        for id in 1..=3 {
            answer_matches(&build_query(id, "a.test", A, None), &read_message(&mut stream).await.unwrap()).unwrap();
        }
        assert_eq!(read_end(&mut stream).await.unwrap(), 0, "the rest was not read");
    }
    for counted in [lab.counters().tcp, lab.counters().tls] {
        assert_eq!((counted.queries, counted.answers, counted.closed_by_lab, counted.open), (3, 3, 1, 0));
    }
}

#[tokio::test]
async fn a_connection_is_reset_after_so_many_queries() {
    let lab = lab(Faults { reset_after: Some(2), ..Faults::default() }).await;
    let streams: [Box<dyn ByteStream>; 2] = [Box::new(tcp(lab.tcp_addr()).await), Box::new(tls(&lab).await)];
    for mut stream in streams {
        ask(&mut stream, 1).await.unwrap();
        ask(&mut stream, 2).await.unwrap();
        assert_eq!(ask(&mut stream, 3).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    for counted in [lab.counters().tcp, lab.counters().tls] {
        assert_eq!((counted.queries, counted.answers, counted.closed_by_lab, counted.open), (3, 2, 1, 0));
    }
}

#[tokio::test]
async fn a_refused_connection_is_accepted_and_reset() {
    let lab = lab(Faults { refuse: true, ..Faults::default() }).await;
    let mut stream = tcp(lab.tcp_addr()).await;
    assert_eq!(read_end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let counted = lab.counters().tcp;
    assert_eq!((counted.accepted, counted.open, counted.closed_by_lab), (1, 0, 1));
    lab.set_faults(Faults::default());
    ask(&mut tcp(lab.tcp_addr()).await, 1).await.unwrap();
}

#[tokio::test]
async fn open_connections_are_counted_up_and_down() {
    let lab = lab(Faults::default()).await;
    let mut streams = Vec::new();
    for id in 0..20 {
        let mut stream = tcp(lab.tcp_addr()).await;
        ask(&mut stream, id).await.unwrap();
        streams.push(stream);
    }
    let counted = lab.counters().tcp;
    assert_eq!((counted.accepted, counted.open, counted.open_max, counted.sockets), (20, 20, 20, 20));
    streams.truncate(5);
    until(|| lab.counters().tcp.open == 5).await;
    assert_eq!((lab.counters().tcp.closed_by_peer, lab.counters().tcp.open_max), (15, 20));
    lab.reset_counters();
    let counted = lab.counters().tcp;
    assert_eq!((counted.accepted, counted.open, counted.open_max, counted.closed_by_peer), (0, 5, 5, 0));
}

#[tokio::test]
async fn stopping_and_dropping_end_listeners_and_connections() {
    for stop in [true, false] {
        let lab = lab(Faults::default()).await;
        let (udp, address) = (lab.udp_addr(), lab.tcp_addr());
        let mut stream = tcp(address).await;
        ask(&mut stream, 1).await.unwrap();
        if stop {
            lab.stop().await;
        } else {
            drop(lab);
        }
        assert_eq!(read_end(&mut stream).await.unwrap(), 0);
        soon(async {
            // Both can be bound again; after a drop as soon as the tasks have noticed.
            while tokio::net::UdpSocket::bind(udp).await.is_err()
                || tokio::net::TcpStream::connect(address).await.is_ok()
            {
                assert!(!stop, "all is gone when stop returns");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let lab = lab(Faults::default()).await;
    let ports = [
        LabSpec { udp: Some(lab.udp_addr().port()), ..LabSpec::default() },
        LabSpec { tcp: Some(lab.tcp_addr().port()), ..LabSpec::default() },
        LabSpec { tls: Some(lab.tls_addr().port()), ..LabSpec::default() },
        LabSpec { https: Some(lab.https_addr().port()), ..LabSpec::default() },
    ];
    for spec in ports {
        assert_eq!(Lab::start(spec).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}

#[tokio::test]
async fn labs_on_other_addresses_share_an_authority_and_are_known_by_address() {
    let ca = Ca::new();
    for address in ["127.0.0.77", "::1"] {
        let spec = LabSpec { address: address.parse().unwrap(), ..LabSpec::default() };
        let lab = match Lab::start_with_ca(spec, &ca).await {
            // A machine without IPv6 cannot show this part.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && address == "::1" => continue,
            lab => lab.unwrap(),
        };
        assert_eq!((lab.ca_root(), lab.ca_pem()), (ca.root(), ca.pem().as_str()));
        let connector = tokio_rustls::TlsConnector::from(crate::client::tls_config(&lab, &[]));
        let name = rustls_pki_types::ServerName::try_from(address).unwrap();
        let mut stream = soon(connector.connect(name, tcp(lab.tls_addr()).await)).await.unwrap();
        ask(&mut stream, 1).await.unwrap();
        lab.stop().await;
    }
}
