//! DNS cookies towards upstreams (RFC 7873, RFC 9018): what is known of each address, and what each connection sends.
//!
//! A client cookie is 64 random bits for each pair of our address and the server's (RFC 9018 section 3), so it is bound to
//! both without a secret to keep. The server cookie that comes back is sent with each later query. What an answer without,
//! or with a wrong cookie leads to is the worker's business; here is only what is known, with no I/O.
//!
//! What is known is shared by all connections to an address. Each has a copy, and a number tells it when that is old: no
//! lock is shared on the way of a query.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::Instant as Clock;

/// The addresses of one upstream, each seen from one address of ours.
#[derive(Default)]
pub(crate) struct Jar {
    /// The newest last.
    peers: Mutex<Vec<(IpAddr, SocketAddr, Arc<Peer>)>>,
}

impl Jar {
    /// What is known of `peer`, as seen from `local`. At the limit the oldest is forgotten.
    pub(super) fn peer(&self, local: IpAddr, peer: SocketAddr) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some((.., known)) = peers.iter().find(|(from, to, _)| (*from, *to) == (local, peer)) {
            return known.clone();
        }
        if peers.len() >= PEERS_MAX {
            peers.remove(0);
        }
        let known = Arc::new(Peer::new());
        peers.push((local, peer, known.clone()));
        known
    }

    /// The best that is known of any address, for display: `yes`, `unknown` or `no`.
    pub(crate) fn speaks(&self) -> &'static str {
        let peers = self.peers.lock();
        let states = peers.iter().map(|(.., peer)| match peer.known.lock().speaks {
            Speaks::Yes { .. } => "yes",
            Speaks::Unknown => "unknown",
            Speaks::No { .. } => "no",
        });
        // The alphabet happens to have them in the right order.
        states.max().unwrap_or("unknown")
    }
}

/// What is known of a server's cookies.
pub(crate) struct Peer {
    /// Goes up with each change.
    version: AtomicU32,
    base: Instant,
    /// Until when nothing is sent, in microseconds after `base`; 0: something is.
    quiet_until: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// Client cookie, then server cookie: the data of the option.
    cookie: [u8; COOKIE_MAX],
    length: usize,
    speaks: Speaks,
}

/// Whether a server speaks cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// Nothing has shown yet; the client cookie is sent. -> `Yes` with a right cookie, -> `No` with an answer without.
    Unknown,
    /// It answered with a right cookie, last at this time. -> `No` with an answer without over TCP, -> `Unknown` after
    /// [`FORGET`].
    Yes { at: Instant },
    /// It answers without; nothing is sent. -> `Unknown` at this time, with a new client cookie.
    No { until: Instant },
}

/// What an answer's cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer may be used.
    Good,
    /// The server is known to speak cookies, and this answer has none: discarded (RFC 7873 section 5.3).
    Missing,
    /// Of a length that is not allowed, or not the cookie that we sent: discarded.
    Wrong,
}

impl Known {
    fn new() -> Known {
        let mut cookie = [0; COOKIE_MAX];
        cookie[..CLIENT].copy_from_slice(&rand::random::<[u8; CLIENT]>());
        Known { cookie, length: CLIENT, speaks: Speaks::Unknown }
    }
}

impl Peer {
    fn new() -> Peer {
        Peer {
            version: AtomicU32::new(0),
            base: Clock::now().into_std(),
            quiet_until: AtomicU64::new(0),
            known: Mutex::new(Known::new()),
        }
    }

    /// Whether nothing is to be sent, known without a lock.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let until = self.quiet_until.load(Ordering::Relaxed);
        until > 0 && self.micros(now) < until
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> Known {
        let mut known = self.known.lock();
        change(&mut known);
        let quiet_until = match known.speaks {
            Speaks::No { until } => self.micros(until),
            Speaks::Yes { .. } | Speaks::Unknown => 0,
        };
        self.quiet_until.store(quiet_until, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        *known
    }
}

/// What one connection knows and sends.
#[derive(Clone)]
pub(crate) struct Cookies {
    peer: Arc<Peer>,
    version: u32,
    known: Known,
}

impl Cookies {
    pub(super) fn new(peer: Arc<Peer>) -> Cookies {
        let (version, known) = (peer.version.load(Ordering::Acquire), *peer.known.lock());
        Cookies { peer, version, known }
    }

