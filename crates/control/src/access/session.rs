//! Sessions of browsers, which cannot send a header with a link: a random name in a cookie, in exchange for the token.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Token;

/// The sessions that are open, at most [`SESSIONS_MAX`], and how many logins failed lately.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<VecDeque<Session>>,
    failed: Mutex<VecDeque<Instant>>,
}

#[derive(Debug)]
struct Session {
    id: Token,
    used: Instant,
}

impl Sessions {
    /// Opens one and returns its name. The one that was not used for longest gives way.
    pub(crate) fn open(&self) -> String {
        let id = Token::random();
        let name = id.as_str().to_owned();
        let mut open = self.open.lock();
        if open.len() >= SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(Session { id, used: Instant::now() });
        name
    }

    /// Whether there is one of this name; it then is in use for another [`IDLE_MAX`].
    pub(crate) fn knows(&self, name: &str) -> bool {
        let (mut open, now) = (self.open.lock(), Instant::now());
        open.retain(|session| now - session.used < IDLE_MAX);
        let Some(at) = open.iter().position(|session| session.id.is(name)) else { return false };
        if let Some(mut session) = open.remove(at) {
            session.used = now;
            open.push_back(session);
        }
        true
    }

    /// Whether there was one of this name.
    pub(crate) fn close(&self, name: &str) -> bool {
        let mut open = self.open.lock();
        let before = open.len();
        open.retain(|session| !session.id.is(name));
        open.len() < before
    }

    pub(crate) fn clear(&self) {
        self.open.lock().clear();
    }

    /// Whether another login may be tried: not while too many failed lately.
    pub(crate) fn may_try(&self) -> bool {
        let (mut failed, now) = (self.failed.lock(), Instant::now());
        failed.retain(|at| now - *at < FAILED_FOR);
        failed.len() < FAILED_MAX
    }

    pub(crate) fn failed(&self) {
        let mut failed = self.failed.lock();
        if failed.len() < FAILED_MAX {
            failed.push_back(Instant::now());
        }
    }
}

const SESSIONS_MAX: usize = 64;
const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Logins that may fail within [`FAILED_FOR`].
const FAILED_MAX: usize = 5;
const FAILED_FOR: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_are_few_and_end_when_nobody_uses_them() {
        let sessions = Sessions::default();
        let first = sessions.open();
        assert!(sessions.knows(&first) && !sessions.knows("other"));
        tokio::time::advance(IDLE_MAX / 2).await;
        assert!(sessions.knows(&first));
        tokio::time::advance(IDLE_MAX / 2).await;
        assert!(sessions.knows(&first), "it was used meanwhile");
        (0..SESSIONS_MAX).for_each(|_| drop(sessions.open()));
        assert!(!sessions.knows(&first), "the oldest gave way");
        let last = sessions.open();
        tokio::time::advance(IDLE_MAX).await;
        assert!(!sessions.knows(&last));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_is_slow() {
        let sessions = Sessions::default();
        (0..FAILED_MAX).for_each(|_| sessions.failed());
        assert!(!sessions.may_try());
        tokio::time::advance(FAILED_FOR).await;
        assert!(sessions.may_try());
    }
}
