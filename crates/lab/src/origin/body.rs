//! Bodies: bytes that any client can check, each a function of the path and its offset.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

/// The bytes of `/bytes/N`, `/stream` and `/stream/N` in `range`: a function of the path (without its query) and the offset alone, so
/// that any piece of a body proves which request it answers.
#[must_use]
pub fn expected_body(path: &str, range: Range<u64>) -> Vec<u8> {
    fill(seed(path), range)
}

/// SHA-256 in lower-case hexadecimal digits, as `/upload` and `/echo` tell it.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an answer sends after its head.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Whole(Bytes),
    /// Made while it is sent.
    Pattern {
        seed: u64,
        /// `None`: never ends.
        length: Option<u64>,
        /// Whether content-length tells the length.
        announced: bool,
        /// The most bytes at a time.
        piece: usize,
        /// Time between two pieces.
        pause: Duration,
    },
}

impl Body {
    /// `/bytes/N`.
    pub(super) fn bytes(path: &str, length: u64) -> Self {
        Self::Pattern { seed: seed(path), length: Some(length), announced: true, piece: PIECE, pause: Duration::ZERO }
    }

    /// `/stream`, and `/stream/N` with N pieces.
    pub(super) fn stream(path: &str, pieces: Option<u64>) -> Self {
        let length = pieces.map(|pieces| pieces.saturating_mul(SMALL as u64));
        Self::Pattern { seed: seed(path), length, announced: false, piece: SMALL, pause: STREAM_PAUSE }
    }

    /// How many bytes there are, unless there is no end.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Pattern { length, .. } => *length,
        }
    }

    /// What content-length says.
    pub(super) fn announced(&self) -> Option<u64> {
        match self {
            Self::Pattern { announced: false, .. } => None,
            _ => self.length(),
        }
    }

    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::Whole(_) => Duration::ZERO,
            Self::Pattern { pause, .. } => *pause,
        }
    }

    /// The next bytes from `offset`, at most `max` of them; none at the end.
    pub(super) fn piece(&self, offset: u64, max: u64) -> Bytes {
        let left = self.length().map_or(u64::MAX, |length| length.saturating_sub(offset)).min(max);
        match self {
            Self::Whole(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
                bytes.slice(start..start + count)
            }
            Self::Pattern { seed, piece, .. } => fill(*seed, offset..offset + left.min(*piece as u64)).into(),
        }
    }
}

/// FNV-1a, 64 bits.
fn seed(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Eight bytes a block, each the output of SplitMix64 for the block's number.
fn fill(seed: u64, range: Range<u64>) -> Vec<u8> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length + 16);
    let skip = usize::from(range.start.to_le_bytes()[0] % 8);
    let mut block = range.start / 8;
    while bytes.len() < length + skip {
        bytes.extend_from_slice(&mix(seed.wrapping_add(block.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes());
        block += 1;
    }
    bytes.drain(..skip);
    bytes.truncate(length);
    bytes
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The most bytes handed over at a time.
pub(super) const PIECE: usize = 16_384;
const SMALL: usize = 64;
const STREAM_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_the_same_as_in_the_whole() {
        let whole = expected_body("/bytes/1000", 0..1000);
        assert_eq!(whole.len(), 1000);
        for (start, end) in [(0, 0), (0, 1), (3, 5), (7, 9), (8, 16), (1, 1000), (993, 1000)] {
            assert_eq!(expected_body("/bytes/1000", start as u64..end as u64), whole[start..end], "{start}..{end}");
        }
        assert_ne!(whole, expected_body("/bytes/1001", 0..1000));
        let body = Body::bytes("/bytes/1000", 1000);
        let mut sent = Vec::new();
        loop {
            let piece = body.piece(sent.len() as u64, 33);
            if piece.is_empty() {
                break;
            }
            sent.extend_from_slice(&piece);
        }
        assert_eq!(sent, whole);
    }

    #[test]
    fn whole_bodies_come_in_pieces_as_well() {
        let body = Body::Whole(Bytes::from(vec![7; PIECE + 1]));
        assert_eq!(body.piece(0, u64::MAX).len(), PIECE);
        assert_eq!(body.piece(PIECE as u64, u64::MAX).len(), 1);
        assert_eq!(body.piece(PIECE as u64 + 1, u64::MAX).len(), 0);
    }

    #[test]
    fn checksums_are_sha_256() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
