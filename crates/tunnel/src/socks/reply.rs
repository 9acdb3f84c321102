//! SOCKS5's word for what went wrong.

use crate::ErrorKind;

/// RFC 1928 section 6. A time-out is 6, as dante says it; the list has no better word.
pub(super) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Rejected | ErrorKind::Forbidden => 2,
        ErrorKind::NetworkUnreachable => 3,
        ErrorKind::HostUnreachable | ErrorKind::Resolve => 4,
        ErrorKind::Refused => 5,
        ErrorKind::TimedOut => 6,
        ErrorKind::Unsupported => 7,
        ErrorKind::AddressType => 8,
        ErrorKind::Upstream | ErrorKind::Busy | ErrorKind::Local | ErrorKind::Closed => 1,
    }
}
