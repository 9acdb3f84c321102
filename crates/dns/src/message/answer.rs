//! What an upstream says: whether it answers the question asked, and what the proxy must know of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{
    FORMERR, Header, NOERROR, NOTIMP, REFUSED, SERVFAIL, TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_OPT,
    query::question,
    wire::{Malformed, OPTION_COOKIE, OPTION_KEEPALIVE, Options, Records, question_end, u16_at},
};

/// Whether `answer` is an answer to `query` (RFC 5452 section 9.1): QR, opcode, id and question are right.
///
/// `query` is as it was sent, at least up to the end of its question; its id is compared by the caller, who may have
/// replaced it on the wire. With `exact_case` the letters of the name must have the case that was sent (0x20).
/// With `on_connection` the errors FORMERR, SERVFAIL, NOTIMP and REFUSED may come without a question, as some servers send
/// them; over UDP they may not, for that would be an answer that anybody can forge.
pub fn answer_matches(query: &[u8], answer: &[u8], exact_case: bool, on_connection: bool) -> bool {
    let (Some(asked), Some(header)) = (Header::read(query), Header::read(answer)) else { return false };
    if !header.is_answer() || header.opcode() != asked.opcode() {
        return false;
    }
    if header.questions() == 0 {
        let bare = header.records() == usize::from(header.additionals());
        return on_connection && bare && matches!(header.rcode(), FORMERR | SERVFAIL | NOTIMP | REFUSED);
    }
    let Some(end) = question_end(query, Header::LEN) else { return false };
    let Some(repeated) = answer.get(Header::LEN..end) else { return false };
    let (name, rest) = (Header::LEN..end - 4, end - 4..end);
    let name_right = if exact_case {
        query[name.clone()] == answer[name]
    } else {
        query[name.clone()].eq_ignore_ascii_case(&answer[name])
    };
    header.questions() == 1 && name_right && query[rest] == repeated[repeated.len() - 4..]
}

/// What a proxy must know of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerInfo {
    /// With the upper bits of EDNS (RFC 6891 section 6.1.3).
    pub rcode: u16,
    /// Truncated.
    pub tc: bool,
    /// Records in the answer section.
    pub answer_count: u16,
    /// The name exists and has no record of the type asked for (RFC 2308 section 2.2).
    pub is_nodata: bool,
    /// Where the data of the first COOKIE option begins and ends (RFC 7873 section 5.3: others are ignored).
    pub(crate) cookie: Option<(u16, u16)>,
}

impl AnswerInfo {
    /// The data of the answer's COOKIE option. `answer` is the message that this is about.
    pub(crate) fn cookie_of<'a>(&self, answer: &'a [u8]) -> Option<&'a [u8]> {
        let (start, end) = self.cookie?;
        answer.get(start.into()..end.into())
    }
}

/// An answer whose bytes do not hold what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerError;

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed dns message")
    }
}

impl std::error::Error for AnswerError {}

impl From<Malformed> for AnswerError {
    fn from(Malformed: Malformed) -> AnswerError {
        AnswerError
    }
}

/// Walks an answer from end to end.
///
/// A truncated answer may end anywhere behind its question: some servers cut records in the middle. That excuses nothing
/// else: what is whole is as in any answer.
///
/// # Errors
/// When a name, record or option leaves the message, a name points forwards, or there are two OPT records, or one outside the additional section.
pub fn verify_answer(answer: &[u8]) -> Result<AnswerInfo, AnswerError> {
    let header = Header::read(answer).filter(|header| header.is_answer()).ok_or(AnswerError)?;
    let plain = AnswerInfo { rcode: header.rcode(), tc: header.tc(), answer_count: 0, is_nodata: false, cookie: None };
    match walk(answer, header) {
        Err(Fault::Cut) if header.tc() && Records::of(answer).is_ok() => Ok(plain),
        other => other.map_err(|_| AnswerError),
    }
}

/// What is wrong with an answer.
enum Fault {
    /// Something in it leaves it, or cannot be read.
    Cut,
    /// An OPT record is where none may be.
    Opt,
}

impl From<Malformed> for Fault {
    fn from(Malformed: Malformed) -> Fault {
        Fault::Cut
    }
}

