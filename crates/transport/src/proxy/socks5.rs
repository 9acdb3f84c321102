//! The client's side of SOCKS5 (RFC 1928) with user and password (RFC 1929).
//!
//! Every answer is read to its last byte and no further, so what follows it is the destination's.

use std::net::IpAddr;

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
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    check_version(answer[0])?;
    match (answer[1], credential) {
        (NO_METHOD_NEEDED, _) => Ok(()),
        (USER_PASSWORD, Some(credential)) => authenticate(stream, credential).await,
        (NONE_ACCEPTABLE, Some(_)) => {
            Err(Failure::new(ErrorKind::ProxyAuth, "the proxy takes neither a user and password nor none"))
        }
        (NONE_ACCEPTABLE | USER_PASSWORD, None) => {
            Err(Failure::new(ErrorKind::ProxyAuth, "the proxy wants a user and password"))
        }
        (method, _) => Err(broken(&format!("it chose method {method}, which was not offered"))),
    }
}

/// RFC 1929 section 2.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credential: &Credential,
) -> Result<(), Failure> {
    let mut request = vec![AUTH_VERSION];
    for part in [&credential.user, &credential.password] {
        let too_long = |_| Failure::new(ErrorKind::Other, "socks5 has room for 255 bytes of user and of password");
        request.push(u8::try_from(part.len()).map_err(too_long)?);
        request.extend_from_slice(part.as_bytes());
    }
    send(stream, &request).await?;
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

/// Asks for a connection to `target` (RFC 1928 sections 4 to 6).
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, target: &Target) -> Result<(), Failure> {
    send(stream, &request(target)).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    check_version(answer[0])?;
    if answer[1] != 0 {
        // Some proxies close without the rest, and nobody needs it.
        return Err(refusal(answer[1]));
    }
    // A reserved byte, the type of the address that the proxy connects from, and the first byte of that.
    let mut start = [0; 3];
    stream.read_exact(&mut start).await?;
    let rest = match start[1] {
        IPV4 => 3 + 2,
        IPV6 => 15 + 2,
        NAME => usize::from(start[2]) + 2,
        other => return Err(broken(&format!("its address is of type {other}, which there is not"))),
    };
    stream.read_exact(&mut [0; 255 + 2][..rest]).await?;
    Ok(())
}

fn request(Target(place, port): &Target) -> Vec<u8> {
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
            request.push(u8::try_from(name.len()).expect("the length of a target's name is checked"));
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    request
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
        _ => return broken(&format!("it answered with reply code {code}")),
    };
    Failure::new(kind, happened)
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
const NO_METHOD_NEEDED: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
