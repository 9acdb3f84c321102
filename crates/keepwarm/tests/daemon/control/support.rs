//! A daemon with every job in front of labs, and what its process uses.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use keepwarm_control::{client, rows::PoolDetail};
use keepwarm_lab::{Ca, EchoLab, Faults, Lab, LabSpec, OriginLab, OriginSpec, ProxyLab, ProxySpec, loopback_addresses};
use tempfile::TempDir;

use crate::{
    support::{free_address, keepwarm},
    tunnel::support::socks5,
};
use keepwarm_lab::Tagged;
use tokio::net::TcpStream;

/// The labs and addresses of a daemon.
pub struct Plane {
    child: Option<Child>,
    /// Two DNS upstreams.
    pub labs: [Lab; 2],
    pub proxy: ProxyLab,
    pub echo: EchoLab,
    pub origin: OriginLab,
    pub dns: SocketAddr,
    pub socks: SocketAddr,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    folder: TempDir,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub files: usize,
    pub threads: usize,
    pub memory_kib: usize,
}

impl Plane {
    /// Labs whose DNS answers take so long, and no daemon yet.
    pub async fn new(delay: Duration) -> Plane {
        let ca = Ca::new();
        let lab = async || {
            let spec = LabSpec { faults: Faults { delay, ..Faults::default() }, ..LabSpec::default() };
            Lab::start_with_ca(spec, &ca).await.unwrap()
        };
        let labs = [lab().await, lab().await];
        let proxy = ProxyLab::start(ProxySpec::default()).await.unwrap();
        let echo = EchoLab::start(1).await.unwrap();
        proxy.pin("echo.test", echo.addr(0));
        let addresses = loopback_addresses(2);
        let spec = OriginSpec { host: "tiles.example".into(), addresses, ..OriginSpec::default() };
        let origin = OriginLab::start(spec).await.unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), format!("{}{}", ca.pem(), origin.ca_pem())).unwrap();
        let [dns, socks, gateway, control] = [(); 4].map(|()| free_address());
        Plane { child: None, labs, proxy, echo, origin, dns, socks, gateway, control, folder }
    }

    /// A config with these lines in [dns] and below, which names its upstreams, and these tunnel upstreams.
    pub fn config(&self, dns: &str, tunnel: &str) -> String {
        let addresses: Vec<String> = self.origin.addresses().iter().map(|ip| format!("\"{ip}\"")).collect();
        format!(
            "version = 1\n[tls]\nextra_roots = [\"ca.pem\"]\n[control]\nlisten = \"{}\"\n\
             [dns]\nlisten = [\"{}\"]\nstrategy = \"round-robin\"\ntimeout = \"15s\"\n{dns}\n\
             [tunnel]\nlisten = [\"{}\"]\n{tunnel}\n\
             [https]\ngateway = \"{}\"\n[[https.origin]]\nhost = \"{}\"\nport = {}\naddresses = [{}]\n",
            self.control,
            self.dns,
            self.socks,
            self.gateway,
            self.origin.host(),
            self.origin.port(),
            addresses.join(", ")
        )
    }

    /// The tunnel upstream that all configs have.
    pub fn exit(&self) -> String {
        format!("[[tunnel.upstream]]\nname = \"exit\"\naddress = \"socks5://{}\"\n", self.proxy.addr())
    }

    /// A DNS upstream over a transport.
    pub fn upstream(&self, name: &str, scheme: &str, lab: usize) -> String {
        let lab = &self.labs[lab];
        let (address, more) = match scheme {
            "udp" => (lab.udp_addr().to_string(), ""),
            "tcp" => (lab.tcp_addr().to_string(), ""),
            "tls" => (lab.tls_addr().to_string(), "server_name = \"upstream.lab\"\n"),
            "https" => (format!("{}/dns-query", lab.https_addr()), "server_name = \"upstream.lab\"\n"),
            _ => unreachable!("no such scheme here"),
        };
        format!("[[dns.upstream]]\nname = \"{name}\"\naddress = \"{scheme}://{address}\"\n{more}")
    }

    pub fn write(&self, config: &str) {
        std::fs::write(self.folder.path().join("keepwarm.toml"), config).unwrap();
    }

    /// Starts the daemon with a config and waits until it answers.
    pub async fn start(&mut self, config: &str) {
        self.write(config);
        let mut command = keepwarm();
        command.args(["run", "--log", "warn", "-c"]).arg(self.folder.path().join("keepwarm.toml"));
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
        for _ in 0..500 {
            if client::get::<serde_json::Value>(self.control, "/api/v1/status").await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon does not answer");
    }

    /// The ids of the connections to a host whose name has this in it, in order.
    pub async fn connections(&self, pool: &str, host: &str) -> Vec<u64> {
        let detail: PoolDetail = client::get(self.control, &format!("/api/v1/pools/{pool}")).await.unwrap();
        let hosts = detail.hosts.iter().filter(|row| row.name.contains(host));
        hosts.flat_map(|row| &row.connections).map(|connection| connection.id).collect()
    }

    /// A tunnel to the echo.
    pub async fn tunnel(&self) -> (TcpStream, Tagged) {
        let echo = self.echo.addr(0);
        (socks5(self.socks, "echo.test", echo.port()).await, Tagged::random(echo))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What the daemon uses now.
    pub fn usage(&self) -> Usage {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let figure = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Usage { files, threads: figure("Threads:"), memory_kib: figure("VmRSS:") }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
