//! Answers as a client gets them: its id, its question, its EDNS, its size; and answers of our own.

use std::ops::Range;

use super::{
    BADVERS, FORMERR, Header, NOTIMP, Query, QueryError, REFUSED, TYPE_OPT,
    query::{copy_options, options_kept, question},
    wire::{OPTION_EDE, Record, Records, put_u16, question_end},
};

/// What of a client's query its answer depends on, kept while the query is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientView {
    id: u16,
    /// The DO bit, if the client speaks EDNS.
    edns: Option<bool>,
    signed: bool,
    /// Its own client subnet option goes to upstreams, so theirs goes back (RFC 7871 section 7.2.2).
    subnet: bool,
    /// Largest answer, in bytes.
    max_size: u16,
    /// What we advertise.
    payload_size: u16,
}

impl ClientView {
    /// `max` is the largest message that goes back, in bytes: over a stream 65,535, for a datagram the server's own limit,
    /// below which the client's payload size counts (512 without EDNS). `payload_size` is what the server advertises.
    pub fn new(query: &Query, max: u16, payload_size: u16) -> ClientView {
        let client = query.edns.as_ref().map_or(0, |edns| edns.payload_size).max(DATAGRAM_MIN);
        let max_size = if max == u16::MAX { max } else { client.min(max) };
        ClientView {
            id: query.header.id(),
            edns: query.edns.as_ref().map(|edns| edns.do_bit),
            signed: query.signed,
            subnet: query.edns.as_ref().is_some_and(|edns| edns.subnet),
            max_size,
            payload_size,
        }
    }

    /// Largest answer that this client takes, in bytes.
    pub fn max_size(&self) -> usize {
        self.max_size.into()
    }

    /// Says that the subnet upstreams are told of is not the client's own, so it hears nothing of theirs: it would have to
    /// drop an answer about another subnet (RFC 7871 section 7.3).
    pub(crate) fn without_subnet(&mut self) {
        self.subnet = false;
    }

    /// The client subnet option of an answer is for it.
    pub(crate) fn hears_subnet(&self) -> bool {
        self.subnet
    }

    /// The client speaks EDNS.
    pub(crate) fn speaks_edns(&self) -> bool {
        self.edns.is_some()
    }

    /// What the server advertises to this client, in bytes.
    pub(crate) fn payload_size(&self) -> u16 {
        self.payload_size
    }
}

/// RFC 6891 section 6.2.5: smaller sizes mean this.
const DATAGRAM_MIN: u16 = 512;

/// Writes to `out` an upstream's answer as one client gets it. `question` is the question as this client wrote it.
///
/// Usually that is a copy with id, question and payload size patched in place. OPT is there if and only if the client sent
/// one (RFC 6891 section 6.1.1), without hop-by-hop options. An answer too large loses its additional records, which are a
/// courtesy; if that is not enough, all records, and TC is set (RFC 2181 section 9). The answer to a signed query is not
/// touched but for id and question, or its signature would not stand.
///
/// `answer` has passed [`verify_answer`](super::verify_answer); of any other the header and the question go out with TC.
pub fn prepare_answer(answer: &[u8], view: &ClientView, question: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = Header::read(answer) else { return };
    let layout = Layout::of(answer, header).filter(|layout| layout.question.len() == question.len());
    let Some(layout) = layout else {
        // An error without its question, or cut in the middle of a record.
        let truncated = header.tc() || header.questions() > 0;
        return minimal(header, view, question, truncated, out);
    };
    let end = layout.end;
    let opt = layout.opt.as_ref();
    if view.signed {
        out.extend_from_slice(&answer[..end]);
    } else {
        match (opt, view.edns) {
            (None, None) => out.extend_from_slice(&answer[..end]),
            (None, Some(do_bit)) => {
                out.extend_from_slice(&answer[..end]);
                // A server that answers FORMERR or NOTIMP without OPT does not speak EDNS: the client shall see that.
                if !matches!(header.rcode(), FORMERR | NOTIMP) {
                    push_opt(out, view.payload_size, 0, do_bit);
                    put_u16(out, 10, header.additionals().saturating_add(1));
                }
            }
            (Some(opt), edns) => copy_with_opt(answer, header, &layout, opt, view, edns.is_some(), out),
        }
    }
    address(out, view, question);
    let ext_rcode = opt.map_or(0, |opt| opt.ttl.to_be_bytes()[0]);
    shorten(out, question.len(), layout.additional, ext_rcode, view);
}

