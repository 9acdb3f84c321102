//! Who may use the listeners, by user and password, whatever the protocol.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::config::User;

/// The users of the listeners. Passwords are not kept, only digests.
pub(crate) struct Users(Vec<digest::Digest>);

impl Users {
    pub(crate) fn new(users: &[User]) -> Users {
        Users(users.iter().map(|user| hash(user.name.as_bytes(), user.password.as_bytes())).collect())
    }

    /// Whether nobody is asked who they are.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is this user with this password. It takes as long for all users, whoever it is. Nobody is known where there are none.
    pub(crate) fn check(&self, name: &[u8], password: &[u8]) -> bool {
        let given = hash(name, password);
        self.0.iter().fold(false, |known, user| {
            known | constant_time::verify_slices_are_equal(user.as_ref(), given.as_ref()).is_ok()
        })
    }

    /// The same for a header's value of the Basic scheme (RFC 7617 section 2).
    pub(crate) fn check_basic(&self, header: &[u8]) -> bool {
        basic(header).is_some_and(|(name, password)| self.check(&name, &password))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.0.len()).finish()
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
    fn nothing_of_a_user_is_shown() {
        assert_eq!(format!("{:?}", users()), "Users(2)");
    }
}
