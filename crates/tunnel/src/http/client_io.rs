//! The socket of one client, with a limit on each of its waits.
//!
//! hyper limits the time from an answer to the end of the next head. Here are the limits that it does not have: on a head that comes
//! slowly, and on a client that takes nothing. Here are also the bytes that hyper has no part in: those that were read before it began,
//! and the interim answers that it cannot send.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::stage::Stage;

/// A client's socket.
pub(super) struct ClientIo {
    /// Gone once it was taken.
    stream: Option<TcpStream>,
    stage: Stage,
    /// What was read before.
    first: Bytes,
    /// Nothing is read beyond `first`: what follows is for a tunnel.
    is_held: bool,
    /// Ends with a reset of a connection that is held, since no read tells of it.
    reset: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    head_max: Duration,
    /// Runs from the first byte of a head.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    write: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    /// `head_max`: longest time from the first byte of a head to its last, which begins now for the first.
    pub(super) fn new(stream: TcpStream, stage: Stage, first: Bytes, is_held: bool, head_max: Duration) -> ClientIo {
        let head = Some(Box::pin(tokio::time::sleep(head_max)));
        let reset = is_held.then(|| Box::pin(reset(&stream)) as Pin<Box<_>>);
        ClientIo { stream: Some(stream), stage, first, is_held, reset, head_max, head, write: None }
    }

    /// The socket, for what comes after HTTP.
    pub(super) fn into_stream(mut self) -> TcpStream {
        self.reset = None;
        self.stream.take().expect("the socket is taken once, with self")
    }

    /// Closes after the last answer was sent. What the client still sends is thrown away for a while: a socket that is closed over unread
    /// bytes resets the connection, and the answer may be lost with it (RFC 9112 section 9.6).
    pub(super) async fn close(self) {
        self.stage.over();
        let mut stream = self.into_stream();
        let mut scratch = [0; 4096];
        let end = async {
            stream.shutdown().await?;
            while stream.read(&mut scratch).await? > 0 {}
            io::Result::Ok(())
        };
        // Whatever came of it, the connection is over.
        let _ = tokio::time::timeout(LINGER, end).await;
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("the socket is taken with self"))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.head {
            Some(head) if self.stage.is_head() => {
                ready!(head.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head comes too slowly")))
            }
            _ => Poll::Pending,
        }
    }

    /// Interim answers go ahead of whatever hyper writes next.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stage = self.stage.clone();
        let is_written = stage.write_interim(|bytes| match self.stream().poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(written) => written,
            Poll::Pending => Ok(0),
        })?;
        if is_written { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let poll = match self.poll_interim(cx) {
            Poll::Ready(Ok(())) => send(self.stream(), cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        if poll.is_ready() {
            self.write = None;
            self.stage.active();
            self.stage.within(true);
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
        if let Some(stream) = &self.stream
            && self.stage.is_unframed()
        {
            // When this fails the connection has ended already.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..length]);
            this.first.advance(length);
            return Poll::Ready(Ok(()));
        }
        if this.is_held {
            if let Some(reset) = &mut this.reset
                && reset.as_mut().poll(cx).is_ready()
            {
                this.reset = None;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            return this.poll_head(cx);
        }
        let before = buffer.filled().len();
        let poll = this.stream().poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.stage.active();
            if this.stage.is_idle() {
                this.stage.head();
                this.head = Some(Box::pin(tokio::time::sleep(this.head_max)));
            }
        }
        if poll.is_pending() { this.poll_head(cx) } else { poll }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    /// hyper asks for it when everything was written that it has.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.stage.within(false);
        ready!(this.poll_interim(cx))?;
        this.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

/// Ends with a reset. It looks at the socket by a descriptor of its own, so that the socket need not be borrowed; where there is none left it
/// never ends.
fn reset(stream: &TcpStream) -> impl Future<Output = ()> + Send + 'static {
    let copy = SockRef::from(stream).try_clone().and_then(|copy| TcpStream::from_std(copy.into()));
    async move {
        match copy {
            Ok(copy) if copy.ready(Interest::ERROR).await.is_ok() => {}
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }
}

/// For how long a client may take nothing of what is ready for it.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// For how long a client may take to close after the last answer.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const HEAD_MAX: Duration = Duration::from_secs(10);

    /// The client's end of a connection, and the other as the proxy has it.
    async fn pair(first: &'static [u8], is_held: bool) -> (TcpStream, ClientIo) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        (client, ClientIo::new(stream, Stage::new(), Bytes::from_static(first), is_held, HEAD_MAX))
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
        for is_held in [false, true] {
            let (_client, mut io) = pair(b"GET ", is_held).await;
            io.read_exact(&mut [0; 4]).await.unwrap();
            let (after, kind) = ends_after(io.read_u8()).await;
            assert_eq!(kind, io::ErrorKind::TimedOut);
            assert!(after <= HEAD_MAX + Duration::from_secs(1), "{after:?}");
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (client, mut io) = pair(b"", false).await;
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

    #[tokio::test]
    async fn a_reset_behind_what_is_held_is_noticed() {
        let (mut client, mut io) = pair(b"CONNECT", true).await;
        client.write_all(b"payload").await.unwrap();
        io.read_exact(&mut [0; 7]).await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(io.read_u8())).is_pending());
        client.set_zero_linger().unwrap();
        drop(client);
        let read = tokio::time::timeout(HEAD_MAX / 2, io.read_u8()).await.expect("it is noticed");
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_is_held_for_a_tunnel_stays_in_the_socket() {
        let (mut client, mut io) = pair(b"CONNECT", true).await;
        client.write_all(b"payload").await.unwrap();
        io.read_exact(&mut [0; 7]).await.unwrap();
        let mut more = [0; 7];
        assert!(futures_util::poll!(std::pin::pin!(io.read_exact(&mut more))).is_pending());
        io.into_stream().read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"payload");
    }
}