fn walk(answer: &[u8], header: Header) -> Result<AnswerInfo, Fault> {
    let mut rcode = header.rcode();
    let (mut data, mut edns, mut cookie) = (false, false, None);
    let qtype = question(answer).filter(|_| header.questions() > 0).map(|question| question.qtype);
    for (number, record) in Records::of(answer)?.enumerate() {
        let record = record?;
        if record.rtype == TYPE_OPT {
            // RFC 6891 section 6.1.1: in the additional section, once.
            let additional = number >= header.records() - usize::from(header.additionals());
            if edns || !additional || !record.is_root() {
                return Err(Fault::Opt);
            }
            edns = true;
            for option in Options::new(answer, record.rdata.clone()) {
                let (code, option) = option?;
                if code == OPTION_COOKIE && cookie.is_none() {
                    cookie = u16::try_from(option.start + 4).ok().zip(u16::try_from(option.end).ok());
                }
            }
            rcode |= u16::from(record.ttl.to_be_bytes()[0]) << 4;
        }
        data |= number < usize::from(header.answers()) && (Some(record.rtype) == qtype || qtype == Some(TYPE_ANY));
    }
    let is_nodata = rcode == NOERROR && !header.tc() && !data;
    Ok(AnswerInfo { rcode, tc: header.tc(), answer_count: header.answers(), is_nodata, cookie })
}

/// Whether the TC bit is set.
pub fn is_truncated(answer: &[u8]) -> bool {
    Header::read(answer).is_some_and(Header::tc)
}

/// For how long the upstream keeps an idle connection (edns-tcp-keepalive, RFC 7828 section 3.1); zero asks us to close it.
pub fn tcp_keepalive(answer: &[u8]) -> Option<Duration> {
    answer_options(answer).keepalive
}

/// What an answer says to the one who asked over this connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AnswerOptions<'a> {
    /// For how long an idle connection is kept.
    pub(crate) keepalive: Option<Duration>,
    /// The data of the first COOKIE option.
    pub(crate) cookie: Option<&'a [u8]>,
}

/// Reads the options that are for this hop. Of a malformed message, those before the fault.
pub(crate) fn answer_options(answer: &[u8]) -> AnswerOptions<'_> {
    let mut found = AnswerOptions::default();
    let Ok(records) = Records::of(answer) else { return found };
    let Some(opt) = records.flatten().find(|record| record.rtype == TYPE_OPT) else { return found };
    for (code, option) in Options::new(answer, opt.rdata).flatten() {
        match code {
            // In units of 100 ms.
            OPTION_KEEPALIVE if option.len() == 6 => {
                found.keepalive =
                    u16_at(answer, option.start + 4).map(|units| Duration::from_millis(100) * u32::from(units));
            }
            OPTION_COOKIE if found.cookie.is_none() => found.cookie = answer.get(option.start + 4..option.end),
            _ => {}
        }
    }
    found
}

/// The A and AAAA records of the answer section with their TTL; owners are not compared, so that aliases need no following.
pub fn addresses(answer: &[u8]) -> impl Iterator<Item = (IpAddr, Duration)> {
    let count = Header::read(answer).map_or(0, |header| usize::from(header.answers()));
    let records = Records::of(answer).into_iter().flat_map(move |records| records.take(count));
    records.flatten().filter_map(|record| {
        let data = &answer[record.rdata.clone()];
        let address = match record.rtype {
            TYPE_A => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            TYPE_AAAA => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => return None,
        };
        (record.class == 1).then(|| (address, Duration::from_secs(record.ttl.into())))
    })
}

/// For how long the addresses in an answer hold: the smallest TTL of those and of the aliases that lead to them. `None` where there is
/// neither.
pub(crate) fn addresses_ttl(answer: &[u8]) -> Option<Duration> {
    let count = Header::read(answer).map_or(0, |header| usize::from(header.answers()));
    let records = Records::of(answer).into_iter().flat_map(|records| records.take(count)).flatten();
    let counts = |rtype| matches!(rtype, TYPE_A | TYPE_AAAA | TYPE_CNAME | TYPE_DNAME);
    let ttls = records.filter(|record| record.class == 1 && counts(record.rtype)).map(|record| record.ttl);
    // RFC 2181 section 8: with the most significant bit set it is zero.
    ttls.map(|ttl| if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }).min().map(|ttl| Duration::from_secs(ttl.into()))
}

const TYPE_ANY: u16 = 255;

