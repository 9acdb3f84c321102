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

#[cfg(target_os = "linux")]
/// The values after the name in a thread's status, as /proc has them.
fn status_of(thread: &std::path::Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(thread.join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_is_given_up_in_every_thread_and_queries_are_answered() {
    if !keepwarm::service::user::is_root() {
        println!("SKIPPED: only root can become another user");
        return;
    }
    // The arguments of the daemon come behind those of the shell.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" --user nobody:nogroup", env!("CARGO_BIN_EXE_keepwarm")]);
    let daemon = Daemon::start_as("tls", "size = \"0\"", free_address(), command).await;
    let nobody =
        String::from_utf8(std::process::Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
    let mut seen = 0;
    for thread in threads.map(|thread| thread.unwrap().path()) {
        seen += 1;
        assert_eq!(status_of(&thread, "Uid:"), [nobody.trim(); 4], "{}", thread.display());
        assert_eq!(status_of(&thread, "Groups:").len(), 1);
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status_of(&thread, set), ["0000000000000000"], "{set}");
        }
    }
    assert!(seen > 1, "{seen} threads");
    daemon.signal("TERM");
    let output = daemon.wait();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("root given up"), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_root_is_warned() {
    let daemon = Daemon::start("udp").await;
    daemon.signal("TERM");
    let log = text(&daemon.wait());
    assert_eq!(log.contains("running as root"), keepwarm::service::user::is_root(), "{log}");
}
