//! The client's side of SOCKS5 (RFC 1928) with user and password (RFC 1929).
//!
//! Every answer is read to its last byte and no further, so what follows it is the destination's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Credential, Target, failure::Failure, target::Place};
use crate::error::{ErrorKind, Phase};

/// Agrees on a method and authenticates (RFC 1928 section 3).
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credential: Option<&Credential>,
) -> Result<(), Failure> {
    // A proxy that wants no password is as good: it may know us by our address.
    let greeting: &[u8] = match credential {
        Some(_) => &[VERSION, 2, NO_METHOD_NEEDED, USER_PASSWORD],
        None => &[VERSION, 1, NO_METHOD_NEEDED],
    };
    send(stream, greeting).await?;
    match (read_method(stream).await?, credential) {
        (NO_METHOD_NEEDED, _) => Ok(()),
        (USER_PASSWORD, Some(credential)) => {
            send(stream, &authentication(credential)?).await?;
            read_verdict(stream).await
        }
        (NONE_ACCEPTABLE, Some(_)) => {
            Err(Failure::new(ErrorKind::ProxyAuth, "the proxy takes neither a user and password nor none"))
        }
        (NONE_ACCEPTABLE | USER_PASSWORD, None) => Err(password_wanted()),
        (method, _) => Err(not_offered(method)),
    }
}

/// Greets and authenticates with one write, and `ahead` of the answers.
pub(super) async fn greet_pipelined<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credential: Option<&Credential>,
    ahead: &[u8],
) -> Result<(), Failure> {
    // One method alone is offered: under another one, what follows the greeting would mean something else.
    let mut bytes = match credential {
        Some(credential) => {
            let mut bytes = vec![VERSION, 1, USER_PASSWORD];
            bytes.append(&mut authentication(credential)?);
            bytes
        }
        None => vec![VERSION, 1, NO_METHOD_NEEDED],
    };
    bytes.extend_from_slice(ahead);
    send(stream, &bytes).await?;
    match (read_method(stream).await?, credential) {
        (NO_METHOD_NEEDED, None) => Ok(()),
        (USER_PASSWORD, Some(_)) => read_verdict(stream).await,
        (NONE_ACCEPTABLE, Some(_)) => {
            Err(Failure::new(ErrorKind::ProxyAuth, "the proxy does not take a user and password"))
        }
        (NONE_ACCEPTABLE | USER_PASSWORD, None) => Err(password_wanted()),
        (NO_METHOD_NEEDED, Some(_)) => Err(broken("it wants no password where one is on its way")),
        (method, _) => Err(not_offered(method)),
    }
}

/// The proxy's choice of a method.
async fn read_method<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u8, Failure> {
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    check_version(answer[0])?;
    Ok(answer[1])
}

/// The request of RFC 1929 section 2.
fn authentication(credential: &Credential) -> Result<Vec<u8>, Failure> {
    let mut request = vec![AUTH_VERSION];
    for part in [&credential.user, &credential.password] {
        let too_long = |_| Failure::new(ErrorKind::Other, "socks5 has room for 255 bytes of user and of password");
        request.push(u8::try_from(part.len()).map_err(too_long)?);
        request.extend_from_slice(part.as_bytes());
    }
    Ok(request)
}

/// The proxy's word on the password (RFC 1929 section 2).
async fn read_verdict<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Failure> {
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        // There are proxies that repeat the version of SOCKS here.
        [AUTH_VERSION | VERSION, 0] => Ok(()),
        [AUTH_VERSION | VERSION, _] => {
            Err(Failure::new(ErrorKind::ProxyAuth, "the proxy does not accept the user and password"))
        }
        [version, _] => Err(broken(&format!("its word on the password has version {version} instead of 1"))),
    }
}

/// Asks for a connection to `target` (RFC 1928 sections 4 to 6), and sends `ahead` with it.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    ahead: &[u8],
) -> Result<(), Failure> {
    let mut bytes = request(target)?;
    bytes.extend_from_slice(ahead);
    send(stream, &bytes).await?;
    read_connected(stream).await
}

/// The proxy's word on the destination.
pub(super) async fn read_connected<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Failure> {
    read_reply(stream).await?.map(drop).map_err(refusal)
}

