//! Servers of the library's own making that refuse, keep silent and go away. The real one is in `tests/ssh.rs`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use russh::{
    Channel, ChannelOpenFailure, Disconnect,
    keys::{PublicKey, ssh_key::private::Ed25519Keypair},
    server::{self, Auth, ChannelOpenHandle, Msg, Session},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::{
    error::Side,
    proxy::{Blame, Target},
    resolve::Fixed,
    testing::{after, soon},
};

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
}

/// What a server was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Password(String),
    Channel(String, u32),
    Closed,
}

/// A server with key 1 and the user `ann`. The port of a destination says what becomes of its channel.
struct Server {
    asked: mpsc::UnboundedSender<Asked>,
    silent: Vec<ChannelOpenHandle>,
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let _ = self.asked.send(Asked::Password(password.to_owned()));
        Ok(if (user, password) == ("ann", "hunter2") { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let _ = self.asked.send(Asked::Channel(host.to_owned(), port));
        let asked = self.asked.clone();
        match port {
            PROHIBITED => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
            UNREACHABLE => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            UNKNOWN => reply.reject(ChannelOpenFailure::UnknownChannelType).await,
            SHORT => reply.reject(ChannelOpenFailure::ResourceShortage).await,
            SILENT => self.silent.push(reply),
            END => session.disconnect(Disconnect::ByApplication, "bye\r\nbye", "")?,
            LATE => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    reply.accept().await;
                    watch(channel, asked).await;
                });
            }
            _ => {
                reply.accept().await;
                tokio::spawn(async move {
                    let stream = channel.into_stream();
                    let (mut reads, mut writes) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                    let _ = writes.write_all(b"and goodbye").await;
                    let _ = writes.shutdown().await;
                    let _ = asked.send(Asked::Closed);
                });
            }
        }
        Ok(())
    }
}

async fn watch(mut channel: Channel<Msg>, asked: mpsc::UnboundedSender<Asked>) {
    while channel.wait().await.is_some() {}
    let _ = asked.send(Asked::Closed);
}

const PROHIBITED: u32 = 1;
const UNREACHABLE: u32 = 2;
const UNKNOWN: u32 = 3;
const SHORT: u32 = 4;
const SILENT: u32 = 5;
const END: u32 = 6;
const LATE: u32 = 7;
const ECHO: u16 = 80;

/// Starts a server and tells what it is asked for.
async fn server() -> (SocketAddr, mpsc::UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key(1)],
        auth_rejection_time: Duration::ZERO,
        nodelay: true,
        ..server::Config::default()
    });
    let (asked, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = Server { asked: asked.clone(), silent: Vec::new() };
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, handler).await {
                    let _ = session.await;
                }
            });
        }
    });
    (addr, receiver)
}

fn settings(addr: SocketAddr) -> SshSettings {
    SshSettings {
        host: addr.ip().to_string(),
        port: addr.port(),
        user: "ann".to_owned(),
        auth: SshAuth::Password("hunter2".to_owned()),
        host_key: HostKey::Fingerprint(fingerprint(key(1).public_key())),
    }
}

async fn connect(settings: SshSettings) -> Result<SshSession, Error> {
    let client = SshClient::new(settings).unwrap();
    let connected = client.connect(&Fixed(Vec::new()), &TcpOptions::default(), soon()).await;
    connected.map(|(session, _)| session)
}

fn target(port: u32) -> Target {
    Target::new("tiles.example", u16::try_from(port).unwrap()).unwrap()
}

