//! What a process sees that really runs out of file descriptors or ports.
//!
//! A file of its own, since the limits are those of the whole process or network namespace.
#![cfg(target_os = "linux")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Side},
    tcp::{self, TcpOptions},
    udp::{self, UdpOptions},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn connect_tcp(addr: SocketAddr) -> Result<tokio::net::TcpStream, Error> {
    let deadline = tokio::time::Instant::now().into_std() + Duration::from_secs(10);
    tcp::connect(&[addr], &TcpOptions::default(), deadline).await.map(|(stream, _)| stream)
}

#[tokio::test]
async fn a_process_without_files_left_says_so_and_recovers() {
    let listener = tcp::listen(LOOPBACK, false, 128).unwrap();
    let addr = listener.local_addr().unwrap();
    let before = getrlimit(Resource::Nofile);
    let free = std::fs::File::open("/dev/null").unwrap();
    let next = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&free)).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + 2), maximum: before.maximum }).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match connect_tcp(addr).await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
        assert!(held.len() < 8, "the limit has no effect");
    };
    let datagrams = udp::connect(addr, &UdpOptions::default()).await.unwrap_err();
    setrlimit(Resource::Nofile, before).unwrap();
    for (error, tried) in [(error, "connect to"), (datagrams, "open udp socket to")] {
        assert_eq!((error.kind(), error.side()), (ErrorKind::FilesExhausted, Side::Local));
        assert_eq!(error.to_string(), format!("{tried} {addr}: too many open files (local shortage)"));
    }
    connect_tcp(addr).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a network namespace with few ports: unshare -rn sh -c 'ip link set lo up; \
            echo 50000 50007 > /proc/sys/net/ipv4/ip_local_port_range; cargo test -p keepwarm-transport -- --ignored'"]
async fn a_machine_without_ports_left_says_so() {
    // The listener's own port is outside of the range.
    let listener = tcp::listen(SocketAddr::new(LOOPBACK.ip(), 40_000), false, 128).unwrap();
    let addr = listener.local_addr().unwrap();
    for bind in [None, Some(LOOPBACK.ip())] {
        let mut held = Vec::new();
        let deadline = tokio::time::Instant::now().into_std() + Duration::from_secs(10);
        let options = TcpOptions { bind, ..Default::default() };
        let error = loop {
            match tcp::connect(&[addr], &options, deadline).await {
                Ok((stream, _)) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 64, "the range is too large for this test");
        };
        assert_eq!((error.kind(), error.side()), (ErrorKind::PortsExhausted, Side::Local), "{error}");
        // Closing with a reset leaves no TIME_WAIT behind.
        for stream in held {
            stream.set_zero_linger().unwrap();
        }
    }
    let mut held = Vec::new();
    let error = loop {
        match udp::connect(addr, &UdpOptions::default()).await {
            Ok(socket) => held.push(socket),
            Err(error) => break error,
        }
        assert!(held.len() < 64, "the range is too large for this test");
    };
    assert_eq!((error.kind(), error.side()), (ErrorKind::PortsExhausted, Side::Local), "{error}");
}
