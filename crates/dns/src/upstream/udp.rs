//! A connected UDP socket and the ids in flight on it.
//!
//! What an off-path attacker must guess (RFC 5452 section 9): the port, chosen anew by the system for each socket, which is
//! retired by count and age (`udp_max_queries`, `udp_max_age`); the id, drawn at random for each query; the question; and
//! the peer, which the connected socket checks. Sending, receiving and matching questions is the worker's.

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::{HashMap, hash_map::Entry};
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::udp::SendQueue;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, task::AbortHandle};

use super::{
    connector::DnsConnector,
    cookie::{Cookies, Peer, Verdict},
    endpoint::Family,
};
use crate::message::{OptWriter, wire::OPTION_COOKIE};

/// The pool's end of a socket. Dropping it ends the reader, and with it the socket.
pub(crate) struct UdpOwner(pub(super) Arc<UdpConnection>);

impl Drop for UdpOwner {
    fn drop(&mut self) {
        if let Some(reader) = self.0.reader.get() {
            reader.abort();
        }
    }
}

impl Deref for UdpOwner {
    type Target = Arc<UdpConnection>;

    fn deref(&self) -> &Arc<UdpConnection> {
        &self.0
    }
}

/// One socket. It belongs to one worker; the lock is never contended.
pub(crate) struct UdpConnection {
    pub(crate) socket: UdpSocket,
    pub(crate) peer: SocketAddr,
    pub(crate) family: Family,
    pub(crate) opened: Instant,
    pub(crate) resolve: Duration,
    slot: Slot<DnsConnector>,
    /// The task that reads it, begun with the first query.
    reader: OnceLock<AbortHandle>,
    closed: AtomicBool,
    /// What is known of the cookies of `peer`, where they are used.
    cookies: Option<Arc<Peer>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ids: HashMap<u16, Id>,
    wrong: u32,
    /// Queries that wait to be sent.
    queue: SendQueue,
    cookies: Option<Cookies>,
}

/// An id on the wire.
enum Id {
    /// A query waits for its answer.
    Waiting { token: u64 },
    /// Nobody waits any more; the id is not used again while a late answer may come, so that it is told from a forged one.
    Abandoned { at: Instant },
}

/// What an id on an incoming answer stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The query with this token; its question has still to be compared.
    Waiting(u64),
    /// A late answer to a query that was given up.
    Late,
    /// No query has this id.
    Unknown,
}

impl UdpConnection {
    pub(crate) fn new(
        socket: UdpSocket,
        peer: SocketAddr,
        slot: Slot<DnsConnector>,
        opened: Instant,
        resolve: Duration,
    ) -> UdpConnection {
        UdpConnection {
            socket,
            peer,
            family: Family::of(peer.ip()),
            opened,
            resolve,
            slot,
            reader: OnceLock::new(),
            closed: AtomicBool::new(false),
            cookies: None,
            state: Mutex::new(State::default()),
        }
    }

    /// Has its queries go with cookies.
    pub(super) fn with_cookies(mut self, cookies: Option<Arc<Peer>>) -> UdpConnection {
        self.state.get_mut().cookies = cookies.clone().map(Cookies::new);
        self.cookies = cookies;
        self
    }

    /// Whether a query may go with a cookie now; the rest of the time that costs no lock.
    pub(crate) fn has_cookie(&self, now: Instant) -> bool {
        self.cookies.as_ref().is_some_and(|peer| !peer.is_quiet(now))
    }

    /// Adds the cookie to a query that is about to leave. `false` when it leaves without.
    pub(crate) fn add_cookie(&self, query: &mut Vec<u8>, question_end: usize, repeated: bool, now: Instant) -> bool {
        let mut state = self.state.lock();
        let cookie = state.cookies.as_mut().and_then(|cookies| cookies.option(repeated, now));
        let opt = cookie.and_then(|cookie| Some((cookie, OptWriter::open(query, 0, question_end)?)));
        opt.map(|(cookie, mut opt)| opt.push(OPTION_COOKIE, cookie)).is_some()
    }

