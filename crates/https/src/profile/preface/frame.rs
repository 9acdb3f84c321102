//! Frames of HTTP/2 (RFC 9113 section 4.1 and 6), as far as a preface has them.

use serde::{Deserialize, Serialize};

use super::PrefaceError;
use crate::profile::HeadersPriority;

/// The header of a frame, as a capture keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Its type, such as `SETTINGS`; a number where RFC 9113 has no name.
    pub kind: String,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// Its flags.
    pub flags: u8,
    /// Bytes of its payload.
    pub length: usize,
}

/// A whole frame.
pub(super) struct RawFrame<'a> {
    pub(super) kind: u8,
    pub(super) stream: u32,
    flags: u8,
    pub(super) payload: &'a [u8],
    at: usize,
}

/// The frames of a connection, from its first byte.
pub(super) struct Frames<'a> {
    stream: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(stream: &'a [u8]) -> Frames<'a> {
        Frames { stream, at: 0 }
    }

    /// The next frame; `None` while it has not come whole.
    pub(super) fn next(&mut self) -> Result<Option<RawFrame<'a>>, PrefaceError> {
        if self.at == 0 {
            let here = self.stream.len().min(MAGIC.len());
            if self.stream[..here] != MAGIC[..here] {
                return Err(PrefaceError { at: 0, what: "preface", problem: "is not that of HTTP/2" });
            }
            self.at = MAGIC.len();
        }
        let at = self.at;
        let Some((header, rest)) = self.stream.get(at..).and_then(<[u8]>::split_first_chunk::<HEADER>) else {
            return Ok(None);
        };
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header;
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        // RFC 9113 section 4.2: more needs a SETTINGS of ours, which never says so.
        if length > LENGTH_MAX {
            return Err(PrefaceError { at, what: "frame", problem: "is longer than 16 KiB" });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.at += HEADER + length;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_BITS;
        Ok(Some(RawFrame { kind, stream, flags, payload, at }))
    }
}

impl<'a> RawFrame<'a> {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn error(&self, problem: &'static str) -> PrefaceError {
        PrefaceError { at: self.at, what: name(self.kind).unwrap_or("frame"), problem }
    }

    pub(super) fn header(&self) -> Frame {
        let kind = name(self.kind).map_or_else(|| self.kind.to_string(), str::to_owned);
        Frame { kind, stream: self.stream, flags: self.flags, length: self.payload.len() }
    }

    /// What a SETTINGS says.
    pub(super) fn settings(&self) -> Result<Vec<(u16, u32)>, PrefaceError> {
        let (settings, rest) = self.payload.as_chunks::<SETTING>();
        if !rest.is_empty() {
            return Err(self.error(WRONG_LENGTH));
        }
        let setting = |[i0, i1, v0, v1, v2, v3]: &[u8; SETTING]| {
            (u16::from_be_bytes([*i0, *i1]), u32::from_be_bytes([*v0, *v1, *v2, *v3]))
        };
        Ok(settings.iter().map(setting).collect())
    }

    /// What a WINDOW_UPDATE adds.
    pub(super) fn increment(&self) -> Result<u32, PrefaceError> {
        let bytes = <[u8; 4]>::try_from(self.payload).map_err(|_| self.error(WRONG_LENGTH))?;
        Ok(u32::from_be_bytes(bytes) & STREAM_BITS)
    }

    /// What a PRIORITY says.
    pub(super) fn priority(&self) -> Result<HeadersPriority, PrefaceError> {
        let bytes = <[u8; PRIORITY_LENGTH]>::try_from(self.payload).map_err(|_| self.error(WRONG_LENGTH))?;
        Ok(priority(bytes))
    }

    /// The priority in a HEADERS, and its part of the block of headers.
    pub(super) fn headers(&self) -> Result<(Option<HeadersPriority>, &'a [u8]), PrefaceError> {
        let mut rest = self.payload;
        if self.has(PADDED) {
            let (padding, padded) = rest.split_first().ok_or_else(|| self.error(WRONG_LENGTH))?;
            let end = padded.len().checked_sub(usize::from(*padding)).ok_or_else(|| self.error(WRONG_LENGTH))?;
            rest = &padded[..end];
        }
        if !self.has(HAS_PRIORITY) {
            return Ok((None, rest));
        }
        let (bytes, block) = rest.split_first_chunk().ok_or_else(|| self.error(WRONG_LENGTH))?;
        Ok((Some(priority(*bytes)), block))
    }
}

fn priority([d0, d1, d2, d3, weight]: [u8; PRIORITY_LENGTH]) -> HeadersPriority {
    let dependency = u32::from_be_bytes([d0, d1, d2, d3]);
    HeadersPriority {
        exclusive: dependency & !STREAM_BITS != 0,
        depends_on: dependency & STREAM_BITS,
        weight: u16::from(weight) + 1,
    }
}

/// The name of a type of frame.
pub(crate) fn name(kind: u8) -> Option<&'static str> {
    NAMES.get(usize::from(kind)).copied()
}

pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const SETTINGS: u8 = 4;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flag of SETTINGS: the other side's were taken.
pub(super) const ACK: u8 = 1;
/// Flag of HEADERS and CONTINUATION: no CONTINUATION follows.
pub(super) const END_HEADERS: u8 = 4;
/// Flag of HEADERS: it is padded.
const PADDED: u8 = 8;
/// Flag of HEADERS: it has a priority.
const HAS_PRIORITY: u8 = 32;

const NAMES: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const WRONG_LENGTH: &str = "has another length than its type has";

/// What every connection begins with (RFC 9113 section 3.4).
const MAGIC: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
const HEADER: usize = 9;

/// Bytes of the longest frame that is sent without being asked for longer ones.
const LENGTH_MAX: usize = 1 << 14;

/// Bytes of a setting: identifier and value.
const SETTING: usize = 6;

/// Bytes of a priority: dependency and weight.
const PRIORITY_LENGTH: usize = 5;

/// All bits of a stream's number; the one above is reserved.
const STREAM_BITS: u32 = u32::MAX >> 1;
