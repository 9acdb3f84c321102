//! A daemon process before a proxy of the lab.

use std::{
    net::SocketAddr,
    process::{Child, Output, Stdio},
    time::Duration,
};

use keepwarm_control::tunnel::{TunnelStatus, TunnelUpstreamRow};
use keepwarm_lab::{EchoLab, ProxyLab, ProxySpec, Tagged};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    https::support::run,
    support::{free_address, keepwarm},
};

/// The credential of the proxy, which nothing may show.
pub const PASSWORD: &str = "s3cret-of-the-proxy";

/// The name of the destination at the proxy.
pub const ECHO: &str = "echo.test";

/// A proxy, a destination, and a config for them.
pub struct Bench {
    pub proxy: ProxyLab,
    pub echo: EchoLab,
    pub listen: SocketAddr,
    pub control: SocketAddr,
    pub folder: TempDir,
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    pub bench: Bench,
}

impl Bench {
    /// A proxy with a password, and a config with one upstream and these lines in [tunnel] and below it.
    pub async fn new(lines: &str) -> Bench {
        let credential = Some(("ann".to_owned(), PASSWORD.to_owned()));
        let proxy = ProxyLab::start(ProxySpec { credential, ..ProxySpec::default() }).await.unwrap();
        let echo = EchoLab::start(1).await.unwrap();
        proxy.pin(ECHO, echo.addr(0));
        let bench =
            Bench { proxy, echo, listen: free_address(), control: free_address(), folder: TempDir::new().unwrap() };
        std::fs::write(bench.config(), bench.text(lines)).unwrap();
        bench
    }

    pub fn text(&self, lines: &str) -> String {
        let Bench { proxy, listen, control, .. } = self;
        format!(
            "version = 1\n[control]\nlisten = \"{control}\"\n[tunnel]\nlisten = \"{listen}\"\n{lines}\n\
             [[tunnel.upstream]]\nname = \"exit\"\naddress = \"socks5://ann:{PASSWORD}@{}\"\n",
            proxy.addr()
        )
    }

    pub fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("keepwarm.toml")
    }

    /// Starts a daemon and waits until its status endpoint answers and as many spares are ready as are kept without use.
    pub async fn start(self) -> Daemon {
        let mut command = keepwarm();
        command.args(["run", "-c"]).arg(self.config()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Daemon { child: command.spawn().unwrap(), bench: self };
        for _ in 0..500 {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended: {status}");
            }
            if TcpStream::connect(daemon.bench.control).await.is_ok() {
                daemon.until("the first spare is ready", |status| spares(status) >= 1).await;
                return daemon;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the daemon does not answer");
    }
}

impl Daemon {
    /// What the status endpoint says.
    pub async fn status(&self) -> TunnelStatus {
        self.page("/api/v1/tunnel").await
    }

    pub async fn page<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        keepwarm_control::client::get(self.bench.control, path).await.unwrap()
    }

    /// Waits until the figures are as wanted; fails after ten seconds.
    pub async fn until(&self, what: &str, holds: impl Fn(&TunnelStatus) -> bool) -> TunnelStatus {
        let mut status = TunnelStatus::default();
        for _ in 0..500 {
            status = self.status().await;
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within ten seconds: {what}: {status:#?}");
    }

    /// A tunnel to [`ECHO`] by SOCKS5, with what is said over it.
    pub async fn tunnel(&self) -> (TcpStream, Tagged) {
        let echo = self.bench.echo.addr(0);
        let stream = socks5(self.bench.listen, ECHO, echo.port()).await;
        (stream, Tagged::random(echo))
    }

    /// A command that asks this daemon: exit code, standard output, standard error.
    pub async fn run(&self, command: &[&str]) -> (Option<i32>, String, String) {
        let control = self.bench.control.to_string();
        run([command, &["--control", &control]].concat()).await
    }

    /// What a command that ends well printed.
    pub async fn printed(&self, command: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(command).await;
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        stdout
    }

    /// Sends a signal by name, as `kill` does.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for the end and returns exit code and log; the lab goes on.
    pub async fn wait(mut self) -> Output {
        let nobody = keepwarm().arg("--version").stdout(Stdio::null()).spawn().unwrap();
        let child = std::mem::replace(&mut self.child, nobody);
        tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
pub fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// The upstream of the config.
pub fn exit(status: &TunnelStatus) -> &TunnelUpstreamRow {
    let row = &status.upstreams[0];
    assert_eq!(row.name, "exit");
    row
}

/// Its spares that are ready.
pub fn spares(status: &TunnelStatus) -> u64 {
    exit(status).spares.as_ref().unwrap().idle
}

/// Sends so many bytes and checks that their echo comes back.
pub async fn say(stream: &mut TcpStream, tagged: &mut Tagged, bytes: usize) {
    let request = tagged.request(bytes);
    stream.write_all(&request).await.unwrap();
    let mut echo = vec![0; bytes];
    stream.read_exact(&mut echo).await.unwrap();
    tagged.check(&echo).unwrap();
}

/// A tunnel through a SOCKS5 listener without users.
pub async fn socks5(listener: SocketAddr, host: &str, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    let length = u8::try_from(host.len()).unwrap();
    let request = [&[5, 1, 0, 5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat();
    stream.write_all(&request).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0], "{answer:?}");
    stream
}
