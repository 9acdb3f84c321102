//! Where a client's connection is, as its socket, its requests and its limits see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// Where a client's connection is. Clones are the same.
#[derive(Clone)]
pub(super) struct Stage(Arc<Inner>);

struct Inner {
    at: AtomicU8,
    is_old: AtomicBool,
    is_unframed: AtomicBool,
    /// A part of an answer was written, and more of it waits.
    is_within: AtomicBool,
    /// When a byte last came from the client or went to it.
    active: Mutex<Instant>,
    /// Interim answers that wait to be written.
    interim: Mutex<BytesMut>,
    interim_came: Notify,
}

/// Nothing has come of a request. -> [`HEAD`] with the first byte.
const IDLE: u8 = 0;
/// A head is coming. -> [`EXCHANGE`] when it is whole.
const HEAD: u8 = 1;
/// A request is being answered. -> [`CONNECTING`] while it waits for a tunnel, -> [`IDLE`] when its answer has ended, -> [`TUNNEL`] when the
/// answer is one.
const EXCHANGE: u8 = 2;
/// A tunnel is being made, which has time-outs of its own. -> [`EXCHANGE`] with the result.
const CONNECTING: u8 = 3;
/// The answer that changes the protocol is on its way; HTTP ends with it.
const TUNNEL: u8 = 4;

impl Stage {
    /// A head is expected now.
    pub(super) fn new() -> Stage {
        Stage(Arc::new(Inner {
            at: AtomicU8::new(HEAD),
            is_old: AtomicBool::default(),
            is_unframed: AtomicBool::default(),
            is_within: AtomicBool::default(),
            active: Mutex::new(Instant::now()),
            interim: Mutex::default(),
            interim_came: Notify::new(),
        }))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.at() == IDLE
    }

    pub(super) fn is_head(&self) -> bool {
        self.at() == HEAD
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.at() == TUNNEL
    }

    pub(super) fn head(&self) {
        self.set(HEAD);
    }

    /// A request's head is whole. `is_old`: it is of HTTP/1.0.
    pub(super) fn began(&self, is_old: bool) {
        self.set(EXCHANGE);
        self.0.is_old.store(is_old, Ordering::Relaxed);
        self.0.is_unframed.store(false, Ordering::Relaxed);
    }

