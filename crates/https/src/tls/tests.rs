//! Both stacks against the same servers: who is refused, what is resumed, what is closed.

use std::{net::SocketAddr, time::Duration};

use keepwarm_transport::error::{ErrorKind, Phase, Side};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use self::peer::{Ca, serve};
use super::*;

#[cfg(feature = "browser")]
mod hello;
mod peer;
#[cfg(feature = "browser")]
mod wire;

fn soon() -> Instant {
    after(Duration::from_secs(20))
}

fn after(time: Duration) -> Instant {
    tokio::time::Instant::now().into_std() + time
}

/// A profile of each stack that is built in here.
fn profiles() -> Vec<Arc<Profile>> {
    let browsers = Profile::builtins().iter().filter(|profile| cfg!(feature = "browser") || profile.tls.is_none());
    browsers.cloned().collect()
}

fn dialer(profile: &Arc<Profile>, ca: &Ca) -> TlsDialer {
    TlsDialer::new(profile, HttpVersions::Both, &TlsRoots::only([ca.der()])).unwrap()
}

async fn dial(dialer: &TlsDialer, addr: SocketAddr, name: &str) -> Result<(TlsStream, TlsInfo), Error> {
    dialer.connect(TcpStream::connect(addr).await.unwrap(), name, soon()).await
}

/// Connects, reads the greeting, with which the tickets of TLS 1.3 come, and leaves.
async fn visit(dialer: &TlsDialer, addr: SocketAddr, name: &str) -> TlsInfo {
    let (mut stream, info) = dial(dialer, addr, name).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
    stream.shutdown().await.unwrap();
    info
}

#[tokio::test]
async fn the_second_connection_resumes_in_both_versions() {
    for profile in profiles() {
        let label = profile.label();
        for (version, expected) in [(&TLS12, TlsVersion::Tls12), (&TLS13, TlsVersion::Tls13)] {
            let ca = Ca::new();
            let (addr, _visits) = serve(ca.server(&["a.example"], 2090, &[version]), b"!").await;
            let dialer = dialer(&profile, &ca);
            let first = visit(&dialer, addr, "a.example").await;
            assert_eq!((first.version, first.resumed), (expected, false), "{label}");
            assert_eq!(first.alpn.as_deref(), Some(&b"h2"[..]), "{label}");
            for _ in 0..3 {
                let next = visit(&dialer.clone(), addr, "a.example").await;
                assert_eq!((next.version, next.resumed), (expected, true), "{label}");
                assert_eq!(next.alpn.as_deref(), Some(&b"h2"[..]), "{label}");
            }
            let stranger = self::dialer(&profile, &ca);
            assert!(!visit(&stranger, addr, "a.example").await.resumed, "{label}: two dialers share nothing");
            if dialer.forget_tickets() {
                assert!(!visit(&dialer, addr, "a.example").await.resumed, "{label}: forgotten");
            }
        }
    }
}

#[tokio::test]
async fn a_ticket_is_never_used_for_another_name() {
    for profile in profiles() {
        let ca = Ca::new();
        let (addr, _visits) = serve(ca.server(&["a.example", "b.example"], 2090, &[&TLS13]), b"!").await;
        let dialer = dialer(&profile, &ca);
        visit(&dialer, addr, "a.example").await;
        assert!(!visit(&dialer, addr, "b.example").await.resumed, "{}", profile.label());
        assert!(visit(&dialer, addr, "a.example").await.resumed, "{}", profile.label());
    }
}

#[tokio::test]
async fn certificates_that_are_wrong_are_refused_in_the_same_words() {
    let (ca, stranger) = (Ca::new(), Ca::named("a stranger"));
    let cases = [
        (
            ca.server(&["a.example"], 2090, &[&TLS13]),
            "b.example",
            "is not for b.example (name mismatch): it is for a.example",
        ),
        (ca.server(&["a.example"], 2090, &[&TLS12]), "127.0.0.1", "is not for 127.0.0.1 (name mismatch)"),
        (ca.server(&["a.example"], 2021, &[&TLS13]), "a.example", "for a.example has expired on 2021-01-01"),
        (stranger.server(&["a.example"], 2090, &[&TLS13]), "a.example", "for a.example has an unknown issuer"),
        (stranger.server(&["a.example"], 2090, &[&TLS12]), "a.example", "for a.example has an unknown issuer"),
    ];
    for (config, name, words) in cases {
        let (addr, _visits) = serve(config, b"!").await;
        for profile in profiles() {
            let error = dial(&dialer(&profile, &ca), addr, name).await.unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("connect to {addr}: certificate ")), "{}: {text}", profile.label());
            assert!(text.contains(words), "{}: {text}", profile.label());
            let expected = (ErrorKind::Certificate, Phase::Tls, Side::Upstream);
            assert_eq!((error.kind(), error.phase(), error.side()), expected, "{}", profile.label());
        }
    }
}

