//! A session that knows us, and the channels on it.

use std::{fmt, sync::Arc, time::Instant};

use russh::{ChannelOpenFailure, client, keys::PublicKeyOrCertificate};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant as Clock, timeout_at},
};

use super::{Inner, SshStream};
use crate::{
    error::{Error, ErrorKind, Phase},
    proxy::Target,
};

/// A session with an SSH server that has accepted us. Clones are handles of the same; it ends with the last of them and of its channels.
#[derive(Clone)]
pub struct SshSession {
    handle: Arc<client::Handle<Watching>>,
    ended: watch::Receiver<Option<Arc<str>>>,
    /// Channels that the server has not answered yet, also for callers who are gone.
    pub(super) opening: Arc<Semaphore>,
    server: Arc<str>,
}

/// Verifies the server's key and tells why the session ended.
pub(super) struct Watching {
    inner: Arc<Inner>,
    ended: watch::Sender<Option<Arc<str>>>,
}

/// Why a session did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's key is not the one.
    HostKey(String),
    /// Everything else.
    Ssh(russh::Error),
}

impl SshSession {
    pub(super) fn new(
        handle: client::Handle<Watching>,
        ended: watch::Receiver<Option<Arc<str>>>,
        server: String,
    ) -> SshSession {
        let opening = Arc::new(Semaphore::new(SshSession::OPENING_MAX));
        SshSession { handle: Arc::new(handle), ended, opening, server: server.into() }
    }

    /// Channels under way at a time; further ones wait within their deadline.
    pub const OPENING_MAX: usize = 256;

    /// Opens a channel to `target`, whose name the server looks up.
    ///
    /// A session carries many channels, which are not independent of each other: see the [module](crate::ssh).
    ///
    /// # Errors
    /// [`ErrorKind::ProxyDenied`] when the server's rules forbid it, [`ErrorKind::Unreachable`] when it could not connect (SSH does not
    /// say why: refused, unreachable or no such name), [`ErrorKind::ProxyGeneral`] when it lacks something,
    /// [`ErrorKind::ProxyUnsupported`] when it does not do that, [`ErrorKind::TimedOut`] in [`Phase::Connect`] at `deadline`, and
    /// [`ErrorKind::Proxy`] when the session has ended.
    ///
    /// # Cancel safety
    /// A channel that opens after the future was dropped is closed at once.
    pub async fn open(&self, target: &Target, deadline: Instant) -> Result<SshStream, Error> {
        let tried = || format!("connect to {target} through {}", self.server);
        let start = Clock::now();
        match timeout_at(deadline.into(), self.channel(target)).await {
            Ok(opened) => opened.map_err(|failure| failure.into_error(&tried())),
            Err(_) => Err(Error::timed_out(Phase::Connect, tried(), start.elapsed())),
        }
    }

    async fn channel(&self, target: &Target) -> Result<SshStream, Failure> {
        let gone = |_| Failure::Ssh(russh::Error::Disconnect);
        let permit = self.opening.clone().acquire_owned().await.map_err(|_| Failure::Ssh(russh::Error::Disconnect))?;
        let (handle, host, port) = (self.handle.clone(), target.host().into_owned(), target.port());
        // A task, so that the channel is closed and not forgotten when nobody waits for it any more.
        let opening = tokio::spawn(async move {
            let _permit = permit;
            let channel = handle.channel_open_direct_tcpip(host, port.into(), ORIGIN, 0).await?;
            Ok(SshStream::new(channel))
        });
        opening.await.map_err(gone)?
    }

    /// Whether it has ended, as far as is known.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Waits for the end of the session and tells why it ended: the server closed it, or did not answer three signs of life that are
    /// asked for every 15 s.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) -> Error {
        let mut ended = self.ended.clone();
        let reason = match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        let happened = reason.as_deref().unwrap_or("the session has ended");
        Error::new(ErrorKind::Proxy, Phase::Proxy, format!("session with {}", self.server), happened)
    }
}

impl Watching {
    /// One for a new session, and what tells of its end.
    pub(super) fn new(inner: Arc<Inner>) -> (Watching, watch::Receiver<Option<Arc<str>>>) {
        let (ended, receiver) = watch::channel(None);
        (Watching { inner, ended }, receiver)
    }
}

impl client::Handler for Watching {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.inner.known.check(key).map_err(Failure::HostKey)?;
                Ok(true)
            }
            // They are not offered.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }

    async fn disconnected(&mut self, reason: client::DisconnectReason<Failure>) -> Result<(), Failure> {
        let reason = match reason {
            client::DisconnectReason::ReceivedDisconnect(info) => {
                // The server's own words, in one line and not too long.
                let words: String = info.message.chars().filter(|letter| !letter.is_control()).take(100).collect();
                format!("the server has ended it: {words}")
            }
            client::DisconnectReason::Error(failure) => failure.words().1,
        };
        self.ended.send_replace(Some(reason.into()));
        Ok(())
    }
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Failure {
        Failure::Ssh(error)
    }
}

impl Failure {
    pub(super) fn into_error(self, tried: &str) -> Error {
        let (kind, happened) = self.words();
        let phase = if kind.is_proxy() { Phase::Proxy } else { Phase::Connect };
        let error = Error::new(kind, phase, tried, happened);
        match self {
            Failure::HostKey(_) => error,
            Failure::Ssh(source) => error.with_source(source),
        }
    }

    fn words(&self) -> (ErrorKind, String) {
        use russh::Error as Ssh;
        let (kind, words) = match self {
            Failure::HostKey(happened) => return (ErrorKind::HostKey, happened.clone()),
            Failure::Ssh(error) => match error {
                Ssh::ChannelOpenFailure(reason) => refusal(reason),
                Ssh::Disconnect | Ssh::HUP | Ssh::SendError | Ssh::RecvError => {
                    (ErrorKind::Proxy, "the server closed the connection")
                }
                Ssh::KeepaliveTimeout => (ErrorKind::Proxy, "the server does not answer any more"),
                Ssh::Version => (ErrorKind::Proxy, "that is no ssh server"),
                Ssh::NoCommonAlgo { kind, .. } => {
                    return (ErrorKind::Proxy, format!("no common algorithm with the server: {kind:?}"));
                }
                Ssh::IO(error) => match ErrorKind::from_io(error, Phase::Proxy) {
                    ErrorKind::Eof => (ErrorKind::Proxy, "the server closed the connection"),
                    ErrorKind::Reset => (ErrorKind::Proxy, "the server reset the connection"),
                    _ => return (ErrorKind::Proxy, error.to_string().to_lowercase()),
                },
                error => return (ErrorKind::Proxy, error.to_string().to_lowercase()),
            },
        };
        (kind, words.to_owned())
    }
}

/// What a refusal means (RFC 4254 section 5.1).
fn refusal(reason: &ChannelOpenFailure) -> (ErrorKind, &'static str) {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => (ErrorKind::ProxyDenied, "the server's rules forbid it"),
        ChannelOpenFailure::ConnectFailed => {
            (ErrorKind::Unreachable, "the server cannot connect to it, or does not find it")
        }
        ChannelOpenFailure::UnknownChannelType => (ErrorKind::ProxyUnsupported, "the server does not forward"),
        ChannelOpenFailure::ResourceShortage => (ErrorKind::ProxyGeneral, "the server is short of something"),
        ChannelOpenFailure::Other { .. } => (ErrorKind::ProxyGeneral, "the server reports a failure"),
    }
}

impl fmt::Debug for SshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshSession").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Where connections come from, as servers are told: here, and not who asked us.
const ORIGIN: &str = "127.0.0.1";
