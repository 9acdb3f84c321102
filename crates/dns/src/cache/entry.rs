//! One kept answer: laid out so that a hit is a copy and a few patches.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use smallvec::SmallVec;
use triomphe::ThinArc;

use super::{
    key::{Key, same_question},
    policy::{Kind, Policy},
};
use crate::message::{
    ClientView, Header, TYPE_OPT, TYPE_SIG, TYPE_TSIG, address, answer_matches, copy_options, ede, kept_options,
    push_opt, shorten, verify_answer,
    wire::{Records, plain_name_end, put_u16, question_end, u16_at},
};

/// An answer in one allocation, shared by the store and those who render it.
///
/// Its bytes are the message without OPT and with id 0, then the offsets of its TTLs (16 bits each), then the options of OPT
/// that are not hop-by-hop, then the client subnet option of its key.
#[derive(Clone)]
pub(super) struct Entry(ThinArc<Head, u8>);

struct Head {
    born: Instant,
    /// Until this age, in milliseconds, upstreams are not asked again.
    hold_until: AtomicU64,
    /// Seconds.
    lifetime: u32,
    message: u16,
    /// Where the additional section begins.
    additional: u16,
    ttls: u16,
    options: u16,
    key_flags: u16,
    key_edns_flags: u16,
    /// Of OPT, DO among them.
    opt_flags: u16,
    kind: Kind,
    clamped: bool,
    /// Hits so far, up to the number that makes it popular.
    hits: AtomicU8,
    /// The refresh ahead of the end was asked for.
    prefetched: AtomicBool,
}

/// The bytes of an entry.
struct Parts<'a> {
    message: &'a [u8],
    /// Offsets in the message.
    ttls: &'a [[u8; 2]],
    options: &'a [u8],
    subnet: &'a [u8],
}

impl Entry {
    /// `None` when the answer may not be kept.
    pub(super) fn new(key: &Key<'_>, query: &[u8], answer: &[u8], policy: &Policy, now: Instant) -> Option<Entry> {
        let header = Header::read(answer)?;
        if answer.len() > usize::from(u16::MAX) || !answer_matches(query, answer, false, false) {
            return None;
        }
        let kind = Policy::kind(answer, header, verify_answer(answer).ok()?)?;
        let layout = Layout::of(answer, header, kind, policy)?;
        let lifetime = Policy::lifetime(kind, layout.ttls.iter().map(|(_, ttl)| *ttl).min())?;
        // On the stack as a rule, so that an entry costs one allocation.
        let mut bytes: SmallVec<[u8; 1024]> =
            SmallVec::with_capacity(answer.len() + 2 * layout.ttls.len() + key.subnet().len());
        layout.copy(answer, &mut bytes);
        for (at, _) in &layout.ttls {
            bytes.extend_from_slice(&at.to_be_bytes());
        }
        let (options, opt_flags) = match &layout.opt {
            Some((flags, rdata)) => (kept_options(answer, rdata, |option| bytes.extend_from_slice(option)), *flags),
            None => (0, key.edns_flags() & DO),
        };
        bytes.extend_from_slice(key.subnet());
        let head = Head {
            born: now,
            hold_until: AtomicU64::new(0),
            lifetime,
            message: layout.end,
            additional: layout.additional,
            ttls: u16::try_from(layout.ttls.len()).ok()?,
            options,
            key_flags: key.flags(),
            key_edns_flags: key.edns_flags(),
            opt_flags,
            kind,
            clamped: layout.clamped,
            hits: AtomicU8::new(0),
            prefetched: AtomicBool::new(false),
        };
        Some(Entry(ThinArc::from_header_and_slice(head, &bytes)))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn parts(&self) -> Parts<'_> {
        let head = self.head();
        let (message, rest) = self.0.slice.split_at(head.message.into());
        let (ttls, rest) = rest.split_at(2 * usize::from(head.ttls));
        let (options, subnet) = rest.split_at(head.options.into());
        Parts { message, ttls: ttls.as_chunks().0, options, subnet }
    }

