//! SOCKS5 (RFC 1928), with user and password (RFC 1929).
//!
//! A message is refused at its first byte that cannot be right, not when it is complete: the answer is the same however it is cut, and
//! nothing waits for bytes that could not mend it.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    Answer, Parsed, Refusal, Request,
    address::{self, Address, Host},
};
use crate::server::{HandshakeFailure, destination::BadDestination};

/// A name and a password as they came.
pub(super) struct Credential<'a> {
    pub(super) name: &'a [u8],
    pub(super) password: &'a [u8],
}

/// The greeting (section 3); tells the method that is chosen.
///
/// Where users are needed that is theirs. Where none are, it is none; but a client that offers user and password alone was told to
/// use one and gets its way with whatever it sends: refusing it would protect nobody, since it gets in without.
pub(super) fn greeting(input: &[u8], needs_user: bool) -> Parsed<u8> {
    if input.first().is_some_and(|version| *version != VERSION) {
        // The protocol has no answer to another version; its own would mean nothing to such a client.
        return Err(Refusal::new(HandshakeFailure::Version, &[]));
    }
    let Some(&count) = input.get(1) else { return Ok(None) };
    let length = 2 + usize::from(count);
    let Some(methods) = input.get(2..length) else { return Ok(None) };
    let accepted: &[u8] = if needs_user { &[USER_PASSWORD] } else { &[NO_METHOD_NEEDED, USER_PASSWORD] };
    match accepted.iter().find(|method| methods.contains(method)) {
        Some(method) => Ok(Some((*method, length))),
        None => Err(Refusal::new(HandshakeFailure::Method, &[VERSION, NONE_ACCEPTABLE])),
    }
}

/// User and password (RFC 1929 section 2). Empty ones, which the RFC rules out, are read: nobody has them, so the answer is that of
/// wrong ones.
pub(super) fn credential(input: &[u8]) -> Parsed<Credential<'_>> {
    if input.first().is_some_and(|version| *version != AUTHENTICATION_VERSION) {
        return Err(Refusal::new(HandshakeFailure::Malformed, &NOT_ACCEPTED));
    }
    let Some((name, rest)) = input.get(1..).and_then(counted) else { return Ok(None) };
    let Some((password, rest)) = counted(rest) else { return Ok(None) };
    Ok(Some((Credential { name, password }, input.len() - rest.len())))
}

/// RFC 1929 section 2: after any other status than 0 the connection must be closed.
pub(super) fn not_accepted() -> Refusal {
    Refusal::new(HandshakeFailure::User, &NOT_ACCEPTED)
}

/// CONNECT or UDP ASSOCIATE (section 4). BIND, which FTP in active mode would want, is answered as not supported.
pub(super) fn request(input: &[u8]) -> Parsed<Request> {
    if input.first().is_some_and(|version| *version != VERSION) {
        return Err(refuse(HandshakeFailure::Malformed, GENERAL_FAILURE));
    }
    if input.get(1).is_some_and(|command| ![CONNECT, ASSOCIATE].contains(command)) {
        return Err(refuse(HandshakeFailure::Command, COMMAND_NOT_SUPPORTED));
    }
    // The third byte is reserved. Section 4 has the client set it to 0; what else it could mean is not known, and nothing here
    // depends on it, so it is not looked at.
    let Some(address) = input.get(3..) else { return Ok(None) };
    let unknown = |_| refuse(HandshakeFailure::Malformed, ADDRESS_TYPE_NOT_SUPPORTED);
    let Some((address, rest)) = address::read(address).map_err(unknown)? else { return Ok(None) };
    let request = if input[1] == CONNECT { connect(&address)? } else { associate(&address) };
    Ok(Some((request, input.len() - rest.len())))
}

fn connect(address: &Address<'_>) -> Result<Request, Refusal> {
    address.destination().map(Request::Connect).map_err(|bad| {
        let code = match bad {
            // What a look-up would have come to.
            BadDestination::Name => HOST_UNREACHABLE,
            BadDestination::Empty | BadDestination::Port => GENERAL_FAILURE,
        };
        refuse(HandshakeFailure::Destination, code)
    })
}

/// Section 7: where the client will send from, zeros where it does not know. A name tells nothing that may be relied on.
fn associate(address: &Address<'_>) -> Request {
    let ip = match address.host {
        Host::Ip(ip) => ip.to_canonical(),
        Host::Name(name) => str::from_utf8(name)
            .ok()
            .and_then(keepwarm_transport::resolve::literal)
            .unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
    };
    Request::Associate(SocketAddr::new(ip, address.port))
}

/// A reply (section 6). Clients ignore the address in a reply to CONNECT; where it is not known it is 0.0.0.0:0, which every client can
/// read: some take no IPv6 here, and none a name.
pub(super) fn reply(code: u8, bound: Option<SocketAddr>) -> Answer {
    let bound = bound.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
    let mut answer = Answer::from_slice(&[VERSION, code, 0]);
    address::append(&mut answer, bound);
    answer
}

pub(super) fn refuse(reason: HandshakeFailure, code: u8) -> Refusal {
    Refusal { answer: reply(code, None), reason }
}

/// A byte that counts, as many bytes, and what follows.
fn counted(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&count, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(count))
}

pub(super) const VERSION: u8 = 5;
const NO_METHOD_NEEDED: u8 = 0;
pub(super) const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

const AUTHENTICATION_VERSION: u8 = 1;
pub(super) const ACCEPTED: [u8; 2] = [AUTHENTICATION_VERSION, 0];
const NOT_ACCEPTED: [u8; 2] = [AUTHENTICATION_VERSION, 1];

const CONNECT: u8 = 1;
const ASSOCIATE: u8 = 3;

pub(super) const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const HOST_UNREACHABLE: u8 = 4;
pub(super) const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_TYPE_NOT_SUPPORTED: u8 = 8;
