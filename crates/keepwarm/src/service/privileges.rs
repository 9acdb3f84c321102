//! What `--user` comes to on this system.

use crate::cli::RunArgs;

/// Who the daemon is once its listeners are bound.
#[derive(Debug)]
pub struct Privileges {
    #[cfg(unix)]
    identity: Option<super::user::Identity>,
}

impl Privileges {
    /// Looks up whom to become, before anything is started.
    ///
    /// # Errors
    /// When there is no such user or group, or it is root.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there is no user to become"))]
    pub fn look_up(args: &RunArgs) -> anyhow::Result<Privileges> {
        Ok(Privileges {
            #[cfg(unix)]
            identity: args.user.as_deref().map(super::user::Identity::look_up).transpose()?,
        })
    }

    /// Becomes that user. Who stays root is warned.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give_up(&self) -> anyhow::Result<()> {
        #[cfg(unix)]
        match &self.identity {
            Some(identity) => {
                identity.take_on()?;
                tracing::info!(user = %identity, "root given up: low ports cannot be bound any more");
            }
            None if super::user::is_root() => {
                tracing::warn!(
                    "running as root, which nothing here needs: use --user, or a service manager that drops it"
                );
            }
            None => {}
        }
        Ok(())
    }
}
