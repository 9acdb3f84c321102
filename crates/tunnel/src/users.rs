//! Who may use the listeners, by user and password, whatever the protocol, and who was refused.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time, digest};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{config::User, server::ClientInfo};

/// The users of the listeners. Of passwords only digests are kept here.
pub(crate) struct Users {
    known: Vec<digest::Digest>,
    /// By listener.
    refused: Mutex<Vec<Refused>>,
}

/// Names and passwords that a listener did not accept.
#[derive(Debug, Clone, Copy, Default)]
struct Refused {
    /// Since the last warning.
    count: u64,
    warned: Option<Instant>,
}

impl Users {
    pub(crate) fn new(users: &[User]) -> Users {
        let known = users.iter().map(|user| hash(user.name.as_bytes(), user.password.as_bytes())).collect();
        Users { known, refused: Mutex::default() }
    }

    /// Whether nobody is asked who they are.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether there is this user with this password. It takes as long for all users, whoever it is. Nobody is known where there are none.
    pub(crate) fn check(&self, name: &[u8], password: &[u8]) -> bool {
        let given = hash(name, password);
        self.known.iter().fold(false, |known, user| {
            known | constant_time::verify_slices_are_equal(user.as_ref(), given.as_ref()).is_ok()
        })
    }

    /// The same for a header's value of the Basic scheme (RFC 7617 section 2).
    pub(crate) fn check_basic(&self, header: &[u8]) -> bool {
        basic(header).is_some_and(|(name, password)| self.check(&name, &password))
    }

    /// Warns that names or passwords are refused: at most once a minute for each listener, with how many there were and the last client.
    pub(crate) fn warn_refused(&self, client: ClientInfo) {
        if let Some(count) = self.refused(client.listener, Instant::now()) {
            tracing::warn!(listener = client.listener, client = %client.peer, count, "wrong users or passwords were refused");
        }
    }

    /// Counts one; how many there were since the last warning, if it is time for one.
    pub(crate) fn refused(&self, listener: usize, now: Instant) -> Option<u64> {
        let mut listeners = self.refused.lock();
        if listeners.len() <= listener {
            listeners.resize(listener + 1, Refused::default());
        }
        let refused = &mut listeners[listener];
        refused.count += 1;
        if refused.warned.is_some_and(|warned| now - warned < WARN_EVERY) {
            return None;
        }
        refused.warned = Some(now);
        Some(std::mem::take(&mut refused.count))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.known.len()).finish()
    }
}

/// The length keeps `a` and `b:c` apart from `a:b` and `c`: SOCKS names may have colons.
fn hash(name: &[u8], password: &[u8]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&name.len().to_be_bytes());
    context.update(name);
    context.update(password);
    context.finish()
}

fn basic(header: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let header = header.trim_ascii();
    let (scheme, rest) = header.split_at(header.iter().position(|byte| *byte == b' ')?);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut name = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.truncate(colon);
    Some((name, password))
}

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Time between two warnings of a listener.
const WARN_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn users() -> Users {
        let user = |name: &str, password: &str| User { name: name.to_owned(), password: password.to_owned() };
        Users::new(&[user("ann", "one"), user("bob", "two:3")])
    }

    #[test]
    fn users_are_known_by_name_and_password() {
        let users = users();
        assert!(users.check(b"ann", b"one") && users.check(b"bob", b"two:3"));
        for (name, password) in
            [("ann", "two:3"), ("ann", ""), ("", "one"), ("", ""), ("bob:two", "3"), ("annone", ""), ("Ann", "one")]
        {
            assert!(!users.check(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        assert!(!Users::new(&[]).check(b"", b""));
    }

    #[test]
    fn basic_is_read_as_clients_write_it() {
        let users = users();
        let encoded = STANDARD.encode("bob:two:3");
        for header in [
            format!("Basic {encoded}"),
            format!("bAsIc   {encoded} "),
            format!("Basic {}", encoded.trim_end_matches('=')),
            format!("Basic {}", STANDARD.encode("ann:one")),
        ] {
            assert!(users.check_basic(header.as_bytes()), "{header}");
        }
        for header in [
            String::new(),
            "Basic".to_owned(),
            "Basic ".to_owned(),
            "Basic !!!".to_owned(),
            format!("Bearer {encoded}"),
            format!("Basic {encoded}{encoded}"),
            format!("Basic {}", STANDARD.encode("bob")),
            format!("Basic {}", STANDARD.encode("bob:two:3\0")),
            format!("Basic {}", STANDARD.encode(":")),
        ] {
            assert!(!users.check_basic(header.as_bytes()), "{header}");
        }
    }

    #[test]
    fn refusals_are_told_once_a_minute_for_each_listener() {
        let (users, start) = (users(), Instant::now());
        let refused = |listener, seconds| users.refused(listener, start + Duration::from_secs(seconds));
        assert_eq!(refused(1, 0), Some(1));
        for second in 0..59 {
            assert_eq!(refused(1, second), None);
        }
        assert_eq!(refused(0, 30), Some(1));
        assert_eq!(refused(1, 60), Some(60));
        assert_eq!((refused(1, 119), refused(0, 90)), (None, Some(1)));
    }

    #[test]
    fn nothing_of_a_user_is_shown() {
        assert_eq!(format!("{:?}", users()), "Users(2)");
    }
}
