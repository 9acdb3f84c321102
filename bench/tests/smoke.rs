//! The stub, the relay and the load generator together, as processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};

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

/// The stub and the address of its UDP and TCP side.
fn stub(ca: &std::path::Path) -> (Running, String) {
    let mut stub = start(&["stub", "--ca", ca.to_str().unwrap()]);
    let mut line = String::new();
    BufReader::new(stub.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    (stub, listening["plain"].as_str().unwrap().to_owned())
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
    let (_stub, plain) = stub(&dir.path().join("ca.pem"));
    assert_all_right(&blast(&plain, &["--rate", "500"]));
    assert_all_right(&blast(&plain, &["--client", "tcp", "--queries", "500"]));
    assert_all_right(&blast(&plain, &["--hot", "50", "--queries", "500"]));
    let ca = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn every_answer_through_the_relay_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (_stub, plain) = stub(&dir.path().join("ca.pem"));
    let listen = free();
    let _relay = start(&["relay", "--listen", &listen.to_string(), "--upstream", &plain]);
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

/// Waits until somebody has the port.
fn bound(address: SocketAddr) {
    while UdpSocket::bind(address).is_ok() {
        std::thread::yield_now();
    }
}
