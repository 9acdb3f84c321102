//! What an answer says about the hop to its client alone: padding (RFC 7830, RFC 8467) and the idle time-out of the
//! connection (RFC 7828).
//!
//! Everything that writes an answer for a client ends in [`add_hop_options`], which is one test of a flag for those who
//! get neither. What is deliberately not here: the same options towards upstreams.

use std::time::Duration;

use super::{
    Header, Query, TYPE_OPT,
    client::ClientView,
    wire::{OPTION_KEEPALIVE, OPTION_PADDING, Options, Records, put_u16},
};

/// How a client is connected, as far as its answers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// What is sent can be read by the client alone.
    pub encrypted: bool,
    /// The connection is closed when it idles for so long; `None` where DNS has no connection, or another protocol says so
    /// in its own way (HTTP, QUIC).
    pub idle_timeout: Option<Duration>,
}

/// The options that one client gets, in two bytes, for each query in flight has them: the highest bit is padding, the others
/// are the time-out in units of 100 ms (54 minutes at most), or zero where it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HopOptions(u16);

impl HopOptions {
    /// What a client gets who sent `message`, of which `query` was made, over this hop.
    ///
    /// Padding when the query had the option (RFC 7830 section 4) and the transport hides it. The time-out when the client
    /// speaks EDNS, with the option or without it (RFC 7828 section 3.3.2). Nothing is added to what is signed.
    pub(super) fn new(message: &[u8], query: &Query, hop: Hop) -> HopOptions {
        let Some(edns) = query.edns.as_ref().filter(|_| !query.signed) else { return HopOptions::default() };
        let mut options = Options::new(message, edns.rdata.clone()).flatten();
        let padded = hop.encrypted && options.any(|(code, _)| code == OPTION_PADDING);
        // Told zero, the client would leave at once.
        let units = |timeout: Duration| u16::try_from(timeout.as_millis() / 100).unwrap_or(u16::MAX).clamp(1, !PADDED);
        HopOptions(hop.idle_timeout.map_or(0, units) | if padded { PADDED } else { 0 })
    }

    fn any(self) -> bool {
        self.0 != 0
    }

    fn padded(self) -> bool {
        self.0 & PADDED != 0
    }

    fn keepalive(self) -> Option<u16> {
        Some(self.0 & !PADDED).filter(|units| *units > 0)
    }
}

const PADDED: u16 = 0x8000;

/// Adds to an answer, in place, what its client gets for the hop; nothing when the answer has no OPT.
///
/// Records behind OPT are dropped, as names in them may point behind it: additional records are a courtesy.
pub fn add_hop_options(out: &mut Vec<u8>, view: &ClientView) {
    if view.hop_options().any() {
        add(out, view.hop_options(), view.max_size());
    }
}

#[cold]
fn add(out: &mut Vec<u8>, options: HopOptions, max: usize) {
    let Some(header) = Header::read(out) else { return };
    let Ok(records) = Records::of(out) else { return };
    let additional = usize::from(header.answers()) + usize::from(header.authorities());
    let found = records.flatten().enumerate().skip(additional).find(|(_, record)| record.rtype == TYPE_OPT);
    let Some((number, opt)) = found else { return };
    out.truncate(opt.end());
    put_u16(out, 10, u16::try_from(number - additional + 1).unwrap_or(1));
    if let Some(keepalive) = options.keepalive().filter(|_| out.len() + KEEPALIVE_SIZE <= max) {
        out.extend_from_slice(&OPTION_KEEPALIVE.to_be_bytes());
        out.extend_from_slice(&[0, 2]);
        out.extend_from_slice(&keepalive.to_be_bytes());
    }
    if options.padded() && out.len() + OPTION_HEADER <= max {
        let padding = (out.len() + OPTION_HEADER).next_multiple_of(BLOCK).min(max) - out.len() - OPTION_HEADER;
        out.extend_from_slice(&OPTION_PADDING.to_be_bytes());
        out.extend_from_slice(&u16::try_from(padding).unwrap_or(0).to_be_bytes());
        out.resize(out.len() + padding, 0);
    }
    let length = out.len() - opt.rdata.start;
    put_u16(out, opt.rdata.start - 2, u16::try_from(length).expect("part of a message"));
}

/// RFC 8467 section 4.1: responses are padded to a multiple of this, in bytes.
const BLOCK: usize = 468;

