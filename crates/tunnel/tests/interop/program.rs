//! Programs: found, run with a limit of time, kept running, ended by their process id.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
};

use super::{MS, SECOND};

/// A program that is installed.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
}

/// What a program has left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: String,
}

impl Program {
    /// Finds a program, and tells its version. `None`, and said so, where it is not installed.
    pub(crate) fn find(name: &str, package: &str) -> Option<Program> {
        let Some(path) = path(name) else {
            println!("SKIPPED: {name} is not installed (Debian: {package})");
            return None;
        };
        let mut query = std::process::Command::new("dpkg-query");
        query.args(["-W", "-f", "${Version}", package]).stderr(Stdio::null());
        let version = query.output().ok().filter(|output| output.status.success());
        let version =
            version.map_or("of an unknown version".into(), |output| String::from_utf8(output.stdout).unwrap());
        println!("{name} {version}");
        Some(Program { path })
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Runs it without an input.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.feed(arguments, &[]).await
    }

    /// Sends it `input` while it runs, then an end.
    pub(crate) async fn feed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(&self.path);
        // What the machine's user has set must not choose another way.
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Who gives up early does not read to the end.
        let write = async move { drop(stdin.write_all(input).await) };
        let both = async { tokio::join!(write, child.wait_with_output()).1.unwrap() };
        let output = tokio::time::timeout(LIMIT, both).await;
        let output = output.unwrap_or_else(|_| panic!("{} {arguments:?} does not end", self.path.display()));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Ran { code: output.status.code(), output: output.stdout, errors }
    }
}

impl Ran {
    /// What it wrote, when all went well.
    pub(crate) fn well(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}{}", String::from_utf8_lossy(&self.output), self.errors);
        self.output
    }

    pub(crate) fn text(self) -> String {
        String::from_utf8(self.well()).unwrap()
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Daemon {
    program: PathBuf,
    arguments: Vec<String>,
    process: Child,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Daemon {
    /// Starts a program with what `arguments` makes of a port and a folder of its own. `None`, and said so, where it is not installed.
    pub(crate) async fn start(
        name: &str,
        package: &str,
        arguments: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Option<Daemon> {
        let program = Program::find(name, package)?.path;
        // The port is free when it is chosen; somebody else may still take it.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port().await;
            let arguments = arguments(port, folder.path());
            let process = spawn(&program, &arguments, folder.path());
            let mut daemon = Daemon { program: program.clone(), arguments, process, port, folder };
            if daemon.listens().await {
                return Some(daemon);
            }
        }
        panic!("{name} does not listen");
    }

    /// Ends it at once, with all that it has started.
    pub(crate) fn kill(&mut self) {
        let id = self.process.id();
        if matches!(self.process.try_wait(), Ok(None)) {
            // One that runs puts new processes into the place of those that are killed. They would outlive it, with its listener.
            stop(id);
        }
        for child in descendants(id) {
            // It may have ended by itself.
            let _ = pid(child).map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again at the same port.
    pub(crate) async fn revive(&mut self) {
        for _ in 0..50 {
            self.process = spawn(&self.program, &self.arguments, self.folder.path());
            if self.listens().await {
                return;
            }
            // What is left of the former one holds the port.
            tokio::time::sleep(100 * MS).await;
        }
        panic!("{} does not listen again", self.program.display());
    }

    pub(crate) fn at(&self, name: &str) -> String {
        at(self.folder.path(), name)
    }

    async fn listens(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + 15 * SECOND;
        while self.process.try_wait().unwrap().is_none() && tokio::time::Instant::now() < deadline {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(20 * MS).await;
        }
        println!("{}", fs::read_to_string(self.at("log")).unwrap());
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, arguments: &[String], folder: &Path) -> Child {
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// Stops a child of ours, and waits until it starts nothing any more.
fn stop(id: u32) {
    let Some(pid) = pid(id) else { return };
    let _ = kill_process(pid, Signal::STOP);
    // If it has ended, it is still to be waited for.
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Processes that a process has started, and those that they have.
fn descendants(id: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse::<u32>().unwrap());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Also where Debian keeps servers, which not every user's path has.
fn path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    folders.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// An address at which nobody listens, and nobody will while this lives: the port is taken.
pub(crate) struct Nowhere(TcpSocket);

impl Nowhere {
    pub(crate) fn new() -> Nowhere {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Nowhere(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// A port that is free for the moment.
pub(crate) async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

pub(crate) fn at(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// Writes a file, and tells where it is.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> String {
    fs::write(folder.join(name), text).unwrap();
    at(folder, name)
}

pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Longest time for one run.
const LIMIT: Duration = Duration::from_secs(40);
