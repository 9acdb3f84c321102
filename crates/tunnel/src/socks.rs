//! The server's side of SOCKS: version 5 (RFC 1928, with the user and password of RFC 1929), 4 and 4a.
//!
//! Bytes in, answers out. [`Handshake`] is fed what has come and tells what to do; it neither reads nor waits. What is deliberately not
//! here: sockets, deadlines, and the header of datagrams.

use std::net::SocketAddr;

use keepwarm_transport::proxy::Target;
use smallvec::SmallVec;

use crate::server::HandshakeFailure;

pub(crate) mod address;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod invariants;
mod reply;
mod v4;
mod v5;

/// What is sent to a client in one piece; the longest is SOCKS5's reply with an IPv6 address.
pub(crate) type Answer = SmallVec<[u8; 22]>;

/// A version of SOCKS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// SOCKS4 or 4a.
    V4,
    /// SOCKS5.
    V5,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// CONNECT.
    Connect(Target),
    /// UDP ASSOCIATE, with the address that datagrams will come from; unspecified, with port 0, where the client does not know.
    Associate(SocketAddr),
}

/// Why a handshake ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The last that is sent; empty where the protocol has no word for it.
    pub(crate) answer: Answer,
    /// What is counted.
    pub(crate) reason: HandshakeFailure,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read more: what is there is the beginning of a message, of at most [`MESSAGE_MAX`] bytes.
    More,
    /// Send this and go on.
    Answer([u8; 2]),
    /// Do it and reply; what follows in the input is not of the handshake any more.
    Request(Version, Request),
    /// Send the answer and close.
    Refused(Refusal),
}

/// One client's handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    state: State,
    needs_user: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing was understood yet. -> `Authentication` or `Request` with the greeting of SOCKS5.
    Begin,
    /// User and password are to come. -> `Request`.
    Authentication,
    /// SOCKS5's request is to come; the last.
    Request,
}

/// `None`: the input is the beginning of a message. Else the message and its length.
type Parsed<T> = Result<Option<(T, usize)>, Refusal>;

impl Handshake {
    /// With `needs_user` nobody gets on without user and password.
    pub(crate) fn new(needs_user: bool) -> Handshake {
        Handshake { state: State::Begin, needs_user }
    }

    /// Looks at `input`, which is all that came after what was consumed before. Returns how much of it is consumed now, and what to do.
    /// After [`Step::Request`] or [`Step::Refused`] the handshake is over.
    ///
    /// `is_user` says whether there is this user with this password; it is not asked where none are needed.
    pub(crate) fn step(&mut self, input: &[u8], is_user: impl Fn(&[u8], &[u8]) -> bool) -> (usize, Step) {
        match self.parse(input, is_user) {
            Ok(Some((step, length))) => (length, step),
            Ok(None) => (0, Step::More),
            Err(refusal) => (0, Step::Refused(refusal)),
        }
    }

    fn parse(&mut self, input: &[u8], is_user: impl Fn(&[u8], &[u8]) -> bool) -> Parsed<Step> {
        let needs_user = self.needs_user;
        match self.state {
            State::Begin => match input.first() {
                None => Ok(None),
                Some(&v4::VERSION) => Ok(v4::request(input, needs_user)?
                    .map(|(target, length)| (Step::Request(Version::V4, Request::Connect(target)), length))),
                Some(_) => Ok(v5::greeting(input, needs_user)?.map(|(method, length)| {
                    let needs_password = method == v5::USER_PASSWORD;
                    self.state = if needs_password { State::Authentication } else { State::Request };
                    (Step::Answer([v5::VERSION, method]), length)
                })),
            },
            State::Authentication => {
                let Some((credential, length)) = v5::credential(input)? else { return Ok(None) };
                if needs_user && !is_user(credential.name, credential.password) {
                    return Err(v5::not_accepted());
                }
                self.state = State::Request;
                Ok(Some((Step::Answer(v5::ACCEPTED), length)))
            }
            State::Request => {
                Ok(v5::request(input)?.map(|(request, length)| (Step::Request(Version::V5, request), length)))
            }
        }
    }
}

impl Refusal {
    fn new(reason: HandshakeFailure, answer: &[u8]) -> Refusal {
        Refusal { answer: Answer::from_slice(answer), reason }
    }
}

impl Version {
    /// The reply that the tunnel is there. `bound`: our end of it, where it is known.
    pub(crate) fn success(self, bound: Option<SocketAddr>) -> Answer {
        match self {
            Version::V4 => v4::reply(v4::GRANTED),
            Version::V5 => v5::reply(v5::SUCCEEDED, bound),
        }
    }

    /// The reply that there is none.
    pub(crate) fn failure(self, kind: crate::ErrorKind) -> Answer {
        match self {
            Version::V4 => v4::reply(v4::REJECTED),
            Version::V5 => v5::reply(reply::code(kind), None),
        }
    }
}

/// Whether a connection that begins with this byte speaks SOCKS.
pub(crate) fn is_socks(first: u8) -> bool {
    matches!(first, v4::VERSION | v5::VERSION)
}

/// The reply of SOCKS5 that this command is not offered.
pub(crate) fn not_offered() -> Refusal {
    v5::refuse(HandshakeFailure::Command, v5::COMMAND_NOT_SUPPORTED)
}

/// Bytes of the longest message of a handshake: a SOCKS4a request with the longest user id and name.
pub(crate) const MESSAGE_MAX: usize = v4::LENGTH_MAX;

#[cfg(test)]
mod tests;