/// Sends what fills several windows' worth of messages, and takes it back.
async fn echoes(session: &SshSession, tag: u8) {
    let mut stream = session.open(&target(ECHO.into()), soon()).await.unwrap();
    let sent: Vec<u8> = (0..100_000_usize).map(|at| tag.wrapping_add(u8::try_from(at % 251).unwrap())).collect();
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let us = async {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(us, reads.read_to_end(&mut heard));
    read.unwrap();
    // The end of ours is not the end of theirs.
    let rest = heard.split_off(sent.len());
    assert!(heard == sent, "channel {tag} heard what is not its own");
    assert_eq!(rest, b"and goodbye");
    assert_eq!(reads.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn channels_carry_their_own_bytes_at_a_time_and_one_after_another() {
    let (addr, mut asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    futures_util::future::join_all((0..40).map(|tag| echoes(&session, tag))).await;
    for tag in 0..10 {
        echoes(&session, tag).await;
    }
    assert!(!session.is_closed());
    assert_eq!(asked.recv().await, Some(Asked::Password("hunter2".to_owned())));
    // The server looks names up.
    assert_eq!(asked.recv().await, Some(Asked::Channel("tiles.example".to_owned(), ECHO.into())));
}

#[tokio::test]
async fn a_server_with_another_key_hears_no_password() {
    let (addr, mut asked) = server().await;
    let (expected, shown) = (fingerprint(key(2).public_key()), fingerprint(key(1).public_key()));
    let host_key = HostKey::Fingerprint(expected.clone());
    let error = connect(SshSettings { host_key, ..settings(addr) }).await.unwrap_err();
    assert_eq!((error.kind(), error.side(), Blame::of(&error)), (ErrorKind::HostKey, Side::Local, Blame::Proxy));
    assert!(error.to_string().contains(&shown) && error.to_string().contains(&expected), "{error}");
    // Whoever comes next is the first to tell the server a password.
    connect(settings(addr)).await.unwrap();
    assert_eq!(asked.recv().await, Some(Asked::Password("hunter2".to_owned())));
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_password_is_not_shown() {
    let (addr, _asked) = server().await;
    let wrong = SshSettings { auth: SshAuth::Password("hunter3".to_owned()), ..settings(addr) };
    assert!(!format!("{wrong:?} {:?} {:?}", wrong.auth, SshClient::new(wrong.clone()).unwrap()).contains("hunter"));
    let error = connect(wrong).await.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::ProxyAuth, Blame::Proxy), "{error}");
    assert!(error.to_string().contains("does not accept the password"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
}

#[tokio::test]
async fn refusals_are_told_apart_and_leave_the_session_alone() {
    let (addr, _asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    for (port, kind, blame) in [
        (PROHIBITED, ErrorKind::ProxyDenied, Blame::Declined),
        (UNREACHABLE, ErrorKind::Unreachable, Blame::Destination),
        (UNKNOWN, ErrorKind::ProxyUnsupported, Blame::Declined),
        (SHORT, ErrorKind::ProxyGeneral, Blame::Declined),
    ] {
        let error = session.open(&target(port), soon()).await.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (kind, blame), "{error}");
        assert!(error.to_string().starts_with(&format!("connect to tiles.example:{port} through ssh://{addr}: ")));
    }
    let error = session.open(&target(SILENT), after(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::TimedOut(Phase::Connect), Blame::Destination), "{error}");
    echoes(&session, 1).await;
}

#[tokio::test]
async fn a_channel_that_opens_when_nobody_waits_any_more_is_closed() {
    let (addr, mut asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    let error = session.open(&target(LATE), after(Duration::from_millis(5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut(Phase::Connect));
    while asked.recv().await.unwrap() != Asked::Closed {}
    assert_eq!(session.opening.available_permits(), SshSession::OPENING_MAX);
}

#[tokio::test]
async fn a_dropped_stream_closes_its_channel() {
    let (addr, mut asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    drop(session.open(&target(LATE), soon()).await.unwrap());
    while asked.recv().await.unwrap() != Asked::Closed {}
    assert!(!session.is_closed());
}

#[tokio::test]
async fn a_live_channel_outlasts_the_handle_of_its_session() {
    let (addr, mut asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    let mut stream = session.open(&target(ECHO.into()), soon()).await.unwrap();
    drop(session);
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    drop(stream);
    while asked.recv().await.unwrap() != Asked::Closed {}
}

#[tokio::test]
async fn the_end_of_a_session_is_told_and_is_no_end_of_its_channels_bytes() {
    let (addr, _asked) = server().await;
    let session = connect(settings(addr)).await.unwrap();
    let mut stream = session.open(&target(ECHO.into()), soon()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    let end = target(END);
    let (ended, refused) = tokio::join!(session.closed(), session.open(&end, soon()));
    assert_eq!(ended.to_string(), format!("session with ssh://{addr}: the server has ended it: byebye"));
    for error in [ended, refused.unwrap_err(), session.open(&target(ECHO.into()), soon()).await.unwrap_err()] {
        assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::Proxy, Blame::Proxy), "{error}");
    }
    assert!(session.is_closed());
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_keeps_silent_is_left_at_the_deadline_and_with_it_the_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let settings = settings(listener.local_addr().unwrap());
    let client = SshClient::new(settings).unwrap();
    // Nothing at all, a banner without an end, and silence in the key exchange.
    for says in [&b""[..], b"SSH-2.0-", b"SSH-2.0-x\r\n"] {
        let them = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let (resolver, options) = (Fixed(Vec::new()), TcpOptions::default());
        let us = client.connect(&resolver, &options, after(Duration::from_millis(200)));
        let (connected, heard) = tokio::join!(us, them);
        let error = connected.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::TimedOut(Phase::Proxy), Blame::Proxy), "{error}");
        assert!(heard.starts_with(b"SSH-2.0-keepwarm\r\n"));
    }
}

#[tokio::test]
async fn what_is_no_ssh_server_is_the_proxys_failure() {
    for says in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-1.5-old\r\n", b"", b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14\0\0"]
    {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(says).await.unwrap();
        theirs.shutdown().await.unwrap();
        let client = SshClient::new(settings(([127, 0, 0, 1], 22).into())).unwrap();
        let error = client.connect_over(ours, soon()).await.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::Proxy, Blame::Proxy), "{says:?}: {error}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_when_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let line = key(1).public_key().to_openssh().unwrap();
    let other = file("other", &format!("elsewhere.example {line}\n"));
    let base = settings(([127, 0, 0, 1], 2222).into());
    let known = |path: &Path| SshSettings { host_key: HostKey::KnownHosts(path.to_owned()), ..base.clone() };
    let with_key = |path: &Path| SshSettings { auth: SshAuth::Key(path.to_owned()), ..base.clone() };
    for (settings, expected) in [
        (known(&folder.path().join("none")), "cannot be read"),
        (known(&other), "has no key of [127.0.0.1]:2222"),
        (with_key(&folder.path().join("none")), "cannot be read"),
        (with_key(&file("empty", "")), "cannot be read"),
        (
            SshSettings { host_key: HostKey::Fingerprint("MD5:00".to_owned()), ..base.clone() },
            "a fingerprint is SHA256:",
        ),
    ] {
        let error = SshClient::new(settings).unwrap_err();
        assert_eq!((error.kind(), error.side()), (ErrorKind::Other, Side::Local));
        assert!(error.to_string().starts_with("set up ssh://127.0.0.1:2222: "), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn known_hosts_are_looked_at_as_openssh_does() {
    let (addr, _asked) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    let (own, other) = (key(1).public_key().to_openssh().unwrap(), key(2).public_key().to_openssh().unwrap());
    let place = format!("[127.0.0.1]:{}", addr.port());
    for (text, good) in [
        (format!("# a comment\n\n{place} {own}\n"), true),
        (format!("tiles.example,{place} {own} with a comment\n"), true),
        (format!("{place} {other}\n{place} {own}\n"), true),
        (format!("{place} {other}\n"), false),
        (format!("{place} {own}\n@revoked * {own}\n"), false),
    ] {
        std::fs::write(&path, &text).unwrap();
        let known = SshSettings { host_key: HostKey::KnownHosts(path.clone()), ..settings(addr) };
        match connect(known).await {
            Ok(_) => assert!(good, "{text}"),
            Err(error) => {
                assert_eq!((good, error.kind()), (false, ErrorKind::HostKey), "{text}: {error}");
                assert!(error.to_string().contains(&fingerprint(key(1).public_key())), "{error}");
            }
        }
    }
}