/// Asks for a relay of datagrams (RFC 1928 sections 4 and 7) and tells where it is. A relay at no address in particular is at `peer`.
pub(super) async fn associate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: IpAddr,
) -> Result<SocketAddr, Failure> {
    // Where our datagrams will come from is not known on this side of a NAT.
    send(stream, &[VERSION, UDP_ASSOCIATE, 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    let (place, port) = read_reply(stream).await?.map_err(no_relay)?;
    if port == 0 {
        return Err(broken("its relay of datagrams has no port"));
    }
    match place {
        Some(ip) if ip.is_unspecified() => Ok(SocketAddr::new(peer, port)),
        Some(ip) => relay_address(ip.to_canonical(), peer.to_canonical()).map(|ip| SocketAddr::new(ip, port)),
        None => Err(broken("its relay of datagrams is not given by address")),
    }
}

/// A relay where one can be. A proxy elsewhere that names a loopback address means its own, and here something else listens there, which
/// would get what clients send.
fn relay_address(ip: IpAddr, peer: IpAddr) -> Result<IpAddr, Failure> {
    let is_host = !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    if is_host && (!ip.is_loopback() || peer.is_loopback()) {
        return Ok(ip);
    }
    Err(Failure::new(
        ErrorKind::ProxyUnsupported,
        format!("the proxy's relay of datagrams is at {ip}, where it cannot be"),
    ))
}

/// Reads a reply. `Ok` has the address and port of the proxy's end, without the former where that is a name; `Err` its code.
async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Result<(Option<IpAddr>, u16), u8>, Failure> {
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    check_version(answer[0])?;
    if answer[1] != 0 {
        // Some proxies close without the rest, and nobody needs it.
        return Ok(Err(answer[1]));
    }
    // A reserved byte, the type of the address that the proxy connects from, and the first byte of that.
    let mut start = [0; 3];
    stream.read_exact(&mut start).await?;
    let [_, kind, first] = start;
    let mut bytes = [0; 255 + 2];
    let rest = match kind {
        IPV4 => &mut bytes[..3 + 2],
        IPV6 => &mut bytes[..15 + 2],
        NAME => &mut bytes[..usize::from(first) + 2],
        other => return Err(broken(&format!("its address is of type {other}, which there is not"))),
    };
    stream.read_exact(rest).await?;
    Ok(Ok(match (kind, &*rest) {
        (IPV4, &[b, c, d, high, low]) => (Some(IpAddr::from([first, b, c, d])), u16::from_be_bytes([high, low])),
        (IPV6, &[ref tail @ .., high, low]) => {
            let mut ip = [first; 16];
            ip[1..].copy_from_slice(tail);
            (Some(IpAddr::from(ip)), u16::from_be_bytes([high, low]))
        }
        (_, &[.., high, low]) => (None, u16::from_be_bytes([high, low])),
        _ => (None, 0),
    }))
}

/// The request for a connection to `target`.
pub(super) fn request(Target(place, port): &Target) -> Result<Vec<u8>, Failure> {
    let mut request = vec![VERSION, CONNECT, 0];
    match place {
        Place::Address(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend_from_slice(&ip.octets());
        }
        Place::Address(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend_from_slice(&ip.octets());
        }
        Place::Name(name) => {
            request.push(NAME);
            let too_long = |_| Failure::new(ErrorKind::Other, "socks5 has room for a name of 255 bytes");
            request.push(u8::try_from(name.len()).map_err(too_long)?);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

/// What a reply code means (RFC 1928 section 6).
fn refusal(code: u8) -> Failure {
    let (kind, happened) = match code {
        2 => (ErrorKind::ProxyDenied, "the proxy's rules forbid it"),
        3 => (ErrorKind::NetworkUnreachable, "network unreachable from the proxy"),
        4 => (ErrorKind::Unreachable, "host unreachable from the proxy"),
        5 => (ErrorKind::Refused, "connection refused"),
        // What proxies say when their own connect timed out; they do not look at hop counts.
        6 => (ErrorKind::TimedOut(Phase::Connect), "the proxy's connection timed out"),
        7 => (ErrorKind::ProxyUnsupported, "the proxy does not do connect"),
        // It could not be reached over this proxy in any case, while those of the other family can.
        8 => (ErrorKind::AddressType, "the proxy does not take addresses of that type"),
        1 => (ErrorKind::ProxyGeneral, "the proxy reports a general failure"),
        _ => return Failure::new(ErrorKind::ProxyGeneral, format!("the proxy answered with reply code {code}")),
    };
    Failure::new(kind, happened)
}

/// What the same codes mean where no destination was asked for.
fn no_relay(code: u8) -> Failure {
    match code {
        2 => Failure::new(ErrorKind::ProxyDenied, "the proxy's rules forbid it"),
        7 => Failure::new(ErrorKind::ProxyUnsupported, "the proxy does not relay datagrams"),
        1..=8 => Failure::new(ErrorKind::ProxyGeneral, format!("the proxy answered with reply code {code}")),
        _ => broken(&format!("it answered with reply code {code}")),
    }
}

fn password_wanted() -> Failure {
    Failure::new(ErrorKind::ProxyAuth, "the proxy wants a user and password")
}

fn not_offered(method: u8) -> Failure {
    broken(&format!("it chose method {method}, which was not offered"))
}

fn check_version(version: u8) -> Result<(), Failure> {
    match version {
        VERSION => Ok(()),
        b'H' => Err(broken("it answers like an http server")),
        other => Err(broken(&format!("it answers with version {other}"))),
    }
}

fn broken(how: &str) -> Failure {
    Failure::new(ErrorKind::Proxy, format!("that is no socks5 proxy: {how}"))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Failure> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

const VERSION: u8 = 5;
/// Of the sub-negotiation.
const AUTH_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;
const NO_METHOD_NEEDED: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
