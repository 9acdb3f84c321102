//! What an upstream was found not to bear, so that it is not asked for it again at once: options of ours, and letters in
//! random case (0x20). Each is tried again after a while. Cookies have more to know, see [`Jar`].

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::cookie::Jar;

/// What is known of one upstream, over all its transports.
#[derive(Default)]
pub(crate) struct Habits {
    /// The cookies of its addresses.
    pub(crate) jar: Jar,
    /// It refuses queries with options of ours that it takes without.
    plain: Pause,
    /// It changes the case of letters.
    recased: Pause,
    /// Answers in a row whose case was changed.
    case_misses: AtomicU32,
}

impl Habits {
    /// Whether its queries go without anything added.
    pub(crate) fn is_plain(&self, now: Instant) -> bool {
        self.plain.lasts(now)
    }

    /// It refused a query with options of ours and took the same query without. `true` when that was not known.
    pub(crate) fn refused_options(&self, now: Instant) -> bool {
        !self.plain.begin(now + PLAIN)
    }

    /// Whether letters may be sent in random case.
    pub(crate) fn keeps_case(&self, now: Instant) -> bool {
        !self.recased.lasts(now)
    }

    /// An answer came back in the case that was sent.
    pub(crate) fn kept_case(&self) {
        if self.case_misses.load(Ordering::Relaxed) != 0 {
            self.case_misses.store(0, Ordering::Relaxed);
        }
    }

    /// An answer came back in another case, and right in all else. `true` when it was the one too many. After a pause one
    /// more is enough.
    pub(crate) fn changed_case(&self, now: Instant) -> bool {
        let misses = self.case_misses.load(Ordering::Relaxed).saturating_add(1).min(CASE_MISSES_MAX);
        self.case_misses.store(misses, Ordering::Relaxed);
        misses >= CASE_MISSES_MAX && !self.recased.begin(now + RECASED)
    }
}

/// Something is left off until a time. The flag spares the lock as a rule.
#[derive(Default)]
struct Pause {
    on: AtomicBool,
    until: Mutex<Option<Instant>>,
}

impl Pause {
    fn lasts(&self, now: Instant) -> bool {
        if !self.on.load(Ordering::Relaxed) {
            return false;
        }
        let lasts = self.until.lock().is_some_and(|until| now < until);
        self.on.store(lasts, Ordering::Relaxed);
        lasts
    }

    /// Returns whether it had begun before.
    fn begin(&self, until: Instant) -> bool {
        *self.until.lock() = Some(until);
        self.on.swap(true, Ordering::Relaxed)
    }
}

/// For how long an upstream that refuses options gets none.
const PLAIN: Duration = Duration::from_secs(300);

/// For how long an upstream that changes the case of letters gets them as clients sent them.
const RECASED: Duration = Duration::from_secs(3600);

/// So many answers in a row in another case show that the upstream does not keep it. An off-path attacker who wanted to turn
/// 0x20 off would have to guess port and id so often without a right answer in between.
const CASE_MISSES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn three_answers_in_a_row_in_another_case_turn_it_off_for_an_hour() {
        let (habits, now) = (Habits::default(), origin());
        assert!(!habits.changed_case(now) && !habits.changed_case(now));
        habits.kept_case();
        assert!(!habits.changed_case(now) && !habits.changed_case(now));
        assert!(habits.keeps_case(now));
        assert!(habits.changed_case(now), "said once");
        assert!(!habits.changed_case(now), "and not again by those still in flight");
        assert!(!habits.keeps_case(now + RECASED / 2));
        assert!(habits.keeps_case(now + RECASED));
        assert!(habits.changed_case(now + RECASED), "one more is enough");
        assert!(!habits.keeps_case(now + RECASED));
    }

    #[test]
    fn an_upstream_that_refuses_options_is_tried_again_with_them_later() {
        let (habits, now) = (Habits::default(), origin());
        assert!(!habits.is_plain(now));
        assert!(habits.refused_options(now) && !habits.refused_options(now));
        assert!(habits.is_plain(now + PLAIN - Duration::from_millis(1)));
        assert!(!habits.is_plain(now + PLAIN));
    }
}
