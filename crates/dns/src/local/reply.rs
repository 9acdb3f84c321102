//! Writes an answer of our own: header, question, records, and the SOA record of what is not there.

use crate::message::{Header, Query, TYPE_NS, TYPE_SOA, wire::put_u16};

/// An answer in the making. Names that are in it already are written as pointers to them.
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    answers: u16,
}

impl<'a> Reply<'a> {
    /// Header and question. RD and CD are the client's; RA is set, as in every answer of this server; AD never is, for
    /// nothing was validated (RFC 4035 section 3.2.3).
    pub(super) fn start(message: &[u8], query: &Query, authoritative: bool, out: &'a mut Vec<u8>) -> Reply<'a> {
        out.clear();
        let flags = QR | RA | if authoritative { AA } else { 0 } | query.header.flags() & (RD | CD);
        out.extend_from_slice(&query.header.id().to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(message.get(Header::LEN..query.question.end).unwrap_or_default());
        Reply { out, answers: 0 }
    }

    pub(super) fn rcode(&mut self, rcode: u16) {
        let flags = u16::from_be_bytes([self.out[2], self.out[3]]) & !0x000f;
        put_u16(self.out, 2, flags | rcode & 0x000f);
    }

    /// Adds a record to the answer section, whose owner is the name at this place. Returns the place of its data. A record
    /// that makes the message larger than messages can be is left out.
    pub(super) fn record(&mut self, owner: usize, rtype: u16, ttl: u32, data: &[u8]) -> usize {
        let place = self.out.len() + RECORD_HEAD;
        if place + data.len() <= MESSAGE_MAX {
            self.head(owner, rtype, ttl);
            self.data(|out| out.extend_from_slice(data));
            self.answers += 1;
            put_u16(self.out, 6, self.answers);
        }
        place
    }

    /// Says that there is nothing (RFC 2308 section 3): the SOA record of the zone at this place.
    pub(super) fn no_data(&mut self, zone: usize, ttl: u32) {
        self.soa(zone, ttl);
        put_u16(self.out, 8, 1);
    }

    /// Answers with the SOA record of the zone at this place.
    pub(super) fn authority(&mut self, zone: usize, ttl: u32) {
        self.soa(zone, ttl);
        put_u16(self.out, 6, 1);
    }

    /// Answers with the name server of an empty zone, which is itself (RFC 6303 section 3).
    pub(super) fn name_server(&mut self, zone: usize, ttl: u32) {
        self.head(zone, TYPE_NS, ttl);
        let pointer = pointer(zone);
        self.data(|out| out.extend_from_slice(&pointer));
        put_u16(self.out, 6, 1);
    }

    /// Takes the records back and answers with an error.
    pub(super) fn fail(&mut self, rcode: u16) {
        let end = crate::message::wire::question_end(self.out, Header::LEN).unwrap_or(self.out.len());
        self.out.truncate(end);
        put_u16(self.out, 6, 0);
        self.rcode(rcode);
    }

    /// The SOA record of RFC 6303 section 3, with the TTL of what it says as its minimum.
    fn soa(&mut self, zone: usize, ttl: u32) {
        self.head(zone, TYPE_SOA, ttl);
        let pointer = pointer(zone);
        self.data(|out| {
            out.extend_from_slice(&pointer);
            out.extend_from_slice(b"\x06nobody\x07invalid\0");
            for field in [SERIAL, REFRESH, RETRY, EXPIRE, ttl] {
                out.extend_from_slice(&field.to_be_bytes());
            }
        });
    }

    fn head(&mut self, owner: usize, rtype: u16, ttl: u32) {
        self.out.extend_from_slice(&pointer(owner));
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&[0, 1]);
        self.out.extend_from_slice(&ttl.to_be_bytes());
    }

    fn data(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let length = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        write(self.out);
        let written = u16::try_from(self.out.len() - length - 2).expect("data fits into a message");
        put_u16(self.out, length, written);
    }
}

/// A pointer to a name (RFC 1035 section 4.1.4). Names stand in the question and in at most eight aliases behind it, far
/// below the 14 bits of a pointer.
fn pointer(place: usize) -> [u8; 2] {
    let place = u16::try_from(place).ok().filter(|place| *place < 0x4000).expect("names stand near the start");
    (0xc000 | place).to_be_bytes()
}

const QR: u16 = 0x8000;
const AA: u16 = 0x0400;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;

/// Bytes of a record before its data, its owner a pointer.
const RECORD_HEAD: usize = 12;

/// Room for the SOA record and OPT is left.
const MESSAGE_MAX: usize = 65_535 - 512;

const SERIAL: u32 = 1;
const REFRESH: u32 = 3600;
const RETRY: u32 = 1200;
const EXPIRE: u32 = 604_800;
