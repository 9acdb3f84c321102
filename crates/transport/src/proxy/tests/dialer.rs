//! Proxies over TLS and chains of two, against proxies on loopback that connect.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::version::{TLS12, TLS13};

use super::*;
use crate::{
    testing::{Ca, Years, tls_server},
    tls::TlsRoots,
};
/// Serves one connection of an HTTP or SOCKS5 proxy, by the first byte. Names of `names` are those ports of loopback; others are refused.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, names: Arc<HashMap<String, u16>>) {
    let Ok(first) = stream.read_u8().await else { return };
    let known: Option<(String, bool)> = if first == 5 {
        socks_request(&mut stream).await.map(|target| (target, true))
    } else {
        http_request(&mut stream).await.map(|target| (target, false))
    };
    let Some((target, socks)) = known else { return };
    let (host, port) = target.rsplit_once(':').unwrap();
    let port = names.get(host).copied().unwrap_or_else(|| port.parse().unwrap());
    let (done, refused): (&[u8], &[u8]) = match socks {
        true => (CONNECTED, b"\x05\x05\0\x01\0\0\0\0\0\0"),
        false => (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 502 x\r\n\r\n"),
    };
    let Ok(mut onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        let _ = stream.write_all(refused).await;
        let _ = stream.shutdown().await;
        return;
    };
    stream.write_all(done).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

async fn socks_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<String> {
    let mut methods = vec![0; usize::from(stream.read_u8().await.ok()?)];
    stream.read_exact(&mut methods).await.ok()?;
    if methods.contains(&2) {
        stream.write_all(b"\x05\x02").await.ok()?;
        let mut credential = vec![0; b"\x01\x03ann\x07hunter2".len()];
        stream.read_exact(&mut credential).await.ok()?;
        let good = credential == b"\x01\x03ann\x07hunter2";
        stream.write_all(if good { b"\x01\x00" } else { b"\x01\x01" }).await.ok()?;
    } else {
        stream.write_all(b"\x05\x00").await.ok()?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let host = if head[3] == 1 {
        let mut ip = [0; 4];
        stream.read_exact(&mut ip).await.ok()?;
        IpAddr::from(ip).to_string()
    } else {
        let mut name = vec![0; usize::from(stream.read_u8().await.ok()?)];
        stream.read_exact(&mut name).await.ok()?;
        String::from_utf8(name).ok()?
    };
    Some(format!("{host}:{}", stream.read_u16().await.ok()?))
}

async fn http_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned())
}

/// Loopback's proxies: one in the clear for both protocols, one over TLS whose certificate is for `localhost`, and a destination.
struct Lab {
    roots: TlsRoots,
    plain: SocketAddr,
    tls: SocketAddr,
    echo: SocketAddr,
    /// Connections that proxies took.
    taken: Arc<AtomicUsize>,
}

