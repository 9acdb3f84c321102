//! A daemon process in front of a lab.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use keepwarm_lab::{Ca, Lab, LabSpec};
use tempfile::{NamedTempFile, TempDir};

/// The binary under test.
pub fn keepwarm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepwarm"));
    command.stdin(Stdio::null());
    // What is set for tests is none of the daemon's, which refuses variables that it does not know.
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEEPWARM_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    command
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub dns: SocketAddr,
    pub control: SocketAddr,
    pub lab: Lab,
    pub config: NamedTempFile,
    _folder: TempDir,
}

/// An address that nobody listens on now, over UDP or TCP.
pub fn free_address() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// The text of a config for this lab and transport, with these keys in [dns.cache].
pub fn config(dns: SocketAddr, control: SocketAddr, lab: &Lab, scheme: &str, ca: &str, cache: &str) -> String {
    let (address, path) = match scheme {
        "udp" => (lab.udp_addr(), ""),
        "tcp" => (lab.tcp_addr(), ""),
        "tls" => (lab.tls_addr(), ""),
        _ => (lab.https_addr(), "/dns-query"),
    };
    format!(
        r#"version = 1
[tls]
extra_roots = ["{ca}"]
[dns]
listen = ["{dns}"]
strategy = "sequential"
[dns.cache]
{cache}
[[dns.upstream]]
name = "lab"
address = "{scheme}://{address}{path}"
{}
[control]
listen = "{control}"
"#,
        if matches!(scheme, "tls" | "https") { "server_name = \"upstream.lab\"" } else { "" },
    )
}

impl Daemon {
    /// Starts a lab and a daemon without a cache that asks it over `scheme`, and waits until it answers.
    pub async fn start(scheme: &str) -> Daemon {
        Daemon::start_with_cache(scheme, "size = \"0\"").await
    }

    /// The same with these keys in [dns.cache].
    pub async fn start_with_cache(scheme: &str, cache: &str) -> Daemon {
        Daemon::start_by(scheme, cache, |_| keepwarm()).await
    }

    /// The same as the end of the command that is made for an address. Whoever takes that before it is bound has it; then it is another one.
    pub async fn start_by(scheme: &str, cache: &str, command: impl Fn(SocketAddr) -> Command) -> Daemon {
        for _ in 0..5 {
            let dns = free_address();
            match Daemon::try_start(scheme, cache, dns, command(dns)).await {
                Ok(daemon) => return daemon,
                Err(log) if log.to_lowercase().contains("address already in use") => {
                    println!("taken meanwhile, {dns}: {log}");
                }
                Err(log) => panic!("the daemon does not answer: {log}"),
            }
        }
        panic!("each address was taken before the daemon had it");
    }

    /// The same on this address, as the end of this command.
    pub async fn start_as(scheme: &str, cache: &str, dns: SocketAddr, command: Command) -> Daemon {
        let started = Daemon::try_start(scheme, cache, dns, command).await;
        started.unwrap_or_else(|log| panic!("the daemon does not answer: {log}"))
    }

    /// The same; what it said when it ended or did not answer.
    async fn try_start(scheme: &str, cache: &str, dns: SocketAddr, mut command: Command) -> Result<Daemon, String> {
        let ca = Ca::new();
        let lab = Lab::start_with_ca(LabSpec::default(), &ca).await.unwrap();
        let folder = TempDir::new().unwrap();
        let roots = folder.path().join("ca.pem");
        std::fs::write(&roots, ca.pem()).unwrap();
        let control = free_address();
        let mut file = NamedTempFile::with_suffix(".toml").unwrap();
        file.write_all(config(dns, control, &lab, scheme, roots.to_str().unwrap(), cache).as_bytes()).unwrap();
        let child =
            command.args(["run", "-c"]).arg(file.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Daemon { child, dns, control, lab, config: file, _folder: folder };
        match daemon.answers().await {
            true => Ok(daemon),
            false => {
                daemon.child.kill().unwrap();
                Err(text(&daemon.wait()))
            }
        }
    }

    /// Waits until it answers; `false` where it has ended, or does not within some seconds.
    async fn answers(&mut self) -> bool {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let query = keepwarm_lab::build_query(7, "ready.example", 1, None);
        let mut buffer = [0; 512];
        for _ in 0..200 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // An error is the ICMP message of a port that is not open yet.
            let _ = socket.send_to(&query, self.dns).await;
            let received = tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await;
            if matches!(received, Ok(Ok(_))) {
                // Who has the port if it has ended is somebody else.
                return self.child.try_wait().unwrap().is_none();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Sends a signal by name, as `kill` does.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end and returns exit code and log.
    pub fn wait(mut self) -> Output {
        let child =
            std::mem::replace(&mut self.child, keepwarm().arg("--version").stdout(Stdio::null()).spawn().unwrap());
        child.wait_with_output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
