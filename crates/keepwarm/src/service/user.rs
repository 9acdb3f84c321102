//! Giving up root, where no service manager did: listeners are bound first, then the process becomes somebody else for good.
//!
//! The calls are libc's, which change every thread of the process; the system calls themselves change the calling thread alone. With
//! root's user goes every capability (capabilities(7)).

use std::{ffi::CString, fmt};

use nix::{
    errno::Errno,
    unistd::{self, Gid, Group, Uid, User},
};

/// Whom to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
    /// Only `gid`, and no other group of the user.
    is_group_alone: bool,
}

/// Why it did not become somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// There is no such user.
    NoUser(String),
    /// There is no such group.
    NoGroup(String),
    /// It is root, which is nobody else.
    IsRoot(String),
    /// The system refused this step.
    Refused {
        /// `setgroups`, `setgid` or `setuid`.
        step: &'static str,
        /// Whom it was to become.
        name: String,
        /// What the system says.
        error: Errno,
    },
    /// It could become root again.
    Reversible,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::NoUser(name) => write!(f, "--user: there is no user `{name}`"),
            UserError::NoGroup(name) => write!(f, "--user: there is no group `{name}`"),
            UserError::IsRoot(name) => write!(f, "--user: `{name}` is root; name a user who may do less"),
            UserError::Refused { step, name, error: Errno::EPERM } => {
                write!(f, "become {name} ({step}): not permitted; only root can become another user")
            }
            UserError::Refused { step, name, error } => write!(f, "become {name} ({step}): {}", error.desc()),
            UserError::Reversible => f.write_str("root was given up and could be had again: not started"),
        }
    }
}

impl std::error::Error for UserError {}

impl Identity {
    /// Looks up `NAME`, who then has all groups of NAME, or `NAME:GROUP`, who then has this group alone.
    ///
    /// # Errors
    /// When there is no such user or group, or it is root.
    pub fn look_up(text: &str) -> Result<Identity, UserError> {
        let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
        let user = User::from_name(name).ok().flatten().ok_or_else(|| UserError::NoUser(name.into()))?;
        let gid = match group {
            None => user.gid,
            Some(group) => {
                let found = Group::from_name(group).ok().flatten();
                found.ok_or_else(|| UserError::NoGroup(group.into()))?.gid
            }
        };
        if user.uid.is_root() || gid.as_raw() == 0 {
            return Err(UserError::IsRoot(text.into()));
        }
        Ok(Identity { name: text.into(), uid: user.uid, gid, is_group_alone: group.is_some() })
    }

    /// Becomes it, in every thread and for good. Nothing happens where the process is it already.
    ///
    /// # Errors
    /// When the system refuses. Some of it may then be done, and the process should end.
    pub fn take_on(&self) -> Result<(), UserError> {
        if (Uid::current(), Uid::effective(), Gid::effective()) == (self.uid, self.uid, self.gid) {
            return Ok(());
        }
        let refused = |step: &'static str| move |error| UserError::Refused { step, name: self.name.clone(), error };
        // In this order: who is no longer root can change no group.
        self.set_groups().map_err(refused("setgroups"))?;
        unistd::setgid(self.gid).map_err(refused("setgid"))?;
        unistd::setuid(self.uid).map_err(refused("setuid"))?;
        if unistd::setuid(Uid::from_raw(0)).is_ok() || unistd::setgid(Gid::from_raw(0)).is_ok() {
            return Err(UserError::Reversible);
        }
        Ok(())
    }

    #[cfg(not(target_vendor = "apple"))]
    fn set_groups(&self) -> nix::Result<()> {
        match CString::new(self.name.as_str()) {
            Ok(name) if !self.is_group_alone => unistd::initgroups(&name, self.gid),
            _ => unistd::setgroups(&[self.gid]),
        }
    }

    // There the kernel asks a directory service for the groups of a user, and takes no list.
    #[cfg(target_vendor = "apple")]
    fn set_groups(&self) -> nix::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether the process may do everything.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_and_root_is_none_to_become() {
        let refused = |text: &str| Identity::look_up(text).unwrap_err().to_string();
        assert_eq!(refused("no-such-user"), "--user: there is no user `no-such-user`");
        assert_eq!(refused("nobody:no-such-group"), "--user: there is no group `no-such-group`");
        assert_eq!(refused("root"), "--user: `root` is root; name a user who may do less");
        assert!(refused("nobody:root").contains("is root"));
        let nobody = Identity::look_up("nobody").unwrap();
        assert!(!nobody.uid.is_root() && !nobody.is_group_alone);
    }
}
