//! A channel as a stream of bytes, and the connection under a session that is still being made.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    sync::oneshot,
};

/// A connection to a destination through an SSH server. Dropping it closes the channel.
pub struct SshStream {
    reads: ChannelReadHalf,
    writes: Option<ChannelWriteHalf<Msg>>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// What has come and was not read, [`WAITING_MAX`] bytes and one message at most.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    end: Option<End>,
    /// Who waits for bytes.
    reader: Option<Waker>,
    shut: bool,
}

/// How the bytes from the destination ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server said so.
    Said,
    /// With the session.
    Lost,
}

impl SshStream {
    pub(super) fn new(channel: Channel<Msg>) -> SshStream {
        let (reads, writes) = channel.split();
        let writer = Box::new(writes.make_writer());
        SshStream {
            reads,
            writes: Some(writes),
            writer,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            end: None,
            reader: None,
            shut: false,
        }
    }

    /// Takes what the session has for us, as far as there is room. Tells whether something has come.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let mut came = false;
        while self.end.is_none() && self.waiting_bytes < WAITING_MAX {
            match pin!(self.reads.wait()).poll(cx) {
                Poll::Ready(Some(ChannelMsg::Data { data })) => {
                    self.waiting_bytes += data.len();
                    self.waiting.push_back(data);
                }
                Poll::Ready(Some(ChannelMsg::Eof | ChannelMsg::Close)) => self.end = Some(End::Said),
                Poll::Ready(None) => self.end = Some(End::Lost),
                // Windows are counted by the library.
                Poll::Ready(Some(_)) => continue,
                Poll::Pending => break,
            }
            came = true;
        }
        came
    }

    /// What tells of open windows is queued with the bytes, and would hold up the session while we write and nobody reads.
    fn fill_for_reader(&mut self) {
        let waker = self.reader.clone();
        if self.fill(&mut Context::from_waker(waker.as_ref().unwrap_or(Waker::noop())))
            && let Some(waker) = waker
        {
            waker.wake();
        }
    }
}

impl AsyncRead for SshStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.fill(cx);
        while let Some(first) = this.waiting.front_mut() {
            let read = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..read]);
            first.advance(read);
            this.waiting_bytes -= read;
            if !first.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.waiting.pop_front();
            if read > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        match this.end {
            Some(End::Said) => Poll::Ready(Ok(())),
            Some(End::Lost) => Poll::Ready(Err(lost())),
            None => {
                this.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.fill_for_reader();
        Pin::new(&mut this.writer).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            let shut = ready!(Pin::new(&mut this.writer).poll_shutdown(cx));
            this.shut = true;
            shut?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SshStream {
    fn drop(&mut self) {
        // Outside of a runtime there is no session either.
        if let (Some(writes), Ok(runtime)) = (self.writes.take(), Handle::try_current()) {
            runtime.spawn(async move { writes.close().await });
        }
    }
}

impl fmt::Debug for SshStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshStream").field("waiting", &self.waiting_bytes).finish_non_exhaustive()
    }
}

/// A connection that ends when its owner goes away before it is told to last.
pub(super) struct Cuttable<S> {
    stream: S,
    cut: Option<oneshot::Receiver<()>>,
}

impl<S> Cuttable<S> {
    /// Lasts when something is sent to `cut`; ends when its sender is dropped.
    pub(super) fn new(stream: S, cut: oneshot::Receiver<()>) -> Cuttable<S> {
        Cuttable { stream, cut: Some(cut) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.cut.as_mut().map(|cut| Pin::new(cut).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => this.cut = None,
            Some(Poll::Ready(Err(_))) => return Poll::Ready(Err(lost())),
            Some(Poll::Pending) | None => {}
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the ssh session has ended")
}

/// Bytes of a channel that wait here for their reader.
const WAITING_MAX: usize = 1 << 20;
