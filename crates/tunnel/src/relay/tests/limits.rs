//! What a slow receiver may hold up: a buffer or a pipe of each direction, no more.

use std::{
    pin::Pin,
    sync::atomic::AtomicU64,
    task::{Context, Poll},
};

use tokio::{io::ReadBuf, time::timeout};

use super::*;
use crate::relay::copy::BUFFER_SIZE;

#[tokio::test]
async fn what_the_receiver_does_not_take_is_not_read() {
    let mut relayed = Relayed::memory(1000, &options());
    let bytes = pattern(7, 2_000_000);
    let mut taken = 0;
    let mut quiet = 0;
    // Nothing but these two tasks does anything, so a relay that lets a hundred turns pass has stalled.
    while quiet < 100 {
        match futures_util::poll!(std::pin::pin!(relayed.client.write(&bytes[taken..]))) {
            Poll::Ready(wrote) => (taken, quiet) = (taken + wrote.unwrap(), 0),
            Poll::Pending => quiet += 1,
        }
        tokio::task::yield_now().await;
    }
    assert!(taken <= BUFFER_SIZE + 2 * 1000, "{taken} bytes went in and none came out");
    assert_eq!(relayed.sent(), 1000);
    let (read, write) = (relayed.upstream, relayed.client);
    let ((), (got, end)) = tokio::join!(send(write, &bytes[taken..], 10_000), receive(read));
    end.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn a_stalled_splice_holds_no_more_than_a_pipe() {
    for options in [options(), copying()] {
        let ((client, near_client), (upstream, near_upstream)) = (tcp_pair().await, tcp_pair().await);
        let sockets = [&client, &near_client, &upstream, &near_upstream];
        let mut buffers = 0;
        for socket in sockets {
            let socket = socket2::SockRef::from(socket);
            socket.set_send_buffer_size(400_000).unwrap();
            socket.set_recv_buffer_size(400_000).unwrap();
            buffers += socket.send_buffer_size().unwrap() + socket.recv_buffer_size().unwrap();
        }
        let mut relayed = Relayed::run(client, near_client.into(), upstream, near_upstream.into(), &options);
        let bytes = pattern(8, 30_000_000);
        // Bulk first, so that the direction splices; then nobody reads.
        let mut got = vec![0; 2_000_000];
        let (written, read) =
            tokio::join!(relayed.client.write_all(&bytes[..2_000_000]), relayed.upstream.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        let mut taken = 2_000_000;
        while let Ok(wrote) = timeout(Duration::from_millis(300), relayed.client.write(&bytes[taken..])).await {
            taken += wrote.unwrap();
        }
        let stalled = taken - 2_000_000;
        assert!(stalled <= buffers + 1024 * 1024, "{stalled} bytes went in, sockets hold {buffers}");
        let ((), (rest, end)) = tokio::join!(send(relayed.client, &bytes[taken..], 90_000), receive(relayed.upstream));
        end.unwrap();
        got.extend(rest);
        assert!(got == bytes);
    }
}

/// A stream that always has bytes, and takes all.
struct Endless {
    read: Arc<AtomicU64>,
}

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = buffer.initialize_unfilled().len();
        buffer.advance(len);
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_stream_without_end_lets_others_have_their_turn() {
    let read = Arc::new(AtomicU64::new(0));
    let endless = || Stream::Other(Box::new(Endless { read: Arc::clone(&read) }));
    let relayed = Relayed::run((), endless(), (), endless(), &options());
    for _ in 0..10 {
        let before = read.load(Ordering::Relaxed);
        tokio::task::yield_now().await;
        let turn = read.load(Ordering::Relaxed) - before;
        assert!(turn <= 4 * 1024 * 1024, "{turn} bytes in one turn");
    }
    assert!(relayed.sent() > 0 && relayed.received() > 0);
    relayed.task.abort();
}