    /// Whether it answers a query of this key: a hash alone does not tell.
    pub(super) fn is_of(&self, key: &Key<'_>) -> bool {
        let head = self.head();
        let Parts { message, subnet, .. } = self.parts();
        let question = message.get(Header::LEN..Header::LEN + key.question().len());
        head.key_flags == key.flags()
            && head.key_edns_flags == key.edns_flags()
            && question.is_some_and(|question| same_question(question, key.question()))
            && subnet == key.subnet()
    }

    /// Whether the question is about this name, in any case.
    pub(super) fn is_about(&self, name: &[u8]) -> bool {
        let message = self.parts().message;
        let end = plain_name_end(message, Header::LEN);
        end.is_some_and(|end| message[Header::LEN..end].eq_ignore_ascii_case(name))
    }

    pub(super) fn is_same(&self, other: &Entry) -> bool {
        std::ptr::eq(self.0.ptr(), other.0.ptr())
    }

    /// Whether a TTL was changed when it was kept.
    pub(super) fn is_clamped(&self) -> bool {
        self.head().clamped
    }

    pub(super) fn is_failure(&self) -> bool {
        self.head().kind == Kind::Failure
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.head().born)
    }

    /// The age of its end.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.head().lifetime.into())
    }

    /// Whether at this age it may be given to anybody, fresh or stale. A failure is never stale.
    pub(super) fn serves(&self, age: Duration, stale: Duration) -> bool {
        let stale = if self.is_failure() { Duration::ZERO } else { stale };
        age < self.lifetime().saturating_add(stale)
    }

    /// Upstreams failed now (RFC 8767 section 5, the failure recheck timer).
    pub(super) fn hold(&self, now: Instant) {
        self.head().hold_until.store(millis(self.age(now) + RECHECK), Relaxed);
    }

    /// Whether upstreams are not to be asked at this age.
    pub(super) fn holds(&self, age: Duration) -> bool {
        millis(age) < self.head().hold_until.load(Relaxed)
    }

    /// Counts a hit; whether this is the one that asks for a refresh. Hot entries are not written to, so that their cache
    /// line does not wander between cores.
    pub(super) fn wants_prefetch(&self, age: Duration) -> bool {
        let head = self.head();
        if head.hits.load(Relaxed) < POPULAR {
            // Two that count at once may pass the threshold, which is far from the type's end.
            head.hits.fetch_add(1, Relaxed);
            return false;
        }
        let lifetime = self.lifetime();
        age >= lifetime - lifetime / 10
            && !self.is_failure()
            && !head.prefetched.load(Relaxed)
            && !head.prefetched.swap(true, Relaxed)
    }

    /// Appends the message for a client to the empty `out`, with TTLs counted down.
    pub(super) fn render(&self, view: &ClientView, question: &[u8], age: Duration, out: &mut Vec<u8>) {
        let age = seconds(age);
        self.render_with(view, question, |ttl| ttl.saturating_sub(age), None, out);
    }

    /// As [`render`](Self::render), past the end.
    pub(super) fn render_stale(&self, view: &ClientView, question: &[u8], age: Duration, out: &mut Vec<u8>) {
        let age = seconds(age);
        let reason = if self.head().kind == Kind::NxDomain { EDE_STALE_NXDOMAIN } else { EDE_STALE };
        let ttl = |ttl: u32| match ttl.saturating_sub(age) {
            0 => STALE_TTL,
            left => left.min(STALE_TTL),
        };
        self.render_with(view, question, ttl, Some(reason), out);
    }

    fn render_with(
        &self,
        view: &ClientView,
        question: &[u8],
        ttl: impl Fn(u32) -> u32,
        reason: Option<u16>,
        out: &mut Vec<u8>,
    ) {
        let head = self.head();
        let Parts { message, ttls, options, .. } = self.parts();
        out.extend_from_slice(message);
        for &at in ttls {
            let at = usize::from(u16::from_be_bytes(at));
            if let Some(place) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
                *place = ttl(u32::from_be_bytes(*place)).to_be_bytes();
            }
        }
        address(out, view, question);
        if view.speaks_edns() {
            let start = out.len();
            push_opt(out, view.payload_size(), 0, false);
            put_u16(out, start + 7, head.opt_flags);
            let kept = if options.is_empty() || view.hears_subnet() {
                out.extend_from_slice(options);
                head.options
            } else {
                copy_options(options, &(0..options.len()), false, out)
            };
            let added = reason.map_or(0, |code| ede(out, code, ""));
            put_u16(out, start + 9, kept + added);
            put_u16(out, 10, u16_at(message, 10).unwrap_or(0) + 1);
        }
        shorten(out, question.len(), head.additional.into(), 0, view);
    }

    /// Bytes of its allocation.
    pub(super) fn size(&self) -> usize {
        // The counter and the length of the slice stand before the head.
        2 * size_of::<usize>() + size_of::<Head>() + self.0.slice.len()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head();
        f.debug_struct("Entry").field("kind", &head.kind).field("lifetime", &head.lifetime).finish_non_exhaustive()
    }
}