    /// Judges the cookie of an answer to a query that went with one. With `renew` the server says that ours is old.
    pub(crate) fn check_cookie(&self, cookie: Option<&[u8]>, renew: bool, now: Instant) -> Verdict {
        let mut state = self.state.lock();
        state.cookies.as_mut().map_or(Verdict::Good, |cookies| cookies.check(cookie, renew, false, now))
    }

    /// An answer came to a query that was repeated without its cookie.
    pub(crate) fn answered_bare(&self, now: Instant) {
        if let Some(cookies) = &mut self.state.lock().cookies {
            cookies.answered_without(now);
        }
    }

    /// Has `begin` begin the task that reads it, the first time that it is called.
    pub(crate) fn read_by(&self, begin: impl FnOnce() -> AbortHandle) {
        self.reader.get_or_init(begin);
    }

    /// A random id that no query of this socket has, or `None` when too many are taken.
    pub(crate) fn allot(&self, token: u64, now: Instant) -> Option<u16> {
        let ids = &mut self.state.lock().ids;
        if ids.len() >= IDS_MAX {
            ids.retain(|_, id| !matches!(id, Id::Abandoned { at } if now.saturating_duration_since(*at) > LATE));
        }
        if ids.len() >= IDS_MAX {
            return None;
        }
        loop {
            if let Entry::Vacant(entry) = ids.entry(rand::random()) {
                let id = *entry.key();
                entry.insert(Id::Waiting { token });
                return Some(id);
            }
        }
    }

    /// What an answer's id stands for; the id stays taken until [`answered`](Self::answered).
    pub(crate) fn find(&self, id: u16) -> Found {
        let ids = &mut self.state.lock().ids;
        match ids.get(&id) {
            None => Found::Unknown,
            Some(Id::Waiting { token }) => Found::Waiting(*token),
            Some(Id::Abandoned { .. }) => {
                ids.remove(&id);
                Found::Late
            }
        }
    }

    /// The answer to `id` was accepted.
    pub(crate) fn answered(&self, id: u16) {
        self.state.lock().ids.remove(&id);
    }

    /// Nobody waits for `id` any more.
    pub(crate) fn abandon(&self, id: u16, now: Instant) {
        if let Some(state) = self.state.lock().ids.get_mut(&id) {
            *state = Id::Abandoned { at: now };
        }
    }

    /// Counts a wrong answer; `true` when there were so many that somebody seems to be guessing.
    pub(crate) fn wrong(&self) -> bool {
        let mut state = self.state.lock();
        state.wrong += 1;
        state.wrong >= WRONG_MAX
    }

    /// The tokens of all queries in flight, which are taken off the socket.
    pub(crate) fn evacuate(&self) -> Vec<u64> {
        let waiting = |(_, id)| match id {
            Id::Waiting { token } => Some(token),
            Id::Abandoned { .. } => None,
        };
        self.state.lock().ids.drain().filter_map(waiting).collect()
    }

    /// Queues a datagram; `true` when it is the first that waits.
    pub(crate) fn queue(&self, datagram: &[u8]) -> bool {
        let queue = &mut self.state.lock().queue;
        queue.push(datagram, None);
        queue.len() == 1
    }

    /// Takes what is queued; the queue comes back with [`give_queue`](Self::give_queue).
    pub(crate) fn take_queue(&self) -> SendQueue {
        std::mem::take(&mut self.state.lock().queue)
    }

    /// Gives an emptied queue back for its memory, unless another was begun in the meantime.
    pub(crate) fn give_queue(&self, emptied: SendQueue) {
        let queue = &mut self.state.lock().queue;
        if queue.is_empty() {
            *queue = emptied;
        }
    }

    /// Whether it was retired: no query is sent any more, though a lease may still be on its way.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Retires the socket.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.closed.store(true, Ordering::Relaxed);
        self.slot.closed(reason);
    }
}

/// Ids in use on a socket, late ones included: a small part of the 65,536 keeps them hard to guess.
const IDS_MAX: usize = 4096;

/// For how long an answer may be late.
const LATE: Duration = Duration::from_secs(10);

/// So many wrong answers on one socket move its queries to TCP (design: behaviour 2).
const WRONG_MAX: u32 = 16;
