//! OpenSSH's server, from Debian.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code: a failure is a panic, a skip is said")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use keepwarm_transport::{
    error::ErrorKind,
    proxy::Target,
    resolve::Fixed,
    ssh::{HostKey, SshAuth, SshClient, SshSession, SshSettings},
    tcp::TcpOptions,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A server that runs until it is dropped.
struct Sshd {
    process: Child,
    port: u16,
    user: String,
    folder: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sshd {
    /// Starts a server with keys of its own, to which `more` is told. `None`, and said so, where it is not installed.
    async fn start(more: &str) -> Option<Sshd> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() || !Path::new("/usr/bin/ssh-keygen").exists() {
            println!("SKIPPED: sshd is not installed (Debian: openssh-server)");
            return None;
        }
        let user = output("id", &["-un"]);
        if user == "root" {
            // Where a server that is started as root wants to be; the service makes it when it starts.
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            for name in ["host_ed25519", "user_ed25519", "stranger_ed25519"] {
                output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(name)]);
            }
            output("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "", "-f", &at("user_ecdsa")]);
            output("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "", "-f", &at("host_ecdsa")]);
            output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "secret", "-f", &at("locked")]);
            output("ssh-keygen", &["-q", "-t", "rsa", "-N", "", "-f", &at("rsa")]);
            let authorized =
                ["user_ed25519.pub", "user_ecdsa.pub"].map(|name| std::fs::read_to_string(at(name)).unwrap()).concat();
            std::fs::write(at("authorized_keys"), authorized).unwrap();
            let port = free_port().await;
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
                 UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n{more}\n",
                at("host_ecdsa"),
                at("host_ed25519"),
                at("authorized_keys")
            );
            std::fs::write(at("sshd_config"), config).unwrap();
            let log = std::fs::File::create(at("log")).unwrap();
            let mut command = Command::new(program);
            command.args(["-D", "-e", "-f", &at("sshd_config")]).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log);
            let mut sshd = Sshd { process: command.spawn().unwrap(), port, user: user.clone(), folder };
            if sshd.listens().await {
                return Some(sshd);
            }
            println!("{}", std::fs::read_to_string(sshd.path("log")).unwrap());
        }
        panic!("sshd does not listen");
    }

    async fn listens(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.process.try_wait().unwrap().is_none() && tokio::time::Instant::now() < deadline {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fingerprint(&self, name: &str) -> String {
        let line = output("ssh-keygen", &["-l", "-f", self.path(name).to_str().unwrap()]);
        line.split(' ').nth(1).unwrap().to_owned()
    }

    fn settings(&self, key: &str, host_key: HostKey) -> SshSettings {
        SshSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: self.user.clone(),
            auth: SshAuth::Key(self.path(key)),
            host_key,
        }
    }

    fn by_fingerprint(&self, key: &str) -> SshSettings {
        self.settings(key, HostKey::Fingerprint(self.fingerprint("host_ed25519.pub")))
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn connect(settings: SshSettings) -> Result<SshSession, keepwarm_transport::error::Error> {
    let client = SshClient::new(settings)?;
    let connected = client.connect(&Fixed(Vec::new()), &TcpOptions::default(), soon()).await;
    connected.map(|(session, _)| session)
}

fn soon() -> Instant {
    tokio::time::Instant::now().into_std() + Duration::from_secs(20)
}

/// A port of loopback that nobody listens on.
async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

/// A server that speaks first, repeats what it hears, and says goodbye when its client has ended.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"220 hello").await;
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.write_all(b"221 goodbye").await;
            });
        }
    });
    addr
}

/// Connects to the echo and checks every byte, in both directions at once and past the end of ours.
async fn carries(session: &SshSession, target: &Target, tag: u32) {
    let stream = session.open(target, soon()).await.unwrap();
    let (mut reads, mut writes) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..50_000_u32).flat_map(|at| (at ^ tag << 20).to_be_bytes()).collect();
    let us = async {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    tokio::join!(us, async { reads.read_to_end(&mut heard).await.unwrap() });
    assert!(heard == [b"220 hello", &sent[..], b"221 goodbye"].concat(), "channel {tag} heard what is not its own");
}

#[tokio::test]
async fn openssh_carries_channels_at_a_time_and_one_after_another() {
    let Some(sshd) = Sshd::start("AllowTcpForwarding yes").await else { return };
    let echo = echo().await;
    let by_name = Target::new("localhost", echo.port()).unwrap();
    for key in ["user_ed25519", "user_ecdsa"] {
        let session = connect(sshd.by_fingerprint(key)).await.unwrap();
        carries(&session, &by_name, 0).await;
        let at_once = (1..30).map(|tag| {
            let session = session.clone();
            tokio::spawn(async move { carries(&session, &echo.into(), tag).await })
        });
        for channel in at_once.collect::<Vec<_>>() {
            channel.await.unwrap();
        }
        for tag in 30..40 {
            carries(&session, &echo.into(), tag).await;
        }
    }
}

