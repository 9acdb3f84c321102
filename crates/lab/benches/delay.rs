//! How exact the lab's round trips are: a fresh SOCKS5 connection with user and password over 50 ms, a greeted one, one byte there and
//! back, and the throughput of one stream with and without the delay.
//!
//! `cargo bench -p keepwarm-lab --bench delay`

#![expect(clippy::print_stdout, reason = "it is what a bench is for")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::Duration;

use keepwarm_lab::{EchoLab, EchoMode, ProxyLab, ProxySpec, Tagged};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let echo = EchoLab::start(1).await.unwrap();
    let far = proxy(&echo, ROUND_TRIP).await;
    let near = proxy(&echo, Duration::ZERO).await;
    times(&echo, &far).await;
    echo.set_mode(0, EchoMode::Source);
    for (name, proxy) in [("delayed", &far), ("without delay", &near)] {
        println!("one stream, {name}: {:.0} MB/s", throughput(&echo, proxy).await);
    }
}

async fn proxy(echo: &EchoLab, delay: Duration) -> ProxyLab {
    let credential = Some(("ann".to_owned(), "hunter2".to_owned()));
    let pinned = [("a.test".to_owned(), echo.addr(0))].into();
    ProxyLab::start(ProxySpec { credential, pinned, delay, ..ProxySpec::default() }).await.unwrap()
}

async fn times(echo: &EchoLab, proxy: &ProxyLab) {
    let [mut fresh, mut greeted, mut byte] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut stream = greet(proxy).await;
        let ready = Instant::now();
        connect(&mut stream).await;
        fresh.push(start.elapsed());
        greeted.push(ready.elapsed());
        let mut tagged = Tagged::random(echo.addr(0));
        let start = Instant::now();
        stream.write_all(&tagged.request(1)).await.unwrap();
        tagged.check(&[stream.read_u8().await.unwrap()]).unwrap();
        byte.push(start.elapsed());
    }
    for (name, mut times) in [("fresh", fresh), ("greeted", greeted), ("one byte", byte)] {
        times.sort();
        let at = |share: usize| times[times.len() * share / 100];
        println!("{name}: p50 {:.2?}, p90 {:.2?}, p99 {:.2?}", at(50), at(90), at(99));
    }
}

async fn greet(proxy: &ProxyLab) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for step in [&b"\x05\x01\x02"[..], b"\x01\x03ann\x07hunter2"] {
        stream.write_all(step).await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
    }
    stream
}

async fn connect(stream: &mut TcpStream) {
    stream.write_all(b"\x05\x01\x00\x03\x06a.test\x00\x50").await.unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..2], [5, 0]);
}

async fn throughput(echo: &EchoLab, proxy: &ProxyLab) -> f64 {
    let mut stream = greet(proxy).await;
    connect(&mut stream).await;
    let mut buffer = vec![0; 256 * 1024];
    let mut left = BYTES;
    let start = Instant::now();
    stream.write_all(&Tagged::random(echo.addr(0)).source(BYTES)).await.unwrap();
    while left > 0 {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{left} bytes are missing");
        left -= count as u64;
    }
    BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

const ROUND_TRIP: Duration = Duration::from_millis(50);
const ROUNDS: usize = 100;
const BYTES: u64 = 1_000_000_000;
