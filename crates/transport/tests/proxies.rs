//! Proxies that we did not write, from Debian: microsocks, dante and tinyproxy.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code: a failure is a panic, a skip is said")]

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Side},
    proxy::{Blame, Greeted, Proxy, ProxyDialer, Target},
    resolve::Fixed,
    tcp::TcpOptions,
    tls::TlsRoots,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// A proxy that runs until it is dropped.
struct Peer {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    /// Starts `program` with what `arguments` makes of a port and a folder of its own. `None`, and said so, where it is not installed.
    async fn start(program: &str, package: &str, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Option<Peer> {
        let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
        let Some(program) = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
        else {
            println!("SKIPPED: {program} is not installed (Debian: {package})");
            return None;
        };
        // The port is free when it is chosen; somebody else may still take it.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port().await;
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut command = Command::new(&program);
            command.args(arguments(port, folder.path())).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log);
            let mut peer = Peer { process: command.spawn().unwrap(), port, _folder: folder };
            if peer.listens().await {
                return Some(peer);
            }
        }
        panic!("{} does not listen", program.display());
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

    /// Connects through the proxy, whose URL begins so.
    async fn connect(&self, start: &str, target: &Target) -> Result<TcpStream, Error> {
        let proxy = Proxy::parse(&format!("{start}127.0.0.1:{}", self.port)).unwrap();
        let connected = proxy.connect(&Fixed(Vec::new()), target, &TcpOptions::default(), soon()).await;
        connected.map(|(stream, _)| stream)
    }

    /// Connects to the echo and checks every byte.
    async fn carries(&self, start: &str, target: &Target) {
        let mut stream = self.connect(start, target).await.unwrap();
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, GREETING);
        let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        let (mut reads, mut writes) = stream.split();
        let mut heard = vec![0; sent.len()];
        let (read, written) = tokio::join!(reads.read_exact(&mut heard), writes.write_all(&sent));
        read.and(written.map(|()| 0)).unwrap();
        assert!(heard == sent, "the bytes came back changed");
    }

    /// Connects to the proxy, whose URL begins so, and greets it.
    async fn greeted(&self, start: &str) -> Greeted {
        let proxy = Proxy::parse(&format!("{start}127.0.0.1:{}", self.port)).unwrap();
        let (stream, _) = proxy.open(&Fixed(Vec::new()), &TcpOptions::default(), soon()).await.unwrap();
        proxy.greet(stream, soon()).await.unwrap()
    }

    /// A dialer for the proxy, whose URL begins so.
    fn dialer(&self, start: &str) -> ProxyDialer {
        let proxy = Proxy::parse(&format!("{start}127.0.0.1:{}", self.port)).unwrap();
        ProxyDialer::new(proxy.into(), &TlsRoots::only([])).unwrap()
    }

    /// How a connection fails.
    async fn refuses(&self, start: &str, target: &Target) -> (ErrorKind, Side) {
        let error = self.connect(start, target).await.unwrap_err();
        println!("{error}");
        (error.kind(), error.side())
    }
}

/// What the echo says first, with an end of line pair as HTTP's head has one.
const GREETING: &[u8; 16] = b"220 hello\r\n\r\n\r\n\0";

fn soon() -> Instant {
    tokio::time::Instant::now().into_std() + Duration::from_secs(10)
}

/// A port of loopback that nobody listens on.
async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

/// A server that speaks first and then repeats what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(GREETING).await;
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    addr
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("proxy.conf");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn microsocks_connects_with_and_without_a_password() {
    let plain = |port, _: &Path| words(&format!("-i 127.0.0.1 -p {port}"));
    let known = |port, _: &Path| words(&format!("-i 127.0.0.1 -p {port} -u ann -P p@ss:w"));
    let Some(open) = Peer::start("microsocks", "microsocks", plain).await else { return };
    let Some(closed) = Peer::start("microsocks", "microsocks", known).await else { return };
    let echo = echo().await;
    let by_name = Target::new("localhost", echo.port()).unwrap();
    for target in [Target::from(echo), by_name] {
        open.carries("socks5://", &target).await;
        open.carries("socks5://ann:any@", &target).await;
        closed.carries("socks5://ann:p%40ss%3Aw@", &target).await;
    }
    let auth = (ErrorKind::ProxyAuth, Side::Local);
    assert_eq!(closed.refuses("socks5://", &echo.into()).await, auth);
    assert_eq!(closed.refuses("socks5://ann:wrong@", &echo.into()).await, auth);
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await)).into();
    assert_eq!(open.refuses("socks5://", &nobody).await, (ErrorKind::Refused, Side::Upstream));
    // It is not what it is taken for.
    assert_eq!(open.refuses("http://", &echo.into()).await, (ErrorKind::Proxy, Side::Local));
}

