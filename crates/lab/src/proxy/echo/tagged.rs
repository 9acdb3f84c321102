//! Bytes that prove whose they are: what one client sends to one destination, and what comes back for it, differs at every offset
//! from what belongs to any other pair.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest::{Context, SHA256};

/// The client's side of one connection to a destination of an [`EchoLab`](super::EchoLab).
///
/// Dropping it in the midst of a connection, as a cancelled client does, is well: the destination checks what it gets, too, and
/// counts bytes of others as [`EchoCounters::foreign`](super::EchoCounters::foreign).
#[derive(Debug, Clone)]
pub struct Tagged {
    destination: SocketAddr,
    nonce: [u8; NONCE],
    request: Keystream,
    answer: Answer,
    received: u64,
    greeted: bool,
}

/// A byte that is not the client's, or one too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// How many right bytes came before, since the beginning of the connection.
    pub offset: u64,
    /// What should have come; `None`: nothing.
    pub expected: Option<u8>,
    /// What came; `None`: too little.
    pub received: Option<u8>,
}

/// A stream of bytes that a seed determines, from an offset on. Not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Keystream {
    seed: u64,
    offset: u64,
}

/// What an echoing destination answers to what it is sent after the nonce.
#[derive(Debug, Clone)]
pub(super) struct Answer(Keystream);

impl Tagged {
    /// A connection to `destination`, an address of the lab itself wherever the client may connect to, with a nonce that no other
    /// connection should have.
    #[must_use]
    pub fn new(destination: SocketAddr, nonce: [u8; 16]) -> Self {
        Self {
            destination,
            nonce,
            request: requests(destination, &nonce),
            answer: Answer::new(destination, &nonce),
            received: 0,
            greeted: false,
        }
    }

    /// The same with a random nonce.
    #[must_use]
    pub fn random(destination: SocketAddr) -> Self {
        Self::new(destination, rand::random())
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// The next `length` bytes to send; before the first of them, 16 bytes of nonce.
    #[must_use]
    pub fn request(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = self.greeting();
        let start = bytes.len();
        bytes.resize(start + length, 0);
        self.request.apply(&mut bytes[start..]);
        bytes
    }

    /// How many bytes of the echo are still to come.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.request.offset - self.received
    }

    /// Checks the next bytes of the echo.
    ///
    /// # Errors
    /// The first byte that is wrong, or one that was not asked for.
    pub fn check(&mut self, received: &[u8]) -> Result<(), Mismatch> {
        let due = usize::try_from(self.outstanding()).unwrap_or(usize::MAX);
        let mut expected = vec![0; received.len().min(due)];
        let mut request = Keystream { offset: self.received, ..requests(self.destination, &self.nonce) };
        request.apply(&mut expected);
        self.answer.apply(&mut expected);
        let result = compare(&expected, received, self.received);
        self.received += expected.len() as u64;
        result
    }

    /// What a destination of mode `Banner` says first.
    #[must_use]
    pub fn banner(&self) -> [u8; 16] {
        banner(self.destination)
    }

    /// What a destination of mode `Digest` answers to all of [`request`](Self::request) up to now, and FIN: the length in 8 bytes,
    /// then the SHA-256, both made this connection's own.
    #[must_use]
    pub fn digest(&self) -> [u8; 40] {
        let mut hash = Context::new(&SHA256);
        let mut requests = requests(self.destination, &self.nonce);
        while requests.offset < self.request.offset {
            let left = usize::try_from(self.request.offset - requests.offset).unwrap_or(usize::MAX);
            let mut piece = vec![0; left.min(64 * 1024)];
            requests.apply(&mut piece);
            hash.update(&piece);
        }
        digest(self.destination, &self.nonce, self.request.offset, hash)
    }

    /// What asks a destination of mode `Source` for so many bytes.
    #[must_use]
    pub fn source(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = self.greeting();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Checks the next bytes of a destination of mode `Source`.
    ///
    /// # Errors
    /// The first byte that is wrong.
    pub fn check_source(&mut self, received: &[u8]) -> Result<(), Mismatch> {
        let mut expected = vec![0; received.len()];
        self.answer.apply(&mut expected);
        let result = compare(&expected, received, self.received);
        self.received += received.len() as u64;
        result
    }

    /// A datagram with a number and `length` bytes.
    #[must_use]
    pub fn datagram(&self, number: u64, length: usize) -> Vec<u8> {
        let mut bytes = [&self.nonce[..], &number.to_be_bytes()].concat();
        let start = bytes.len();
        bytes.resize(start + length, 0);
        datagram_requests(self.destination, &self.nonce, number).apply(&mut bytes[start..]);
        bytes
    }

    /// Checks the answer to a datagram of `length` bytes, and gives its number.
    ///
    /// # Errors
    /// The first byte that is wrong.
    pub fn check_datagram(&self, received: &[u8], length: usize) -> Result<u64, Mismatch> {
        let number = received.get(NONCE..NONCE + 8).map_or(0, number);
        let mut expected = self.datagram(number, length);
        datagram_answers(self.destination, &self.nonce, number).apply(&mut expected[NONCE + 8..]);
        compare(&expected, received, 0).map(|()| number)
    }

    fn greeting(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.greeted, true) { Vec::new() } else { self.nonce.to_vec() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} is {:?} in place of {:?}", self.offset, self.received, self.expected)
    }
}

