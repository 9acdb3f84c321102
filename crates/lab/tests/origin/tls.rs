//! What comes before HTTP: listening, certificates, protocols, tickets.

use std::io::ErrorKind;
use std::net::SocketAddr;

use keepwarm_lab::{OriginFaults, OriginLab, OriginSpec, loopback_addresses};
use rustls::CertificateError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{H1, H2, faulty, never, origin, read_end, soon, tcp, tls, tls_config, tls_with, until};

#[tokio::test]
async fn an_address_refuses_and_comes_back() {
    let lab = origin(2).await;
    let [one, two] = lab.addresses()[..] else { panic!("two addresses") };
    let open = H2::connect(&lab, one).await;
    for _ in 0..20 {
        lab.update_faults(one, |faults| faults.refuse = true);
        assert_eq!(tcp(&lab, one).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(tcp(&lab, one).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // Nobody else takes the port meanwhile.
        assert_eq!(open.get("/").await.unwrap().status(), 200);
        H2::connect(&lab, two).await.get("/").await.unwrap();
        lab.set_faults(one, OriginFaults::default());
        H2::connect(&lab, one).await.get("/").await.unwrap();
    }
    assert_eq!((lab.counters(one).accepted, lab.counters(two).accepted), (21, 20));
}

#[tokio::test]
async fn faults_from_the_start_refuse_as_well() {
    let (lab, ip) = faulty(OriginFaults { refuse: true, ..OriginFaults::default() }).await;
    assert_eq!(tcp(&lab, ip).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(lab.counters(ip).accepted, 0);
}

#[tokio::test]
async fn handshakes_hang_or_break() {
    let (lab, ip) = faulty(OriginFaults { hang: true, ..OriginFaults::default() }).await;
    let mut hung = tcp(&lab, ip).await.unwrap();
    hung.write_all(&[22, 3, 1, 0, 100]).await.unwrap();
    never(hung.read_u8()).await;
    assert_eq!(lab.counters(ip).open, 1);
    drop(hung);
    until(|| lab.counters(ip).closed_by_peer == 1).await;

    lab.set_faults(ip, OriginFaults { hang_tls: true, ..OriginFaults::default() });
    let mut hung = tcp(&lab, ip).await.unwrap();
    hung.write_all(&[22, 3, 1, 0, 100]).await.unwrap();
    let mut start = [0; 6];
    soon(hung.read_exact(&mut start)).await.unwrap();
    assert_eq!(start[..3], [22, 3, 3]);
    never(hung.read_u8()).await;
    lab.reset_open(ip);
    assert_eq!(read_end(&mut hung).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);

    lab.set_faults(ip, OriginFaults { reset_accept: true, ..OriginFaults::default() });
    let mut reset = tcp(&lab, ip).await.unwrap();
    assert_eq!(read_end(&mut reset).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);

    lab.set_faults(ip, OriginFaults { plain_http: true, ..OriginFaults::default() });
    assert_eq!(tls(&lab, ip, "h2").await.unwrap_err().kind(), ErrorKind::InvalidData);
    let counted = lab.counters(ip);
    assert_eq!((counted.accepted, counted.handshakes_full, counted.handshakes_resumed), (4, 0, 0));
}

#[tokio::test]
async fn certificates_are_bad_each_in_its_way() {
    let (lab, ip) = faulty(OriginFaults::default()).await;
    tls(&lab, ip, "h2").await.unwrap();
    let refused = async |change: fn(&mut OriginFaults)| {
        lab.set_faults(ip, OriginFaults::default());
        lab.update_faults(ip, change);
        let error = tls(&lab, ip, "h2").await.unwrap_err();
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(error)) => error.clone(),
            _ => panic!("{error:?}"),
        }
    };
    assert!(matches!(
        refused(|faults| faults.wrong_certificate = true).await,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ));
    assert!(matches!(
        refused(|faults| faults.expired = true).await,
        CertificateError::Expired | CertificateError::ExpiredContext { .. }
    ));
    // Another authority of the same name: its signature does not fit.
    assert!(matches!(
        refused(|faults| faults.untrusted = true).await,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    ));
    until(|| lab.counters(ip).handshakes_failed == 3).await;
    lab.set_faults(ip, OriginFaults::default());
    tls(&lab, ip, "h2").await.unwrap();
}

#[tokio::test]
async fn protocols_are_offered_as_told() {
    let (lab, ip) = faulty(OriginFaults::default()).await;
    let both = tls_config(&lab, &["h2", "http/1.1"]);
    let chosen = async || {
        let stream = tls_with(&both, &lab, ip).await.unwrap();
        stream.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap())
    };
    assert_eq!(chosen().await.as_deref(), Some("h2"));
    lab.update_faults(ip, |faults| faults.alpn = Some(vec!["http/1.1".to_owned()]));
    assert_eq!(chosen().await.as_deref(), Some("http/1.1"));
    tls(&lab, ip, "h2").await.unwrap_err();
    lab.update_faults(ip, |faults| faults.alpn = Some(Vec::new()));
    assert_eq!(chosen().await, None);
    assert_eq!(H1::connect(&lab, ip).await.get("/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn tickets_of_one_address_are_good_at_the_others() {
    let lab = origin(3).await;
    let [one, two, three] = lab.addresses()[..] else { panic!("three addresses") };
    let config = tls_config(&lab, &["http/1.1"]);
    for ip in [one, two, three] {
        let mut stream = tls_with(&config, &lab, ip).await.unwrap();
        // With the answer the tickets have come.
        crate::client::talk(&mut stream, "HEAD / HTTP/1.1\r\n\r\n", "\r\n\r\n").await;
    }
    let total = lab.total();
    assert_eq!((total.handshakes_full, total.handshakes_resumed), (1, 2));
    assert_eq!((lab.counters(one).handshakes_full, lab.counters(two).handshakes_resumed), (1, 1));
    // A resumed handshake shows no certificate: one with a wrong certificate must not know the session.
    lab.update_faults(three, |faults| faults.wrong_certificate = true);
    tls_with(&config, &lab, three).await.unwrap_err();
}

#[tokio::test]
async fn without_tickets_every_handshake_is_full() {
    let spec = OriginSpec { session_tickets: false, ..OriginSpec::default() };
    let lab = OriginLab::start(spec).await.unwrap();
    let config = tls_config(&lab, &["http/1.1"]);
    for _ in 0..3 {
        let mut stream = tls_with(&config, &lab, lab.addresses()[0]).await.unwrap();
        crate::client::talk(&mut stream, "HEAD / HTTP/1.1\r\n\r\n", "\r\n\r\n").await;
    }
    assert_eq!((lab.total().handshakes_full, lab.total().handshakes_resumed), (3, 0));
}

#[tokio::test]
async fn a_spec_that_cannot_be_served_is_an_error() {
    let none = OriginSpec { addresses: Vec::new(), ..OriginSpec::default() };
    assert_eq!(OriginLab::start(none).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let taken = TcpListener::bind("127.0.1.2:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let spec = OriginSpec { addresses: loopback_addresses(3), port, ..OriginSpec::default() };
    assert_eq!(OriginLab::start(spec.clone()).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(taken);
    assert_eq!(OriginLab::start(spec).await.unwrap().port(), port);
}

#[tokio::test]
async fn stop_ends_every_task_and_connection() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let lab = origin(50).await;
    let addresses = lab.addresses();
    let port = lab.port();
    lab.update_faults(addresses[0], |faults| faults.hang = true);
    lab.update_faults(addresses[1], |faults| faults.refuse = true);
    lab.update_faults(addresses[2], |faults| faults.ignore_requests = true);
    let mut hung = tcp(&lab, addresses[0]).await.unwrap();
    let mut streams = Vec::new();
    for ip in &addresses[2..] {
        let mut stream = tls(&lab, *ip, "http/1.1").await.unwrap();
        stream.write_all(b"GET /stream HTTP/1.1\r\n\r\n").await.unwrap();
        streams.push(stream);
    }
    until(|| lab.total().requests == 48 && lab.total().open == 49).await;
    soon(lab.stop()).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
    let _ = read_end(&mut hung).await;
    for mut stream in streams {
        let _ = read_end(&mut stream).await;
    }
    for ip in addresses {
        let listener = std::net::TcpListener::bind(SocketAddr::new(ip, port));
        // The client's end may still be in TIME-WAIT, but nobody listens.
        assert!(listener.is_ok() || tokio::net::TcpStream::connect(SocketAddr::new(ip, port)).await.is_err());
    }
}
