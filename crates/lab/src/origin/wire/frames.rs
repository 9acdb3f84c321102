//! Where in a sequence of h2 frames a byte stream is, however it is cut into reads and writes. No I/O.

use bytes::BytesMut;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn read(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, id @ ..] = bytes;
        Self { length: u32::from_be_bytes([0, a, b, c]), kind, flags, stream: u32::from_be_bytes(id) & (u32::MAX >> 1) }
    }

    fn write(self) -> [u8; HEAD] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// Follows frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes before the first frame.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of the head seen.
    seen: usize,
    /// Bytes of the payload to come.
    left: usize,
    /// The payload up to now, of frames that are held until they are whole.
    held: Vec<u8>,
}

/// A part of a byte stream.
enum Part<'a> {
    /// A head is complete.
    Head(Head),
    /// Bytes of the payload of a frame of this kind, and whether it ends with them.
    Payload(Head, &'a [u8], bool),
}

impl Frames {
    /// Frames that begin after so many bytes of something else.
    pub(super) fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], seen: 0, left: 0, held: Vec::new() }
    }

    /// Names the frames whose heads end in `bytes`.
    pub(super) fn follow(&mut self, bytes: &[u8], mut frame: impl FnMut(Head)) {
        self.walk(bytes, |_, part| {
            if let Part::Head(head) = part {
                frame(head);
            }
        });
    }

    /// Copies frames, and lets `change` see the head of each and change the payload of SETTINGS and GOAWAY, which are short.
    pub(super) fn change(
        &mut self,
        bytes: &[u8],
        output: &mut BytesMut,
        mut change: impl FnMut(&mut Head, &mut Vec<u8>),
    ) {
        self.walk(bytes, |held, part| match part {
            Part::Head(head) if is_held(head) => held.clear(),
            Part::Head(mut head) => {
                change(&mut head, held);
                output.extend_from_slice(&head.write());
            }
            Part::Payload(mut head, bytes, end) if is_held(head) => {
                held.extend_from_slice(bytes);
                if end {
                    change(&mut head, held);
                    head.length = u32::try_from(held.len()).expect("SETTINGS and GOAWAY are short");
                    output.extend_from_slice(&head.write());
                    output.extend_from_slice(held);
                }
            }
            Part::Payload(_, bytes, _) => output.extend_from_slice(bytes),
        });
    }

    fn walk<'a>(&mut self, bytes: &'a [u8], mut take: impl FnMut(&mut Vec<u8>, Part<'a>)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            if self.seen < HEAD {
                let count = (HEAD - self.seen).min(rest.len());
                self.head[self.seen..self.seen + count].copy_from_slice(&rest[..count]);
                self.seen += count;
                rest = &rest[count..];
                if self.seen < HEAD {
                    return;
                }
                let head = Head::read(self.head);
                self.left = head.length as usize;
                take(&mut self.held, Part::Head(head));
                if self.left == 0 {
                    take(&mut self.held, Part::Payload(head, &[], true));
                }
            } else {
                let (payload, later) = rest.split_at(self.left.min(rest.len()));
                self.left -= payload.len();
                rest = later;
                take(&mut self.held, Part::Payload(Head::read(self.head), payload, self.left == 0));
            }
            if self.left == 0 {
                self.seen = 0;
            }
        }
    }
}

fn is_held(head: Head) -> bool {
    matches!(head.kind, SETTINGS | GOAWAY)
}

/// Puts SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2) in the place of the one in the payload, or at its end.
pub(super) fn set_max_streams(payload: &mut Vec<u8>, limit: u32) {
    let id = MAX_CONCURRENT_STREAMS.to_be_bytes();
    match payload.chunks_exact_mut(SETTING).find(|setting| setting.starts_with(&id)) {
        Some(setting) => setting[2..].copy_from_slice(&limit.to_be_bytes()),
        None => {
            payload.extend_from_slice(&id);
            payload.extend_from_slice(&limit.to_be_bytes());
        }
    }
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
const HEAD: usize = 9;
const SETTING: usize = 6;
const MAX_CONCURRENT_STREAMS: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS with one value, its acknowledgement, DATA with bytes that look like a head, GOAWAY(2^31 - 1).
    fn wire() -> Vec<u8> {
        let mut wire = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0];
        wire.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]);
        wire.extend([0, 0, 3, 0, 1, 0, 0, 0, 5, 0, 0, 8]);
        wire.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        wire
    }

    fn change(head: &mut Head, payload: &mut Vec<u8>) {
        match head.kind {
            SETTINGS if !head.has(ACK) => set_max_streams(payload, 1),
            GOAWAY => payload[..4].copy_from_slice(&[0, 0, 0, 3]),
            _ => {}
        }
    }

    #[test]
    fn settings_and_goaway_are_changed_however_they_are_cut() {
        let wire = wire();
        let mut expected = vec![0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1];
        expected.extend(&wire[15..36 + 9]);
        expected.extend([0, 0, 0, 3, 0, 0, 0, 0]);
        for cut in 0..wire.len() {
            let mut frames = Frames::after(0);
            let mut output = BytesMut::new();
            frames.change(&wire[..cut], &mut output, change);
            frames.change(&wire[cut..], &mut output, change);
            assert_eq!(output, expected, "cut at {cut}");
        }
    }

    #[test]
    fn frames_are_named_once_after_the_preface() {
        let mut bytes = b"PRI".to_vec();
        bytes.extend(wire());
        for cut in 0..bytes.len() {
            let mut frames = Frames::after(3);
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.follow(part, |head| seen.push((head.kind, head.flags, head.stream, head.length)));
            }
            assert_eq!(seen, [(4, 0, 0, 6), (4, 1, 0, 0), (0, 1, 5, 3), (7, 0, 0, 8)], "cut at {cut}");
        }
    }

    #[test]
    fn a_limit_takes_the_place_of_another() {
        let mut payload = vec![0, 3, 0, 0, 3, 0xe8, 0, 4, 0, 0, 0, 1];
        set_max_streams(&mut payload, 0);
        assert_eq!(payload, [0, 3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]);
    }
}