const OPTION_HEADER: usize = 4;
const KEEPALIVE_SIZE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NXDOMAIN, REFUSED, build_error, build_query, prepare_answer};

    /// A query, with these options in its OPT record.
    fn query(options: &[u8]) -> Vec<u8> {
        let mut query = build_query("www.example", 1).unwrap();
        let length = query.len() - 2;
        query.extend_from_slice(options);
        put_u16(&mut query, length, u16::try_from(options.len()).unwrap());
        query
    }

    fn view(query: &[u8], hop: Hop) -> ClientView {
        let parsed = Query::parse(query).unwrap();
        ClientView::new(&parsed, u16::MAX, 1232).with_hop(query, &parsed, hop)
    }

    /// The options of an answer's OPT, which is its last record.
    fn options(answer: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let opt = Records::of(answer).unwrap().last().unwrap().unwrap();
        assert_eq!((opt.rtype, opt.end()), (TYPE_OPT, answer.len()));
        let options = Options::new(answer, opt.rdata).map(Result::unwrap);
        options.map(|(code, option)| (code, answer[option][4..].to_vec())).collect()
    }

    /// An answer with `records` A records and this many more of them behind its OPT.
    fn answer(query: &[u8], records: u16, behind: u16) -> Vec<u8> {
        let end = Query::parse(query).unwrap().question.end;
        let mut answer = query[..end].to_vec();
        put_u16(&mut answer, 2, 0x8180);
        put_u16(&mut answer, 6, records);
        put_u16(&mut answer, 10, 1 + behind);
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1];
        (0..records).for_each(|_| answer.extend_from_slice(&record));
        answer.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        (0..behind).for_each(|_| answer.extend_from_slice(&record));
        answer
    }

    const PADDING: [u8; 8] = [0, 12, 0, 4, 0, 0, 0, 0];
    const KEEPALIVE: [u8; 4] = [0, 11, 0, 0];
    const DOT: Hop = Hop { encrypted: true, idle_timeout: Some(Duration::from_secs(10)) };
    const DOH: Hop = Hop { encrypted: true, idle_timeout: None };
    const TCP: Hop = Hop { encrypted: false, idle_timeout: Some(Duration::from_millis(250)) };
    const UDP: Hop = Hop { encrypted: false, idle_timeout: None };

    #[test]
    fn answers_are_padded_to_blocks_when_and_only_when_the_query_was_padded_and_the_transport_hides_it() {
        for (asked, hop, padded) in [
            (&PADDING[..], DOT, true),
            (&PADDING, DOH, true),
            (&PADDING, TCP, false),
            (&PADDING, UDP, false),
            (&KEEPALIVE, DOT, false),
            (&[], DOH, false),
        ] {
            for (records, behind) in [(0, 0), (1, 0), (25, 2), (26, 0), (27, 0), (28, 0), (200, 3)] {
                let query = query(asked);
                let mut out = Vec::new();
                let question = &query[12..Query::parse(&query).unwrap().question.end];
                prepare_answer(&answer(&query, records, behind), &view(&query, hop), question, &mut out);
                let has = Records::of(&out).unwrap().flatten().count() > usize::from(records)
                    && out.len() % BLOCK == 0
                    && options(&out).last().is_some_and(|(code, _)| *code == OPTION_PADDING);
                assert_eq!(has, padded, "{records} records, {hop:?}");
                assert_eq!(Header::read(&out).unwrap().answers(), records);
            }
        }
    }

    #[test]
    fn padding_is_zeros_and_the_smallest_that_fills_a_block() {
        let query = query(&PADDING);
        let mut out = Vec::new();
        build_error(&query, &view(&query, DOH), NXDOMAIN, None, &mut out);
        assert_eq!(out.len(), BLOCK);
        let given = options(&out);
        assert!(given[0].1.iter().all(|byte| *byte == 0), "{given:?}");
        // One that is a whole block already, but for the option's own header.
        let exact = HopOptions(PADDED);
        let mut out = answer(&query, 0, 0);
        let missing = BLOCK - OPTION_HEADER - out.len() - OPTION_HEADER;
        let at = out.len() - 2;
        out.extend_from_slice(&[0xfd, 0xe9]);
        out.extend_from_slice(&u16::try_from(missing).unwrap().to_be_bytes());
        out.resize(out.len() + missing, 7);
        put_u16(&mut out, at, u16::try_from(missing + OPTION_HEADER).unwrap());
        add(&mut out, exact, usize::from(u16::MAX));
        assert_eq!(out.len(), BLOCK);
        assert_eq!(options(&out).last(), Some(&(OPTION_PADDING, Vec::new())));
    }

    #[test]
    fn an_answer_is_never_longer_than_a_message_can_be() {
        let query = query(&PADDING);
        for records in [4085, 4086, 4087, 4088, 4090] {
            let mut out = answer(&query, records, 0);
            let before = out.len();
            assert!(before <= 65_535);
            add_hop_options(&mut out, &view(&query, DOT));
            assert!((before..=65_535).contains(&out.len()), "{records} records: {}", out.len());
            assert!(Records::of(&out).unwrap().all(|record| record.is_ok()));
        }
    }

    #[test]
    fn tcp_and_dot_clients_with_edns_are_told_how_long_their_connection_may_idle() {
        for (asked, hop, expected) in [
            (&KEEPALIVE[..], DOT, Some([0, 100])),
            (&[], DOT, Some([0, 100])),
            (&KEEPALIVE, TCP, Some([0, 2])),
            (&KEEPALIVE, DOH, None),
            (&KEEPALIVE, UDP, None),
        ] {
            let query = query(asked);
            let mut out = Vec::new();
            build_error(&query, &view(&query, hop), REFUSED, Some("why"), &mut out);
            let told = options(&out).into_iter().find(|(code, _)| *code == OPTION_KEEPALIVE).map(|(_, value)| value);
            assert_eq!(told, expected.map(|value| value.to_vec()), "{hop:?}");
            assert!(options(&out).iter().any(|(code, _)| *code == 15), "the reason stays");
        }
    }

    #[test]
    fn clients_without_edns_get_none() {
        let mut query = build_query("www.example", 1).unwrap();
        query.truncate(query.len() - 11);
        put_u16(&mut query, 10, 0);
        let mut out = Vec::new();
        build_error(&query, &view(&query, DOT), REFUSED, None, &mut out);
        assert_eq!(Header::read(&out).unwrap().additionals(), 0);
        assert_eq!(out.len(), query.len());
    }
}
