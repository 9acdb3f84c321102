//! What browsers' profiles look like on the wire.

use boring::{
    pkey::PKey,
    ssl::{
        AlpnError, CertificateCompressionAlgorithm, CertificateCompressor, SslAcceptor, SslMethod, SslVersion,
        select_next_proto,
    },
    x509::X509,
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    hello::Hello,
    peer::{Ca, Visit, serve},
    *,
};
use crate::http2_profile::http2_builder;

fn captured() -> Hello {
    let text = include_str!("chromium-156.hello.hex").trim();
    let bytes: Vec<u8> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    Hello::read(&bytes)
}

/// Connects and gives the hello that was sent.
async fn sent(dialer: &TlsDialer, addr: SocketAddr, visits: &mut UnboundedReceiver<Visit>) -> Hello {
    visit(dialer, addr, "a.example").await;
    let (record, hello) = Hello::of_stream(&visits.recv().await.unwrap().raw);
    assert_eq!(record, "0301");
    hello
}

#[tokio::test]
async fn chromes_hello_is_that_of_the_browser_in_every_field() {
    let reference = captured();
    assert_eq!(reference.ja4(), FULL);
    let chrome = Profile::builtin("chrome@156").unwrap();
    let ca = Ca::new();
    let (addr, mut visits) = serve(ca.server(&["a.example"], 2090, &[&TLS13]), b"!").await;
    let mut orders = Vec::new();
    for _ in 0..8 {
        let dialer = dialer(&chrome, &ca);
        let full = sent(&dialer, addr, &mut visits).await;
        assert_eq!(full.ja4(), FULL);
        assert_eq!(full.set(), reference.set());
        let edges = [full.order.first(), full.order.last()];
        assert_eq!(edges, [Some(&"GREASE".to_owned()); 2], "reserved values at both ends");
        orders.push(full.order.clone());
        assert_eq!(Hello { order: reference.order.clone(), ..full }, reference);

        let resumed = sent(&dialer, addr, &mut visits).await;
        assert_eq!(resumed.ja4(), RESUMED);
        assert_eq!(resumed.order.last().map(String::as_str), Some("0029"), "RFC 8446 section 4.2.11");
        let mut others = resumed.clone();
        others.extensions.remove("0029");
        assert_eq!(Hello { order: reference.order.clone(), ..others }, reference);
    }
    orders.dedup();
    assert!(orders.len() > 1, "the order is drawn anew for each connection");
}

#[tokio::test]
async fn http1_alone_changes_the_protocols_and_nothing_else() {
    let chrome = Profile::builtin("chrome").unwrap();
    let ca = Ca::new();
    let (addr, mut visits) = serve(ca.server(&["a.example"], 2090, &[&TLS13]), b"!").await;
    let dialer = TlsDialer::new(&chrome, HttpVersions::Http1, &TlsRoots::only([ca.der()])).unwrap();
    let mut hello = sent(&dialer, addr, &mut visits).await;
    let mut reference = captured();
    assert_eq!(hello.extensions.remove("0010").as_deref(), Some("[000908687474702f312e31]"));
    reference.extensions.remove("0010");
    assert!(reference.extensions.remove("44cd").is_some(), "no application settings without h2");
    assert_eq!(Hello { order: reference.order.clone(), ..hello }, reference);
}

#[tokio::test]
async fn firefox_and_safari_send_what_their_profiles_say_but_for_what_is_told() {
    let ca = Ca::new();
    let (addr, mut visits) = serve(ca.server(&["a.example"], 2090, &[&TLS13]), b"!").await;
    for (name, left_out) in [("firefox", &["0100", "0101", "0022", "001c"][..]), ("safari", &["c008", "c012"][..])] {
        let profile = Profile::builtin(name).unwrap();
        let hello = sent(&dialer(&profile, &ca), addr, &mut visits).await;
        let tls = profile.tls.as_ref().unwrap();
        let kept = |codes: &[String]| {
            codes.iter().filter(|code| !left_out.contains(&code.as_str())).cloned().collect::<Vec<_>>()
        };
        assert_eq!(hello.ciphers, kept(&tls.ciphers), "{name}");
        assert_eq!(hello.extensions["000a"], format!("[{}]", kept(&tls.groups).join(",")), "{name}");
        assert_eq!(hello.extensions["002b"], format!("[{}]", tls.versions.join(",")), "{name}");
        let mut extensions = kept(&tls.extensions);
        // Safari's order is that of BoringSSL.
        if name == "safari" {
            assert_eq!(hello.order, extensions);
        }
        extensions.sort();
        assert_eq!(hello.set(), extensions, "{name}");
        let shares: Vec<&str> = hello.extensions["0033"].trim_matches(['[', ']']).split(',').collect();
        let shares: Vec<&str> = shares.iter().filter_map(|share| share.split(':').next()).collect();
        assert_eq!(shares, tls.key_shares, "{name}");
        let algorithms = hello.extensions["000d"].trim_matches(['[', ']']).replace("GREASE,", "");
        let mut wanted = tls.signature_algorithms.clone();
        wanted.dedup();
        assert_eq!(algorithms, wanted.join(","), "{name}");
    }
}