    /// The data of the option that goes with a query now. A query that is `repeated` goes without where nothing is known of
    /// the server: it may be the option that it does not answer.
    pub(super) fn option(&mut self, repeated: bool, now: Instant) -> Option<&[u8]> {
        self.catch_up();
        match self.known.speaks {
            Speaks::No { until } if now < until => return None,
            // The same client cookie must not go there again (RFC 9018 section 3).
            Speaks::No { .. } => self.change(|known| *known = Known::new()),
            Speaks::Yes { at } if now.saturating_duration_since(at) >= FORGET => {
                self.change(|known| *known = Known::new());
            }
            Speaks::Yes { .. } | Speaks::Unknown => {}
        }
        let sends = !(repeated && self.known.speaks == Speaks::Unknown);
        sends.then_some(&self.known.cookie[..self.known.length])
    }

    /// Judges the cookie of an answer to a query that went with one, and learns from it. `cookie` is the data of the answer's
    /// first COOKIE option. Over a `connection` an answer without shows that the server gave cookies up.
    pub(super) fn check(&mut self, cookie: Option<&[u8]>, renew: bool, connection: bool, now: Instant) -> Verdict {
        self.catch_up();
        match cookie {
            // An echo of what we sent is the answer of a server that does not know the option.
            Some(cookie) if cookie.len() > CLIENT || cookie != &self.known.cookie[..CLIENT] => {
                self.check_present(cookie, renew, now)
            }
            _ => match self.known.speaks {
                Speaks::Yes { .. } if !connection => Verdict::Missing,
                Speaks::Yes { .. } | Speaks::Unknown => {
                    self.lacks(now);
                    Verdict::Good
                }
                Speaks::No { .. } => Verdict::Good,
            },
        }
    }

    fn check_present(&mut self, cookie: &[u8], renew: bool, now: Instant) -> Verdict {
        if !(SERVER_MIN + CLIENT..=COOKIE_MAX).contains(&cookie.len())
            || cookie[..CLIENT] != self.known.cookie[..CLIENT]
        {
            return Verdict::Wrong;
        }
        // Server cookies stay good for an hour (RFC 9018 section 4.3), and some servers give another one with each answer.
        let fresh = matches!(self.known.speaks, Speaks::Yes { at } if now.saturating_duration_since(at) < RENEW);
        if renew || !fresh {
            self.change(|known| {
                known.cookie[..cookie.len()].copy_from_slice(cookie);
                known.length = cookie.len();
                known.speaks = Speaks::Yes { at: now };
            });
        }
        Verdict::Good
    }

    /// The server does not speak cookies: it is left alone with them for a while.
    pub(super) fn lacks(&mut self, now: Instant) {
        self.change(|known| known.speaks = Speaks::No { until: now + PAUSE });
    }

    /// An answer came to a query without a cookie; where those with one had none, they are not what it likes.
    pub(super) fn answered_without(&mut self, now: Instant) {
        self.catch_up();
        if self.known.speaks == Speaks::Unknown {
            self.lacks(now);
        }
    }

    fn catch_up(&mut self) {
        let version = self.peer.version.load(Ordering::Acquire);
        if version != self.version {
            (self.version, self.known) = (version, *self.peer.known.lock());
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Known)) {
        // The number is caught up with at the next use: another may have come between.
        self.known = self.peer.change(change);
    }
}

/// Bytes of a client cookie (RFC 7873 section 4).
const CLIENT: usize = 8;

/// Fewest bytes of a server cookie (RFC 7873 section 4).
const SERVER_MIN: usize = 8;

/// Most bytes of both (RFC 7873 section 4).
const COOKIE_MAX: usize = 40;

/// Addresses of one upstream, at most.
const PEERS_MAX: usize = 64;

/// For how long a server that does not speak cookies gets none (RFC 9018 section 3: "for example, five minutes").
const PAUSE: Duration = Duration::from_secs(300);

/// A server that has not shown a right cookie for so long is one that nothing is known of. It bounds how long a server that
/// gave cookies up, and does not listen on TCP, is not understood.
const FORGET: Duration = Duration::from_secs(300);

/// How often a server cookie that still serves is replaced by a newer one.
const RENEW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn jar() -> (Jar, impl Fn(&Jar) -> Cookies) {
        let open = |jar: &Jar| Cookies::new(jar.peer([127, 0, 0, 1].into(), ([127, 0, 0, 2], 53).into()));
        (Jar::default(), open)
    }

    /// The answer's cookie: the client's, then a server's.
    fn full(client: &[u8], server: u8) -> Vec<u8> {
        [&client[..8], &[server; 16]].concat()
    }

