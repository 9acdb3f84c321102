//! The queries in flight on one connection: an id for each, and the answer that belongs to it.

use std::{
    hash::{BuildHasherDefault, Hasher},
    time::{Duration, Instant},
};

use hashbrown::{HashMap, hash_map::Entry};
use rand::RngExt as _;

use super::{
    super::cookie::{Cookies, Verdict},
    STALLED,
};
use crate::{
    error::{Error, ErrorKind},
    exchange::{Asked, Askers, Batch},
    framing::push_frame,
    message::{self, AnswerOptions, Header},
};

/// The queries in flight on one connection.
pub(super) struct Exchange {
    /// The upstream, in words.
    target: Box<str>,
    waiting: HashMap<u16, Waiting, BuildHasherDefault<IdHasher>>,
    pub(super) askers: Askers,
    pub(super) noticed: Noticed,
    /// Of the queries, where they have any.
    pub(super) cookies: Option<Cookies>,
    /// Something came in that nobody asked for.
    pub(super) stray: bool,
    draining: bool,
}

/// What answers said about their connection, for the pool and the counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// For how long the upstream keeps an idle connection.
    pub(super) idle_limit: Option<Duration>,
    /// Answers that fitted no query.
    pub(super) wrong: u64,
    /// Answers whose cookie was not ours.
    pub(super) cookie_errors: u64,
    /// No new query is to go this way.
    pub(super) drain: bool,
}

struct Waiting {
    asked: Asked,
    since: Instant,
}

impl Exchange {
    pub(super) fn new(target: Box<str>) -> Exchange {
        Exchange {
            target,
            waiting: HashMap::default(),
            askers: Askers::default(),
            noticed: Noticed::default(),
            cookies: None,
            stray: false,
            draining: false,
        }
    }

    /// Frames a batch of queries, each with an id of this connection's own.
    pub(super) fn send(&mut self, batch: &mut Batch, output: &mut Vec<u8>, now: Instant) {
        let mut rng = rand::rng();
        let mut rest = &batch.bytes[..];
        for item in batch.items.drain(..) {
            let (query, others) = rest.split_at(item.len);
            rest = others;
            if self.waiting.len() >= WAITING_MAX || !push_frame(output, query) {
                let text = format!("query to {}: too many in flight", self.target);
                self.askers.fail(&item.asker, item.token, Error::new(ErrorKind::Local, text));
                continue;
            }
            let start = output.len() - query.len();
            let entry = loop {
                if let Entry::Vacant(entry) = self.waiting.entry(rng.random()) {
                    break entry;
                }
            };
            output[start..start + 2].copy_from_slice(&entry.key().to_be_bytes());
            entry.insert(Waiting { asked: item.asked(query), since: now });
        }
    }

    /// RFC 7766 section 7: answers may come out of order, so match on id and question, not on position.
    pub(super) fn receive(&mut self, answer: &[u8], now: Instant) {
        // Options are in the additional section, of which the header tells whether there is one.
        let optional = answer.get(10..12).is_some_and(|additionals| additionals != [0, 0]);
        let options = if optional { message::answer_options(answer) } else { AnswerOptions::default() };
        self.noticed.idle_limit = options.keepalive.or(self.noticed.idle_limit);
        let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            self.stray = true;
            return;
        };
        let Some(Waiting { asked, .. }) = self.waiting.remove(&id) else {
            // A duplicate while others wait is skipped; on an idle connection nothing may come at all.
            self.noticed.wrong += 1;
            self.stray |= self.waiting.is_empty();
            return;
        };
        let text = if !message::answer_matches(&asked.head, answer, false, true) {
            self.noticed.wrong += 1;
            "the answer was to another question"
        } else if !self.is_cookie_ours(options.cookie, answer, now) {
            self.noticed.cookie_errors += 1;
            "the answer had the cookie of another client"
        } else {
            return self.askers.answer(asked.asker, asked.token, answer);
        };
        // The id is ours and the rest is not: this peer mixes answers up, so no new query goes this way.
        self.drain();
        let text = format!("query to {}: {text}", self.target);
        self.askers.fail_later(asked, Error::new(ErrorKind::Mismatch, text).or_fresh());
    }

    fn is_cookie_ours(&mut self, cookie: Option<&[u8]>, answer: &[u8], now: Instant) -> bool {
        let Some(cookies) = &mut self.cookies else { return true };
        // With BADCOOKIE (23) comes the one to use; its lower bits tell, and a cookie more often renewed does no harm.
        let renew = Header::read(answer).is_some_and(|header| header.rcode() == message::BADCOOKIE & 0x0f);
        cookies.check(cookie, renew, true, now) != Verdict::Wrong
    }

    /// Whether the peer has gone silent: queries wait and nothing at all came for `patience`. A little earlier the
    /// connection gets no new queries.
    pub(super) fn silent(&mut self, heard: Instant, now: Instant, patience: Duration) -> bool {
        let Some(oldest) = self.waiting.values().map(|waiting| waiting.since).min() else { return false };
        let silence = now.saturating_duration_since(oldest.max(heard));
        if silence >= STALLED && !self.draining {
            self.drain();
        }
        silence >= patience.max(STALLED * 2)
    }

    fn drain(&mut self) {
        self.draining = true;
        self.noticed.drain = true;
    }

    /// The connection is gone: all that still waits fails.
    pub(super) fn fail(&mut self, error: &Error) {
        for (_, Waiting { asked, .. }) in self.waiting.drain() {
            self.askers.fail(&asked.asker, asked.token, error.clone());
        }
    }
}

/// Spreads ids over the table. They are random already and of our own choosing, so one multiplication does.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u16(byte.into());
        }
    }

    fn write_u16(&mut self, id: u16) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The table looks at the lowest bits too, which a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
}

/// Queries in flight on one connection, given-up ones included.
const WAITING_MAX: usize = 16_384;
