//! How long the frames of an HTTP/3 stream are, before anybody keeps them.
//!
//! Who reads frames has to keep each of them whole, DATA frames excepted, and a client may announce one of any length. A
//! [`FrameLimit`] sees the bytes first.

/// Follows the frames of one stream (RFC 9114 section 7.1).
#[derive(Debug, Default)]
pub(super) struct FrameLimit {
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the type. -> `Length` when it is whole.
    Type(Varint),
    /// In the length. -> `Payload` when it is whole.
    Length { frame: u64, varint: Varint },
    /// In the payload, of which so much is to come. -> `Type` at its end.
    Payload(u64),
}

impl Default for State {
    fn default() -> Self {
        State::Type(Varint::default())
    }
}

/// The client announced a frame that nobody will keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl FrameLimit {
    /// Looks at the bytes that come next.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Type(varint) => {
                    if let Some(frame) = varint.push(first) {
                        self.state = State::Length { frame, varint: Varint::default() };
                    }
                }
                State::Length { frame, varint } => {
                    if let Some(length) = varint.push(first) {
                        if *frame != DATA && length > FRAME_MAX {
                            return Err(TooLong);
                        }
                        self.state = State::payload(length);
                    }
                }
                State::Payload(left) => {
                    let seen = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    self.state = State::payload(*left - seen as u64);
                    bytes = &bytes[seen..];
                    continue;
                }
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl State {
    fn payload(left: u64) -> State {
        if left == 0 { State::default() } else { State::Payload(left) }
    }
}

/// An integer of RFC 9000 section 16, byte by byte.
#[derive(Debug, Default)]
pub(super) struct Varint {
    value: u64,
    /// Bytes that are to come; 0 before the first.
    left: u8,
}

impl Varint {
    /// Takes the next byte; the value when it was the last.
    pub(super) fn push(&mut self, byte: u8) -> Option<u64> {
        if self.left == 0 {
            self.left = 1 << (byte >> 6);
            self.value = u64::from(byte & 0x3f);
        } else {
            self.value = self.value << 8 | u64::from(byte);
        }
        self.left -= 1;
        (self.left == 0).then_some(self.value)
    }
}

const DATA: u64 = 0;

/// The longest frame that is kept whole: fields in their compressed form, which is not much longer than what they stand for.
pub(super) const FRAME_MAX: u64 = super::h3::FIELD_SECTION_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a stream that arrives in pieces of each size.
    fn see(bytes: &[u8]) -> Result<(), TooLong> {
        let mut results = (1..=bytes.len()).map(|size| {
            let mut limit = FrameLimit::default();
            bytes.chunks(size).try_for_each(|piece| limit.see(piece))
        });
        let first = results.next().expect("there are bytes");
        assert!(results.all(|result| result == first), "the size of the pieces does not matter");
        first
    }

    #[test]
    fn integers_of_all_lengths_are_read() {
        // The examples of RFC 9000 appendix A.1.
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            let mut varint = Varint::default();
            let (last, before) = bytes.split_last().unwrap();
            assert!(before.iter().all(|byte| varint.push(*byte).is_none()));
            assert_eq!(varint.push(*last), Some(value));
        }
    }

    #[test]
    fn frames_within_the_limit_pass_and_data_of_any_length() {
        let headers = [&[0x01, 0x05][..], b"abcde"].concat();
        let data = [&[0x00, 0x80, 0x01, 0x00, 0x00][..], &[7; 65_536]].concat();
        let unknown = [0x40, 0x21, 0x00];
        assert_eq!(see(&[&headers[..], &data, &unknown, &headers].concat()), Ok(()));
        assert_eq!(see(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), Ok(()));
    }

    #[test]
    fn a_frame_that_would_be_kept_is_refused_by_its_length_alone() {
        let [.., high, low] = (FRAME_MAX + 1).to_be_bytes();
        for frame in [0x01, 0x04, 0x21] {
            assert_eq!(see(&[frame, 0x80, 0, high, low]), Err(TooLong));
            assert_eq!(
                see(&[&[0x01, 0x01, 7, 0x00, 0x01, 7][..], &[frame, 0x80, 0, high, low]].concat()),
                Err(TooLong)
            );
        }
        let [.., high, low] = FRAME_MAX.to_be_bytes();
        assert_eq!(see(&[0x01, 0x80, 0, high, low]), Ok(()));
    }
}
