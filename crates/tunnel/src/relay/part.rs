//! Leaves a stream that was cut off, so that its peer does not take it for a whole one.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::stream::Stream;

/// Closes the connection with a reset. What was not sent yet is not sent any more.
pub(super) fn reset(stream: Stream) {
    if let Some(tcp) = socket(&stream) {
        // It can fail only where the connection is gone.
        let _ = tcp.set_zero_linger();
    }
    drop(stream);
}

/// The same, once all that was written is on its way: a reset drops what the socket still has. Waits no longer than `wait`.
pub(super) async fn reset_after_delivery(stream: Stream, wait: Duration) {
    #[cfg(target_os = "linux")]
    if let Some(tcp) = socket(&stream) {
        // Out of time: the peer does not take it.
        let _ = tokio::time::timeout(wait, sent(tcp)).await;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = wait;
    reset(stream);
}

/// The socket below. TLS that ends without its own goodbye is cut off in the eyes of the peer, but the reset tells it at once.
pub(super) fn socket(stream: &Stream) -> Option<&TcpStream> {
    match stream {
        Stream::Tcp(tcp) => Some(tcp),
        Stream::Tls(tls) => Some(tls.get_ref().0),
        Stream::Other(_) => None,
    }
}

/// Waits until the socket has sent all that it was given.
///
/// Nothing wakes at that point, so it is looked for, less and less often. With `TCP_NOTSENT_LOWAT` of one byte a socket counts as
/// writable only when it has nothing left to send.
#[cfg(target_os = "linux")]
async fn sent(tcp: &TcpStream) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    if socket2::SockRef::from(tcp).set_tcp_notsent_lowat(1).is_err() {
        return;
    }
    let mut pause = Duration::from_millis(1);
    loop {
        let mut fds = [PollFd::new(tcp, PollFlags::OUT)];
        // Writable, broken, or not to be asked: there is nothing to wait for.
        if !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0)) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
