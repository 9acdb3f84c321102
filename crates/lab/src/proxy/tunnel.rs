//! From a request that was read to the end of its tunnel, whatever protocol the request came in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::{Connection, Stop};
use super::site::Site;
use super::socks5::{GENERAL_FAILURE, HOST_UNREACHABLE, NETWORK_UNREACHABLE, REFUSED};
use super::spec::ProxyPhase;
use super::wire;
use crate::socket::Shared;

/// A destination that was connected and not yet reported.
pub(super) struct Opened {
    /// As the client names it, with its port.
    pub(super) name: String,
    pub(super) destination: TcpStream,
    /// The first bytes of the destination, where they were waited for.
    pub(super) first: BytesMut,
}

/// Connects to the destination of a request, or gives the reply code of SOCKS5 that says why not.
pub(super) async fn open(connection: &mut Connection, host: &str, port: u16) -> Result<Result<Opened, u8>, Stop> {
    connection.site.count(|counters| counters.connects += 1);
    connection.at(ProxyPhase::Connect)?;
    let faults = connection.faults();
    if faults.silent_connect {
        return Err(Stop::Silence);
    }
    if !faults.slow_connect.is_zero() {
        wait(connection, tokio::time::sleep(faults.slow_connect)).await?;
    }
    let code = faults.reply_for.get(host).copied().or(faults.reply).unwrap_or_default();
    let status = faults.status.is_some_and(|status| !(200..300).contains(&status));
    let site = Arc::clone(&connection.site);
    let opened = if code != 0 || status {
        Err(if code == 0 { GENERAL_FAILURE } else { code })
    } else {
        wait(connection, dial(&site, host, port, faults.coalesce_greeting_payload)).await?
    };
    if opened.is_err() {
        connection.site.count(|counters| counters.connects_failed += 1);
    }
    Ok(opened)
}

/// Waits for something, unless all connections are reset meanwhile.
async fn wait<T>(connection: &Connection, what: impl Future<Output = T>) -> Result<T, Stop> {
    tokio::select! {
        done = what => Ok(done),
        () = connection.reset() => Err(Stop::Reset),
    }
}

async fn dial(site: &Site, host: &str, port: u16, speaks_first: bool) -> Result<Opened, u8> {
    let unknown = if host.parse::<std::net::IpAddr>().is_ok() { NETWORK_UNREACHABLE } else { HOST_UNREACHABLE };
    let address = site.locate(host, port).ok_or(unknown)?;
    let mut destination = match tokio::time::timeout(DIAL_MAX, TcpStream::connect(address)).await {
        Ok(Ok(destination)) => destination,
        Ok(Err(error)) => return Err(code(&error)),
        Err(_) => return Err(HOST_UNREACHABLE),
    };
    // Without effect on a socket that its peer has reset already.
    let _ = destination.set_nodelay(true);
    let mut first = BytesMut::new();
    if speaks_first {
        // Whatever ends this wait comes up again in the relay.
        let _ = tokio::time::timeout(FIRST_MAX, destination.read_buf(&mut first)).await;
    }
    Ok(Opened { name: format!("{host}:{port}"), destination, first })
}

fn code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED,
        io::ErrorKind::NetworkUnreachable => NETWORK_UNREACHABLE,
        io::ErrorKind::HostUnreachable => HOST_UNREACHABLE,
        _ => GENERAL_FAILURE,
    }
}

/// Reports success and serves the tunnel to its end.
pub(super) async fn establish(connection: &mut Connection, opened: Opened, answer: &[u8]) -> Result<(), Stop> {
    connection.life.live(&connection.tcp, &opened.name);
    let first = opened.first.len() as u64;
    connection.site.count(|counters| counters.received += first);
    connection.reply(answer, &opened.first).await?;
    relay(connection, opened.destination, first).await
}

