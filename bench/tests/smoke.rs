//! The stub, the relay and the load generator together, as processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dns-bench");

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start(arguments: &[&str]) -> Running {
    let mut command = Command::new(PROGRAM);
    Running(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// The stub and where it listens.
fn stub(ca: &Path) -> (Running, serde_json::Value) {
    let mut stub = start(&["stub", "--ca", ca.to_str().unwrap()]);
    let mut line = String::new();
    BufReader::new(stub.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (stub, serde_json::from_str(&line).unwrap())
}

fn blast(server: &str, more: &[&str]) -> serde_json::Value {
    let output = Command::new(PROGRAM).args(["blast", "--server", server]).args(more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_all_right(outcome: &serde_json::Value) {
    let (sent, right) = (outcome["sent"].as_u64().unwrap(), outcome["right"].as_u64().unwrap());
    assert!(sent > 100 && sent == right, "{outcome}");
}

#[test]
fn every_answer_of_the_stub_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (_stub, listening) = stub(&dir.path().join("ca.pem"));
    let plain = listening["plain"].as_str().unwrap();
    assert_all_right(&blast(plain, &["--rate", "500"]));
    assert_all_right(&blast(plain, &["--client", "tcp", "--queries", "500"]));
    assert_all_right(&blast(plain, &["--hot", "50", "--queries", "500"]));
}

#[test]
fn the_stub_answers_over_tls_and_https_with_a_certificate_to_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let (_stub, listening) = stub(&ca);
    let len = u8::try_from(QUERY.len()).unwrap();
    let prefixed = [&[0, len], QUERY].concat();
    let h2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
        // POST, and the query as the body.
        &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x83],
        &[0, 0, len, 0, 1, 0, 0, 0, 1],
        QUERY,
    ]
    .concat();
    for (side, protocol, request) in [("tls", b"dot".as_slice(), prefixed), ("https", b"h2", h2)] {
        let mut stream = tls(listening[side].as_str().unwrap(), protocol, &ca);
        stream.write_all(&request).unwrap();
        // The question, and after it the record with an address of 127.0.0.0/8.
        let question = &QUERY[12..];
        let (mut seen, mut scratch) = (Vec::new(), [0; 1024]);
        let answer = loop {
            let len = stream.read(&mut scratch).unwrap();
            assert!(len > 0, "{side} ended after {seen:?}");
            seen.extend_from_slice(&scratch[..len]);
            let found = seen.windows(question.len()).position(|window| window == question);
            if let Some(record) = found.and_then(|at| seen.get(at + question.len()..at + question.len() + 16)) {
                break record.to_vec();
            }
        };
        assert_eq!((&answer[..4], answer[12]), (&[0xc0, 12, 0, 1][..], 127), "{side}");
    }
}

/// Type A of a.lab.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x03lab\0\0\x01\0\x01";

fn tls(server: &str, protocol: &[u8], ca: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connection = ClientConnection::new(Arc::new(config), "upstream.lab".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::connect(server).unwrap())
}

#[test]
fn every_answer_through_the_relay_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (_stub, listening) = stub(&dir.path().join("ca.pem"));
    let listen = free();
    let upstream = listening["plain"].as_str().unwrap();
    let _relay = start(&["relay", "--listen", &listen.to_string(), "--upstream", upstream]);
    bound(listen);
    assert_all_right(&blast(&listen.to_string(), &["--rate", "500"]));
}

#[test]
fn every_answer_of_the_echo_is_right_and_silence_is_a_failure() {
    let listen = free();
    let silent = blast(&listen.to_string(), &["--queries", "5", "--rate", "1000"]);
    assert_eq!((silent["sent"].as_u64(), silent["right"].as_u64()), (Some(5), Some(0)), "{silent}");
    let _echo = start(&["echo", "--listen", &listen.to_string()]);
    bound(listen);
    assert_all_right(&blast(&listen.to_string(), &["--rate", "500"]));
}

/// A port that nobody has.
fn free() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until somebody has the port, by the kernel's table: trying to bind it would take it away from who is about to.
fn bound(address: SocketAddr) {
    let local = format!(":{:04X} ", address.port());
    let is_bound = || std::fs::read_to_string("/proc/net/udp").unwrap().contains(&local);
    let mut looks = std::iter::repeat_with(|| {
        std::thread::yield_now();
        is_bound()
    });
    assert!(looks.by_ref().take(500_000).any(|bound| bound), "nobody listens on {address}");
}