impl std::error::Error for Mismatch {}

impl Keystream {
    /// Adds the next bytes to `bytes`, bit by bit without carry.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = mix(self.seed.wrapping_add((self.offset / 8).wrapping_mul(GOLDEN))).to_le_bytes();
            let word = &word[usize::try_from(self.offset % 8).expect("it is below 8")..];
            let count = word.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            for (byte, key) in now.iter_mut().zip(word) {
                *byte ^= key;
            }
            self.offset += count as u64;
            rest = later;
        }
    }

    /// How many of the next bytes are not the stream's own.
    pub(super) fn foreign(&mut self, bytes: &[u8]) -> u64 {
        let mut bytes = bytes.to_vec();
        self.apply(&mut bytes);
        bytes.iter().filter(|byte| **byte != 0).count() as u64
    }
}

impl Answer {
    pub(super) fn new(destination: SocketAddr, nonce: &[u8; NONCE]) -> Self {
        Self(stream(destination, nonce, 2))
    }

    /// Turns the next bytes of the request into their echo, or zeros into what a source sends.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply(bytes);
    }
}

/// What a client sends after its nonce.
pub(super) fn requests(destination: SocketAddr, nonce: &[u8; NONCE]) -> Keystream {
    stream(destination, nonce, 1)
}

pub(super) fn datagram_requests(destination: SocketAddr, nonce: &[u8; NONCE], number: u64) -> Keystream {
    stream(destination, nonce, mix(number) | 1 << 63)
}

pub(super) fn datagram_answers(destination: SocketAddr, nonce: &[u8; NONCE], number: u64) -> Keystream {
    stream(destination, nonce, mix(number) & !(1 << 63))
}

pub(super) fn banner(destination: SocketAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    stream(destination, &[0; NONCE], 3).apply(&mut bytes);
    bytes
}

pub(super) fn digest(destination: SocketAddr, nonce: &[u8; NONCE], length: u64, hash: Context) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&length.to_be_bytes());
    bytes[8..].copy_from_slice(hash.finish().as_ref());
    stream(destination, nonce, 4).apply(&mut bytes);
    bytes
}

/// The first 8 bytes as a number.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn stream(destination: SocketAddr, nonce: &[u8; NONCE], purpose: u64) -> Keystream {
    let ip = match destination.ip() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let mut seed = purpose;
    for bytes in [&ip.to_be_bytes(), &u128::from(destination.port()).to_be_bytes(), nonce] {
        for half in bytes.chunks_exact(8) {
            seed = mix(seed.wrapping_add(GOLDEN) ^ number(half));
        }
    }
    Keystream { seed, offset: 0 }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators").
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn compare(expected: &[u8], received: &[u8], before: u64) -> Result<(), Mismatch> {
    let longest = expected.len().max(received.len());
    match (0..longest).find(|at| expected.get(*at) != received.get(*at)) {
        Some(at) => Err(Mismatch {
            offset: before + at as u64,
            expected: expected.get(at).copied(),
            received: received.get(at).copied(),
        }),
        None => Ok(()),
    }
}

pub(super) const NONCE: usize = 16;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn echo(destination: SocketAddr, nonce: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        Answer::new(destination, &nonce).apply(&mut bytes);
        bytes
    }

    #[test]
    fn an_echo_is_right_in_any_pieces_and_for_its_own_pair_alone() {
        let (mut ours, mut other) = (Tagged::new(address(1), [1; 16]), Tagged::new(address(1), [2; 16]));
        let mut sent = ours.request(5);
        sent.extend(ours.request(1000));
        assert_eq!((&sent[..16], sent.len()), (&[1; 16][..], 16 + 1005));
        let echo_ours = echo(address(1), [1; 16], &sent[16..]);
        let mut pieces = ours.clone();
        for piece in echo_ours.chunks(7) {
            pieces.check(piece).unwrap();
        }
        assert_eq!(pieces.outstanding(), 0);
        assert_eq!(pieces.check(&[9]), Err(Mismatch { offset: 1005, expected: None, received: Some(9) }));

        let theirs = other.request(1005)[16..].to_vec();
        for crossed in [
            echo(address(1), [2; 16], &theirs),
            echo(address(1), [2; 16], &sent[16..]),
            echo(address(2), [1; 16], &sent[16..]),
        ] {
            let same = crossed.iter().zip(&echo_ours).filter(|(left, right)| left == right).count();
            assert!(same < 30, "{same} of 1005 bytes are the same; by chance they would be 4");
            assert!(ours.clone().check(&crossed).is_err());
        }
        let mut flipped = echo_ours.clone();
        flipped[700] ^= 1;
        assert_eq!(ours.check(&flipped).unwrap_err().offset, 700);
    }

    #[test]
    fn what_a_client_sends_is_known_at_any_offset() {
        let mut ours = Tagged::new(address(1), [1; 16]);
        let sent = ours.request(100)[16..].to_vec();
        let mut known = requests(address(1), &[1; 16]);
        assert_eq!(known.foreign(&sent[..33]), 0);
        assert_eq!(known.foreign(&sent[33..]), 0);
        assert_eq!(
            known.foreign(&sent[..1]) + known.foreign(&sent[..50]).min(1),
            2,
            "an earlier byte again is foreign"
        );
    }
}
