//! Carries bulk through a pipe, by splice(2): between sockets without a copy to this process.
//!
//! A pipe is filled only when it is empty and emptied before it is filled again, so "not ready" is always the socket's word, never
//! the pipe's. A direction owns one only while there are bytes in it; empty ones wait in a small store for whoever reads bulk next.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// A pipe of this process, and how many bytes are in it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    len: usize,
    capacity: usize,
    /// Whether more capacity may be had.
    grows: bool,
    _counted: Counted,
}

/// One of [`PIPES_MAX`].
struct Counted;

impl Pipe {
    /// An empty pipe; none where this process has as many as it may, or where the system has none to give.
    pub(super) fn take() -> Option<Pipe> {
        FREE.lock().pop().or_else(Pipe::new)
    }

    fn new() -> Option<Pipe> {
        let counted = Counted::new()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let capacity = fcntl_getpipe_size(&write).ok()?;
        // A user beyond the quota gets pipes of a page or two (pipe(7)), which cost more than a copy.
        (capacity >= CAPACITY_MIN).then_some(Pipe { read, write, len: 0, capacity, grows: true, _counted: counted })
    }

    /// Puts an empty pipe back. One with bytes in it is closed: they must not come out at another tunnel.
    pub(super) fn give_back(self) {
        if self.len == 0 {
            let mut free = FREE.lock();
            if free.len() < FREE_MAX {
                free.push(self);
            }
        }
    }

    /// Takes what the socket has, as much as fits. 0 at its end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.len, 0, "a pipe is emptied before it is filled again");
        loop {
            ready!(from.poll_read_ready(cx))?;
            let fill = || Ok(splice(from, None, &self.write, None, self.capacity, SpliceFlags::NONBLOCK)?);
            match from.try_io(Interest::READABLE, fill) {
                Err(error) if is_again(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    self.len = read;
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }

    /// Gives the socket all that is in the pipe; adds to `written` what it took.
    pub(super) fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        let full = self.len * 4 >= self.capacity;
        while self.len > 0 {
            ready!(to.poll_write_ready(cx))?;
            let empty = || Ok(splice(&self.read, None, to, None, self.len, SpliceFlags::NONBLOCK)?);
            match to.try_io(Interest::WRITABLE, empty) {
                Err(error) if is_again(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.len -= n;
                    *written += n;
                }
            }
        }
        if full {
            self.grow();
        }
        Poll::Ready(Ok(()))
    }

    /// Asks for more capacity. A user beyond the quota keeps what there is.
    fn grow(&mut self) {
        if self.grows && self.capacity < CAPACITY_MAX {
            match fcntl_setpipe_size(&self.write, (self.capacity * 4).min(CAPACITY_MAX)) {
                Ok(capacity) => self.capacity = capacity,
                Err(_) => self.grows = false,
            }
        }
    }
}

impl Counted {
    fn new() -> Option<Counted> {
        let more = |pipes| (pipes < PIPES_MAX).then_some(pipes + 1);
        PIPES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether the socket or the system does not splice at all. Nothing was moved then.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Pipes of this process.
static PIPES: AtomicUsize = AtomicUsize::new(0);
/// Empty ones.
static FREE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Pipes, of two descriptors each, that all tunnels may have at a time; beyond it, they copy.
const PIPES_MAX: usize = 256;
/// Empty pipes that are kept.
const FREE_MAX: usize = 16;
/// What a new pipe has (pipe(7)), and the least that is worth it.
const CAPACITY_MIN: usize = 64 * 1024;
/// What any user may ask for (`/proc/sys/fs/pipe-max-size`).
const CAPACITY_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::Mutex,
    };

    use super::*;

    /// One test at a time, where they share a process and its pipes.
    static ALONE: Mutex<()> = Mutex::const_new(());

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (far, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_pipe_grows_when_it_fills_and_loses_nothing() {
        let _alone = ALONE.lock().await;
        let ((mut sender, from), (mut receiver, to)) = (tcp_pair().await, tcp_pair().await);
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.capacity, CAPACITY_MIN);
        let bytes: Vec<u8> = (0..8_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 4]).collect();
        let relay = async {
            let mut carried = 0;
            loop {
                match poll_fn(|cx| pipe.poll_fill(cx, &from)).await.unwrap() {
                    0 => break,
                    read => assert!(read <= pipe.capacity),
                }
                let mut written = 0;
                poll_fn(|cx| pipe.poll_empty(cx, &to, &mut written)).await.unwrap();
                carried += written;
            }
            drop(to);
            carried
        };
        let send = async {
            sender.write_all(&bytes).await.unwrap();
            sender.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (carried, (), read) = tokio::join!(relay, send, receiver.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(carried, bytes.len());
        assert!(got == bytes);
        // A user beyond the quota of pipe(7) may be refused.
        assert!(pipe.capacity > CAPACITY_MIN || !pipe.grows);
    }

    #[tokio::test]
    async fn a_pipe_with_bytes_in_it_is_never_used_again() {
        let _alone = ALONE.lock().await;
        let (mut sender, from) = tcp_pair().await;
        sender.write_all(b"another tunnel's").await.unwrap();
        let mut pipe = Pipe::new().unwrap();
        poll_fn(|cx| pipe.poll_fill(cx, &from)).await.unwrap();
        assert_eq!(pipe.len, 16);
        pipe.give_back();
        let mut byte = [0];
        while let Some(free) = FREE.lock().pop() {
            assert_eq!(rustix::io::read(&free.read, &mut byte), Err(Errno::AGAIN), "an empty pipe");
        }
    }

    #[tokio::test]
    async fn pipes_have_a_limit_and_come_back() {
        let _alone = ALONE.lock().await;
        let mut pipes = Vec::new();
        // A user beyond the quota of pipe(7) gets fewer that are of use.
        while let Some(pipe) = Pipe::take() {
            pipes.push(pipe);
            assert!(pipes.len() <= PIPES_MAX);
        }
        assert!(!pipes.is_empty());
        pipes.into_iter().for_each(Pipe::give_back);
        assert_eq!(FREE.lock().len(), FREE_MAX);
        assert!(PIPES.load(Ordering::Relaxed) < PIPES_MAX);
        assert!(Pipe::take().is_some());
    }
}
