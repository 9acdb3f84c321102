//! Notices that a client leaves while its tunnel is being made, without a byte read from it.

use std::{future::pending, mem::MaybeUninit};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// Becomes ready when the client is gone; what it sends stays in the socket.
///
/// A reset is the end. A FIN is one only where nothing came for the destination: a client that waits for our reply, has sent nothing
/// and will send nothing has closed. With `may_half_close`, or with bytes that wait in the socket, it may be the end of what it has to
/// say, and the answer is still awaited (RFC 9293 section 3.6).
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn gone(stream: &TcpStream, may_half_close: bool) {
    let is_reset = match stream.ready(CLOSED).await {
        Ok(ready) if ready.is_error() => true,
        Ok(ready) if ready.is_read_closed() => !may_half_close && !has_unread(stream),
        // Where a FIN cannot be told from bytes, these come first, and then nothing is known.
        Ok(_) | Err(_) => return pending().await,
    };
    if !is_reset {
        match stream.ready(Interest::ERROR).await {
            Ok(_) => {}
            Err(_) => pending().await,
        }
    }
}

/// Tells of a FIN and of a reset, not of bytes, urgent ones included (tokio registers no socket for those): a socket's readiness to be read must not be waited for, for it can only be waited for
/// again after a read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOSED: Interest = Interest::PRIORITY.add(Interest::ERROR);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOSED: Interest = Interest::READABLE.add(Interest::ERROR);

fn has_unread(stream: &TcpStream) -> bool {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|there| there > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Fails where it does not come.
    async fn ends(server: &TcpStream, may_half_close: bool) {
        tokio::time::timeout(Duration::from_secs(20), gone(server, may_half_close)).await.expect("it is noticed");
    }

    async fn is_gone(server: &TcpStream, may_half_close: bool) -> bool {
        tokio::time::timeout(Duration::from_millis(50), gone(server, may_half_close)).await.is_ok()
    }

    #[tokio::test]
    async fn a_fin_without_a_byte_is_the_end_and_a_reset_always() {
        let (mut client, server) = pair().await;
        assert!(!is_gone(&server, false).await);
        client.shutdown().await.unwrap();
        ends(&server, false).await;
        assert!(!is_gone(&server, true).await);
        client.set_zero_linger().unwrap();
        drop(client);
        ends(&server, true).await;
        ends(&server, false).await;
    }

    #[tokio::test]
    async fn a_fin_behind_bytes_is_half_a_close_and_the_bytes_stay() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"payload").await.unwrap();
        server.ready(Interest::READABLE).await.unwrap();
        assert!(!is_gone(&server, false).await);
        client.shutdown().await.unwrap();
        assert!(!is_gone(&server, false).await);
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"payload");
    }

    #[tokio::test]
    async fn an_urgent_byte_is_not_the_end_of_the_watch() {
        let (client, server) = pair().await;
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        assert!(!is_gone(&server, true).await);
        client.set_zero_linger().unwrap();
        drop(client);
        ends(&server, true).await;
    }

    #[tokio::test]
    async fn a_reset_behind_bytes_is_noticed() {
        let (mut client, server) = pair().await;
        client.write_all(b"payload").await.unwrap();
        server.ready(Interest::READABLE).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        ends(&server, true).await;
    }
}