#[tokio::test]
async fn dante_connects_and_tells_what_its_rules_forbid() {
    let forbidden = free_port().await;
    let config = |port: u16, folder: &Path| {
        let text = format!(
            "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nsocksmethod: none\nclientmethod: none\n\
             client pass {{ from: 0/0 to: 0/0 }}\nsocks block {{ from: 0/0 to: 0/0 port = {forbidden} }}\n\
             socks pass {{ from: 0/0 to: 0/0 }}\n"
        );
        let pid = folder.join("pid");
        words(&format!("-f {} -p {}", file(folder, &text), pid.display()))
    };
    let Some(dante) = Peer::start("danted", "dante-server", config).await else { return };
    let echo = echo().await;
    dante.carries("socks5://", &echo.into()).await;
    dante.carries("socks5://", &Target::new("localhost", echo.port()).unwrap()).await;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await)).into();
    assert_eq!(dante.refuses("socks5://", &nobody).await, (ErrorKind::Refused, Side::Upstream));
    let denied = SocketAddr::from((Ipv4Addr::LOCALHOST, forbidden)).into();
    assert_eq!(dante.refuses("socks5://", &denied).await, (ErrorKind::ProxyDenied, Side::Upstream));
}

const DANTE: &str = "logoutput: stderr\nexternal: lo\nsocksmethod: none\nclientmethod: none\n\
                     client pass { from: 0/0 to: 0/0 }\nsocks pass { from: 0/0 to: 0/0 }\n";

fn dante(port: u16, folder: &Path) -> Vec<String> {
    let text = format!("internal: 127.0.0.1 port = {port}\n{DANTE}");
    words(&format!("-f {} -p {}", file(folder, &text), folder.join("pid").display()))
}

#[tokio::test]
async fn dante_relays_datagrams_and_microsocks_says_that_it_does_not() {
    let plain = |port, _: &Path| words(&format!("-i 127.0.0.1 -p {port}"));
    let Some(microsocks) = Peer::start("microsocks", "microsocks", plain).await else { return };
    let loopback = Ipv4Addr::LOCALHOST.into();
    let error = microsocks.greeted("socks5://").await.associate(loopback, soon()).await.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::ProxyUnsupported, Blame::Declined), "{error}");
    let Some(dante) = Peer::start("danted", "dante-server", dante).await else { return };
    let (control, relay) = dante.greeted("socks5://").await.associate(loopback, soon()).await.unwrap();
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let [high, low] = echo.local_addr().unwrap().port().to_be_bytes();
    // RFC 1928 section 7: two reserved bytes, no fragment, and the destination.
    let header = [0, 0, 0, 1, 127, 0, 0, 1, high, low];
    ours.send_to(&[&header[..], b"hello"].concat(), relay).await.unwrap();
    let mut buffer = [0; 64];
    let (length, from) = echo.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"hello");
    echo.send_to(b"world", from).await.unwrap();
    let (length, from) = ours.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from), (&[&header[..], b"world"].concat()[..], relay));
    drop(control);
}

#[tokio::test]
async fn proxies_of_two_makers_are_chained() {
    let plain = |port, _: &Path| words(&format!("-i 127.0.0.1 -p {port}"));
    let tiny = |port: u16, folder: &Path| {
        let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 30\nMaxClients 10\n");
        words(&format!("-d -c {}", file(folder, &text)))
    };
    let Some(microsocks) = Peer::start("microsocks", "microsocks", plain).await else { return };
    let Some(tinyproxy) = Peer::start("tinyproxy", "tinyproxy", tiny).await else { return };
    let echo = echo().await;
    let (socks, http) = (microsocks.dialer("socks5://"), tinyproxy.dialer("http://"));
    for (first, second) in [(&socks, &http), (&http, &socks)] {
        let opened = second.open_through(first, &Fixed(Vec::new()), &TcpOptions::default(), soon()).await;
        let greeted = second.proxy().greet(opened.unwrap().0, soon()).await.unwrap();
        let mut stream = greeted.connect(&echo.into(), soon()).await.unwrap();
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, GREETING);
    }
}