/// Gives an answer the client's id and the question as the client wrote it, which is as long as the one that is there.
pub(crate) fn address(out: &mut [u8], view: &ClientView, question: &[u8]) {
    put_u16(out, 0, view.id);
    if let Some(place) = out.get_mut(Header::LEN..Header::LEN + question.len()) {
        place.copy_from_slice(question);
    }
}

/// Where the sections of an answer are.
struct Layout {
    question: Range<usize>,
    /// Where the additional section begins.
    additional: usize,
    opt: Option<Record>,
    /// Position of OPT in the additional section.
    opt_number: u16,
    end: usize,
}

impl Layout {
    fn of(answer: &[u8], header: Header) -> Option<Layout> {
        if header.questions() != 1 {
            return None;
        }
        let question = Header::LEN..question_end(answer, Header::LEN)?;
        let mut at = question.end;
        for _ in 0..header.records() - usize::from(header.additionals()) {
            at = Record::read(answer, at)?.end();
        }
        let (additional, mut opt, mut opt_number) = (at, None, 0);
        for number in 0..header.additionals() {
            let record = Record::read(answer, at)?;
            at = record.end();
            if record.rtype == TYPE_OPT {
                opt = Some(record);
                opt_number = number;
            }
        }
        Some(Layout { question, additional, opt, opt_number, end: at })
    }
}

/// Copies an answer whose OPT has to go or to be cleaned.
fn copy_with_opt(
    answer: &[u8],
    header: Header,
    layout: &Layout,
    opt: &Record,
    view: &ClientView,
    keep: bool,
    out: &mut Vec<u8>,
) {
    let whole = keep && options_kept(answer, &opt.rdata, view.subnet) == opt.rdata.len();
    if whole {
        out.extend_from_slice(&answer[..layout.end]);
    } else {
        // What follows OPT goes with it: names there may point behind it, and additional records are a courtesy.
        out.extend_from_slice(&answer[..opt.start]);
        put_u16(out, 10, layout.opt_number + u16::from(keep));
        if keep {
            out.extend_from_slice(&answer[opt.start..opt.rdata.start]);
            let kept = copy_options(answer, &opt.rdata, view.subnet, out);
            put_u16(out, opt.rdata.start - 2, kept);
        }
    }
    if keep {
        put_u16(out, opt.start + 3, view.payload_size);
    } else if opt.ttl >> 24 != 0 {
        // A client without EDNS cannot be told an rcode above 15; SERVFAIL is the nearest it knows.
        let flags = header.flags() & !0x000f | super::SERVFAIL;
        put_u16(out, 2, flags);
    }
}

/// Cuts an answer that is larger than its client takes, in place: the records from `additional` on, or all of them and TC.
pub(crate) fn shorten(out: &mut Vec<u8>, question_length: usize, additional: usize, ext_rcode: u8, view: &ClientView) {
    let Some(header) = Header::read(out).filter(|_| out.len() > view.max_size()) else { return };
    let opt_size = if view.edns.is_some() { OPT_SIZE } else { 0 };
    if !header.tc() && !view.signed && additional + opt_size <= view.max_size() {
        out.truncate(additional);
    } else {
        out.truncate(Header::LEN + question_length);
        put_u16(out, 2, header.flags() | TC);
        put_u16(out, 6, 0);
        put_u16(out, 8, 0);
    }
    put_u16(out, 10, view.edns.is_some().into());
    if let Some(do_bit) = view.edns {
        push_opt(out, view.payload_size, ext_rcode, do_bit);
    }
}

/// Header, question and OPT, for an answer that holds no more.
fn minimal(header: Header, view: &ClientView, question: &[u8], truncated: bool, out: &mut Vec<u8>) {
    let tc = if truncated { TC } else { 0 };
    push_head(view.id, header.flags() | tc, question, out);
    // The answer may be of a server that speaks no EDNS.
    if let Some(do_bit) = view.edns.filter(|_| truncated || !matches!(header.rcode(), FORMERR | NOTIMP)) {
        push_opt(out, view.payload_size, 0, do_bit);
        put_u16(out, 10, 1);
    }
}

