//! File descriptors of the relay: what tunnels hold while they are silent, stalled and over, and what happens when there are none.
//!
//! A file of its own, since descriptors and their limit are those of the whole process.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{os::fd::AsRawFd as _, sync::Arc, time::Duration};

use keepwarm_tunnel::{
    Traffic,
    relay::{RelayEnd, RelayOptions, RelayReason, relay},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
    time::timeout,
};

/// One test at a time, where they share a process.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Tunnel {
    client: TcpStream,
    upstream: TcpStream,
    task: JoinHandle<RelayEnd>,
}

impl Tunnel {
    async fn open(splice: bool) -> Tunnel {
        let ((client, near_client), (upstream, near_upstream)) = (tcp_pair().await, tcp_pair().await);
        let hour = Duration::from_secs(3600);
        let options = RelayOptions { idle_timeout: hour, half_open_timeout: hour, splice };
        let traffic = Arc::new(Traffic::default());
        let task =
            tokio::spawn(async move { relay(near_client.into(), near_upstream.into(), &options, &traffic).await });
        Tunnel { client, upstream, task }
    }

    /// Sends `bytes` from the upstream to the client.
    async fn carry(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        let (written, read) = tokio::join!(self.upstream.write_all(bytes), self.client.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == bytes);
    }

    /// Sends until nothing is taken any more.
    async fn stall(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Ok(wrote) = timeout(Duration::from_millis(300), self.upstream.write(bytes)).await {
            written += wrote.unwrap();
        }
        written
    }

    async fn close(self) {
        drop((self.client, self.upstream));
        self.task.await.unwrap();
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (far, listener.accept().await.unwrap().0)
}

/// Open descriptors, and how many of them are pipes. A runtime has none of its own.
fn files() -> (usize, usize) {
    let links: Vec<_> =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| file.unwrap().path().read_link().ok()).collect();
    (links.len(), links.iter().filter(|link| link.to_string_lossy().starts_with("pipe:")).count())
}

fn bulk() -> Vec<u8> {
    (0..2_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect()
}

/// Descriptors of the empty pipes that are kept.
const KEPT: usize = 2 * 16;

#[tokio::test]
async fn only_a_stalled_tunnel_holds_a_pipe() {
    let _alone = ALONE.lock().await;
    let (_, before) = files();
    let bytes = bulk();
    let mut copied = Tunnel::open(false).await;
    copied.carry(&bytes).await;
    copied.stall(&bytes).await;
    let mut tunnels = Vec::new();
    for _ in 0..20 {
        let mut tunnel = Tunnel::open(true).await;
        tunnel.carry(&bytes).await;
        tunnels.push(tunnel);
    }
    // One after the other they need one pipe, which each gave back when it fell silent.
    assert_eq!(files().1 - before, 2, "pipes of 20 silent tunnels and of one that copies");
    for tunnel in &mut tunnels[..3] {
        tunnel.stall(&bytes).await;
    }
    assert_eq!(files().1 - before, 3 * 2, "pipes of three stalled tunnels");
    for tunnel in tunnels {
        tunnel.close().await;
    }
    copied.close().await;
    assert!(files().1 - before <= 3 * 2, "pipes with bytes in them are closed, empty ones are kept");
}

#[tokio::test]
async fn every_descriptor_comes_back() {
    let _alone = ALONE.lock().await;
    let bytes = bulk();
    let (before, _) = files();
    for round in 0..5 {
        let tunnels = (0..20).map(|number| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut tunnel = Tunnel::open(true).await;
                tunnel.carry(&bytes).await;
                match number % 3 {
                    // Both end in order, one resets, and the relay is dropped in the middle.
                    0 => tunnel.close().await,
                    1 => {
                        tunnel.upstream.write_all(&bytes[..100_000]).await.unwrap();
                        tunnel.client.set_zero_linger().unwrap();
                        tunnel.close().await;
                    }
                    _ => {
                        tunnel.upstream.write_all(&bytes[..100_000]).await.unwrap();
                        tunnel.task.abort();
                        assert!(tunnel.task.await.unwrap_err().is_cancelled());
                    }
                }
            })
        });
        for tunnel in tunnels.collect::<Vec<_>>() {
            tunnel.await.unwrap();
        }
        let (after, _) = files();
        assert!(after <= before + KEPT, "round {round}: {after} descriptors, {before} before");
    }
}

#[tokio::test]
async fn without_a_descriptor_for_a_pipe_bulk_is_copied() {
    let _alone = ALONE.lock().await;
    let bytes = bulk();
    let mut tunnel = Tunnel::open(true).await;
    let (_, pipes) = files();
    let limit = getrlimit(Resource::Nofile);
    let next = u64::try_from(std::fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: limit.maximum }).unwrap();
    let refused = std::fs::File::open("/dev/null").is_err();
    for _ in 0..3 {
        tunnel.carry(&bytes).await;
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(refused, "the limit has an effect");
    assert_eq!(files().1, pipes);
    // With descriptors to be had again, it splices.
    tunnel.carry(&bytes).await;
    assert!(files().1 >= 2);
    tunnel.client.shutdown().await.unwrap();
    tunnel.upstream.shutdown().await.unwrap();
    assert_eq!(tunnel.task.await.unwrap().reason, RelayReason::Closed);
}
