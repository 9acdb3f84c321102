//! Handshakes with loopback servers: resumption, and each way in which a certificate or a peer can be wrong.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpListener,
};

use super::*;
use crate::{
    error::Side,
    testing::{Ca, Years, after, greet, soon, tls_server},
};

const VALID: Years = Years(2020, 2090);

async fn dial(client: &TlsClient, addr: SocketAddr, name: &str) -> Result<(TlsStream, TlsInfo), Error> {
    client.connect(TcpStream::connect(addr).await.unwrap(), name, soon()).await
}

/// Connects and reads the greeting, with which the session tickets of TLS 1.3 come.
async fn visit(client: &TlsClient, addr: SocketAddr) -> TlsInfo {
    let (mut stream, info) = dial(client, addr, "dns.example").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
    stream.shutdown().await.unwrap();
    info
}

/// Connects to a server with such a certificate and returns the error.
async fn refusal(trusted: &Ca, issuer: &Ca, years: Years, wanted: &str) -> (String, Error) {
    let addr = tls_server(issuer.server(&["dns.example", "*.dns.example"], years, &[&TLS13]), greet).await;
    let client = TlsClient::new(&TlsRoots::only([trusted.der()]), &[]).unwrap();
    let error = dial(&client, addr, wanted).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.side()), (ErrorKind::Certificate, Phase::Tls, Side::Upstream));
    let text = error.to_string();
    (text.strip_prefix(&format!("connect to {addr}: ")).expect(&text).to_owned(), error)
}

#[tokio::test]
async fn the_second_connection_resumes_in_both_versions() {
    let ca = Ca::new();
    for (version, expected) in [(&TLS12, TlsVersion::Tls12), (&TLS13, TlsVersion::Tls13)] {
        let mut config = ca.server(&["dns.example"], VALID, &[version]);
        config.alpn_protocols = vec![b"dot".to_vec()];
        let addr = tls_server(config, greet).await;
        let roots = TlsRoots::only([ca.der()]);
        let client = TlsClient::new(&roots, &[b"dot"]).unwrap();
        let first = visit(&client, addr).await;
        assert_eq!((first.version, first.resumed, first.alpn.as_deref()), (expected, false, Some(&b"dot"[..])));
        let second = visit(&client, addr).await;
        assert_eq!((second.version, second.resumed, second.alpn.as_deref()), (expected, true, Some(&b"dot"[..])));
        assert!(visit(&client.clone(), addr).await.resumed, "clones share the sessions");
        let stranger = TlsClient::new(&roots, &[b"dot"]).unwrap();
        assert!(!visit(&stranger, addr).await.resumed, "another client has sessions of its own");
    }
}

#[tokio::test]
async fn an_ip_address_is_verified_like_a_name() {
    let ca = Ca::new();
    let addr = tls_server(ca.server(&["127.0.0.1", "::1"], VALID, &[&TLS13]), greet).await;
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[]).unwrap();
    let (_, info) = dial(&client, addr, "127.0.0.1").await.unwrap();
    assert_eq!(info.alpn, None);
    dial(&client, addr, "[::1]").await.unwrap();
    let error = dial(&client, addr, "192.0.2.1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Certificate);
    let text = error.to_string();
    assert!(text.contains("certificate is not for 192.0.2.1 (name mismatch): it is for 127.0.0.1, "), "{text}");
}

#[tokio::test]
async fn a_trailing_dot_is_no_part_of_the_name() {
    let ca = Ca::new();
    let addr = tls_server(ca.server(&["dns.example"], VALID, &[&TLS13]), greet).await;
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[]).unwrap();
    dial(&client, addr, "dns.example.").await.unwrap();
    let error = dial(&client, addr, "no name").await.unwrap_err();
    assert!(error.to_string().ends_with("\"no name\" is neither a DNS name nor an IP address"), "{error}");
    assert_eq!(error.side(), Side::Local);
}

#[tokio::test]
async fn a_wrong_name_is_rejected_and_both_names_are_told() {
    let ca = Ca::new();
    let (text, _) = refusal(&ca, &ca, VALID, "other.example").await;
    assert_eq!(text, "certificate is not for other.example (name mismatch): it is for dns.example, *.dns.example");
}

