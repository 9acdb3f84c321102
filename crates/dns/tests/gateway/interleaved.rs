//! A DoH upstream that is strict about its streams, as Knot Resolver is: a request that begins before another one's body has
//! ended is refused.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keepwarm_dns::{config::Transport, server::Server};
use keepwarm_lab::{Ca, Lab, LabSpec};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::support::*;

/// Serves HTTP/2 with what the lab at `lab` answers, and counts the streams that it refuses.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, lab: SocketAddr, refused: Arc<AtomicU64>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut preface = [0; 24];
    let _ = reader.read_exact(&mut preface).await;
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    upstream.connect(lab).await.unwrap();
    let mut out = frame(SETTINGS, 0, 0, &[]);
    let mut begun = None;
    let mut body = Vec::new();
    loop {
        if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        out.clear();
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            return;
        }
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reader.read_exact(&mut payload).await.unwrap();
        let id = u32::from_be_bytes(id);
        match kind {
            SETTINGS if flags & ACK == 0 => out = frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => out = frame(PING, ACK, 0, &payload),
            HEADERS if begun.is_some() => {
                refused.fetch_add(1, Ordering::Relaxed);
                out = frame(RST_STREAM, 0, id, &REFUSED_STREAM.to_be_bytes());
            }
            HEADERS => begun = Some(id),
            DATA if begun == Some(id) => {
                body.extend_from_slice(&payload);
                if flags & END_STREAM != 0 {
                    upstream.send(&body).await.unwrap();
                    let mut answer = [0; 4096];
                    let length = upstream.recv(&mut answer).await.unwrap();
                    out = frame(HEADERS, END_HEADERS, id, &response_head());
                    out.extend(frame(DATA, END_STREAM, id, &answer[..length]));
                    begun = None;
                    body.clear();
                }
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:status: 200` and `content-type: application/dns-message` (RFC 7541: static entries 8 and 31).
fn response_head() -> Vec<u8> {
    let value = b"application/dns-message";
    [&[0x88, 0x0f, 0x10, u8::try_from(value.len()).unwrap()][..], value].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_refuses_interleaved_requests_answers_them_one_by_one() {
    let ca = Ca::new();
    let lab = Lab::start_with_ca(LabSpec::default(), &ca).await.unwrap();
    let (chain, key) = ca.issue(&["upstream.lab"]).unwrap();
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::<AtomicU64>::default();
    let (counted, udp) = (refused.clone(), lab.udp_addr());
    let serving = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    serve(stream, udp, counted).await;
                }
            });
        }
    });
    let labs = [lab];
    let mut config = config(&labs, &ca, Transport::Https);
    config.upstreams[0].port = address.port();
    let server = Server::start(config).unwrap();
    let failures = storm(server.listening()[0].address, "one-by-one", 400, 40).await;
    assert!(failures.is_empty(), "{failures:?}");
    // The first burst met with refusals, and taught enough for the rest.
    let refusals = refused.load(Ordering::Relaxed);
    assert!((1..400).contains(&refusals), "{refusals}");
    server.stop(Duration::from_secs(1)).await;
    serving.abort();
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
