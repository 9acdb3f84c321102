//! A connection that waits for its use: whatever comes from its peer meanwhile ends it.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use keepwarm_pool::CloseReason;
use keepwarm_transport::proxy::{Greeted, ProxyStream};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    task::AbortHandle,
};

use crate::stream::Stream;

/// What can be parked.
pub(crate) trait Park: Send + 'static {
    /// The socket, where its bytes are the peer's own.
    fn socket(&self) -> Option<&TcpStream>;

    /// Where its peer's bytes come in.
    fn reader(&mut self) -> &mut (dyn AsyncRead + Unpin);
}

impl Park for Stream {
    fn socket(&self) -> Option<&TcpStream> {
        self.as_tcp()
    }

    fn reader(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        self
    }
}

impl Park for Greeted<ProxyStream> {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream().as_tcp()
    }

    fn reader(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        self.stream_mut()
    }
}

/// A waiting connection. Dropping it closes it.
pub(crate) struct Parked<S> {
    stream: Arc<Mutex<Option<S>>>,
    watch: AbortHandle,
}

impl<S: Park> Parked<S> {
    /// Parks a connection; `ended` is told, once, when its peer closes it or says anything.
    pub(crate) fn new(stream: S, ended: impl FnOnce(CloseReason) + Send + 'static) -> Parked<S> {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let watched = Arc::downgrade(&stream);
        let watch = tokio::spawn(async move {
            if let Some(reason) = poll_fn(|cx| poll_end(&watched, cx)).await {
                ended(reason);
            }
        });
        Parked { stream, watch: watch.abort_handle() }
    }

    /// The connection, unless something came from its peer.
    pub(crate) fn take(self) -> Option<S> {
        self.watch.abort();
        let mut stream = self.stream.lock().take()?;
        // The watch may not have had its turn, nor the runtime a look at the socket.
        if stream.socket().is_some_and(has_spoken) {
            return None;
        }
        match poll_read(&mut stream, &mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Some(stream),
            Poll::Ready(_) => None,
        }
    }
}

impl<S> Drop for Parked<S> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Why a connection ended; `None` when it was taken.
fn poll_end<S: Park>(stream: &Weak<Mutex<Option<S>>>, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
    let Some(stream) = stream.upgrade() else { return Poll::Ready(None) };
    let mut stream = stream.lock();
    match &mut *stream {
        None => Poll::Ready(None),
        Some(waiting) => poll_read(waiting, cx).map(|reason| {
            // Nobody gets it any more: a byte of it is lost.
            *stream = None;
            Some(reason)
        }),
    }
}

/// Whether there is anything to read, an end included.
fn has_spoken(socket: &TcpStream) -> bool {
    let peeked = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn poll_read<S: Park>(stream: &mut S, cx: &mut Context<'_>) -> Poll<CloseReason> {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    Pin::new(stream.reader()).poll_read(cx, &mut buffer).map(|read| match read {
        Ok(()) if buffer.filled().is_empty() => CloseReason::PeerClosed,
        Ok(()) => CloseReason::StrayBytes,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => CloseReason::PeerReset,
        Err(_) => CloseReason::Broken,
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, DuplexStream, duplex},
        sync::oneshot,
    };

    use super::*;

    impl Park for DuplexStream {
        fn socket(&self) -> Option<&TcpStream> {
            None
        }

        fn reader(&mut self) -> &mut (dyn AsyncRead + Unpin) {
            self
        }
    }

    fn parked() -> (Parked<DuplexStream>, DuplexStream, oneshot::Receiver<CloseReason>) {
        let (ours, theirs) = duplex(64);
        let (tell, told) = oneshot::channel();
        let parked = Parked::new(ours, |reason| {
            // Nobody listens in some of the tests.
            let _ = tell.send(reason);
        });
        (parked, theirs, told)
    }

    #[tokio::test]
    async fn it_is_handed_out_while_its_peer_is_silent() {
        let (parked, mut peer, told) = parked();
        tokio::task::yield_now().await;
        let mut stream = parked.take().unwrap();
        stream.write_all(b"x").await.unwrap();
        peer.write_all(b"y").await.unwrap();
        assert!(told.await.is_err(), "nobody watches any more");
    }

    #[tokio::test]
    async fn a_byte_or_an_end_is_told_at_once() {
        let (_kept, mut peer, told) = parked();
        peer.write_all(b"x").await.unwrap();
        assert_eq!(told.await, Ok(CloseReason::StrayBytes));
        let (_kept, peer, told) = parked();
        drop(peer);
        assert_eq!(told.await, Ok(CloseReason::PeerClosed));
    }

    #[tokio::test]
    async fn what_came_before_the_watch_had_its_turn_counts() {
        let (spoken_to, mut peer, _told) = parked();
        peer.write_all(b"x").await.unwrap();
        assert!(spoken_to.take().is_none());
        let (closed, peer, _told) = parked();
        drop(peer);
        assert!(closed.take().is_none());
    }

    #[tokio::test]
    async fn dropping_it_closes_it() {
        use tokio::io::AsyncReadExt as _;
        let (parked, mut peer, _told) = parked();
        tokio::task::yield_now().await;
        drop(parked);
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    }
}
