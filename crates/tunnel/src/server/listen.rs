//! Opens a listening socket.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Listens on `address`; an IPv6 listener takes IPv6 only.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Without it a restart would wait for connections of the last run to leave TIME_WAIT. On Windows it would share the port.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        // On Linux what is accepted inherits these, which saves three system calls for each client.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))
}

/// What a client's socket needs that it did not inherit. A socket that refuses it has ended, which the first read tells.
#[cfg(not(target_os = "linux"))]
pub(super) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

/// Everything is inherited.
#[cfg(target_os = "linux")]
pub(super) fn prepare(_stream: &TcpStream) {}

/// Connections that wait in the system to be accepted.
const BACKLOG: i32 = 1024;

/// Silence after which the system asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_send_at_once_and_notice_dead_clients() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = listen(address.parse().unwrap()).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            prepare(&stream);
            let socket = SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        }
    }
}