impl Lab {
    async fn new() -> Lab {
        let ca = Ca::new();
        let mut config = ca.server(&["localhost"], Years(2020, 2040), &[&TLS13, &TLS12]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let taken = Arc::new(AtomicUsize::new(0));
        let names = Arc::new(HashMap::from([("gone.example".to_owned(), 1)]));
        let (counter, known) = (taken.clone(), names.clone());
        let tls = tls_server(config, move |stream| {
            counter.fetch_add(1, Ordering::Relaxed);
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            serve(stream, known.clone())
        })
        .await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let plain = listener.local_addr().unwrap();
        let counter = taken.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, names.clone()));
            }
        });
        let roots = TlsRoots::only([ca.der()]);
        Lab { roots, plain, tls, echo: listen(b"220 hello").await, taken }
    }

    fn dialer(&self, url: &str) -> ProxyDialer {
        ProxyDialer::new(Arc::new(proxy(url)), &self.roots).unwrap()
    }

    /// A dialer for one of the proxies.
    fn at(&self, scheme: &str) -> ProxyDialer {
        match scheme {
            "https" => self.dialer(&format!("https://ann:hunter2@localhost:{}", self.tls.port())),
            scheme => self.dialer(&format!("{scheme}://ann:hunter2@{}", self.plain)),
        }
    }

    async fn open(&self, dialer: &ProxyDialer) -> Result<(ProxyStream, ProxyTrace), Error> {
        spawnable(dialer.open(&Fixed(vec![self.plain.ip()]), &TcpOptions::default(), soon())).await
    }

    async fn chain(&self, first: &ProxyDialer, second: &ProxyDialer) -> Result<(ProxyStream, ChainTrace), ChainError> {
        let resolver = Fixed(vec![self.plain.ip()]);
        spawnable(second.open_through(first, &resolver, &TcpOptions::default(), soon())).await
    }

    /// Asks for the echo, and sends it what fills more than one record of TLS.
    async fn talks(&self, dialer: &ProxyDialer, stream: ProxyStream) {
        let greeted = dialer.proxy().greet(stream, soon()).await.unwrap();
        let mut stream = greeted.connect(&self.echo.into(), soon()).await.unwrap();
        let mut hello = [0; 9];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"220 hello");
        let sent: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
        stream.write_all(&sent).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert!(heard == sent, "the bytes came back changed");
    }
}

#[tokio::test]
async fn a_proxy_is_spoken_to_over_tls_and_its_sessions_are_resumed() {
    let lab = Lab::new().await;
    let dialer = lab.at("https");
    for round in 0..2 {
        let (stream, trace) = lab.open(&dialer).await.unwrap();
        assert!(stream.as_tcp().is_none() && trace.tls > Duration::ZERO);
        assert_eq!((trace.peer, trace.local), (lab.tls, stream.socket().local_addr().unwrap()));
        assert_eq!(trace.resumed, round == 1);
        lab.talks(&dialer, stream).await;
    }
    // In the clear there is no such time.
    let (stream, trace) = lab.open(&lab.at("http")).await.unwrap();
    assert!(stream.as_tcp().is_some() && trace.tls == Duration::ZERO);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_is_the_proxys_failure() {
    let lab = Lab::new().await;
    let named = lab.dialer(&format!("https://proxy.example:{}", lab.tls.port()));
    let others = TlsRoots::only([Ca::new().der()]);
    let stranger = ProxyDialer::new(lab.at("https").proxy().clone(), &others).unwrap();
    for dialer in [named, stranger] {
        let error = lab.open(&dialer).await.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::Proxy, Blame::Proxy), "{error}");
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
        assert_eq!(source.map(Error::kind), Some(ErrorKind::Certificate), "{error}");
        assert!(error.to_string().starts_with(&format!("connect to {}: tls with ", dialer.proxy())), "{error}");
    }
    assert_eq!(lab.taken.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn nothing_meant_for_tls_leaves_without_it() {
    let lab = Lab::new().await;
    let proxy = proxy(&format!("https://ann:hunter2@127.0.0.1:{}", lab.plain.port()));
    let resolver = Fixed(Vec::new());
    let error = proxy.connect(&resolver, &target(), &TcpOptions::default(), soon()).await.unwrap_err();
    assert!(error.to_string().contains("without tls"), "{error}");
    assert_eq!(lab.taken.load(Ordering::Relaxed), 0);
    // And a proxy that does not speak TLS hears a hello and no more.
    let dialer = ProxyDialer::new(Arc::new(proxy), &lab.roots).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let deaf = ProxyDialer::new(Arc::new(Proxy { port, ..(**dialer.proxy()).clone() }), &lab.roots).unwrap();
    let them = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    let (opened, heard) = tokio::join!(lab.open(&deaf), them);
    let error = opened.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::Proxy, Blame::Proxy), "{error}");
    assert!(heard.starts_with(b"\x16\x03\x01") && !heard.windows(7).any(|part| part == b"hunter2"));
}

