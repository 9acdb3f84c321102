//! Connections through SSH servers: channels of the type `direct-tcpip` (RFC 4254 section 7.2) on a session that knows us.
//!
//! The server's key is always verified, against a fingerprint or a `known_hosts` file. What is deliberately not here: pooling, agents,
//! certificates, passphrases, other programs' configuration, and keys of the type RSA, for which the library has no safe code.
//!
//! A session carries many channels at a time, each with its own bytes, and one after another. They are not independent, though: the
//! library opens a channel's window again when bytes have come and not when they were read, and waits when nobody reads them. A reader
//! that stalls holds up **all** channels of its session, once about 4 MiB wait for it. Whoever serves several clients gives a session to
//! one live tunnel at a time, and uses it again when that has ended: nothing of a channel is left on the session.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration, time::Instant};

use russh::{
    MethodKind, Preferred, SshId, client,
    keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant as Clock, timeout_at},
};

use self::{host_key::Known, session::Watching, stream::Cuttable};
pub use self::{session::SshSession, stream::SshStream};
use crate::{
    error::{Error, ErrorKind, Phase},
    proxy::{self, ProxyTrace},
    resolve::Resolve,
    tcp::TcpOptions,
};

mod host_key;
mod session;
mod stream;

/// An SSH server and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct SshSettings {
    /// Its host name or address, the latter without brackets.
    pub host: String,
    /// Its port, mostly 22.
    pub port: u16,
    /// User.
    pub user: String,
    /// How we prove to be that user; never shown.
    pub auth: SshAuth,
    /// How the server is known.
    pub host_key: HostKey,
}

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum SshAuth {
    /// The file of a private key in OpenSSH's format, Ed25519 or ECDSA, without a passphrase.
    Key(PathBuf),
    /// A password (RFC 4252 section 8).
    Password(String),
}

/// How a server is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKey {
    /// The SHA-256 fingerprint of its key as `ssh-keygen -l` writes it: `SHA256:` and 43 characters.
    Fingerprint(String),
    /// A file in the format of OpenSSH's `known_hosts`, hashed names included; patterns are not looked at, revoked keys are.
    KnownHosts(PathBuf),
}

/// Makes sessions with one server. Clones are handles of the same.
#[derive(Clone)]
pub struct SshClient(Arc<Inner>);

struct Inner {
    settings: SshSettings,
    key: Option<Arc<PrivateKey>>,
    known: Known,
    config: Arc<client::Config>,
}

impl SshClient {
    /// Reads the files of the settings; blocks for as long as that takes. Changes of them show in a new client only.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when a file cannot be read or used, when the fingerprint is none, or when `known_hosts` does not have the
    /// server.
    pub fn new(settings: SshSettings) -> Result<SshClient, Error> {
        let unusable = |happened: String| {
            Error::new(ErrorKind::Other, Phase::Proxy, format!("set up {}", shown(&settings)), happened)
        };
        let key = match &settings.auth {
            SshAuth::Key(path) => Some(Arc::new(load_key(path).map_err(unusable)?)),
            SshAuth::Password(_) => None,
        };
        let known = Known::load(&settings.host_key, &settings.host, settings.port).map_err(unusable)?;
        let config = client::Config {
            client_id: SshId::Standard("SSH-2.0-keepwarm".into()),
            preferred: Preferred { key: known.algorithms().into(), ..Preferred::default() },
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: KEEPALIVES_MAX,
            channel_buffer_size: MESSAGES_MAX,
            nodelay: true,
            ..client::Config::default()
        };
        Ok(SshClient(Arc::new(Inner { settings, key, known, config: Arc::new(config) })))
    }

    /// The settings.
    pub fn settings(&self) -> &SshSettings {
        &self.0.settings
    }

