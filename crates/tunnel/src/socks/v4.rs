//! SOCKS4 (Y. D. Lee's memo, no RFC) and its extension 4a, by which the client leaves the look-up to us.

use std::net::Ipv4Addr;

use keepwarm_transport::proxy::Target;

use super::{Answer, Parsed, Refusal};
use crate::server::{
    HandshakeFailure,
    destination::{self, BadDestination, destination},
};

/// A part of the input, and what follows.
type Split<'a> = (&'a [u8], &'a [u8]);

/// CONNECT: the version, 1, the port, the address, the user id and a NUL; in 4a a name and a NUL behind it.
///
/// The user id is a claim that an ident server would have to confirm; nobody has one, so it is compared with nothing. There is no
/// password: where users are needed nobody comes in by SOCKS4. BIND is not offered.
pub(super) fn request(input: &[u8], needs_user: bool) -> Parsed<Target> {
    if needs_user {
        return Err(refuse(HandshakeFailure::User, NO_IDENT));
    }
    match input.get(1) {
        None => return Ok(None),
        Some(&CONNECT) => {}
        Some(_) => return Err(refuse(HandshakeFailure::Command, REJECTED)),
    }
    let Some((&[_, _, p0, p1, a, b, c, d], rest)) = input.split_first_chunk() else { return Ok(None) };
    let (port, ip) = (u16::from_be_bytes([p0, p1]), Ipv4Addr::new(a, b, c, d));
    let Some((_user, rest)) = text(rest)? else { return Ok(None) };
    // 4a: 0.0.0.x with x other than 0 can be no destination and stands for the name that follows.
    let (target, rest) = if matches!(ip.octets(), [0, 0, 0, 1..=255]) {
        let Some((name, rest)) = text(rest)? else { return Ok(None) };
        let name = str::from_utf8(name).map_err(|_| BadDestination::Name);
        (name.and_then(|name| destination(name, port)), rest)
    } else {
        (destination::address(ip.into(), port), rest)
    };
    let target = target.map_err(|_| refuse(HandshakeFailure::Destination, REJECTED))?;
    Ok(Some((target, input.len() - rest.len())))
}

/// The eight bytes of a reply. Clients ignore the address in it.
pub(super) fn reply(code: u8) -> Answer {
    Answer::from_slice(&[0, code, 0, 0, 0, 0, 0, 0])
}

/// Text up to a NUL, and what follows.
fn text(input: &[u8]) -> Result<Option<Split<'_>>, Refusal> {
    match input.iter().take(TEXT_MAX + 1).position(|byte| *byte == 0) {
        Some(end) => Ok(Some((&input[..end], &input[end + 1..]))),
        None if input.len() > TEXT_MAX => Err(refuse(HandshakeFailure::Malformed, REJECTED)),
        None => Ok(None),
    }
}

fn refuse(reason: HandshakeFailure, code: u8) -> Refusal {
    Refusal { answer: reply(code), reason }
}

pub(super) const VERSION: u8 = 4;
const CONNECT: u8 = 1;
pub(super) const GRANTED: u8 = 90;
pub(super) const REJECTED: u8 = 91;
/// Rejected since the user id was not confirmed: the nearest to "a password is needed".
const NO_IDENT: u8 = 93;

/// Bytes of a user id and of a name; the memo has no limit.
const TEXT_MAX: usize = 255;

/// Head, user id and name with their NULs.
pub(super) const LENGTH_MAX: usize = 8 + 2 * (TEXT_MAX + 1);
