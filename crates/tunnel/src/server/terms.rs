//! What the clients of one listener go by; it outlives the listener.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::users::Users;

/// On which terms clients are in.
#[derive(Default)]
pub(crate) struct Terms {
    /// Whether they came in by a listener that is gone. Tunnels live on; who would ask for another one is to go.
    closing: watch::Sender<bool>,
    /// Once it is gone: who might come last. Those after them may let in everyone, since nobody comes from there any more.
    last: OnceLock<Arc<Users>>,
}

impl Terms {
    /// For a client: true once its listener is gone.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Says who is let in to the end; to be called before other users are in force.
    pub(super) fn leave_at(&self, users: Arc<Users>) {
        // It goes once.
        let _ = self.last.set(users);
    }

    /// Lets the clients know that the listener is gone.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Who is let in; `now` are the users in force, and were asked for before this.
    pub(super) fn users(&self, now: Arc<Users>) -> Arc<Users> {
        self.last.get().cloned().unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    #[test]
    fn who_is_let_in_where_a_listener_is_gone_are_those_who_might_come_last() {
        let ann = User { name: "ann".to_owned(), password: "one".to_owned() };
        let (strict, open) = (Arc::new(Users::new(&[ann])), Arc::new(Users::new(&[])));
        let terms = Terms::default();
        assert!(Arc::ptr_eq(&terms.users(open.clone()), &open));
        terms.leave_at(strict.clone());
        assert!(Arc::ptr_eq(&terms.users(open), &strict));
    }
}