#[tokio::test]
async fn every_protocol_goes_through_every_other() {
    let lab = Lab::new().await;
    for first in ["socks5", "http", "https"] {
        for second in ["socks5", "http", "https"] {
            let (first, second) = (lab.at(first), lab.at(second));
            let (stream, trace) = lab.chain(&first, &second).await.unwrap();
            assert_eq!(stream.as_tcp().is_some(), !encrypted(&first) && !encrypted(&second));
            assert_eq!(trace.first.tls > Duration::ZERO, encrypted(&first));
            assert_eq!(trace.tls > Duration::ZERO, encrypted(&second));
            assert_eq!(trace.first.local, stream.socket().local_addr().unwrap());
            lab.talks(&second, stream).await;
        }
    }
}

#[tokio::test]
async fn a_chain_tells_which_of_its_proxies_failed() {
    let lab = Lab::new().await;
    let gone = lab.dialer("socks5://gone.example:1");
    let dead = lab.dialer("socks5://127.0.0.1:1");
    let stranger = lab.dialer(&format!("https://127.0.0.1:{}", lab.tls.port()));
    let unknown = lab.dialer(&format!("socks5://ann:hunter3@{}", lab.plain));
    let auth = ErrorKind::ProxyAuth;
    for (first, second, hop, kind) in [
        (&dead, &lab.at("http"), Hop::First, ErrorKind::Proxy),
        (&unknown, &lab.at("http"), Hop::First, auth),
        (&stranger, &lab.at("http"), Hop::First, ErrorKind::Proxy),
        (&lab.at("socks5"), &gone, Hop::Second, ErrorKind::Proxy),
        (&lab.at("http"), &gone, Hop::Second, ErrorKind::Proxy),
        (&lab.at("https"), &gone, Hop::Second, ErrorKind::Proxy),
        (&lab.at("socks5"), &stranger, Hop::Second, ErrorKind::Proxy),
    ] {
        let failed = lab.chain(first, second).await.unwrap_err();
        assert_eq!((failed.hop, failed.error.kind()), (hop, kind), "{failed}");
        assert_eq!(Blame::of(&failed.error), Blame::Proxy);
        assert!(failed.to_string().starts_with(&format!("{} proxy: ", hop.as_str())), "{failed}");
        assert!(!format!("{failed} {failed:?}").contains("hunter"), "{failed:?}");
    }
}

#[tokio::test]
async fn rules_of_the_first_proxy_are_its_own() {
    let lab = Lab::new().await;
    let strict = listen(b"\x05\x00\x05\x02").await;
    let strict = lab.dialer(&format!("socks5://{strict}"));
    let failed = lab.chain(&strict, &lab.at("http")).await.unwrap_err();
    assert_eq!((failed.hop, failed.error.kind()), (Hop::First, ErrorKind::ProxyDenied), "{failed}");
    assert_eq!(Blame::of(&failed.error), Blame::Declined);
}

#[tokio::test]
async fn tickets_do_not_spoil_what_waits_over_tls_but_its_end_does() {
    let lab = Lab::new().await;
    let (stream, _) = lab.open(&lab.at("https")).await.unwrap();
    let mut greeted = lab.at("https").proxy().greet(stream, soon()).await.unwrap();
    // The server's tickets have come when it answers: they are read here, and are no word of the proxy.
    let quiet = tokio::time::timeout(Duration::from_millis(100), spoilt(&mut greeted)).await;
    assert!(quiet.is_err(), "a ticket is not a word");
    let mut stream = greeted.connect(&lab.echo.into(), soon()).await.unwrap();
    let mut hello = [0; 9];
    stream.read_exact(&mut hello).await.unwrap();
    let closing = listen_and_close().await;
    let dialer = lab.dialer(&format!("http://{closing}"));
    let (stream, _) = lab.open(&dialer).await.unwrap();
    spoilt(&mut dialer.proxy().greet(stream, soon()).await.unwrap()).await;
}

/// Accepts and closes.
async fn listen_and_close() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    addr
}

fn encrypted(dialer: &ProxyDialer) -> bool {
    dialer.proxy().protocol == ProxyProtocol::Https
}
