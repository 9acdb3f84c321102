//! Length-prefixed messages on a byte stream (RFC 1035 section 4.2.2, RFC 7766 section 8).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Takes the next whole message out of what was read; `None` until it is complete.
pub(crate) fn next_frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = usize::from(u16::from_be_bytes([*buffer.first()?, *buffer.get(1)?]));
    if buffer.len() < 2 + length {
        buffer.reserve(2 + length - buffer.len());
        return None;
    }
    buffer.advance(2);
    Some(buffer.split_to(length).freeze())
}

/// Appends a message with its length. Messages of more than 65,535 bytes do not exist in DNS; one is cut to nothing and
/// reported by `false`.
#[must_use]
pub(crate) fn push_frame(buffer: &mut BytesMut, message: &[u8]) -> bool {
    let Ok(length) = u16::try_from(message.len()) else { return false };
    buffer.reserve(2 + message.len());
    buffer.put_u16(length);
    buffer.put_slice(message);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut buffer = BytesMut::new();
        assert!(push_frame(&mut buffer, b"one"));
        assert!(push_frame(&mut buffer, b""));
        assert!(push_frame(&mut buffer, b"three"));
        assert!(!push_frame(&mut buffer, &[0; 65_536]));
        let whole = buffer.clone();
        let mut fed = BytesMut::new();
        let mut out = Vec::new();
        for byte in whole {
            fed.put_u8(byte);
            out.extend(next_frame(&mut fed));
        }
        assert_eq!(out, ["one", "", "three"]);
        assert!(fed.is_empty());
    }
}
