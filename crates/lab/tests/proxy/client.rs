//! A SOCKS5 client by hand, one step at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use keepwarm_lab::{EchoLab, ProxyFaults, ProxyLab, ProxySpec, Tagged};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What should happen happens within this; what should not happen is waited for as long.
const SOON: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_millis(200);

pub(crate) const AUTH: &[u8] = b"\x01\x03ann\x07hunter2";

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

pub(crate) async fn never<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    if let Ok(output) = tokio::time::timeout(NEVER, future).await {
        panic!("unexpected: {output:?}");
    }
}

/// Waits for something that the lab notices by itself.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Two destinations, `a.test` and `b.test`, and a proxy that knows one user.
pub(crate) async fn labs(faults: ProxyFaults) -> (EchoLab, ProxyLab) {
    labs_with(ProxySpec { faults, ..ProxySpec::default() }).await
}

pub(crate) async fn labs_with(spec: ProxySpec) -> (EchoLab, ProxyLab) {
    let echo = EchoLab::start(2).await.unwrap();
    let credential = Some(("ann".to_owned(), "hunter2".to_owned()));
    let pinned = [("a.test".to_owned(), echo.addr(0)), ("b.test".to_owned(), echo.addr(1))].into();
    let proxy = ProxyLab::start(ProxySpec { credential, pinned, ..spec }).await.unwrap();
    (echo, proxy)
}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads so many bytes.
pub(crate) async fn read(stream: &mut (impl AsyncReadExt + Unpin), count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    soon(stream.read_exact(&mut bytes)).await?;
    Ok(bytes)
}

/// Reads to the end: what came, and how it ended.
pub(crate) async fn read_end(stream: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, io::Result<()>) {
    let mut whole = Vec::new();
    let end = soon(stream.read_to_end(&mut whole)).await.map(|_| ());
    (whole, end)
}

/// Whether a connection ends with FIN after nothing, or with RST.
pub(crate) async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let (bytes, end) = read_end(stream).await;
    assert_eq!(bytes, b"");
    end
}

pub(crate) fn is_reset(end: &io::Result<()>) -> bool {
    end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Greets and authenticates.
pub(crate) async fn greeted(proxy: &ProxyLab) -> TcpStream {
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
    stream.write_all(AUTH).await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x01\x00");
    stream
}

/// A request to connect to a name.
pub(crate) fn connect(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [b"\x05\x01\x00\x03", &[length][..], host.as_bytes(), &port.to_be_bytes()].concat()
}

/// The code of a reply with an IPv4 address.
pub(crate) async fn code(stream: &mut TcpStream) -> io::Result<u8> {
    let reply = read(stream, 10).await?;
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    Ok(reply[1])
}

pub(crate) async fn request(stream: &mut TcpStream, host: &str, port: u16) -> io::Result<u8> {
    stream.write_all(&connect(host, port)).await?;
    code(stream).await
}

/// A tunnel to `a.test:80`.
pub(crate) async fn tunnel(proxy: &ProxyLab) -> TcpStream {
    let mut stream = greeted(proxy).await;
    assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
    stream
}

/// Sends so many bytes and checks their echo.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    tagged: &mut Tagged,
    length: usize,
) {
    stream.write_all(&tagged.request(length)).await.unwrap();
    tagged.check(&read(stream, length).await.unwrap()).unwrap();
}