    #[test]
    fn each_pair_of_addresses_has_a_client_cookie_of_its_own() {
        let (jar, now) = (Jar::default(), origin());
        let mut sent = std::collections::HashSet::new();
        for (local, peer) in [(1, 2), (1, 3), (4, 2)] {
            let mut cookies = Cookies::new(jar.peer([127, 0, 0, local].into(), ([127, 0, 0, peer], 53).into()));
            let cookie = cookies.option(false, now).unwrap();
            assert_eq!(cookie.len(), 8);
            sent.insert(cookie.to_vec());
        }
        assert_eq!(sent.len(), 3);
    }

    #[test]
    fn a_server_cookie_that_one_connection_learns_is_sent_by_all() {
        let ((jar, open), now) = (jar(), origin());
        let (mut a, mut b) = (open(&jar), open(&jar));
        let client = a.option(false, now).unwrap().to_vec();
        assert_eq!(a.check(Some(&full(&client, 7)), false, false, now), Verdict::Good);
        assert_eq!(b.option(false, now).unwrap(), full(&client, 7));
        assert_eq!(open(&jar).option(true, now).unwrap(), full(&client, 7));
        assert_eq!(jar.speaks(), "yes");
    }

    #[test]
    fn an_answer_with_a_wrong_cookie_or_none_is_discarded_where_cookies_are_spoken() {
        let ((jar, open), now) = (jar(), origin());
        let mut cookies = open(&jar);
        let client = cookies.option(false, now).unwrap().to_vec();
        let good = full(&client, 7);
        let other = full(&[9; 8], 7);
        for wrong in [&good[..9], &good[..15], &[0; 41], &other, &other[..8], &good[..7], &[]] {
            assert_eq!(cookies.check(Some(wrong), false, false, now), Verdict::Wrong, "{wrong:?}");
        }
        assert_eq!(cookies.check(Some(&good), false, false, now), Verdict::Good);
        assert_eq!(cookies.check(None, false, false, now), Verdict::Missing);
        assert_eq!(cookies.check(Some(&client), false, false, now), Verdict::Missing, "an echo is none");
        assert!(cookies.option(false, now).is_some(), "and it is still one that speaks them");
        assert_eq!(cookies.check(None, false, true, now), Verdict::Good, "over TCP that is its word");
        assert_eq!(cookies.option(false, now), None);
    }

    #[test]
    fn a_server_without_cookies_is_asked_again_after_five_minutes_with_a_new_one() {
        let ((jar, open), now) = (jar(), origin());
        let mut cookies = open(&jar);
        let first = cookies.option(false, now).unwrap().to_vec();
        assert_eq!(cookies.check(None, false, false, now), Verdict::Good);
        assert!(jar.peer([127, 0, 0, 1].into(), ([127, 0, 0, 2], 53).into()).is_quiet(now));
        assert_eq!(cookies.option(false, now + PAUSE - Duration::from_millis(1)), None);
        let second = cookies.option(false, now + PAUSE).unwrap().to_vec();
        assert_ne!(first, second);
        assert_eq!(open(&jar).option(false, now + PAUSE).unwrap(), second);
    }

    #[test]
    fn silence_is_met_without_a_cookie_and_an_answer_to_that_ends_them() {
        let ((jar, open), now) = (jar(), origin());
        let mut cookies = open(&jar);
        assert!(cookies.option(false, now).is_some());
        assert_eq!(cookies.option(true, now), None);
        cookies.answered_without(now);
        assert_eq!(cookies.option(false, now), None);
        assert_eq!(jar.speaks(), "no");
    }

    #[test]
    fn a_new_server_cookie_is_taken_on_demand_or_after_a_while() {
        let ((jar, open), now) = (jar(), origin());
        let mut cookies = open(&jar);
        let client = cookies.option(false, now).unwrap().to_vec();
        cookies.check(Some(&full(&client, 1)), false, false, now);
        cookies.check(Some(&full(&client, 2)), false, false, now);
        assert_eq!(cookies.option(false, now).unwrap(), full(&client, 1));
        cookies.check(Some(&full(&client, 3)), true, false, now);
        assert_eq!(cookies.option(false, now).unwrap(), full(&client, 3));
        cookies.check(Some(&full(&client, 4)), false, false, now + RENEW);
        assert_eq!(cookies.option(false, now + RENEW).unwrap(), full(&client, 4));
        let forgotten = cookies.option(false, now + RENEW + FORGET).unwrap();
        assert!(forgotten.len() == 8 && forgotten != client);
    }

    #[test]
    fn the_jar_has_a_limit() {
        let jar = Jar::default();
        for port in 0..1000 {
            jar.peer([127, 0, 0, 1].into(), ([127, 0, 0, 2], port).into());
        }
        assert_eq!(jar.peers.lock().len(), PEERS_MAX);
    }
}
