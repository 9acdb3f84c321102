//! Looks at the config file, and reloads when it has changed and stays as it is.
//!
//! By its content, not by events of the file system: editors, `mv` and Kubernetes replace files in ways that differ, and a look every two
//! seconds costs nothing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::Weak,
    time::Duration,
};

use keepwarm_control::Control;

/// Reloads until the control plane goes. A file that cannot be read is left alone until it can.
pub(super) async fn watch(path: PathBuf, control: Weak<Control>) {
    let mut looks = Looks::new(look(&path).await);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = look(&path).await;
        let Some(control) = control.upgrade() else { return };
        if looks.is_another(now) {
            tracing::info!(file = %path.display(), "the config file has changed");
            // What became of it is in the log.
            let _ = control.reload().await;
        }
    }
}

/// What was seen of a file.
struct Looks {
    /// What is in force, or was refused.
    known: Option<u64>,
    /// Another content, at the last look.
    seen: Option<u64>,
}

impl Looks {
    fn new(known: Option<u64>) -> Looks {
        Looks { known, seen: None }
    }

    /// Whether the file has another content than before, and had it at the last look: then nobody is writing it any more.
    fn is_another(&mut self, now: Option<u64>) -> bool {
        let is_still = now == self.seen;
        self.seen = now;
        if now.is_none() || now == self.known || !is_still {
            return false;
        }
        self.known = now;
        true
    }
}

async fn look(path: &Path) -> Option<u64> {
    let text = tokio::fs::read(path).await.ok()?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(hasher.finish())
}

const EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_still_being_written_is_waited_for() {
        let mut looks = Looks::new(Some(1));
        assert!(!looks.is_another(Some(1)));
        assert!(!looks.is_another(Some(2)), "it may not be whole");
        assert!(!looks.is_another(Some(3)));
        assert!(looks.is_another(Some(3)));
        assert!(!looks.is_another(Some(3)), "once");
        assert!(!looks.is_another(None) && !looks.is_another(None), "it has gone");
        assert!(!looks.is_another(Some(3)), "and is back as it was");
        assert!(!looks.is_another(Some(1)));
        assert!(looks.is_another(Some(1)), "back to what was before is another content too");
    }
}
