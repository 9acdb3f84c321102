//! Sockets that somebody else bound before the daemon started, as systemd does (sd_listen_fds(3)).

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use keepwarm_lab::{answer_matches, build_query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// Binds what the first argument says, `udp`, `tcp`, `connection` and `file` in a row and `+` for SO_REUSEPORT, to the address
/// in the second, and becomes the program of the others with these as file descriptors 3 and up.
const PARENT: &str = r#"
import os, socket, sys
address, port = sys.argv[2].rsplit(":", 1)
held = []
for kind in sys.argv[1].split(","):
    name = kind.rstrip("+")
    if name == "file":
        held.append(open(os.devnull))
        continue
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM)
    if kind.endswith("+"):
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind((address, int(port)))
    if name != "udp":
        own.listen(16)
    if name == "connection":
        client = socket.create_connection((address, int(port)))
        served, _ = own.accept()
        own.close()
        held += [served]
        keep = client.detach()
    else:
        held.append(own)
# Out of the way first, for they may be among the numbers that are to be used.
moved = [os.dup2(one.fileno(), 100 + number) for number, one in enumerate(held)]
for number, one in enumerate(moved):
    os.dup2(one, 3 + number)
    os.close(one)
os.environ["LISTEN_FDS"] = str(len(held))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// The daemon as a child of the script; `None`, and said, where there is no Python.
fn passed(kinds: &str, address: SocketAddr) -> Option<Command> {
    has_python().then(|| parent(kinds, address))
}

fn has_python() -> bool {
    let has = Command::new("python3").arg("--version").output().is_ok();
    if !has {
        println!("SKIPPED: python3 is not installed");
    }
    has
}

fn parent(kinds: &str, address: SocketAddr) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", PARENT, kinds, &address.to_string(), env!("CARGO_BIN_EXE_keepwarm")]).stdin(Stdio::null());
    command
}

async fn answers_over_tcp(address: SocketAddr) {
    let query = build_query(9, "tcp.example", 1, None);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&[&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat()).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer_matches(&query, &answer), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_sockets_are_served_in_place_of_new_ones() {
    // Where a socket is not taken over, binding its address fails, for it is in use.
    for kinds in ["udp,tcp", "tcp,udp", "udp", "tcp", "udp+,tcp+"] {
        if !has_python() {
            return;
        }
        let daemon = Daemon::start_by("tcp", "size = \"0\"", |address| parent(kinds, address)).await;
        let address = daemon.dns;
        for _ in 0..8 {
            answers_over_tcp(address).await;
        }
        daemon.signal("TERM");
        let output = daemon.wait();
        let log = text(&output);
        assert_eq!(output.status.code(), Some(0), "{kinds}: {log}");
        for kind in kinds.replace('+', "").split(',') {
            assert!(log.contains(&format!("{address} ({kind})")), "{kinds}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_socket_activate_starts_the_daemon_with_the_first_datagram() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        println!("SKIPPED: systemd-socket-activate is not installed (Debian: systemd)");
        return;
    }
    let activated = |address: SocketAddr| {
        let mut command = Command::new("systemd-socket-activate");
        command.args(["-d", "-l", &address.to_string(), env!("CARGO_BIN_EXE_keepwarm")]).stdin(Stdio::null());
        command
    };
    let daemon = Daemon::start_by("tcp", "size = \"0\"", activated).await;
    let address = daemon.dns;
    answers_over_tcp(address).await;
    daemon.signal("TERM");
    let output = daemon.wait();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(&format!("{address} (udp)")), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_of_the_status_endpoint_is_served_in_place_of_a_new_one() {
    let (control, dns) = (free_address(), free_address());
    let Some(mut command) = passed("tcp", control) else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("keepwarm.toml");
    let config = format!(
        "version = 1\n[dns]\nlisten = [\"{dns}\"]\n[[dns.upstream]]\nname = \"none\"\naddress = \"tcp://127.0.0.1:9\"\n\
         [control]\nlisten = \"{control}\"\n"
    );
    std::fs::write(&path, config).unwrap();
    let child = command.args(["run", "-c"]).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    // The socket takes connections before the daemon is there, which answers once it is; until the parent has bound it, nobody does.
    let mut stream = loop {
        match tokio::net::TcpStream::connect(control).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(&format!("{control} (tcp)")), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_that_cannot_be_served_is_named_with_exit_code_69() {
    let (address, other) = (free_address(), free_address());
    for (kinds, bound, said) in [
        ("udp", other, format!("socket activation passed {other} (udp), which no listener is for")),
        ("tcp", other, format!("socket activation passed {other} (tcp), which no listener is for")),
        ("file", address, "file descriptor 3, which is neither a udp nor a tcp socket".to_owned()),
        ("connection", address, format!("take over the socket of {address} (tcp): it is a connection")),
    ] {
        let Some(mut command) = passed(kinds, bound) else { return };
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("keepwarm.toml");
        let control = free_address();
        let config = format!(
            "version = 1\n[dns]\nlisten = [\"{address}\"]\n[[dns.upstream]]\nname = \"none\"\naddress = \"tcp://127.0.0.1:9\"\n\
             [control]\nlisten = \"{control}\"\n"
        );
        std::fs::write(&path, config).unwrap();
        let output = command.args(["run", "-c"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{kinds}: {}", text(&output));
        assert!(text(&output).contains(&said), "{kinds}: {}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_for_another_process_are_not_touched() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("keepwarm.toml");
    // With the sockets of somebody else's number there is nothing to take over, and the daemon binds as always.
    let nobody = free_address();
    let text_of = format!(
        "version = 1\n[dns]\nlisten = [\"{nobody}\"]\n[[dns.upstream]]\nname = \"none\"\naddress = \"tcp://127.0.0.1:9\"\n\
         [control]\nlisten = \"{}\"\n",
        free_address()
    );
    std::fs::write(&path, text_of).unwrap();
    let mut child = keepwarm()
        .args(["run", "-c"])
        .arg(&path)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut tries = 0;
    while std::net::TcpStream::connect(nobody).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the daemon gave up");
        tries += 1;
        assert!(tries < 500, "the daemon does not listen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_was_taken_meanwhile_is_given_up_for_another() {
    let taken = std::sync::Mutex::new(Vec::new());
    let daemon = Daemon::start_by("tcp", "size = \"0\"", |address| {
        let mut taken = taken.lock().unwrap();
        if taken.is_empty() {
            taken.push(std::net::TcpListener::bind(address).unwrap());
        }
        keepwarm()
    });
    let daemon = daemon.await;
    assert_ne!(daemon.dns, taken.lock().unwrap()[0].local_addr().unwrap());
    answers_over_tcp(daemon.dns).await;
}