/// Whether a destination answers that was asked for in this way, within a time that is plenty on loopback.
async fn bears(asked: impl Future<Output = Result<TcpStream, Error>>) -> bool {
    let heard = async {
        let mut stream = asked.await.ok()?;
        let mut heard = [0; GREETING.len() + 5];
        stream.read_exact(&mut heard).await.ok()?;
        (heard[..GREETING.len()] == *GREETING && heard[GREETING.len()..] == *b"hello").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(3), heard).await.is_ok_and(|heard| heard.is_some())
}

/// Not every proxy bears what is sent ahead of its word, which is why a canary has to ask. What counts is that those which do not are
/// found out: the connection fails or keeps silent, and nothing of the payload is changed.
#[tokio::test]
async fn proxies_bear_or_fail_what_is_sent_ahead() {
    let known = |port, _: &Path| words(&format!("-i 127.0.0.1 -p {port} -u ann -P hunter2"));
    let tiny = |port: u16, folder: &Path| {
        let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 30\nMaxClients 10\n");
        words(&format!("-d -c {}", file(folder, &text)))
    };
    let echo = echo().await.into();
    for (peer, start) in [
        (Peer::start("microsocks", "microsocks", known).await, "socks5://ann:hunter2@"),
        (Peer::start("danted", "dante-server", dante).await, "socks5://"),
        (Peer::start("tinyproxy", "tinyproxy", tiny).await, "http://"),
    ] {
        let Some(peer) = peer else { continue };
        let proxy = Proxy::parse(&format!("{start}127.0.0.1:{}", peer.port)).unwrap();
        let open = || async { proxy.open(&Fixed(Vec::new()), &TcpOptions::default(), soon()).await.unwrap().0 };
        let payload = bears(async { peer.greeted(start).await.connect_with(&echo, b"hello", soon()).await }).await;
        let greeting = bears(async {
            let greeted = proxy.greet_pipelined(open().await, soon()).await?;
            let mut stream = greeted.connect(&echo, soon()).await?;
            stream.write_all(b"hello").await.unwrap();
            Ok(stream)
        })
        .await;
        let all = bears(async { proxy.connect_pipelined(open().await, &echo, b"hello", soon()).await }).await;
        println!("{proxy}: payload ahead {payload}, greeting pipelined {greeting}, all in one write {all}");
        // What bears everything bears each part of it.
        assert!(!all || (payload && greeting), "{proxy}");
        // And none is worse off than before.
        peer.carries(start, &echo).await;
    }
}

#[tokio::test]
async fn tinyproxy_connects_with_and_without_a_password() {
    let start = |more: String| {
        move |port: u16, folder: &Path| {
            let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 30\nMaxClients 10\n{more}\n");
            words(&format!("-d -c {}", file(folder, &text)))
        }
    };
    let echo = echo().await;
    let forbidden = free_port().await;
    let Some(open) = Peer::start("tinyproxy", "tinyproxy", start(String::new())).await else { return };
    let known = start(format!("BasicAuth ann p4ss\nConnectPort {}", echo.port()));
    let Some(closed) = Peer::start("tinyproxy", "tinyproxy", known).await else { return };
    for target in [Target::from(echo), Target::new("localhost", echo.port()).unwrap()] {
        open.carries("http://", &target).await;
        closed.carries("http://ann:p4ss@", &target).await;
    }
    let auth = (ErrorKind::ProxyAuth, Side::Local);
    assert_eq!(closed.refuses("http://", &echo.into()).await, auth);
    assert_eq!(closed.refuses("http://ann:wrong@", &echo.into()).await, auth);
    let denied = SocketAddr::from((Ipv4Addr::LOCALHOST, forbidden)).into();
    assert_eq!(closed.refuses("http://ann:p4ss@", &denied).await, (ErrorKind::ProxyDenied, Side::Upstream));
    assert_eq!(open.refuses("http://", &denied).await, (ErrorKind::BadGateway, Side::Upstream));
}