/// Writes an error of our own to `out`. `query` is the client's query, or the [normalised](super::normalise) form of it.
///
/// A client that speaks EDNS is told why (RFC 8914): `text`, at most 200 bytes of it, as the text of "Other Error", or
/// "Prohibited" for REFUSED.
pub fn build_error(query: &[u8], view: &ClientView, rcode: u16, text: Option<&str>, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = Header::read(query) else { return };
    let question = question_end(query, Header::LEN).map_or(&[][..], |end| &query[Header::LEN..end]);
    push_head(view.id, error_flags(header, rcode), question, out);
    let Some(do_bit) = view.edns else { return };
    push_opt(out, view.payload_size, ext(rcode), do_bit);
    put_u16(out, 10, 1);
    let code = if rcode == REFUSED { EDE_PROHIBITED } else { EDE_OTHER };
    if text.is_some() || code != EDE_OTHER {
        push_ede(out, code, text.unwrap_or_default());
    }
}

/// Writes to `out` the answer to a message that [`Query::parse`] refused; `false` when there must be none.
pub fn build_query_error(message: &[u8], error: &QueryError, payload_size: u16, out: &mut Vec<u8>) -> bool {
    out.clear();
    let rcode = match error {
        QueryError::Drop => return false,
        QueryError::FormErr => FORMERR,
        QueryError::NotImp => NOTIMP,
        QueryError::BadVers => BADVERS,
        QueryError::Refused => REFUSED,
    };
    let Some(header) = Header::read(message) else { return false };
    // Another opcode may mean another thing by a question; of a malformed message only what is whole is repeated.
    let repeated = question(message)
        .filter(|question| header.opcode() == 0 && header.questions() == 1 && question.end <= message.len());
    let question = repeated.map_or(&[][..], |question| &message[Header::LEN..question.end]);
    push_head(header.id(), error_flags(header, rcode), question, out);
    if let Some(do_bit) = edns_of(message) {
        push_opt(out, payload_size, ext(rcode), do_bit);
        put_u16(out, 10, 1);
    }
    true
}

/// The DO bit of a message's OPT record, as far as the message can be read; `None` without one. RFC 6891 section 6.1.1: who
/// sends OPT gets OPT, with an error too, or would take us for a server without EDNS.
fn edns_of(message: &[u8]) -> Option<bool> {
    let mut records = Records::of(message).ok()?.flatten();
    let opt = records.find(|record| record.rtype == TYPE_OPT && record.is_root())?;
    // An unknown version may mean another thing by its flags.
    let [_, version, flags, _] = opt.ttl.to_be_bytes();
    Some(version == 0 && flags & 0x80 != 0)
}

/// QR and RA are set; opcode, RD and CD are the client's.
fn error_flags(header: Header, rcode: u16) -> u16 {
    QR | RA | header.flags() & (OPCODE | RD | CD) | rcode & 0x0f
}

fn push_head(id: u16, flags: u16, question: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(question);
}

/// An OPT record without options, which is the last of the message.
pub(crate) fn push_opt(out: &mut Vec<u8>, payload_size: u16, ext_rcode: u8, do_bit: bool) {
    let [high, low] = payload_size.to_be_bytes();
    out.extend_from_slice(&[0, 0, 41, high, low, ext_rcode, 0, if do_bit { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Adds an extended error to the OPT record without options that ends `out`.
fn push_ede(out: &mut Vec<u8>, code: u16, text: &str) {
    let rdlength = out.len() - 2;
    let length = ede(out, code, text);
    put_u16(out, rdlength, length);
}

/// Appends an extended error (RFC 8914 section 2) as an option; returns its length.
pub(crate) fn ede(out: &mut Vec<u8>, code: u16, text: &str) -> u16 {
    let text = &text.as_bytes()[..text.floor_char_boundary(EDE_TEXT_MAX)];
    let length = u16::try_from(2 + text.len()).expect("the text is short");
    out.extend_from_slice(&OPTION_EDE.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(text);
    4 + length
}

/// The part of an rcode that OPT carries.
fn ext(rcode: u16) -> u8 {
    u8::try_from(rcode >> 4).unwrap_or(u8::MAX)
}

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;

const OPT_SIZE: usize = 11;

/// With the longest question the whole error stays below 512 bytes.
const EDE_TEXT_MAX: usize = 200;

/// "Other Error" (RFC 8914 section 4.1).
const EDE_OTHER: u16 = 0;

/// "Prohibited" (RFC 8914 section 4.19).
const EDE_PROHIBITED: u16 = 18;