/// Passes bytes on until both sides have ended, one has failed or a fault strikes. What one side does not take is not read from the
/// other. `passed` bytes of the destination went ahead.
async fn relay(connection: &mut Connection, destination: TcpStream, passed: u64) -> Result<(), Stop> {
    let site = Arc::clone(&connection.site);
    let reset = connection.reset();
    let (tcp, destination) = (Arc::clone(&connection.tcp), Arc::new(destination));
    let ended = AtomicU8::new(0);
    let (mut client_in, mut client_out) = tokio::io::split(&mut connection.wire);
    let (mut destination_in, mut destination_out) =
        (Shared(Arc::clone(&destination)), Shared(Arc::clone(&destination)));
    let first = connection.buffer.split();
    let up = async {
        match up(&site, &mut client_in, &mut destination_out, &first).await {
            Ok(()) => last(&ended, &tcp, End::Client).await,
            Err(end) => end,
        }
    };
    let down = async {
        match down(&site, &mut destination_in, &mut client_out, passed).await {
            Ok(()) => last(&ended, &destination, End::Destination).await,
            Err(end) => end,
        }
    };
    let end = tokio::select! {
        end = up => end,
        end = down => end,
        () = reset => End::Fault(Stop::Reset),
    };
    if !matches!(end, End::Both | End::Fault(Stop::Finish)) {
        // The destination learns that the tunnel did not end well.
        let _ = destination.set_zero_linger();
    }
    Err(match end {
        End::Both | End::Client => Stop::Peer,
        End::Destination => Stop::Reset,
        End::Fault(stop) => stop,
    })
}

/// How a tunnel ended.
enum End {
    /// FIN from both sides.
    Both,
    /// The client's side failed.
    Client,
    /// The destination's side failed.
    Destination,
    Fault(Stop),
}

async fn up(site: &Site, client: &mut (impl AsyncRead + Unpin), to: &mut Shared, first: &[u8]) -> Result<(), End> {
    to.write_all(first).await.map_err(|_| End::Destination)?;
    site.count(|counters| counters.sent += first.len() as u64);
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = client.read(&mut buffer).await.map_err(|_| End::Client)?;
        if count == 0 {
            return to.shutdown().await.map_err(|_| End::Destination);
        }
        to.write_all(&buffer[..count]).await.map_err(|_| End::Destination)?;
        site.count(|counters| counters.sent += count as u64);
    }
}

async fn down(
    site: &Site,
    from: &mut Shared,
    client: &mut (impl AsyncWrite + Unpin),
    mut passed: u64,
) -> Result<(), End> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let (limit, fault) = limit(site);
        if passed >= limit {
            return Err(End::Fault(fault));
        }
        let count = from.read(&mut buffer).await.map_err(|_| End::Destination)?;
        if count == 0 {
            return client.shutdown().await.map_err(|_| End::Client);
        }
        let room = usize::try_from(limit - passed).unwrap_or(usize::MAX);
        let bytes = &buffer[..count.min(room)];
        // Counted first: whoever has the bytes finds them counted.
        site.count(|counters| counters.received += bytes.len() as u64);
        passed += bytes.len() as u64;
        client.write_all(bytes).await.map_err(|_| End::Client)?;
        client.flush().await.map_err(|_| End::Client)?;
    }
}

/// How many bytes of the destination may pass, and what happens then.
fn limit(site: &Site) -> (u64, Stop) {
    let faults = site.faults();
    for (phase, stop) in [(faults.reset_at, Stop::Reset), (faults.close_at, Stop::Finish)] {
        if let Some(ProxyPhase::Payload(count)) = phase {
            return (count, stop);
        }
    }
    (u64::MAX, Stop::Finish)
}

/// One direction has ended in order. Waits for RST from the side that it came from, unless it was the second one.
async fn last(ended: &AtomicU8, from: &TcpStream, broken: End) -> End {
    if ended.fetch_add(1, Ordering::Relaxed) == 1 {
        return End::Both;
    }
    wire::broken(from).await;
    broken
}

const DIAL_MAX: Duration = Duration::from_secs(5);
const FIRST_MAX: Duration = Duration::from_secs(1);
const BUFFER: usize = 32 * 1024;