#[tokio::test]
async fn an_unknown_issuer_is_rejected() {
    let (text, error) = refusal(&Ca::new(), &Ca::named("stranger"), VALID, "dns.example").await;
    assert_eq!(text, "certificate for dns.example has an unknown issuer: no trusted authority signed it");
    assert!(!error.is_retryable() && std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_namesake_of_the_authority_is_rejected() {
    let (text, _) = refusal(&Ca::new(), &Ca::new(), VALID, "dns.example").await;
    assert!(text.starts_with("certificate for dns.example has a bad signature"), "{text}");
}

#[tokio::test]
async fn an_expired_certificate_is_rejected_with_its_date() {
    let ca = Ca::new();
    let (text, _) = refusal(&ca, &ca, Years(2001, 2002), "dns.example").await;
    assert_eq!(text, "certificate for dns.example has expired on 2002-01-01 (or this machine's clock is wrong)");
    let (text, _) = refusal(&ca, &ca, Years(2089, 2090), "dns.example").await;
    assert_eq!(text, "certificate for dns.example is not valid before 2089-01-01 (or this machine's clock is wrong)");
}

#[tokio::test]
async fn no_common_protocol_is_an_alpn_error() {
    let ca = Ca::new();
    let mut config = ca.server(&["dns.example"], VALID, &[&TLS13]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let addr = tls_server(config, greet).await;
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[b"h2"]).unwrap();
    let error = dial(&client, addr, "dns.example").await.unwrap_err();
    assert_eq!((error.kind(), error.kind().as_str()), (ErrorKind::Alpn, "alpn"), "{error}");
}

/// A TCP peer that says `greeting`, then keeps the connection for as long as `linger` says.
async fn peer(greeting: &'static [u8], linger: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(greeting).await.unwrap();
        if linger {
            tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await.ok();
        } else {
            // What was sent is read first: closing with unread bytes would be a reset.
            assert!(tcp.read(&mut [0; 4096]).await.unwrap() > 0);
        }
    });
    addr
}

async fn dial_peer(addr: SocketAddr, limit: Duration) -> Error {
    let client = TlsClient::new(&TlsRoots::only([Ca::new().der()]), &[]).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    client.connect(tcp, "dns.example", after(limit)).await.unwrap_err()
}

#[tokio::test]
async fn a_silent_peer_times_out_in_the_tls_phase() {
    let addr = peer(b"", true).await;
    let error = dial_peer(addr, Duration::from_millis(200)).await;
    assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Tls), Side::Upstream));
    assert!(error.is_timeout() && error.phase() == Phase::Tls);
    assert!(error.to_string().starts_with(&format!("connect to {addr}: tls handshake timed out after ")), "{error}");
}

#[tokio::test]
async fn a_peer_without_tls_is_named_so() {
    let error = dial_peer(peer(b"220 mail.example ESMTP\r\n", true).await, Duration::from_secs(10)).await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().ends_with("peer does not speak tls"), "{error}");
}

#[tokio::test]
async fn a_peer_that_leaves_during_the_handshake_is_an_end_not_a_tls_error() {
    let error = dial_peer(peer(b"", false).await, Duration::from_secs(10)).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Eof, Phase::Tls));
    assert!(error.to_string().ends_with("connection closed by peer during the tls handshake"), "{error}");
}

/// Remembers what came in.
struct Recording(TcpStream, Vec<u8>);

impl AsyncRead for Recording {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, into))?;
        self.1.extend_from_slice(&into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recording {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Records of application data (RFC 8446 section 5.1: one byte of type 23, two of version, two of length).
fn application_records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(([kind, _, _, high, low], rest)) = bytes.split_first_chunk() {
        count += usize::from(*kind == 23);
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    count
}

#[tokio::test]
async fn one_write_is_one_record() {
    let ca = Ca::new();
    // In TLS 1.3 the end of the handshake is wrapped as application data too.
    for (version, handshake) in [(&TLS12, 0), (&TLS13, 1)] {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(ca.server(&["dns.example"], VALID, &[version])));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(Recording(tcp, Vec::new())).await.unwrap();
            stream.read_exact(&mut [0; 16_000]).await.unwrap();
            application_records(&stream.get_ref().0.1)
        });
        let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[]).unwrap();
        let (mut stream, _) = dial(&client, addr, "dns.example").await.unwrap();
        stream.write_all(&[7; 16_000]).await.unwrap();
        assert_eq!(tokio::time::timeout_at(soon().into(), server).await.unwrap().unwrap() - handshake, 1);
    }
}

