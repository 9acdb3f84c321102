//! The server side of SOCKS5 (RFC 1928) with user and password (RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::connection::{Connection, Stop};
use super::counters::ProxyCounters;
use super::spec::{ProxyPhase, ReplyAddress};
use super::{tunnel, udp};

/// Serves one connection to its end.
pub(super) async fn serve(connection: &mut Connection) -> Result<(), Stop> {
    greet(connection).await?;
    // A reply that success would have.
    connection.idle(&reply(SUCCEEDED, &ReplyAddress::True, UNSPECIFIED)).await?;
    let head = connection.take(3).await?;
    if head[0] != VERSION {
        return Err(Stop::Finish);
    }
    let Some((host, port)) = address(connection).await? else {
        connection.at(ProxyPhase::Connect)?;
        connection.site.count(ProxyCounters::refuse);
        return refuse(connection, ADDRESS_TYPE).await;
    };
    match head[1] {
        CONNECT => connect(connection, &host, port).await,
        ASSOCIATE if !connection.faults().no_udp => associate(connection, port).await,
        _ => refuse(connection, COMMAND).await,
    }
}

async fn greet(connection: &mut Connection) -> Result<(), Stop> {
    let head = connection.take(2).await?;
    if head[0] != VERSION {
        return Err(Stop::Finish);
    }
    let offered = connection.take(usize::from(head[1])).await?;
    connection.at(ProxyPhase::Greeting)?;
    let faults = connection.faults();
    if faults.silent_greeting {
        return Err(Stop::Silence);
    }
    if faults.bad_version {
        connection.answer(&[4, NO_AUTH]).await?;
        return Err(Stop::Finish);
    }
    let method = if faults.no_acceptable {
        NO_METHOD
    } else {
        faults.method.unwrap_or_else(|| choose(&offered, connection.site.credential.is_some()))
    };
    if method == NO_AUTH {
        connection.site.count(|counters| counters.greeted += 1);
    }
    connection.answer(&[VERSION, method]).await?;
    match method {
        NO_AUTH => Ok(()),
        PASSWORD => authenticate(connection).await,
        NO_METHOD => Err(Stop::Finish),
        _ => Err(Stop::Silence),
    }
}

fn choose(offered: &[u8], wants_password: bool) -> u8 {
    let order = if wants_password { [PASSWORD, PASSWORD] } else { [NO_AUTH, PASSWORD] };
    order.into_iter().find(|method| offered.contains(method)).unwrap_or(NO_METHOD)
}

async fn authenticate(connection: &mut Connection) -> Result<(), Stop> {
    let head = connection.take(2).await?;
    let user = connection.take(usize::from(head[1])).await?;
    let length = connection.take(1).await?;
    let password = connection.take(usize::from(length[0])).await?;
    connection.at(ProxyPhase::Auth)?;
    let faults = connection.faults();
    if faults.silent_auth {
        return Err(Stop::Silence);
    }
    let known = connection.site.credential.as_ref();
    let right = known.is_none_or(|(name, secret)| user == name.as_bytes() && password == secret.as_bytes());
    if head[0] != AUTH_VERSION || faults.auth_fails || !right {
        connection.site.count(|counters| counters.auth_failed += 1);
        connection.answer(&[AUTH_VERSION, 1]).await?;
        return Err(Stop::Finish);
    }
    connection.site.count(|counters| {
        counters.auth_ok += 1;
        counters.greeted += 1;
    });
    connection.answer(&[AUTH_VERSION, 0]).await
}

/// Reads the type, address and port of a request. `None`: the type is unknown.
async fn address(connection: &mut Connection) -> Result<Option<(String, u16)>, Stop> {
    let kind = connection.take(1).await?;
    let host = match kind[0] {
        IPV4 => {
            let octets: [u8; 4] = connection.take(4).await?[..].try_into().expect("so many were taken");
            Ipv4Addr::from(octets).to_string()
        }
        IPV6 => {
            let octets: [u8; 16] = connection.take(16).await?[..].try_into().expect("so many were taken");
            Ipv6Addr::from(octets).to_string()
        }
        NAME => {
            let length = connection.take(1).await?;
            String::from_utf8_lossy(&connection.take(usize::from(length[0])).await?).into_owned()
        }
        _ => return Ok(None),
    };
    let port = connection.take(2).await?;
    Ok(Some((host, u16::from_be_bytes([port[0], port[1]]))))
}

async fn connect(connection: &mut Connection, host: &str, port: u16) -> Result<(), Stop> {
    match tunnel::open(connection, host, port).await? {
        Ok(opened) => {
            let bound = opened.destination.local_addr().unwrap_or(UNSPECIFIED);
            let answer = reply(SUCCEEDED, &connection.faults().reply_address, bound);
            tunnel::establish(connection, opened, &answer).await
        }
        Err(code) => refuse(connection, code).await,
    }
}

async fn associate(connection: &mut Connection, declared: u16) -> Result<(), Stop> {
    let Ok(relay) = udp::Relay::bind(&connection.site, declared) else {
        return refuse(connection, GENERAL_FAILURE).await;
    };
    let answer = reply(SUCCEEDED, &connection.faults().reply_address, relay.address());
    connection.answer(&answer).await?;
    relay.run(connection).await
}

async fn refuse(connection: &mut Connection, code: u8) -> Result<(), Stop> {
    connection.answer(&reply(code, &ReplyAddress::True, UNSPECIFIED)).await?;
    Err(Stop::Finish)
}

fn reply(code: u8, kind: &ReplyAddress, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, code, 0];
    match kind {
        ReplyAddress::True => put_ip(&mut bytes, bound.ip()),
        ReplyAddress::V4 => put_ip(&mut bytes, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        ReplyAddress::V6 => put_ip(&mut bytes, IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
        ReplyAddress::Unspecified => put_ip(&mut bytes, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        ReplyAddress::Name => bytes.extend_from_slice(b"\x03\x09proxy.lab"),
    }
    bytes.extend_from_slice(&bound.port().to_be_bytes());
    bytes
}

/// Writes the type and the octets of an address.
pub(super) fn put_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            bytes.push(IPV4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(IPV6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
}

const VERSION: u8 = 5;
const AUTH_VERSION: u8 = 1;
const NO_AUTH: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const ASSOCIATE: u8 = 3;
pub(super) const IPV4: u8 = 1;
pub(super) const NAME: u8 = 3;
pub(super) const IPV6: u8 = 4;
const SUCCEEDED: u8 = 0;
pub(super) const GENERAL_FAILURE: u8 = 1;
pub(super) const NETWORK_UNREACHABLE: u8 = 3;
pub(super) const HOST_UNREACHABLE: u8 = 4;
pub(super) const REFUSED: u8 = 5;
const COMMAND: u8 = 7;
const ADDRESS_TYPE: u8 = 8;
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
