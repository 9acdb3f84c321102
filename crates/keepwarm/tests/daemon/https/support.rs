//! A daemon process in front of an origin with many addresses.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use keepwarm_lab::{OriginLab, OriginSpec, loopback_addresses};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{free_address, keepwarm, text};

/// What a test's config says.
#[derive(Clone)]
pub struct Keys {
    /// Lines before the first section of [https].
    pub sections: String,
    /// Lines of the origin; `ADDRESSES` stands for those of the lab.
    pub origin: String,
    /// Lines of [https.pool].
    pub pool: String,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { sections: String::new(), origin: "addresses = ADDRESSES".into(), pool: String::new() }
    }
}

/// An origin on loopback, and a config for it.
pub struct Bench {
    pub lab: OriginLab,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    pub folder: TempDir,
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub bench: Bench,
}

impl Bench {
    /// An origin with so many addresses, and a config with these keys.
    pub async fn new(addresses: usize, keys: &Keys) -> Bench {
        let addresses = loopback_addresses(addresses);
        let spec = OriginSpec { host: "tiles.example".into(), addresses, ..OriginSpec::default() };
        let lab = OriginLab::start(spec).await.unwrap();
        let folder = TempDir::new().unwrap();
        let bench = Bench { lab, gateway: free_address(), control: free_address(), folder };
        std::fs::write(bench.folder.path().join("ca.pem"), bench.lab.ca_pem()).unwrap();
        std::fs::write(bench.config(), bench.text(keys)).unwrap();
        bench
    }

    fn text(&self, keys: &Keys) -> String {
        let Bench { gateway, control, .. } = self;
        let Keys { sections, origin, pool } = keys;
        let addresses: Vec<String> = self.lab.addresses().iter().map(|ip| format!("\"{ip}\"")).collect();
        let origin = origin.replace("ADDRESSES", &format!("[{}]", addresses.join(", ")));
        format!(
            "version = 1\n[tls]\nextra_roots = [\"ca.pem\"]\n[control]\nlisten = \"{control}\"\n{sections}\n\
             [https]\ngateway = \"{gateway}\"\n[https.pool]\n{pool}\n[[https.origin]]\nhost = \"{}\"\n{origin}\n",
            self.origin()
        )
    }

    pub fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("keepwarm.toml")
    }

    /// The origin as commands name it.
    pub fn origin(&self) -> String {
        format!("{}:{}", self.lab.host(), self.lab.port())
    }

    /// The n-th address, from 0 on.
    pub fn ip(&self, index: usize) -> IpAddr {
        self.lab.addresses()[index]
    }

    /// Starts a daemon and waits until its status endpoint answers.
    pub async fn start(self) -> Daemon {
        let mut command = keepwarm();
        command.args(["run", "-c"]).arg(self.config()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Daemon { child: command.spawn().unwrap(), bench: self };
        for _ in 0..500 {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended: {status}");
            }
            if tokio::net::TcpStream::connect(daemon.bench.control).await.is_ok() {
                // The listener is there first; what is behind it answers once everything has started.
                assert_eq!(get(daemon.bench.control, "/livez").await.status(), 200);
                return daemon;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the daemon does not answer");
    }
}

impl Daemon {
    /// The head of an answer that came through the gateway.
    pub async fn get(&self, path: &str) -> Response<Incoming> {
        get(self.bench.gateway, &format!("/https/{}{path}", self.bench.origin())).await
    }

    /// A whole answer that came through the gateway: its status and body.
    pub async fn fetch(&self, path: &str) -> (u16, Bytes) {
        let answer = self.get(path).await;
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }

    /// A command that asks this daemon: exit code, standard output, standard error.
    pub async fn run(&self, command: &[&str]) -> (Option<i32>, String, String) {
        let control = self.bench.control.to_string();
        run([command, &["--control", &control]].concat()).await
    }

    /// What a command that ends well printed, as JSON.
    pub async fn json(&self, command: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(command).await;
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// A page of the status endpoint.
    pub async fn page(&self, path: &str) -> Value {
        let answer = get(self.bench.control, path).await;
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// The rows of the origin's addresses.
    pub async fn addresses(&self) -> Vec<Value> {
        let rows = self.json(&["addresses", &self.bench.origin(), "-o", "json"]).await;
        rows.as_array().unwrap().clone()
    }

    /// Waits until the addresses are as wanted; fails after ten seconds.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut rows = Vec::new();
        for _ in 0..200 {
            rows = self.addresses().await;
            if holds(&rows) {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not within ten seconds: {what}: {rows:#?}");
    }

    /// Sends a signal by name, as `kill` does.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status =
            std::process::Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end and returns exit code and log.
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

/// Asks over a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Response<Incoming> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), sender.send_request(request)).await;
    answer.expect("an answer within 30 s").unwrap()
}

/// Runs a command to its end: exit code, standard output, standard error.
pub async fn run(command: Vec<&str>) -> (Option<i32>, String, String) {
    let mut process = keepwarm();
    process.args(command);
    let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), words(&output.stdout), words(&output.stderr))
}

/// A config file that is refused, or that a daemon does not start with: exit code and what was said.
pub fn refused(file: &Path) -> (Option<i32>, String) {
    let output = keepwarm().args(["run", "-c"]).arg(file).output().unwrap();
    (output.status.code(), text(&output))
}

/// Puts a file beside others.
pub fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}
