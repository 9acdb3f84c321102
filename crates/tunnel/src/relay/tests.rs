//! The relay between sockets of this machine and between streams in memory.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{RelayEnd, RelayOptions, RelayReason, relay};
use crate::{Traffic, stream::Stream};

mod bytes;
mod ends;
mod limits;
mod model;

/// A relay that runs, and the far ends of its two streams.
struct Relayed<S> {
    client: S,
    upstream: S,
    traffic: Arc<Traffic>,
    task: JoinHandle<RelayEnd>,
}

impl Relayed<TcpStream> {
    async fn tcp(options: &RelayOptions) -> Relayed<TcpStream> {
        let ((client, near_client), (upstream, near_upstream)) = (tcp_pair().await, tcp_pair().await);
        Relayed::run(client, near_client.into(), upstream, near_upstream.into(), options)
    }
}

impl Relayed<DuplexStream> {
    /// Each stream in memory takes `size` bytes a way.
    fn memory(size: usize, options: &RelayOptions) -> Relayed<DuplexStream> {
        let ((client, near_client), (upstream, near_upstream)) = (duplex(size), duplex(size));
        let [near_client, near_upstream] = [near_client, near_upstream].map(|near| Stream::Other(Box::new(near)));
        Relayed::run(client, near_client, upstream, near_upstream, options)
    }
}

impl<S> Relayed<S> {
    fn run(client: S, near_client: Stream, upstream: S, near_upstream: Stream, options: &RelayOptions) -> Relayed<S> {
        let (traffic, options) = (Arc::new(Traffic::default()), options.clone());
        let counted = Arc::clone(&traffic);
        let task = tokio::spawn(async move { relay(near_client, near_upstream, &options, &counted).await });
        Relayed { client, upstream, traffic, task }
    }
}

impl<S> Relayed<S> {
    fn sent(&self) -> u64 {
        self.traffic.sent.load(Ordering::Relaxed)
    }

    fn received(&self) -> u64 {
        self.traffic.received.load(Ordering::Relaxed)
    }

    async fn reason(self) -> RelayReason {
        self.task.await.expect("the relay does not panic").reason
    }
}

fn options() -> RelayOptions {
    RelayOptions { idle_timeout: Duration::from_secs(3600), half_open_timeout: Duration::from_secs(300), splice: true }
}

fn copying() -> RelayOptions {
    RelayOptions { splice: false, ..options() }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (far, listener.accept().await.unwrap().0)
}

/// Bytes that tell their position and `seed`.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes `bytes` in pieces of changing sizes, and ends the stream.
async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8], piece_max: usize) {
    let mut rest = bytes;
    let mut size = 1;
    while !rest.is_empty() {
        size = (size * 7 + 3) % piece_max + 1;
        let (piece, after) = rest.split_at(size.min(rest.len()));
        to.write_all(piece).await.unwrap();
        rest = after;
    }
    to.shutdown().await.unwrap();
}

/// All bytes until the end or an error.
async fn receive(mut from: impl AsyncRead + Unpin) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let result = from.read_to_end(&mut bytes).await.map(|_| ());
    (bytes, result)
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}
