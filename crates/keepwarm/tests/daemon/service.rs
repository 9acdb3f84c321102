//! What a service manager hears, with this test in its place.
#![cfg(unix)]

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::support::*;

/// A service manager that listens for at most half a minute.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(folder: &std::path::Path) -> (Manager, std::path::PathBuf) {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (Manager { socket, heard: Vec::new() }, path)
    }

    /// Listens until it hears a message that begins so, and returns that.
    fn until(&mut self, start: &str) -> String {
        let mut buffer = [0; 1024];
        loop {
            let length =
                self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{start}: {error}: {:?}", self.heard));
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.starts_with(start) {
                return message;
            }
            assert!(self.heard.len() < 200, "{start}: {:?}", self.heard);
        }
    }

    /// The first message that begins so, of those that were heard or are to come.
    fn ever(&mut self, start: &str) -> String {
        let heard = self.heard.iter().find(|message| message.starts_with(start)).cloned();
        heard.unwrap_or_else(|| self.until(start))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_hears_of_start_status_watchdog_and_end() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut manager, path) = Manager::new(folder.path());
    let mut command = keepwarm();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start_as("tls", "size = \"0\"", free_address(), command).await;
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let status = manager.ever("STATUS=1 of 1 upstream up, 1 connection");
    assert!(status.ends_with(" in use"), "{status}");
    assert!(!manager.heard.iter().any(|message| message.starts_with("STOPPING=1")));
    daemon.signal("TERM");
    manager.until("STOPPING=1\nSTATUS=stopping");
    let output = daemon.wait();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