/// Opens an HTTP/2 connection, asks once and gives what was sent.
async fn preface(profile: &Arc<Profile>) -> Vec<u8> {
    let ca = Ca::new();
    // The server's own preface: empty SETTINGS.
    let (addr, mut visits) = serve(ca.server(&["a.example"], 2090, &[&TLS13]), b"\0\0\0\x04\0\0\0\0\0").await;
    let (stream, _) = dial(&dialer(profile, &ca), addr, "a.example").await.unwrap();
    let builder = http2_builder(profile.http2.as_ref());
    let (mut requests, mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let request = http::Request::get("https://a.example/").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    // Until the server's settings are acknowledged, all of it has been written.
    let mut pings = connection.ping_pong().unwrap();
    let driving = async {
        let sent = std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            pings.send_ping(http2::Ping::opaque()).ok();
            let _ = Pin::new(&mut connection).poll(cx);
            if requests.current_max_send_streams() > 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        sent.await;
    };
    driving.await;
    drop((answer, requests, pings, connection));
    visits.recv().await.unwrap().plain
}

/// The frames after the preface: type, flags, stream, payload.
fn frames(sent: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut rest = sent.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut frames = Vec::new();
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
        frames.push((rest[3], rest[4], stream, rest[9..9 + length].to_vec()));
        rest = &rest[9 + length..];
    }
    frames
}

