//! One direction of a tunnel: from a stream that is read to one that is written, and what is between.

use std::{
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite as _;

use super::copy::{self, Held, Source};
#[cfg(target_os = "linux")]
use super::pipe::{self, Pipe};
use crate::stream::Stream;

/// Bytes of one sender on their way to the other side.
pub(super) struct Direction {
    state: State,
    /// Read and not taken yet.
    between: Between,
    /// Whether bytes were written that a stream with buffers of its own may still have.
    unflushed: bool,
    /// What the sender was found to have failed with, while it was not read. What it sent before is still to be read.
    found: Option<io::ErrorKind>,
    /// Whether both streams can be spliced.
    splice: bool,
    bulk: Bulk,
    /// Bytes read, bytes written and changes of state: what it counts does not matter, only that it moved.
    progress: u64,
}

/// Where a direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes may come. -> `Ending` at the end or an error of the sender.
    Open,
    /// No more will come; what came is being delivered. -> `Closing` when the receiver has it and the sender had ended in order,
    /// `Ended` otherwise.
    Ending(Option<io::ErrorKind>),
    /// The receiver is being told of the end. -> `Ended`.
    Closing,
    /// Nothing more will happen.
    Ended(End),
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The sender ended; the receiver has all bytes, and the end where it was to be passed on.
    Closed,
    /// Reading failed; what came before was delivered.
    FromFailed(io::ErrorKind),
    /// Writing failed.
    ToFailed(io::ErrorKind),
}

/// Bytes that were read and not written.
enum Between {
    Nothing,
    Held(Held),
    #[cfg(target_os = "linux")]
    Piped(Pipe),
}

/// Tells bulk from chatter, by how much comes at once.
#[derive(Debug, Default)]
struct Bulk {
    score: usize,
}

impl Direction {
    /// `first` was read from the sender already.
    pub(super) fn new(first: &[u8], splice: bool) -> Direction {
        Direction {
            state: State::Open,
            between: if first.is_empty() { Between::Nothing } else { Between::Held(Held::of(first)) },
            unflushed: false,
            found: None,
            splice,
            bulk: Bulk::default(),
            progress: 0,
        }
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<End> {
        match self.state {
            State::Ended(end) => Some(end),
            State::Open | State::Ending(_) | State::Closing => None,
        }
    }

    /// Whether nothing more will come of the sender.
    pub(super) fn source_ended(&self) -> bool {
        self.state != State::Open
    }

    /// Whether bytes wait for the receiver. The sender is not read meanwhile.
    pub(super) fn is_held(&self) -> bool {
        !matches!(self.between, Between::Nothing)
    }

    /// What the sender has failed with, as far as it is known.
    pub(super) fn source_failure(&self) -> Option<io::ErrorKind> {
        match self.state {
            State::Ending(Some(kind)) | State::Ended(End::FromFailed(kind)) => Some(kind),
            _ => self.found,
        }
    }

    /// The sender was found to have failed. Whoever looked has taken the error from its socket, which shows a mere end from then on.
    pub(super) fn found(&mut self, kind: io::ErrorKind) {
        self.found = Some(kind);
    }

    /// Changes when anything moved.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// Carries what can be carried now. `count` grows by what `to` took; the end of `from` is passed on only if `passes_end`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        count: &AtomicU64,
        passes_end: bool,
    ) {
        let mut budget = BUDGET;
        while self.end().is_none() {
            if self.step(cx, from, to, count, passes_end, &mut budget).is_pending() {
                return;
            }
        }
    }

