//! nginx as the origin: HTTP/2 over TLS with one file of 1 KiB, and counts of its connections.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use keepwarm_lab::Ca;

use crate::{
    cpu::Usage,
    process::{Launch, Process},
    programs::on_path,
};

/// A running nginx. It ends when this is dropped.
pub(super) struct Nginx {
    process: Process,
    /// Full handshakes only: it gives no tickets.
    pub(super) full: SocketAddr,
    /// Gives tickets and takes them.
    pub(super) tickets: SocketAddr,
    status: SocketAddr,
    dir: PathBuf,
    /// How much of its log was read.
    read: u64,
    /// Connections that it had accepted when it was last asked.
    accepted: u64,
}

/// What it saw in a while.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// Connections that were accepted.
    pub(super) connections: u64,
    /// Connections with a request whose session was resumed.
    pub(super) resumed: u64,
    /// Protocols of their requests.
    pub(super) protocols: BTreeSet<String>,
}

impl Nginx {
    /// Starts it with files in a directory, which must be there.
    pub(super) fn start(program: &Path, dir: &Path, cores: &[usize]) -> anyhow::Result<Nginx> {
        let ca = Ca::new();
        let (certificate, key) = ca.issue_pem(&["*.lab.test"]).context("issue a certificate")?;
        let (full, tickets, status) = free_ports()?;
        let file = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))
        };
        file("ca.pem", &ca.pem())?;
        file("certificate.pem", &certificate)?;
        file("key.pem", &key)?;
        file("1k", &"0123456789abcdef".repeat(OCTETS / 16))?;
        file("nginx.conf", &config(full, tickets, status, nix::unistd::geteuid().is_root()))?;
        let prefix = dir.as_os_str().to_owned();
        let argv =
            vec![program.into(), "-p".into(), prefix, "-c".into(), "nginx.conf".into(), "-e".into(), "errors".into()];
        let mut process = Launch { name: "nginx", argv, cores, dir, ca: &dir.join("ca.pem") }.server()?;
        process.wait_until(|| {
            thread::sleep(Duration::from_millis(20));
            Ok(accepted(status).is_ok())
        })?;
        let mut nginx = Nginx { process, full, tickets, status, dir: dir.to_owned(), read: 0, accepted: 0 };
        nginx.seen()?;
        Ok(nginx)
    }

    /// The certificate that it is trusted by.
    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub(super) fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// What it saw since it was last asked.
    pub(super) fn seen(&mut self) -> anyhow::Result<Seen> {
        let accepted = accepted(self.status)?;
        // The question came over a connection too.
        let connections = accepted.saturating_sub(self.accepted + 1);
        self.accepted = accepted;
        let path = self.dir.join("connections");
        let mut log = fs::File::open(&path).with_context(|| format!("read {}", path.display()))?;
        log.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        self.read += text.len() as u64;
        Ok(Seen { connections, ..in_log(&text) })
    }
}

/// The program, and its version.
pub(super) fn find(given: Option<&Path>) -> anyhow::Result<(PathBuf, String)> {
    let program = given.map(Path::to_owned).or_else(|| on_path("nginx"));
    let program = program.context("nginx is not installed; `apt-get install nginx`, or --nginx PROGRAM")?;
    let output = Command::new(&program).arg("-v").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {} -v", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = said.trim().rsplit_once('/').map_or("of unknown version", |(_, version)| version);
    Ok((std::path::absolute(program)?, version.to_owned()))
}

/// Three ports that nobody has now.
fn free_ports() -> anyhow::Result<(SocketAddr, SocketAddr, SocketAddr)> {
    // Together, so that they differ.
    let [a, b, c] = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    ];
    Ok((a.local_addr()?, b.local_addr()?, c.local_addr()?))
}

fn config(full: SocketAddr, tickets: SocketAddr, status: SocketAddr, root: bool) -> String {
    // Its directory is readable by nobody else.
    let user = if root { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path temporary;\n"))
        .concat();
    let server = |listen: SocketAddr, sessions: &str| {
        format!(
            "  server {{\n    listen {listen} ssl http2 backlog=4096;\n    server_name *.lab.test;\n    root .;\n    {sessions}\n  }}\n"
        )
    };
    format!(
        "{user}daemon off;
pid pid;
worker_processes 1;
worker_rlimit_nofile 4096;
events {{
  worker_connections 2048;
}}
http {{
{temporary}  map $connection_requests $is_first {{
    default 0;
    1 1;
  }}
  log_format connection '$ssl_session_reused $server_protocol';
  access_log connections connection if=$is_first;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  open_file_cache max=16;
  ssl_certificate certificate.pem;
  ssl_certificate_key key.pem;
  ssl_protocols TLSv1.2 TLSv1.3;
{full}{tickets}  server {{
    listen {status};
    access_log off;
    keepalive_timeout 0;
    location = /status {{
      stub_status;
    }}
  }}
}}
",
        full = server(full, "ssl_session_tickets off;\n    ssl_session_cache off;"),
        tickets = server(tickets, "ssl_session_tickets on;\n    ssl_session_cache shared:sessions:4m;"),
    )
}

/// Connections that nginx accepted since it started.
fn accepted(status: SocketAddr) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(status)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    match in_status(&page) {
        Some(accepted) => Ok(accepted),
        None => bail!("nginx's status is {page:?}"),
    }
}

/// The first number below the line that names it.
fn in_status(page: &str) -> Option<u64> {
    let (_, numbers) = page.split_once("server accepts handled requests")?;
    numbers.split_whitespace().next()?.parse().ok()
}

/// A line is the first request of a connection: `r` or `.`, and its protocol.
fn in_log(text: &str) -> Seen {
    let mut seen = Seen::default();
    for (reused, protocol) in text.lines().filter_map(|line| line.split_once(' ')) {
        seen.resumed += u64::from(reused == "r");
        seen.protocols.insert(protocol.to_owned());
    }
    seen
}

/// Octets of the file.
pub(super) const OCTETS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_how_many_were_accepted() {
        let page =
            "HTTP/1.1 200 OK\r\n\r\nActive connections: 2 \nserver accepts handled requests\n 17 16 99 \nReading: 0";
        assert_eq!(in_status(page), Some(17));
        assert_eq!(in_status("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn the_log_says_what_was_resumed() {
        let seen = in_log(". HTTP/2.0\nr HTTP/2.0\nr HTTP/1.1\n");
        assert_eq!((seen.resumed, seen.protocols.len()), (2, 2));
        assert_eq!(in_log(""), Seen::default());
    }

    #[test]
    fn ports_differ() {
        let (a, b, c) = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
