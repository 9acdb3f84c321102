//! Puts aliases that were found here before what upstreams say of the name that they lead to.

use crate::message::{
    Header,
    wire::{Record, Records, plain_name_end, put_u16, question_end, u16_at},
};

/// Writes to `out` one answer: the `aliases`, which are an answer that ends with its answer section, then the records of
/// `answer`, which is about their last target; that name is at `place` in `aliases`. `false` when the answer is malformed or
/// does not fit.
///
/// The outcome (rcode) is that of the answer (RFC 6604 section 3); AA is that of the first alias (RFC 1035 section 4.1.1).
pub fn join(aliases: &[u8], place: usize, answer: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    joined(aliases, place, answer, out).is_some()
}

fn joined(aliases: &[u8], place: usize, answer: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (own, header) = (Header::read(aliases)?, Header::read(answer)?);
    if header.questions() != 1 || header.tc() {
        return None;
    }
    let shift = Shift {
        name: Header::LEN..plain_name_end(answer, Header::LEN)?,
        question_end: question_end(answer, Header::LEN)?,
        place,
        start: aliases.len(),
    };
    out.extend_from_slice(aliases);
    for record in Records::of(answer).ok()? {
        shift.copy(answer, &record.ok()?, out)?;
    }
    put_u16(out, 2, own.flags() & !0x000f | header.rcode());
    put_u16(out, 6, own.answers().checked_add(header.answers())?);
    put_u16(out, 8, header.authorities());
    put_u16(out, 10, header.additionals());
    (out.len() <= usize::from(u16::MAX)).then_some(())
}

/// Where the parts of an answer go.
struct Shift {
    /// The name of its question, which is now at `place`.
    name: std::ops::Range<usize>,
    /// The records begin there, which now begin at `start`.
    question_end: usize,
    place: usize,
    start: usize,
}

impl Shift {
    /// Appends a record with its pointers set right. Nothing changes its length.
    fn copy(&self, answer: &[u8], record: &Record, out: &mut Vec<u8>) -> Option<()> {
        let offset = out.len();
        out.extend_from_slice(&answer[record.start..record.end()]);
        let data = offset + record.rdata.start - record.start;
        self.correct(out, offset)?;
        let (skip, names) = names_in(record.rtype);
        let mut at = data.checked_add(skip)?;
        if record.rtype == TYPE_NAPTR {
            // Flags, services and a regular expression stand before the name.
            for _ in 0..3 {
                at += 1 + usize::from(*out.get(at)?);
            }
        }
        for _ in 0..names {
            at = self.correct(out, at)?;
        }
        (names == 0 || at <= out.len()).then_some(())
    }

    /// Corrects the pointer that the name there ends in, if it does; returns the name's end.
    fn correct(&self, out: &mut [u8], start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let length = *out.get(at)?;
            match length >> 6 {
                0 if length == 0 => return Some(at + 1),
                0 => at += 1 + usize::from(length),
                3 => {
                    let target = self.moved(usize::from(u16_at(out, at)? & 0x3fff))?;
                    let target = u16::try_from(target).ok().filter(|target| *target < 0x4000)?;
                    put_u16(out, at, 0xc000 | target);
                    return Some(at + 2);
                }
                _ => return None,
            }
        }
    }

    fn moved(&self, target: usize) -> Option<usize> {
        if self.name.contains(&target) {
            Some(self.place + target - self.name.start)
        } else if target >= self.question_end {
            Some(self.start + target - self.question_end)
        } else {
            None
        }
    }
}

/// Names in the data of a record that may be compressed: bytes before the first, and how many. Of types newer than RFC 3597
/// none may be (section 4); some that are older, or that some servers compress nevertheless, are here too.
fn names_in(rtype: u16) -> (usize, usize) {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME, NSEC
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 30 | 39 | 47 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        TYPE_NAPTR => (4, 1),
        // SIG, RRSIG
        24 | 46 => (18, 1),
        _ => (0, 0),
    }
}

const TYPE_NAPTR: u16 = 35;