    /// The next thing to do. Pending: something has to happen first, and the task is woken by it.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        count: &AtomicU64,
        passes_end: bool,
        budget: &mut usize,
    ) -> Poll<()> {
        let delivered = ready!(self.deliver(cx, to, count));
        match (delivered, self.state) {
            (Err(kind), _) => self.fail(kind),
            (Ok(()), State::Open) if *budget == 0 => {
                // Others of this thread go on first, those too that only a look at the sockets will wake: a mere wake would come back
                // here up to 61 times before the runtime looks.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            (Ok(()), State::Open) => {
                let Poll::Ready(read) = self.read(cx, from) else {
                    return self.rest(cx, to);
                };
                *budget = budget.saturating_sub(read);
            }
            (Ok(()), State::Ending(Some(kind))) => {
                ready!(self.flush(cx, to));
                if self.end().is_none() {
                    self.turn(State::Ended(End::FromFailed(kind)));
                }
            }
            (Ok(()), State::Ending(None)) if !passes_end => self.turn(State::Ended(End::Closed)),
            (Ok(()), State::Ending(None)) => self.turn(State::Closing),
            (Ok(()), State::Closing) => match ready!(Pin::new(to).poll_shutdown(cx)) {
                Ok(()) => self.turn(State::Ended(End::Closed)),
                Err(error) => self.fail(error.kind()),
            },
            (Ok(()), State::Ended(_)) => {}
        }
        Poll::Ready(())
    }

    /// Writes what is between. Ready when there is nothing left of it.
    fn deliver(&mut self, cx: &mut Context<'_>, to: &mut Stream, count: &AtomicU64) -> Poll<Result<(), io::ErrorKind>> {
        let mut written = 0;
        let poll = match &mut self.between {
            Between::Nothing => return Poll::Ready(Ok(())),
            Between::Held(held) => held.poll_write(cx, to, &mut written),
            #[cfg(target_os = "linux")]
            Between::Piped(pipe) => match to.as_tcp() {
                Some(to) => pipe.poll_empty(cx, to, &mut written),
                None => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            },
        };
        if written > 0 {
            count.fetch_add(written as u64, Ordering::Relaxed);
            self.progress += written as u64;
            self.unflushed = true;
        }
        match ready!(poll) {
            Ok(()) => {
                match std::mem::replace(&mut self.between, Between::Nothing) {
                    Between::Nothing => {}
                    Between::Held(held) => held.give_back(),
                    #[cfg(target_os = "linux")]
                    Between::Piped(pipe) => pipe.give_back(),
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error.kind())),
        }
    }

    /// Takes what the sender has, and says how much that was. Nothing is between when it is called.
    fn read(&mut self, cx: &mut Context<'_>, from: &mut Stream) -> Poll<usize> {
        if self.splice
            && self.bulk.is_bulk()
            && let Some(poll) = self.read_to_pipe(cx, from)
        {
            return poll;
        }
        self.read_to_memory(cx, from)
    }

    fn read_to_memory(&mut self, cx: &mut Context<'_>, from: &mut Stream) -> Poll<usize> {
        let (held, source) = ready!(copy::poll_read(cx, from));
        let read = held.len();
        self.between = Between::Held(held);
        self.note(read);
        match source {
            Source::Open => {}
            Source::Ended => self.turn(State::Ending(self.found)),
            Source::Failed(kind) => self.turn(State::Ending(Some(kind))),
        }
        Poll::Ready(read)
    }

    /// None where there is no pipe to be had.
    #[cfg(target_os = "linux")]
    fn read_to_pipe(&mut self, cx: &mut Context<'_>, from: &Stream) -> Option<Poll<usize>> {
        let mut pipe = Pipe::take()?;
        let poll = match pipe.poll_fill(cx, from.as_tcp()?) {
            Poll::Pending => {
                pipe.give_back();
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => {
                pipe.give_back();
                self.turn(State::Ending(self.found));
                Poll::Ready(0)
            }
            Poll::Ready(Ok(read)) => {
                self.between = Between::Piped(pipe);
                self.note(read);
                Poll::Ready(read)
            }
            Poll::Ready(Err(error)) => {
                pipe.give_back();
                if pipe::is_unsupported(&error) {
                    self.splice = false;
                } else {
                    self.turn(State::Ending(Some(error.kind())));
                }
                Poll::Ready(0)
            }
        };
        Some(poll)
    }

    #[cfg(not(target_os = "linux"))]
    fn read_to_pipe(&mut self, _: &mut Context<'_>, _: &Stream) -> Option<Poll<usize>> {
        None
    }

    fn note(&mut self, read: usize) {
        self.bulk.note(read);
        self.progress += read as u64;
    }

    /// Nothing to read now: what a stream with buffers of its own still has is sent. Pending in any case but an error.
    fn rest(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<()> {
        match self.flush(cx, to) {
            Poll::Ready(()) if self.end().is_some() => Poll::Ready(()),
            Poll::Ready(()) | Poll::Pending => Poll::Pending,
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<()> {
        if self.unflushed {
            match ready!(Pin::new(to).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => self.fail(error.kind()),
            }
        }
        Poll::Ready(())
    }

    fn fail(&mut self, kind: io::ErrorKind) {
        self.between = Between::Nothing;
        self.turn(State::Ended(End::ToFailed(kind)));
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.progress += 1;
    }
}

impl Bulk {
    /// What came at once.
    fn note(&mut self, read: usize) {
        self.score = if read >= BIG_READ { (self.score + read).min(BULK_MAX) } else { self.score / 2 };
    }

    /// Whether so much came in big reads that moving it without copies saves more than a pipe costs.
    fn is_bulk(&self) -> bool {
        self.score >= BULK_MIN
    }
}

/// What a direction may read in one go before others of the thread get their turn.
const BUDGET: usize = 1024 * 1024;
/// A read of this size is a sign of bulk.
const BIG_READ: usize = 16 * 1024;
/// Bytes in big reads that make bulk.
const BULK_MIN: usize = 256 * 1024;
/// More bulk than this is not remembered: three small reads in a row end it.
const BULK_MAX: usize = 2 * 1024 * 1024;