#[tokio::test]
async fn addresses_and_odd_spellings_are_verified_like_names() {
    let ca = Ca::new();
    let (addr, _visits) = serve(ca.server(&["127.0.0.1", "::1", "a.example"], 2090, &[&TLS13]), b"!").await;
    for profile in profiles() {
        let dialer = dialer(&profile, &ca);
        for name in ["127.0.0.1", "[::1]", "::1", "a.example.", "A.example"] {
            visit(&dialer, addr, name).await;
        }
        assert_eq!(dial(&dialer, addr, "192.0.2.1").await.unwrap_err().kind(), ErrorKind::Certificate);
        let error = dial(&dialer, addr, "no name").await.unwrap_err();
        assert!(error.to_string().ends_with("\"no name\" is neither a DNS name nor an IP address"), "{error}");
        assert_eq!(error.side(), Side::Local);
    }
}

#[tokio::test]
async fn without_a_common_protocol_there_is_no_connection() {
    let ca = Ca::new();
    let mut config = ca.server(&["a.example"], 2090, &[&TLS13]);
    config.alpn_protocols = vec![b"dot".to_vec()];
    let (addr, _visits) = serve(config, b"!").await;
    for profile in profiles() {
        let error = dial(&dialer(&profile, &ca), addr, "a.example").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Alpn, "{}: {error}", profile.label());
        assert!(error.to_string().ends_with("no common application protocol (alpn)"), "{error}");
    }
}

#[tokio::test]
async fn http1_alone_is_offered_alone() {
    let ca = Ca::new();
    let (addr, _visits) = serve(ca.server(&["a.example"], 2090, &[&TLS13]), b"!").await;
    for profile in profiles() {
        for (versions, expected) in [(HttpVersions::Http1, &b"http/1.1"[..]), (HttpVersions::Http2, b"h2")] {
            let dialer = TlsDialer::new(&profile, versions, &TlsRoots::only([ca.der()])).unwrap();
            assert_eq!(visit(&dialer, addr, "a.example").await.alpn.as_deref(), Some(expected));
        }
    }
}

/// A server that says `answer` at once, whatever it is asked, and leaves.
async fn blurt(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut hello = [0; 4096];
            let _ = tcp.read(&mut hello).await;
            let _ = tcp.write_all(answer).await;
            // Read what is left, so that leaving is no reset.
            let _ = tcp.shutdown().await;
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        }
    });
    addr
}

#[tokio::test]
async fn peers_that_speak_no_tls_or_leave_are_told_apart() {
    let cases: [(&[u8], ErrorKind, &str); 4] = [
        (b"", ErrorKind::Eof, "connection closed by peer during the tls handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind::Tls, "peer does not speak tls"),
        (b"\x15\x03\x03\0\x02\x02\x28", ErrorKind::Tls, "refused by peer: alert HandshakeFailure"),
        (b"\x15\x03\x03\0\x02\x02\x78", ErrorKind::Alpn, "no common application protocol (alpn)"),
    ];
    let ca = Ca::new();
    for (answer, kind, words) in cases {
        let addr = blurt(answer).await;
        for profile in profiles() {
            let error = dial(&dialer(&profile, &ca), addr, "a.example").await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error}", profile.label());
            assert!(error.to_string().ends_with(words), "{}: {error}", profile.label());
            assert_eq!(error.side(), Side::Upstream);
        }
    }
}

#[tokio::test]
async fn a_silent_peer_ends_with_the_deadline() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ca = Ca::new();
    for profile in profiles() {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let _silent = listener.accept().await.unwrap();
        let error =
            dialer(&profile, &ca).connect(tcp, "a.example", after(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut(Phase::Tls), "{}", profile.label());
    }
}

#[tokio::test]
async fn much_goes_both_ways() {
    let ca = Ca::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(ca.server(&["a.example"], 2090, &[&TLS13])));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let stream = acceptor.accept(tcp).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    for profile in profiles() {
        let (stream, _) = dial(&dialer(&profile, &ca), addr, "a.example").await.unwrap();
        assert_eq!(stream.tcp().peer_addr().unwrap(), addr);
        let (mut read, mut write) = tokio::io::split(stream);
        let mut echoed = Vec::new();
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(writing, read.read_to_end(&mut echoed));
        read.unwrap();
        assert!(echoed == sent, "{}", profile.label());
    }
}

#[test]
fn no_roots_are_an_error() {
    for profile in profiles() {
        let error = TlsDialer::new(&profile, HttpVersions::Both, &TlsRoots::only([])).unwrap_err();
        assert!(matches!(error, TlsSetupError::Roots(_)), "{error}");
    }
}

#[cfg(not(feature = "browser"))]
#[test]
fn a_browsers_profile_says_how_to_build_it() {
    let chrome = Profile::builtin("chrome").unwrap();
    let error = TlsDialer::new(&chrome, HttpVersions::Both, &TlsRoots::system()).unwrap_err();
    assert_eq!(error, TlsSetupError::NotBuilt("chrome@156".to_owned()));
    assert!(error.to_string().contains("--features browser"), "{error}");
}
