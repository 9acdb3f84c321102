//! DNS messages as bytes: read only as far as a proxy must, and rewritten in place where they can be.
//!
//! A query is forwarded as it was received, with its id (and for 0x20 its case) replaced; an answer goes back the same way.
//! So there is no message type with owned records here, no compression of names, and nothing allocates on the way of a
//! query but the caller's buffers. Reading never panics, whatever the bytes. What is cached, and who is asked, is not here.

mod answer;
mod client;
mod edns;
mod hop;
mod name;
mod query;
mod subnet;
mod text;
pub(crate) mod wire;

pub use answer::{AnswerError, AnswerInfo, addresses, answer_matches, is_truncated, tcp_keepalive, verify_answer};
pub(crate) use answer::{AnswerOptions, addresses_ttl, answer_options};
pub use client::{ClientView, build_error, build_query_error, build_truncated, prepare_answer};
pub(crate) use client::{address, ede, push_opt, shorten};
pub(crate) use edns::{OptWriter, PADDING_BLOCK};
pub use hop::{Hop, add_hop_options};
pub(crate) use name::name_to_text;
pub use name::{class_name, name_from_text, rcode_name, type_from_name, type_name};
pub use query::{
    Edns, PAYLOAD_SIZE, Query, QueryError, Question, build_query, hash_key, normalise, randomize_case, same_key,
};
pub(crate) use query::{TYPE_SIG, TYPE_TSIG, copy_options, hash_parts, kept_options};
pub(crate) use subnet::{Readdressed, readdress, subnet_of};
pub use text::{Rendered, render};

/// No error.
pub const NOERROR: u16 = 0;
/// The query was malformed (RFC 1035 section 4.1.1).
pub const FORMERR: u16 = 1;
/// The server failed.
pub const SERVFAIL: u16 = 2;
/// The name does not exist.
pub const NXDOMAIN: u16 = 3;
/// The server does not do this kind of query.
pub const NOTIMP: u16 = 4;
/// The server will not, by policy.
pub const REFUSED: u16 = 5;
/// The EDNS version is not supported (RFC 6891 section 9).
pub const BADVERS: u16 = 16;
/// The server wants its cookie (RFC 7873 section 8).
pub const BADCOOKIE: u16 = 23;

/// IPv4 address.
pub const TYPE_A: u16 = 1;
/// Name server.
pub const TYPE_NS: u16 = 2;
/// Canonical name.
pub const TYPE_CNAME: u16 = 5;
/// Start of authority.
pub const TYPE_SOA: u16 = 6;
/// Text.
pub const TYPE_TXT: u16 = 16;
/// IPv6 address (RFC 3596).
pub const TYPE_AAAA: u16 = 28;
/// EDNS pseudo-record (RFC 6891).
pub const TYPE_OPT: u16 = 41;
/// Service binding (RFC 9460).
pub const TYPE_SVCB: u16 = 64;
/// Service binding of HTTPS origins (RFC 9460 section 9).
pub const TYPE_HTTPS: u16 = 65;

/// The fixed first 12 bytes of a message (RFC 1035 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header([u8; Header::LEN]);

impl Header {
    /// Bytes of a header; the question begins here.
    pub const LEN: usize = 12;

    /// Reads the header; `None` when the message is shorter.
    pub fn read(message: &[u8]) -> Option<Header> {
        message.first_chunk().copied().map(Header)
    }

    fn field(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// The id that an answer repeats.
    pub fn id(self) -> u16 {
        self.field(0)
    }

    /// The second 16 bits: flags, opcode and rcode.
    pub fn flags(self) -> u16 {
        self.field(2)
    }

    /// QR: this is an answer.
    pub fn is_answer(self) -> bool {
        self.0[2] & 0x80 != 0
    }

    /// 0 for a standard query.
    pub fn opcode(self) -> u8 {
        self.0[2] >> 3 & 0x0f
    }

    /// TC: the answer did not fit.
    pub fn tc(self) -> bool {
        self.0[2] & 0x02 != 0
    }

    /// RD: recursion is asked for.
    pub fn rd(self) -> bool {
        self.0[2] & 0x01 != 0
    }

    /// CD: checking disabled (RFC 4035 section 3.2.2).
    pub fn cd(self) -> bool {
        self.0[3] & 0x10 != 0
    }

    /// The lower 4 bits of the rcode; EDNS may hold more.
    pub fn rcode(self) -> u16 {
        u16::from(self.0[3] & 0x0f)
    }

    /// Questions.
    pub fn questions(self) -> u16 {
        self.field(4)
    }

    /// Records in the answer section.
    pub fn answers(self) -> u16 {
        self.field(6)
    }

    /// Records in the authority section.
    pub fn authorities(self) -> u16 {
        self.field(8)
    }

    /// Records in the additional section, OPT included.
    pub fn additionals(self) -> u16 {
        self.field(10)
    }

    /// Records in all three sections.
    pub(crate) fn records(self) -> usize {
        usize::from(self.answers()) + usize::from(self.authorities()) + usize::from(self.additionals())
    }
}