    /// Connects to the server, whose name is looked up by `resolver`, verifies its key and authenticates: `greeting` of the trace.
    /// `deadline` is for everything together.
    ///
    /// # Errors
    /// Those of [`Proxy::open`](proxy::Proxy::open) and [`connect_over`](Self::connect_over).
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Panics
    /// Outside of a tokio runtime: the session is a task.
    pub async fn connect(
        &self,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(SshSession, ProxyTrace), Error> {
        let SshSettings { host, port, .. } = &self.0.settings;
        let tried = format!("connect to {}", shown(&self.0.settings));
        let (stream, trace) = proxy::open(host, *port, &tried, resolver, options, deadline).await?;
        let start = Clock::now();
        let session = self.connect_over(stream, deadline).await?;
        Ok((session, ProxyTrace { greeting: start.elapsed(), ..trace }))
    }

    /// As [`connect`](Self::connect), on a connection to the server that is there: through a proxy.
    ///
    /// # Errors
    /// [`ErrorKind::HostKey`], with both fingerprints, when the server's key is another one; then nothing of ours was shown to it.
    /// [`ErrorKind::ProxyAuth`] when it does not accept us, [`ErrorKind::TimedOut`] in [`Phase::Proxy`] at `deadline`, else
    /// [`ErrorKind::Proxy`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        deadline: Instant,
    ) -> Result<SshSession, Error> {
        let tried = format!("connect to {}", shown(&self.0.settings));
        let start = Clock::now();
        // The library's task would outlive a future that is dropped, for as long as the server keeps silent.
        let (keep, cut) = oneshot::channel();
        match timeout_at(deadline.into(), self.handshake(Cuttable::new(stream, cut), &tried)).await {
            Ok(session) => {
                let session = session?;
                // The task may have ended already: whoever uses the session finds out.
                let _ = keep.send(());
                Ok(session)
            }
            Err(_) => Err(Error::timed_out(Phase::Proxy, tried, start.elapsed())),
        }
    }

    async fn handshake<S>(&self, stream: S, tried: &str) -> Result<SshSession, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |failure: session::Failure| failure.into_error(tried);
        let (watching, ended) = Watching::new(self.0.clone());
        let mut handle = client::connect_stream(self.0.config.clone(), stream, watching).await.map_err(failed)?;
        let user = &self.0.settings.user;
        let result = match (&self.0.settings.auth, &self.0.key) {
            (SshAuth::Password(password), _) => handle.authenticate_password(user, password).await,
            (SshAuth::Key(_), Some(key)) => {
                let key = PrivateKeyWithHashAlg::new(key.clone(), None);
                handle.authenticate_publickey(user, key).await
            }
            (SshAuth::Key(_), None) => unreachable!("the key was read when the client was made"),
        };
        let refused = |happened: &str| Error::new(ErrorKind::ProxyAuth, Phase::Proxy, tried, happened);
        match result.map_err(|error| failed(error.into()))? {
            client::AuthResult::Success => Ok(SshSession::new(handle, ended, shown(&self.0.settings))),
            client::AuthResult::Failure { .. } if handle.is_closed() => {
                let happened = "the server closed the connection before it accepted us";
                Err(Error::new(ErrorKind::Proxy, Phase::Proxy, tried, happened))
            }
            client::AuthResult::Failure { partial_success: true, .. } => {
                Err(refused("the server wants more than one proof of who we are"))
            }
            client::AuthResult::Failure { remaining_methods, .. } => Err(refused(match &self.0.settings.auth {
                SshAuth::Key(_) => "the server does not accept the key",
                SshAuth::Password(_) if remaining_methods.contains(&MethodKind::Password) => {
                    "the server does not accept the password"
                }
                SshAuth::Password(_) => "the server does not accept the password, or takes none",
            })),
        }
    }
}

fn load_key(path: &std::path::Path) -> Result<PrivateKey, String> {
    let key = load_secret_key(path, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => {
            format!("the key in {} has a passphrase, which nobody is there to enter", path.display())
        }
        error => format!("the key in {} cannot be read: {error}", path.display()),
    })?;
    if key.algorithm().is_rsa() {
        return Err(format!("the key in {} is of the type rsa; ed25519 and ecdsa can be used", path.display()));
    }
    Ok(key)
}

/// Writes `ssh://server.example:22`.
fn shown(settings: &SshSettings) -> String {
    if settings.host.contains(':') {
        format!("ssh://[{}]:{}", settings.host, settings.port)
    } else {
        format!("ssh://{}:{}", settings.host, settings.port)
    }
}

impl fmt::Debug for SshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SshClient").field(&self.0.settings).finish()
    }
}

impl fmt::Debug for SshSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SshAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SshAuth::Key(_) => "Key",
            SshAuth::Password(_) => "Password",
        })
    }
}

/// A silent server is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// As many of them may stay without an answer.
const KEEPALIVES_MAX: usize = 3;

/// Messages of one channel that wait for its reader, of up to 32 KiB each.
const MESSAGES_MAX: usize = 100;

#[cfg(test)]
mod tests;