/// Alias of all names below one (RFC 6672).
const TYPE_DNAME: u16 = 39;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ClientView, Query, build_query, prepare_answer};

    const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
    const NAMED_OPT: &[u8] = b"\xc0\x0c\0\x29\x04\xd0\0\0\0\0\0\0";

    /// An answer with these records in its answer, authority and additional sections.
    fn answer(truncated: bool, sections: [&[&[u8]]; 3]) -> Vec<u8> {
        let mut message = build_query("www.example", TYPE_A).unwrap();
        message.truncate(message.len() - OPT.len());
        message[2] |= 0x80 | u8::from(truncated) << 1;
        for (section, records) in sections.iter().enumerate() {
            message[7 + 2 * section] = u8::try_from(records.len()).unwrap();
        }
        message.extend(sections.concat().concat());
        message
    }

    // One in the answer section was let through: it went out to the client with another one behind it.
    #[test]
    fn an_opt_record_stands_once_and_in_the_additional_section_only() {
        let good: [[&[&[u8]]; 3]; 4] =
            [[&[A], &[], &[OPT]], [&[], &[], &[OPT]], [&[A], &[A], &[A, OPT]], [&[A], &[], &[OPT, A]]];
        for sections in good {
            let info = verify_answer(&answer(false, sections)).unwrap();
            assert_eq!(usize::from(info.answer_count), sections[0].len());
        }
        let bad: [[&[&[u8]]; 3]; 7] = [
            [&[OPT], &[], &[]],
            [&[A, OPT], &[], &[]],
            [&[], &[OPT], &[]],
            [&[OPT], &[], &[OPT]],
            [&[A], &[OPT], &[OPT]],
            [&[A], &[], &[OPT, OPT]],
            [&[A], &[], &[NAMED_OPT]],
        ];
        for sections in bad {
            assert_eq!(verify_answer(&answer(false, sections)), Err(AnswerError), "{sections:?}");
        }
    }

    // TC was taken for an excuse, and the client of such an answer got two OPT records.
    #[test]
    fn a_truncated_answer_may_be_cut_and_has_one_opt_record_for_its_client_nevertheless() {
        let query = build_query("www.example", TYPE_A).unwrap();
        let view = ClientView::new(&Query::parse(&query).unwrap(), 1232, 1232);
        let question = &query[Header::LEN..query.len() - OPT.len()];
        let places: [[&[&[u8]]; 3]; 4] =
            [[&[OPT, A], &[A], &[A]], [&[A], &[OPT], &[OPT]], [&[A], &[], &[OPT, OPT]], [&[A], &[A], &[OPT, A]]];
        for sections in places {
            let whole = answer(true, sections);
            for end in Header::LEN + question.len()..=whole.len() {
                let Ok(info) = verify_answer(&whole[..end]) else { continue };
                assert!(info.tc);
                let mut out = Vec::new();
                prepare_answer(&whole[..end], &view, question, &mut out);
                let opts = Records::of(&out).unwrap().filter(|record| record.as_ref().unwrap().rtype == TYPE_OPT);
                assert_eq!(opts.count(), 1, "{sections:?} up to {end}");
            }
            let good = sections == places[3];
            assert_eq!(verify_answer(&whole).is_ok(), good, "{sections:?}");
            assert!(verify_answer(&whole[..Header::LEN + question.len() + 5]).is_ok(), "cut within its first record");
        }
    }

    #[test]
    fn addresses_hold_for_as_long_as_the_alias_that_leads_to_them() {
        let record = |rtype: u8, ttl: u32| {
            [&[0xc0, 0x0c, 0, rtype, 0, 1][..], &ttl.to_be_bytes(), b"\0\x04\xc0\0\x02\x01"].concat()
        };
        let (cname, dname, txt) = (5, 39, 16);
        for (records, expected) in [
            (vec![record(1, 60), record(1, 30)], Some(30)),
            (vec![record(cname, 5), record(1, 60)], Some(5)),
            (vec![record(dname, 5), record(cname, 9), record(1, 60)], Some(5)),
            (vec![record(txt, 5), record(1, 60)], Some(60)),
            (vec![record(1, 0x8000_0001)], Some(0)),
            (vec![record(1, i32::MAX.unsigned_abs())], Some(i32::MAX.unsigned_abs())),
            (vec![record(txt, 5)], None),
        ] {
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            // What is not in the answer section does not count.
            let (other, opt) = (record(1, 1), OPT);
            let message = answer(false, [&records, &[&other], &[&other, opt]]);
            assert_eq!(addresses_ttl(&message).map(|ttl| ttl.as_secs()), expected.map(u64::from));
        }
    }
}