#[tokio::test]
async fn openssh_tells_what_its_rules_forbid_and_what_it_cannot_reach() {
    let echo = echo().await;
    let (nobody, forbidden) = (free_port().await, free_port().await);
    let rules = format!("PermitOpen 127.0.0.1:{} 127.0.0.1:{nobody} nowhere.invalid:80", echo.port());
    let Some(sshd) = Sshd::start(&rules).await else { return };
    let session = connect(sshd.by_fingerprint("user_ed25519")).await.unwrap();
    for (target, kind) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, nobody)).into(), ErrorKind::Unreachable),
        (Target::new("nowhere.invalid", 80).unwrap(), ErrorKind::Unreachable),
        (SocketAddr::from((Ipv4Addr::LOCALHOST, forbidden)).into(), ErrorKind::ProxyDenied),
    ] {
        let error = session.open(&target, soon()).await.unwrap_err();
        println!("{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    carries(&session, &echo.into(), 1).await;
}

#[tokio::test]
async fn openssh_is_known_by_its_known_hosts() {
    let Some(sshd) = Sshd::start("").await else { return };
    let echo = echo().await;
    let known = sshd.path("known_hosts");
    let line = |key: &str| {
        let key = std::fs::read_to_string(sshd.path(key)).unwrap();
        format!("[127.0.0.1]:{} {key}", sshd.port)
    };
    // The server is asked for the key that is known, not for the one that is liked best.
    for (text, good) in [
        (line("host_ed25519.pub"), true),
        (line("host_ecdsa.pub"), true),
        (line("stranger_ed25519.pub"), false),
        (
            format!(
                "{}@revoked * {}",
                line("host_ed25519.pub"),
                std::fs::read_to_string(sshd.path("host_ed25519.pub")).unwrap()
            ),
            false,
        ),
    ] {
        for hashed in [false, true] {
            std::fs::write(&known, &text).unwrap();
            if hashed {
                output("ssh-keygen", &["-H", "-f", known.to_str().unwrap()]);
            }
            let settings = sshd.settings("user_ed25519", HostKey::KnownHosts(known.clone()));
            match connect(settings).await {
                Ok(session) => {
                    assert!(good, "{text}");
                    carries(&session, &echo.into(), 1).await;
                }
                Err(error) => {
                    assert_eq!((good, error.kind()), (false, ErrorKind::HostKey), "{error}");
                    assert!(error.to_string().contains(&sshd.fingerprint("host_ed25519.pub")), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn openssh_takes_no_stranger_and_we_no_key_that_cannot_be_used() {
    let Some(sshd) = Sshd::start("").await else { return };
    let password = SshSettings { auth: SshAuth::Password("hunter2".to_owned()), ..sshd.by_fingerprint("user_ed25519") };
    for (settings, kind, text) in [
        (sshd.by_fingerprint("stranger_ed25519"), ErrorKind::ProxyAuth, "does not accept the key"),
        (password, ErrorKind::ProxyAuth, "does not accept the password, or takes none"),
        (sshd.by_fingerprint("locked"), ErrorKind::Other, "has a passphrase"),
        (sshd.by_fingerprint("rsa"), ErrorKind::Other, "of the type rsa"),
    ] {
        let error = connect(settings).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn openssh_runs_on_for_a_session_that_is_quiet_and_its_end_is_noticed() {
    let Some(sshd) = Sshd::start("ClientAliveInterval 1\nClientAliveCountMax 1").await else { return };
    let echo = echo().await;
    let session = connect(sshd.by_fingerprint("user_ed25519")).await.unwrap();
    // We answer the server's signs of life, so a quiet session lasts.
    assert!(tokio::time::timeout(Duration::from_secs(4), session.closed()).await.is_err());
    carries(&session, &echo.into(), 1).await;
    let mut live = session.open(&echo.into(), soon()).await.unwrap();
    live.read_exact(&mut [0; 9]).await.unwrap();
    // The process of this session, a child of the listener's.
    let parent = sshd.process.id().to_string();
    for child in output("ps", &["-o", "pid=", "--ppid", &parent]).split_whitespace() {
        output("kill", &["-KILL", child]);
    }
    let error = session.closed().await;
    assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
    assert!(live.read(&mut [0]).await.is_err());
    assert!(session.is_closed());
}