    /// A tunnel is being made until the guard is dropped.
    pub(super) fn connecting(&self) -> Connecting<'_> {
        self.set(CONNECTING);
        Connecting(self)
    }

    pub(super) fn tunnel(&self) {
        self.set(TUNNEL);
    }

    pub(super) fn ended(&self) {
        if !self.is_tunnel() {
            self.set(IDLE);
        }
    }

    /// The last answer was sent to its end.
    pub(super) fn over(&self) {
        self.0.is_unframed.store(false, Ordering::Relaxed);
    }

    /// `is_framed`: its length is told.
    pub(super) fn body_comes(&self, is_framed: bool) {
        let is_unframed = !is_framed && self.0.is_old.load(Ordering::Relaxed);
        self.0.is_unframed.store(is_unframed, Ordering::Relaxed);
    }

    /// Whether the end of the connection is the end of the answer (RFC 9112 section 6.3): HTTP/1.0 has no chunks.
    pub(super) fn is_unframed(&self) -> bool {
        self.0.is_unframed.load(Ordering::Relaxed)
    }

    /// A byte came or went.
    pub(super) fn active(&self) {
        *self.0.active.lock() = Instant::now();
    }

    /// Ends when no byte came or went for `limit`, while one should have.
    pub(super) async fn silence(&self, limit: Duration) {
        loop {
            let until = self.0.active.lock().checked_add(limit);
            // No clock gets there.
            let Some(until) = until else { return std::future::pending().await };
            if until <= Instant::now() {
                if self.at() != CONNECTING {
                    return;
                }
                self.active();
                continue;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Keeps an interim answer to be written ahead of the final one. One that finds no room is left out.
    pub(super) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if self.0.is_old.load(Ordering::Relaxed) {
            // RFC 9110 section 15.2: not to a client of HTTP/1.0.
            return;
        }
        let mut queue = self.0.interim.lock();
        if queue.len() < INTERIM_MAX {
            queue.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", status.as_str(), reason(status)).as_bytes());
            for (name, value) in headers {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    queue.extend_from_slice(part);
                }
            }
            queue.extend_from_slice(b"\r\n");
        }
        drop(queue);
        self.0.interim_came.notify_one();
    }

    /// Waits for an interim answer: whoever polls the exchange then has it written.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn interim_came(&self) {
        self.0.interim_came.notified().await;
    }

    /// The final answer comes. Interim ones that could not be written yet, since the client has not taken the answer before, are left out.
    pub(super) fn settle(&self) {
        if self.0.is_within.load(Ordering::Relaxed) {
            self.0.interim.lock().clear();
        }
    }

    pub(super) fn within(&self, is_within: bool) {
        self.0.is_within.store(is_within, Ordering::Relaxed);
    }

    /// Gives what is to be written of interim answers to `write` until it takes no more. Tells whether none is left.
    pub(super) fn write_interim<E>(&self, mut write: impl FnMut(&[u8]) -> Result<usize, E>) -> Result<bool, E> {
        if self.0.is_within.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut queue = self.0.interim.lock();
        while !queue.is_empty() {
            match write(&queue)? {
                0 => return Ok(false),
                written => queue.advance(written),
            }
        }
        Ok(true)
    }

    fn at(&self) -> u8 {
        self.0.at.load(Ordering::Relaxed)
    }

    fn set(&self, at: u8) {
        self.0.at.store(at, Ordering::Relaxed);
    }
}

/// A tunnel is being made.
pub(super) struct Connecting<'a>(&'a Stage);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.active();
        self.0.set(EXCHANGE);
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Interim")
}

/// Bytes of interim answers that wait; one more may come on top.
const INTERIM_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(stage: &Stage) -> String {
        let mut all = Vec::new();
        let write = |bytes: &[u8]| {
            all.extend_from_slice(&bytes[..1]);
            Ok::<_, std::convert::Infallible>(1)
        };
        assert!(stage.write_interim(write).unwrap());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn interim_answers_go_between_answers_only() {
        let hints: HeaderMap = [(http::header::LINK, http::HeaderValue::from_static("</a>"))].into_iter().collect();
        let stage = Stage::new();
        stage.began(false);
        stage.interim(StatusCode::from_u16(103).unwrap(), &hints);
        stage.within(true);
        assert_eq!(written(&stage), "");
        stage.within(false);
        assert_eq!(written(&stage), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        stage.interim(StatusCode::PROCESSING, &HeaderMap::new());
        stage.within(true);
        stage.settle();
        stage.within(false);
        assert_eq!(written(&stage), "");
        stage.began(true);
        stage.interim(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(written(&stage), "");
    }

    #[test]
    fn interim_answers_without_end_take_no_memory_without_end() {
        let stage = Stage::new();
        stage.began(false);
        for _ in 0..10_000 {
            stage.interim(StatusCode::PROCESSING, &HeaderMap::new());
        }
        assert!(written(&stage).len() < INTERIM_MAX + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_limit_is_no_panic() {
        let stage = Stage::new();
        assert!(tokio::time::timeout(Duration::from_secs(60), stage.silence(Duration::MAX)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_without_bytes_and_while_none_is_connecting() {
        let stage = Stage::new();
        stage.began(false);
        let start = Instant::now();
        stage.silence(Duration::from_secs(5)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        let guard = stage.connecting();
        let silence = tokio::time::timeout(Duration::from_secs(60), stage.silence(Duration::from_secs(5)));
        assert!(silence.await.is_err());
        drop(guard);
        stage.silence(Duration::from_secs(5)).await;
        assert!(start.elapsed().as_secs() >= 65 + 5);
    }
}
