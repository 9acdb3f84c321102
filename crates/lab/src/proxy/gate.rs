//! A listener that can be shut and opened again on its port. While it is shut, the system refuses connections.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::accept::bind;

#[derive(Debug)]
pub(super) struct Gate {
    listener: Mutex<Arc<TcpListener>>,
    shut: watch::Sender<bool>,
    runtime: Handle,
}

impl Gate {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = Mutex::new(Arc::new(bind(address)?));
        Ok(Self { listener, shut: watch::Sender::new(false), runtime: Handle::current() })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.lock().local_addr()
    }

    /// Shuts or opens; the port stays ours while it is shut.
    pub(super) fn set(&self, shut: bool) -> io::Result<()> {
        let mut listener = self.listener.lock();
        match (*self.shut.borrow(), shut) {
            // On Linux that ends the listening at once and keeps the port.
            (false, true) => SockRef::from(&**listener).shutdown(Shutdown::Read)?,
            (true, false) => {
                let _entered = self.runtime.enter();
                let address = listener.local_addr()?;
                *listener = Arc::new(bind(address)?);
            }
            _ => {}
        }
        self.shut.send_replace(shut);
        Ok(())
    }

    /// Waits for the next connection, for as long as the gate is shut too. Cancel safe.
    pub(super) async fn accept(&self) -> TcpStream {
        let mut shut = self.shut.subscribe();
        loop {
            if *shut.borrow_and_update() {
                // The sender is in `self`.
                let _ = shut.changed().await;
                continue;
            }
            let listener = Arc::clone(&self.listener.lock());
            tokio::select! {
                _ = shut.changed() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => {
                        // Without effect on a socket that its peer has reset already.
                        let _ = tcp.set_nodelay(true);
                        return tcp;
                    }
                    // It was just shut, or there are no file descriptors left. Trying at once again would only spin.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
