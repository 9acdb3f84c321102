//! A hello as it comes over a stream: in TLS records, which may cut it anywhere.

use serde::{Deserialize, Serialize};

use super::{CLIENT_HELLO, HEADER, Hello, HelloError};
use crate::profile::code::Code;

/// A hello and the records that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedHello {
    /// The hello, taken apart.
    pub hello: Hello,
    /// The handshake message that it was.
    pub message: Vec<u8>,
    /// The records that carried it, in order.
    pub records: Vec<Record>,
}

/// The header of a TLS record (RFC 8446 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its version: `0301` for the first hello of most clients.
    pub version: Code,
    /// Bytes after the header.
    pub length: u16,
}

impl RecordedHello {
    /// Reads the hello that a client's stream begins with; `None` while it has not come whole. What follows it is left.
    ///
    /// # Errors
    /// When it begins with anything else, or the hello cannot be read ([`Hello::parse`]; the place is then that in the
    /// message, without the records' headers).
    pub fn read(stream: &[u8]) -> Result<Option<RecordedHello>, HelloError> {
        let (mut message, mut records, mut at) = (Vec::new(), Vec::new(), 0);
        while let Some((header, rest)) = stream.get(at..).and_then(<[u8]>::split_first_chunk::<RECORD_HEADER>) {
            let record = record(header).map_err(|problem| HelloError { at, what: "record", problem })?;
            records.push(record);
            let body = rest.get(..usize::from(record.length)).unwrap_or(rest);
            message.extend_from_slice(body);
            if let Some(length) = length(&message)?.filter(|length| *length <= message.len()) {
                message.truncate(length);
                return Ok(Some(RecordedHello { hello: Hello::parse(&message)?, message, records }));
            }
            // A record that is here in part is the last of them: nothing is after it.
            at += RECORD_HEADER + usize::from(record.length);
        }
        Ok(None)
    }
}

/// The header of a record that may carry a hello.
fn record(header: &[u8; RECORD_HEADER]) -> Result<Record, &'static str> {
    let [kind, version_high, version_low, length_high, length_low] = *header;
    let length = u16::from_be_bytes([length_high, length_low]);
    // RFC 8446 section 5.1: the version is 3.x, handshake records are not empty, and none has more than 2^14 bytes.
    match (kind, version_high, length) {
        (HANDSHAKE, 3, 1..=LENGTH_MAX) => {
            Ok(Record { version: Code::from(u16::from_be_bytes([version_high, version_low])), length })
        }
        (HANDSHAKE, 3, _) => Err("has a length that no record has"),
        _ => Err("is no TLS handshake"),
    }
}

/// The length of the message that begins here, with its header; `None` while that is not known.
fn length(message: &[u8]) -> Result<Option<usize>, HelloError> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError { at: 0, what: "hello", problem: "is another message" });
    }
    let Some([_, high, middle, low]) = message.first_chunk::<HEADER>() else { return Ok(None) };
    let length = HEADER + (usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low));
    match length {
        ..=Hello::LENGTH_MAX => Ok(Some(length)),
        _ => Err(HelloError { at: 1, what: "hello", problem: "is longer than 64 KiB" }),
    }
}

/// Bytes of a record's header.
const RECORD_HEADER: usize = 5;

/// Content type of handshake messages.
const HANDSHAKE: u8 = 22;

/// Bytes of the longest record.
const LENGTH_MAX: u16 = 1 << 14;
