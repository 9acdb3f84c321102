//! OpenSSH: `ssh -D` as an upstream, its server as one (feature `ssh`), and what both need.

use std::{path::Path, process::Command};

use super::{
    MS,
    program::{Daemon, Program, at, file, words},
    upstream::{Outside, socks},
};

/// A server with keys of its own.
pub(crate) struct Sshd {
    pub(crate) daemon: Daemon,
    pub(crate) user: String,
}

impl Sshd {
    /// `None`, and said so, where it is not installed.
    pub(crate) async fn start() -> Option<Sshd> {
        let keys = Program::find("ssh-keygen", "openssh-client")?;
        let user = output("id", &["-un"]);
        if user == "root" {
            // Where a server that is started as root wants to be; the service makes it when it starts.
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let arguments = |port: u16, folder: &Path| {
            for name in ["host", "user"] {
                output(keys.path(), &["-q", "-t", "ed25519", "-N", "", "-f", &at(folder, name)]);
            }
            std::fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
            let host = std::fs::read_to_string(folder.join("host.pub")).unwrap();
            file(folder, "known_hosts", &format!("[127.0.0.1]:{port},[ssh.test]:{port} {host}"));
            let text = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
                 StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nAllowTcpForwarding yes\n\
                 MaxStartups 100\n",
                at(folder, "host"),
                at(folder, "authorized")
            );
            vec!["-D".into(), "-e".into(), "-f".into(), file(folder, "config", &text)]
        };
        let daemon = Daemon::start("sshd", "openssh-server", arguments).await?;
        Some(Sshd { daemon, user })
    }

    pub(crate) fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Options of ssh to come in by the key, whatever this machine's user has set.
    pub(crate) fn client_options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.daemon.at("known_hosts"));
        let (key, port) = (self.daemon.at("user"), self.port().to_string());
        let strict = ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none", "BatchMode=yes", "IdentitiesOnly=yes"];
        let options = strict.into_iter().chain([&*known]).flat_map(|option| ["-o", option]);
        ["-F", "none", "-i", &key, "-p", &port].into_iter().chain(options).map(str::to_owned).collect()
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn ssh_d_carries_tunnels_and_comes_back() {
    let Some(sshd) = Sshd::start().await else { return };
    let arguments = |port: u16, _: &Path| {
        let more = format!("-N -D 127.0.0.1:{port} -o ExitOnForwardFailure=yes {}@127.0.0.1", sshd.user);
        [sshd.client_options(), words(&more)].concat()
    };
    let Some(mut ssh) = Daemon::start("ssh", "openssh-client", arguments).await else { return };
    let outside = Outside::start(socks(&ssh, "")).await;
    outside.carries().await;
    // Where it cannot connect it closes without a reply, also on a fresh connection.
    let limit = || outside.stats().spares.unwrap().pool.idle_limit;
    let before = limit();
    outside.full().await;
    // Ends of younger spares teach nothing in any case.
    tokio::time::sleep(600 * MS).await;
    for _ in 0..3 {
        let error = outside.connector.connect(&outside.nobody()).await.unwrap_err();
        println!("{error}");
    }
    assert!(limit() >= before, "that is no age at which it closes");
    outside.proves(0, 1000).await.unwrap();
    outside.restarts(&mut ssh).await;
    outside.check().await;
}

#[cfg(feature = "ssh")]
#[tokio::test]
async fn sshd_carries_tunnels_and_comes_back() {
    use keepwarm_tunnel::{
        ErrorKind,
        config::{HostKey, SshConfig, UpstreamKind},
    };
    let Some(mut sshd) = Sshd::start().await else { return };
    let config = SshConfig {
        host: "127.0.0.1".into(),
        port: sshd.port(),
        user: sshd.user.clone(),
        key: Some(sshd.daemon.at("user").into()),
        password: None,
        host_key: HostKey::KnownHosts(sshd.daemon.at("known_hosts").into()),
        channels: 4,
    };
    let outside = Outside::start(UpstreamKind::Ssh(config.into())).await;
    outside.carries().await;
    let stats = outside.connector.pools().pop().unwrap().pool.stats();
    let phases: Vec<_> = stats.dial_phases.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(phases, ["connect", "protocol"], "key exchange and login are the protocol's");
    outside.restarts(&mut sshd.daemon).await;
    let error = outside.connector.connect(&outside.nobody()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
    outside.check().await;
}
