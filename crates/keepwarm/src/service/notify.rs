//! The wire of sd_notify(3): a datagram of `KEY=value` lines to a socket of the service manager.
//!
//! Written here rather than taken from the crate sd-notify, which knows no abstract sockets (those of containers), reads the environment at
//! each call, so that no test can stand in for the service manager, and blocks where the manager's queue is full.

use std::{ffi::OsStr, io, time::Duration};

/// The socket that is written to, if any.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    #[cfg(unix)]
    address: Option<std::os::unix::net::SocketAddr>,
}

impl Notifier {
    /// `socket`: the value of `NOTIFY_SOCKET`: a path, or `@` and the name of an abstract socket. Others (`vsock:`) are not listened to.
    #[cfg(unix)]
    pub(super) fn new(socket: Option<&OsStr>) -> Notifier {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Notifier::default() };
        let address = address(socket);
        if let Err(error) = &address {
            tracing::warn!(socket = %socket.display(), %error, "NOTIFY_SOCKET cannot be used");
        }
        Notifier { address: address.ok() }
    }

    #[cfg(not(unix))]
    pub(super) fn new(_: Option<&OsStr>) -> Notifier {
        Notifier {}
    }

    /// Whether anybody is told anything.
    pub(super) fn is_listened_to(&self) -> bool {
        #[cfg(unix)]
        return self.address.is_some();
        #[cfg(not(unix))]
        false
    }

    /// Sends one message; without a socket it does nothing. Where the queue is full it is tried again for half a second.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it unsent.
    pub(super) async fn send(&self, state: &str) -> io::Result<()> {
        for _ in 0..TRIES {
            match self.try_send(state) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
                sent => return sent,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[cfg(unix)]
    fn try_send(&self, state: &str) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        // A socket for each message, as libsystemd has it: the manager's may be made anew while we run.
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), address).map(drop)
    }

    #[cfg(not(unix))]
    fn try_send(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn address(socket: &OsStr) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::{ffi::OsStrExt as _, net::SocketAddr};
    match socket.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract socket")),
    }
}

/// The time of CLOCK_MONOTONIC in microseconds.
pub(super) fn monotonic_micros() -> u64 {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
        seconds * 1_000_000 + nanos / 1_000
    }
    #[cfg(not(unix))]
    0
}

/// The first line of a text: a line break would begin another key.
pub(super) fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);