/// Where the parts of an answer are that is to be kept.
struct Layout {
    /// The first byte that is not kept.
    end: u16,
    additional: u16,
    /// Records of the additional section that are kept.
    additionals: u16,
    /// Where a TTL is, and what it is to be.
    ttls: SmallVec<[(u16, u32); 16]>,
    /// One of them is not the upstream's.
    clamped: bool,
    /// Flags and data of OPT.
    opt: Option<(u16, std::ops::Range<usize>)>,
}

impl Layout {
    /// `None` when the answer is malformed, too long, or signed for one client.
    fn of(answer: &[u8], header: Header, kind: Kind, policy: &Policy) -> Option<Layout> {
        let answers = usize::from(header.answers());
        let others = answers + usize::from(header.authorities());
        let mut at = question_end(answer, Header::LEN)?;
        let mut layout =
            Layout { end: 0, additional: 0, additionals: 0, ttls: SmallVec::new(), clamped: false, opt: None };
        if others == 0 {
            layout.additional = u16::try_from(at).ok()?;
        }
        for (number, record) in Records::of(answer).ok()?.enumerate() {
            let record = record.ok()?;
            match record.rtype {
                TYPE_TSIG | TYPE_SIG => return None,
                TYPE_OPT => {
                    // What follows OPT goes with it: names there may point behind it, and additional records are a courtesy.
                    layout.opt = Some((u16_at(answer, record.name_end + 6)?, record.rdata));
                    break;
                }
                _ => {}
            }
            at = record.end();
            let ttl = policy.ttl(kind, answer, &record, (answers..others).contains(&number))?;
            layout.clamped |= ttl != record.ttl;
            layout.ttls.push((u16::try_from(record.name_end + 4).ok()?, ttl));
            if number + 1 == others {
                layout.additional = u16::try_from(at).ok()?;
            }
            layout.additionals += u16::from(number >= others);
        }
        // OPT in another section than the additional one: whatever that is.
        (layout.ttls.len() >= others).then_some(())?;
        layout.end = u16::try_from(at).ok()?;
        Some(layout)
    }

    /// Appends what is kept of the message to the empty `out`.
    fn copy(&self, answer: &[u8], out: &mut SmallVec<[u8; 1024]>) {
        out.extend_from_slice(&answer[..self.end.into()]);
        put_u16(out, 0, 0);
        put_u16(out, 10, self.additionals);
        for (at, ttl) in &self.ttls {
            let at = usize::from(*at);
            out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
    }
}

fn seconds(age: Duration) -> u32 {
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// Hits that make an entry popular enough to be refreshed ahead of its end.
const POPULAR: u8 = 2;

/// RFC 8767 section 5: "no more frequently than every 30 seconds".
const RECHECK: Duration = Duration::from_secs(30);

/// RFC 8767 section 4, in seconds.
const STALE_TTL: u32 = 30;

/// "Stale Answer" (RFC 8914 section 4.4).
const EDE_STALE: u16 = 3;

/// "Stale NXDOMAIN Answer" (RFC 8914 section 4.20).
const EDE_STALE_NXDOMAIN: u16 = 19;

/// RFC 3225.
const DO: u16 = 0x8000;
