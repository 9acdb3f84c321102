//! Options of our own in a query: the query as one upstream gets it over one connection.
//!
//! A query is in flight in one form for all upstreams; what belongs to one hop (COOKIE, edns-tcp-keepalive, PADDING) is put
//! at its end when it leaves. Only where that is certain to change nothing else: a query whose OPT is not its last record,
//! or that is signed, goes as it is.

use super::{
    Header, PAYLOAD_SIZE, TYPE_OPT, push_opt,
    wire::{OPTION_PADDING, put_u16, u16_at},
};

/// Adds options to the query at the end of a buffer.
pub(crate) struct OptWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the query begins.
    start: usize,
    /// Where the length of the options is.
    length: usize,
}

impl<'a> OptWriter<'a> {
    /// Opens the OPT record of the query that begins at `start` and ends with the buffer, and adds one where there is none.
    /// `question_end` counts from `start`. `None` when the query has to stay as it is.
    pub(crate) fn open(out: &'a mut Vec<u8>, start: usize, question_end: usize) -> Option<OptWriter<'a>> {
        let query = out.get(start..)?;
        let room = query.len() < QUERY_MAX && question_end >= Header::LEN;
        match u16_at(query, 10).filter(|_| room)? {
            0 if query.len() == question_end => {
                put_u16(&mut out[start..], 10, 1);
                push_opt(out, PAYLOAD_SIZE, 0, false);
            }
            1 if is_last_opt(query, question_end) => {}
            _ => return None,
        }
        Some(OptWriter { out, start, length: start + question_end + 9 })
    }

    /// Adds an option of at most 1,000 bytes.
    pub(crate) fn push(&mut self, code: u16, data: &[u8]) {
        debug_assert!(data.len() <= 1000);
        self.head(code, data.len());
        self.out.extend_from_slice(data);
        self.close();
    }

    /// Pads the query to a multiple of `block` bytes (RFC 8467 section 4.1). The last option to add.
    pub(crate) fn pad(&mut self, block: usize) {
        let padding = (self.out.len() - self.start + 4).next_multiple_of(block) - (self.out.len() - self.start + 4);
        self.head(OPTION_PADDING, padding);
        self.out.resize(self.out.len() + padding, 0);
        self.close();
    }

    fn head(&mut self, code: u16, length: usize) {
        let length = u16::try_from(length).expect("options of our own are short");
        self.out.extend_from_slice(&code.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
    }

    fn close(&mut self) {
        let length = u16::try_from(self.out.len() - self.length - 2).expect("queries that are too long are not opened");
        put_u16(self.out, self.length, length);
    }
}

/// The only record is OPT, and nothing follows it.
fn is_last_opt(query: &[u8], at: usize) -> bool {
    let [high, low] = TYPE_OPT.to_be_bytes();
    let length = u16_at(query, at + 9).map(usize::from);
    query.get(at..at + 3) == Some(&[0, high, low]) && length == query.len().checked_sub(at + 11)
}

/// A longer query gets nothing added: what is added has to fit the 16 bits of lengths.
const QUERY_MAX: usize = 32 * 1024;

/// Queries are padded to multiples of so many bytes (RFC 8467 section 4.1).
pub(crate) const PADDING_BLOCK: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Query, build_query, wire::OPTION_COOKIE};

    fn parse(query: &[u8]) -> Query {
        Query::parse(query).unwrap()
    }

    fn bare(name: &str) -> Vec<u8> {
        let mut query = build_query(name, 1).unwrap();
        query.truncate(query.len() - 11);
        put_u16(&mut query, 10, 0);
        query
    }

    #[test]
    fn options_go_behind_those_that_are_there() {
        let mut query = build_query("a.example", 1).unwrap();
        let end = parse(&query).question.end;
        let mut out = b"before".to_vec();
        out.append(&mut query);
        let mut opt = OptWriter::open(&mut out, 6, end).unwrap();
        opt.push(65_001, &[7; 3]);
        opt.push(OPTION_COOKIE, &[1; 8]);
        let query = &out[6..];
        let edns = parse(query).edns.unwrap();
        assert_eq!(&query[edns.rdata], [&[0xfd, 0xe9, 0, 3, 7, 7, 7, 0, 10, 0, 8][..], &[1; 8]].concat());
        assert_eq!(&out[..6], b"before");
    }

    #[test]
    fn a_query_without_edns_gets_some_with_do_clear() {
        let mut query = bare("a.example");
        let end = query.len();
        OptWriter::open(&mut query, 0, end).unwrap().push(OPTION_COOKIE, &[1; 8]);
        let edns = parse(&query).edns.unwrap();
        assert_eq!((edns.payload_size, edns.do_bit, edns.rdata.len()), (PAYLOAD_SIZE, false, 12));
    }

    #[test]
    fn padded_queries_have_one_of_a_few_lengths() {
        for length in 1..60 {
            for mut query in [bare(&"x".repeat(length)), build_query(&"x".repeat(length), 1).unwrap()] {
                let end = parse(&query).question.end;
                let before = query.len();
                OptWriter::open(&mut query, 0, end).unwrap().pad(PADDING_BLOCK);
                assert_eq!(query.len() % PADDING_BLOCK, 0);
                assert!(query.len() < before + 15 + PADDING_BLOCK);
                assert!(parse(&query).edns.is_some());
            }
        }
    }

    #[test]
    fn a_query_whose_end_is_not_its_opt_stays_as_it_is() {
        let whole = build_query("a.example", 1).unwrap();
        let end = parse(&whole).question.end;
        // TSIG behind OPT; TSIG alone; a record that is not OPT; OPT twice as long as the message.
        let tsig = [&[0, 0, 250, 0, 255][..], &[0; 6]].concat();
        let mut signed = [&whole[..], &tsig].concat();
        put_u16(&mut signed, 10, 2);
        let mut only_signed = [&whole[..end], &tsig].concat();
        put_u16(&mut only_signed, 10, 1);
        let mut too_long = whole.clone();
        put_u16(&mut too_long, whole.len() - 2, 9);
        let mut trailing = bare("a.example");
        trailing.push(0);
        for query in [signed, only_signed, too_long, trailing, whole[..11].to_vec(), Vec::new()] {
            let mut out = query.clone();
            assert!(OptWriter::open(&mut out, 0, end).is_none());
            assert_eq!(out, query);
        }
    }
}
