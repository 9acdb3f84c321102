//! A daemon with a listener of each kind, and what it says about itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keepwarm_control::{
    client,
    rows::{DnsUpstreamRow, Stats},
};
use keepwarm_lab::{Ca, Lab, LabSpec};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{free_address, text};

/// The name in the certificate, beside 127.0.0.1.
pub const NAME: &str = "dns.example";

/// A name that nobody but the daemon knows: 127.0.0.1. Below it there is nothing else: a browser looks there for an HTTPS record.
pub const PAGE: &str = "page.keepwarm.example";

/// A certificate authority, and the files of a certificate that it issued.
pub struct Authority {
    pub ca: Ca,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority { ca: Ca::new(), folder: TempDir::new().unwrap() };
        let (chain, key) = authority.ca.issue(&[NAME, "127.0.0.1"]).unwrap();
        std::fs::write(authority.root(), authority.ca.pem()).unwrap();
        std::fs::write(authority.certificate(), pem("CERTIFICATE", &chain[0])).unwrap();
        std::fs::write(authority.key(), pem("PRIVATE KEY", key.secret_der())).unwrap();
        authority
    }

    /// The authority's own certificate.
    pub fn root(&self) -> String {
        self.file("ca.pem")
    }

    /// The certificate of [`NAME`].
    pub fn certificate(&self) -> String {
        self.file("certificate.pem")
    }

    /// Its key.
    pub fn key(&self) -> String {
        self.file("key.pem")
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A running daemon without a cache; killed when dropped.
pub struct Gateway {
    pub authority: Authority,
    child: Child,
    control: SocketAddr,
    listen: Vec<String>,
    log: PathBuf,
    folder: TempDir,
}

impl Gateway {
    /// A daemon before a lab.
    pub async fn before_a_lab() -> (Gateway, Lab) {
        let authority = Authority::new();
        let lab = Lab::start_with_ca(LabSpec::default(), &authority.ca).await.unwrap();
        let upstream = format!("[[dns.upstream]]\nname = \"lab\"\naddress = \"udp://{}\"\n", lab.udp_addr());
        (Gateway::before(authority, &upstream).await, lab)
    }

    /// A daemon before these upstreams.
    pub async fn before(authority: Authority, upstreams: &str) -> Gateway {
        let (folder, control) = (TempDir::new().unwrap(), free_address());
        let (config, log) = (folder.path().join("keepwarm.toml"), folder.path().join("queries.jsonl"));
        std::fs::write(&config, config_text(&authority, control, &log, upstreams)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keepwarm"))
            .args(["run", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut gateway = Gateway { authority, child, control, listen: Vec::new(), log, folder };
        gateway.wait_until_it_listens().await;
        gateway
    }

    async fn wait_until_it_listens(&mut self) {
        for _ in 0..500 {
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended at once");
            if let Ok(stats) = client::get::<Stats>(self.control, "/api/v1/stats").await {
                self.listen = stats.listen;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon does not start");
    }

    /// Where its listener for `udp`, `tcp`, `tls`, `https`, `quic` or `h3` is.
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let listener = self.listen.iter().find_map(|url| url.strip_prefix(scheme)?.strip_prefix("://"));
        listener.unwrap().split('/').next().unwrap().parse().unwrap()
    }

    /// The port of [`Gateway::address`].
    pub fn port(&self, scheme: &str) -> String {
        self.address(scheme).port().to_string()
    }

    /// Its DoH listener.
    pub fn doh_url(&self) -> String {
        format!("https://{}/dns-query", self.address("https"))
    }

    /// Somewhere for files of this test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The row of each of its pools.
    pub async fn pools(&self) -> Vec<DnsUpstreamRow> {
        client::get(self.control, "/api/v1/dns/upstreams").await.unwrap()
    }

    /// Stops it and returns what it wrote into its query log, which is then complete.
    pub async fn stop(mut self) -> Vec<Value> {
        let id = self.child.id().unwrap().to_string();
        let status = Command::new("kill").args(["-s", "TERM", &id]).status().await.unwrap();
        assert!(status.success());
        let ended = self.child.wait().await.unwrap();
        assert!(ended.success(), "{ended}");
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Over which transports a name was asked for and answered without an error, each once.
pub fn transports(log: &[Value], name: &str) -> Vec<String> {
    let name = format!("{name}.");
    let lines = log.iter().filter(|line| line["name"] == name.as_str() && line["rcode"] == "NOERROR");
    let mut transports: Vec<String> = lines.map(|line| line["transport"].as_str().unwrap().to_owned()).collect();
    transports.sort();
    transports.dedup();
    transports
}

fn config_text(authority: &Authority, control: SocketAddr, log: &Path, upstreams: &str) -> String {
    let (root, certificate, key) = (authority.root(), authority.certificate(), authority.key());
    format!(
        r#"version = 1
[tls]
extra_roots = ["{root}"]
[dns]
listen = ["127.0.0.1:0", "tls://127.0.0.1:0", "https://127.0.0.1:0", "quic://127.0.0.1:0", "h3://127.0.0.1:0"]
[dns.tls]
certificate = "{certificate}"
key = "{key}"
[dns.cache]
size = "0"
[dns.local]
records = ["{PAGE}. 60 A 127.0.0.1", "*.{PAGE}. 60 A 127.0.0.1"]
[dns.query_log]
privacy = "full"
file = "{}"
[control]
listen = "{control}"
{upstreams}"#,
        log.display()
    )
}

/// The version that a program tells, in one line.
pub fn version(program: &str, argument: &str) -> String {
    let output = std::process::Command::new(program).arg(argument).stdin(Stdio::null()).output().unwrap();
    text(&output).lines().next().unwrap_or_default().to_owned()
}
