//! The socket of one client, with a limit on each of its waits.
//!
//! hyper limits the time from an answer to the end of the next head. Here are the limits that it does not have: on a head that comes
//! slowly, and on a client that takes nothing.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// Where a client's connection is. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Stage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    at: AtomicU8,
    is_old: AtomicBool,
    is_unframed: AtomicBool,
}

/// Nothing has come of a request. -> [`HEAD`] with the first byte.
const IDLE: u8 = 0;
/// A head is coming. -> [`EXCHANGE`] when it is whole.
const HEAD: u8 = 1;
/// A request is being answered. -> [`IDLE`] when its answer has ended.
const EXCHANGE: u8 = 2;

impl Stage {
    pub(super) fn is_idle(&self) -> bool {
        self.is(IDLE)
    }

    /// A request's head is whole. `is_old`: it is of HTTP/1.0.
    pub(super) fn began(&self, is_old: bool) {
        self.0.at.store(EXCHANGE, Ordering::Relaxed);
        self.0.is_old.store(is_old, Ordering::Relaxed);
        self.0.is_unframed.store(false, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.0.at.store(IDLE, Ordering::Relaxed);
    }

    /// `is_framed`: its length is told.
    pub(super) fn body_comes(&self, is_framed: bool) {
        let is_unframed = !is_framed && self.0.is_old.load(Ordering::Relaxed);
        self.0.is_unframed.store(is_unframed, Ordering::Relaxed);
    }

    /// Whether the end of the connection is the end of the answer (RFC 9112 section 6.3): HTTP/1.0 has no chunks.
    fn is_unframed(&self) -> bool {
        self.0.is_unframed.load(Ordering::Relaxed)
    }

    fn is(&self, at: u8) -> bool {
        self.0.at.load(Ordering::Relaxed) == at
    }
}

/// A client's socket.
pub(super) struct ClientIo {
    stream: TcpStream,
    stage: Stage,
    /// Runs from the first byte of a head.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    write: Option<Pin<Box<Sleep>>>,
    /// The last answer was sent to its end.
    is_over: bool,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream, stage: Stage) -> ClientIo {
        ClientIo { stream, stage, head: None, write: None, is_over: false }
    }

    /// Closes after the last answer was sent. What the client still sends is thrown away for a while: a socket that is closed over unread
    /// bytes resets the connection, and the answer may be lost with it (RFC 9112 section 9.6).
    pub(super) async fn close(mut self, patience: Duration) {
        self.is_over = true;
        linger(&mut self.stream, patience).await;
    }

    fn limit_write<T>(&mut self, poll: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.write = None;
            return poll;
        }
        let write = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_MAX)));
        ready!(write.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl Drop for ClientIo {
    /// Resets the connection where its end would be taken for the end of an answer that has not ended.
    fn drop(&mut self) {
        if self.stage.is_unframed() && !self.is_over {
            // When this fails the connection has ended already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Sends the end and waits for the other side's.
pub(super) async fn linger(stream: &mut TcpStream, patience: Duration) {
    let mut scratch = [0; 4096];
    let end = async {
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever came of it, the connection is over.
    let _ = tokio::time::timeout(patience, end).await;
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && this.stage.is(IDLE) {
            this.stage.0.at.store(HEAD, Ordering::Relaxed);
            this.head = Some(Box::pin(tokio::time::sleep(HEAD_MAX)));
        }
        match &mut this.head {
            Some(head) if poll.is_pending() && this.stage.is(HEAD) => {
                ready!(head.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head comes too slowly")))
            }
            _ => poll,
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.limit_write(poll, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.limit_write(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Longest time from the first byte of a head to its last.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// For how long a client may take nothing of what is ready for it. Less than origins' `body_timeout` (60 s): what waits for such a client
/// fills the window of its HTTP/2 connection, and others on the same one must go on before they are given up.
const WRITE_MAX: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Runs a future to its end with the clock stopped, so that only the limits end it, and tells when.
    async fn ends_after<T>(future: impl Future<Output = io::Result<T>>) -> (Duration, io::ErrorKind) {
        tokio::time::pause();
        let start = tokio::time::Instant::now();
        let error = future.await.err().expect("a limit ends it");
        (start.elapsed(), error.kind())
    }

    #[tokio::test]
    async fn a_head_that_comes_slowly_is_given_up() {
        let (mut client, server) = pair().await;
        let mut io = ClientIo::new(server, Stage::default());
        client.write_all(b"GET ").await.unwrap();
        io.read_exact(&mut [0; 4]).await.unwrap();
        let (after, kind) = ends_after(io.read_u8()).await;
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(after >= HEAD_MAX && after < HEAD_MAX + Duration::from_secs(1), "{after:?}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (client, server) = pair().await;
        let mut io = ClientIo::new(server, Stage::default());
        let piece = vec![0; 1 << 20];
        let fill = async {
            loop {
                if let Err(error) = io.write_all(&piece).await {
                    return io::Result::<()>::Err(error);
                }
            }
        };
        let (after, kind) = ends_after(fill).await;
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(after >= WRITE_MAX, "{after:?}");
        drop(client);
    }
}
