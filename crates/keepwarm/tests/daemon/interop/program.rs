//! Programs of others: found, run to their end, or kept running for a test.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::{TcpStream, UdpSocket};

/// Whether a program is there; says so where it is not.
pub fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("-h").stdin(Stdio::null()).output().is_ok();
    if !found {
        println!("SKIPPED: {program} is not installed (Debian: {package})");
    }
    found
}

/// Runs a program to its end: whether it was content, and what it printed. One that hangs is killed after a minute.
pub async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(program);
    output(command.args(arguments)).await
}

/// The same for a command that has more to it than arguments.
pub async fn output(command: &mut tokio::process::Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(Duration::from_secs(60), output).await {
        Ok(output) => {
            let output = output.unwrap();
            (output.status.success(), crate::support::text(&output))
        }
        Err(_) => (false, format!("{command:?} did not end within a minute")),
    }
}

/// A server of others, over plain DNS, DoT and DoH; killed when dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it and waits until it listens on these addresses and answers over UDP on the first. `None`, and said, where the
    /// system does not let it read what the test wrote.
    pub async fn start(command: &mut Command, folder: &Path, listening: &[SocketAddr]) -> Option<Program> {
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut program = Program { child, log };
        for _ in 0..500 {
            if let Some(status) = program.child.try_wait().unwrap() {
                let told = program.told();
                // Debian's AppArmor profiles of named and unbound name the folders that these may use.
                assert!(told.to_lowercase().contains("permission denied"), "{command:?} ended with {status}:\n{told}");
                println!("SKIPPED: {command:?} may not use {}: {told}", folder.display());
                return None;
            }
            if accepts(listening).await && answers(listening[0]).await {
                return Some(program);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{command:?} does not listen:\n{}", program.told());
    }

    /// Its log.
    pub fn told(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn accepts(addresses: &[SocketAddr]) -> bool {
    for address in addresses {
        if TcpStream::connect(address).await.is_err() {
            return false;
        }
    }
    true
}

async fn answers(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    let sent = socket.send(&keepwarm_lab::build_query(7, "ready.interop.example", 1, None)).await;
    let answer = tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut [0; 512])).await;
    sent.is_ok() && matches!(answer, Ok(Ok(_)))
}
