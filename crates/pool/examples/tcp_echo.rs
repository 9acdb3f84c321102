//! Exclusive connections: 200 requests of 20 tasks over at most 4 TCP connections to an echo server on loopback.
//!
//! `cargo run -p keepwarm-pool --example tcp_echo`

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keepwarm_pool::{Connected, Connector, Limits, Options, Pool, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Dials TCP. A lease gives shared access (`Deref`), so a stream that wants `&mut` sits behind a lock that nobody contends for.
struct Tcp;

impl Connector for Tcp {
    type Key = SocketAddr;
    type Connection = Mutex<TcpStream>;
    type Error = io::Error;

    async fn connect(&self, key: &SocketAddr, _: Slot<Self>) -> io::Result<Connected<Self::Connection>> {
        let stream = TcpStream::connect(key).await?;
        stream.set_nodelay(true)?;
        Ok(Connected::new(Mutex::new(stream)))
    }

    /// An idle connection must be silent: bytes or an end of the stream mean that it is of no use any more.
    async fn validate(&self, _: &SocketAddr, connection: &Self::Connection) -> io::Result<()> {
        match connection.lock().await.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn capacity_hint(&self, _: &SocketAddr) -> Option<u32> {
        Some(1)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (server, accepted) = serve().await?;
    let options =
        Options { check_interval: Some(Duration::from_secs(1)), name: Arc::from("echo"), ..Options::default() };
    let pool = Pool::builder(Tcp).limits(Limits::per_host(4)).options(options).build();

    let mut tasks = JoinSet::new();
    for task in 0..20_u8 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for request in 0..10 {
                echo(&pool, server, [task, request]).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }

    let stats = pool.stats();
    let (gauges, counters) = (&stats.gauges, &stats.counters);
    let mut out = io::stdout().lock();
    writeln!(out, "{} requests over {} connections", counters.acquires, accepted.load(Ordering::Relaxed))?;
    writeln!(out, "open {}, idle {}, in use {}", gauges.open, gauges.idle, gauges.in_use)?;
    writeln!(
        out,
        "served at once {}, waited {}, reuse ratio {:.2}",
        counters.hits,
        counters.waited,
        counters.reuse_ratio()
    )?;
    writeln!(out, "wait p50 {:?}, p99 {:?}", stats.wait.quantile(0.5), stats.wait.quantile(0.99))?;

    let left = pool.drain(tokio::time::Instant::now().into_std() + Duration::from_secs(1)).await;
    writeln!(out, "drained: {left} leases left, {} connections open", pool.stats().gauges.open)?;
    Ok(())
}

/// One request. A connection whose exchange failed or ran out of time must not serve another: the late answer would be taken for its.
async fn echo(pool: &Pool<Tcp>, server: SocketAddr, request: [u8; 2]) -> Result<(), Failure> {
    let mut lease = pool.acquire(&server).await?;
    let exchange = async {
        let mut stream = lease.lock().await;
        stream.write_all(&request).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        if answer == request { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(1), exchange).await.map_err(io::Error::from).flatten();
    if outcome.is_err() {
        lease.poison();
    }
    Ok(outcome?)
}

/// Starts the echo server; the counter says how many connections it has accepted.
async fn serve() -> io::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    Ok((address, accepted))
}