/// The Akamai string, and the priority in HEADERS, of which `m,p,a,s` and the like are read from the static table.
fn akamai(sent: &[u8]) -> (String, Option<Vec<u8>>, u32) {
    let frames = frames(sent);
    let settings: Vec<String> = frames[0]
        .3
        .chunks(6)
        .map(|setting| {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            format!("{id}:{}", u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
        })
        .collect();
    let window = frames.iter().find(|frame| frame.0 == 8).map(|frame| frame.3.clone()).unwrap();
    let window = u32::from_be_bytes(window.try_into().unwrap());
    assert!(!frames.iter().any(|frame| frame.0 == 2), "no PRIORITY frames");
    let headers = frames.iter().find(|frame| frame.0 == 1).unwrap();
    let (priority, mut block) = match headers.1 & 0x20 {
        0 => (None, &headers.3[..]),
        _ => (Some(headers.3[..5].to_vec()), &headers.3[5..]),
    };
    let mut pseudo = Vec::new();
    while pseudo.len() < 4 {
        // RFC 7541 appendix A: 2 is GET, 4 is /, 7 is https, and 1 the name :authority before a literal value.
        let (name, length) = match block[0] {
            0x82 => ("m", 1),
            0x84 => ("p", 1),
            0x87 => ("s", 1),
            0x41 => ("a", 2 + usize::from(block[1] & 0x7f)),
            other => panic!("{other:x}"),
        };
        pseudo.push(name);
        block = &block[length..];
    }
    (format!("{}|{window}|0|{}", settings.join(";"), pseudo.join(",")), priority, headers.2)
}

#[tokio::test]
async fn prefaces_are_those_of_the_browsers() {
    let expected = [
        ("chrome", "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p", Some(vec![0x80, 0, 0, 0, 255]), 1),
        ("firefox", "1:65536;2:0;4:131072;5:16384|12517377|0|m,p,a,s", Some(vec![0, 0, 0, 0, 41]), 3),
        ("safari", "2:0;3:100;4:2097152;9:1|10420225|0|m,s,a,p", None, 1),
        ("plain", "2:0;4:2097152|8323073|0|m,s,a,p", None, 1),
    ];
    for (name, string, priority, stream) in expected {
        let sent = preface(&Profile::builtin(name).unwrap()).await;
        assert_eq!(akamai(&sent), (string.to_owned(), priority, stream), "{name}");
        let kinds: Vec<u8> = frames(&sent).iter().map(|frame| frame.0).take(3).collect();
        assert!(kinds == [4, 8, 1] || kinds == [4, 8, 4], "{name}: {kinds:?}");
    }
}

struct Packed;

impl CertificateCompressor for Packed {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::BROTLI;
    const CAN_COMPRESS: bool = true;
    const CAN_DECOMPRESS: bool = false;

    fn compress<W: io::Write>(&self, input: &[u8], output: &mut W) -> io::Result<()> {
        io::Write::write_all(&mut brotli::CompressorWriter::new(output, 4096, 5, 18), input)
    }
}

struct Zipped;

impl CertificateCompressor for Zipped {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::ZLIB;
    const CAN_COMPRESS: bool = true;
    const CAN_DECOMPRESS: bool = false;

    fn compress<W: io::Write>(&self, input: &[u8], output: &mut W) -> io::Result<()> {
        let mut zip = flate2::write::ZlibEncoder::new(output, flate2::Compression::default());
        io::Write::write_all(&mut zip, input)?;
        zip.finish().map(drop)
    }
}

/// A server of BoringSSL that compresses its certificate.
async fn compressing(ca: &Ca, compressor: impl CertificateCompressor) -> SocketAddr {
    let (certificate, key) = ca.issue(&["a.example"], 2090);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    builder.set_certificate(&X509::from_der(&certificate).unwrap()).unwrap();
    builder.set_private_key(&PKey::private_key_from_pkcs8(&key).unwrap()).unwrap();
    builder.set_max_proto_version(Some(SslVersion::TLS1_3)).unwrap();
    builder.set_alpn_select_callback(|_, offered| select_next_proto(b"\x02h2", offered).ok_or(AlpnError::NOACK));
    builder.add_certificate_compression_algorithm(compressor).unwrap();
    let acceptor = builder.build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = tokio_boring::accept(&acceptor, tcp).await {
                let _ = stream.write_all(b"!").await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
    });
    addr
}

#[tokio::test]
async fn compressed_certificates_are_decompressed_and_verified() {
    let ca = Ca::new();
    let brotli = compressing(&ca, Packed).await;
    let zlib = compressing(&ca, Zipped).await;
    for (name, addr) in [("chrome", brotli), ("firefox", brotli), ("firefox", zlib), ("safari", zlib)] {
        let profile = Profile::builtin(name).unwrap();
        let info = visit(&dialer(&profile, &ca), addr, "a.example").await;
        assert_eq!(info.version, TlsVersion::Tls13);
        let stranger = dial(&dialer(&profile, &Ca::new()), addr, "a.example").await.unwrap_err();
        assert_eq!(stranger.kind(), ErrorKind::Certificate, "{name}: {stranger}");
    }
}

struct Bomb;

impl CertificateCompressor for Bomb {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::ZLIB;
    const CAN_COMPRESS: bool = true;
    const CAN_DECOMPRESS: bool = false;

    fn compress<W: io::Write>(&self, _: &[u8], output: &mut W) -> io::Result<()> {
        let mut zip = flate2::write::ZlibEncoder::new(output, flate2::Compression::best());
        io::Write::write_all(&mut zip, &vec![0; 1 << 24])?;
        zip.finish().map(drop)
    }
}

#[tokio::test]
async fn a_certificate_that_decompresses_to_more_than_it_says_is_refused() {
    let ca = Ca::new();
    let addr = compressing(&ca, Bomb).await;
    let error = dial(&dialer(&Profile::builtin("safari").unwrap(), &ca), addr, "a.example").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().ends_with("tls handshake failed: [cert_decompression_failed]"), "{error}");
}

const FULL: &str = "t13d1517h2_8daaf6152771_cb7bf5808d99";
const RESUMED: &str = "t13d1518h2_8daaf6152771_e2d80978ab2e";