#[tokio::test]
async fn a_designated_resolver_needs_a_certificate_for_its_designator_too() {
    let ca = Ca::new();
    let addr = tls_server(ca.server(&["dns.example", "192.0.2.1"], VALID, &[&TLS13, &TLS12]), greet).await;
    let roots = TlsRoots::only([ca.der()]);
    let client = |address: &str| TlsClient::designated(&roots, &[], address.parse().unwrap()).unwrap();
    let proven = client("192.0.2.1");
    assert!(!visit(&proven, addr).await.resumed);
    assert!(visit(&proven, addr).await.resumed);
    let error = dial(&client("192.0.2.2"), addr, "dns.example").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Certificate);
    assert!(error.to_string().contains("certificate is not for 192.0.2.2 (name mismatch)"), "{error}");
    let error = dial(&proven, addr, "other.example").await.unwrap_err();
    assert!(error.to_string().contains("certificate is not for other.example (name mismatch)"), "{error}");
}

#[tokio::test]
async fn a_session_goes_on_with_and_without_grease() {
    let ca = Ca::new();
    let addr = tls_server(ca.server(&["dns.example"], VALID, &[&TLS13]), greet).await;
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[]).unwrap();
    let seen = [visit(&client, addr).await, visit(&client.with_grease(), addr).await, visit(&client, addr).await];
    assert_eq!(
        seen.map(|info| (info.ech, info.resumed)),
        [(EchStatus::Off, false), (EchStatus::Grease, true), (EchStatus::Off, true)]
    );
}

/// An `ECHConfigList` for `public.example`: version, length, id, X25519, a key, one suite, no name length, no extension.
fn ech_list() -> Vec<u8> {
    let mut contents = vec![7, 0, 0x20, 0, 32];
    contents.extend([9; 32]);
    contents.extend([0, 4, 0, 1, 0, 1, 0, 14]);
    contents.extend(b"public.example\0\0");
    let length = u8::try_from(contents.len()).unwrap();
    let mut list = vec![0, length + 4, 0xfe, 0x0d, 0, length];
    list.extend(contents);
    list
}

#[tokio::test]
async fn a_rejection_is_known_when_the_public_name_is_proven_and_only_then() {
    let ca = Ca::new();
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[]).unwrap();
    let client = client.with_keys(&EchKeys::from_list(&ech_list()).unwrap());
    let names = ["dns.example", "public.example"];
    let addr = tls_server(ca.server(&names, VALID, &[&TLS13]), greet).await;
    let error = dial(&client, addr, "dns.example").await.unwrap_err();
    assert_eq!((error.kind(), EchRejection::of(&error)), (ErrorKind::Tls, Some(EchRejection { retry: None })));
    let addr = tls_server(ca.server(&names[..1], VALID, &[&TLS13]), greet).await;
    let error = dial(&client, addr, "dns.example").await.unwrap_err();
    assert_eq!((error.kind(), EchRejection::of(&error)), (ErrorKind::Certificate, None));
    assert!(error.to_string().contains("certificate is not for public.example (name mismatch)"), "{error}");
}

#[test]
fn the_keys_of_a_rejection_are_those_that_the_server_sent() {
    use rustls::internal::msgs::{
        codec::{Codec, Reader},
        handshake::EchConfigPayload,
    };
    let configs = Vec::<EchConfigPayload>::read(&mut Reader::init(&ech_list())).unwrap();
    let rejected = |configs| {
        let source = rustls::Error::from(PeerIncompatible::ServerRejectedEncryptedClientHello(configs));
        EchRejection::of(&explain(io::Error::new(io::ErrorKind::InvalidData, source), String::new(), "dns.example"))
    };
    let retry = Some(EchKeys::from_list(&ech_list()).unwrap());
    assert_eq!(rejected(Some(configs)), Some(EchRejection { retry }));
    assert_eq!(rejected(Some(Vec::new())), Some(EchRejection { retry: None }));
}
