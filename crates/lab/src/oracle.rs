//! Tells whether an answer is the one to a query. It judges what a client of a proxy sees, and so it bears what a proxy may
//! change: TTLs, the order of records, the OPT record and name compression.

use crate::answer::{Special, records};
use crate::wire::{HEADER, Query, Question, Record, u16_at};

/// Checks that `answer_wire` is the answer that a lab gives to `query_wire`: the id, the question byte for byte (case as
/// well), the response code, and records that encode the very question.
///
/// A truncated answer (TC) does not match; whoever expects one looks at the bit first. Faults that change the content, such
/// as [`Faults::rcode`](crate::Faults::rcode), do not match either.
///
/// # Errors
/// The first difference, in words.
pub fn answer_matches(query_wire: &[u8], answer_wire: &[u8]) -> Result<(), String> {
    let query = Query::parse(query_wire).map_err(|bad| format!("the query itself is bad: {bad:?}"))?;
    let header = Header::read(answer_wire).ok_or("the answer is shorter than a header")?;
    if header.id != query.id {
        return Err(format!("id {:#06x} in place of {:#06x}", header.id, query.id));
    }
    if header.flags & 0x8000 == 0 {
        return Err("QR is not set".to_owned());
    }
    if header.counts[0] != 1 {
        return Err(format!("{} questions", header.counts[0]));
    }
    let (question, at) = Question::read(answer_wire, HEADER).ok_or("the question cannot be read")?;
    if question != query.question {
        return Err(format!("question {question:?} in place of {:?}", query.question));
    }
    if header.flags & 0x0200 != 0 {
        return Err("truncated".to_owned());
    }
    let (code, mut expected) = match Special::of(&question) {
        Special::Rcode(code) => (u16::from(code), Vec::new()),
        Special::NoData => (0, Vec::new()),
        Special::None | Special::Big | Special::Delay(_) | Special::Drop => (0, records(&question)),
    };
    if header.flags & 0x000f != code {
        return Err(format!("response code {} in place of {code}", header.flags & 0x000f));
    }
    let mut found = answers(&question, answer_wire, at, header.counts[1])?;
    found.sort_unstable();
    expected.sort_unstable();
    if found != expected {
        return Err(format!("records {found:02x?} in place of {expected:02x?}"));
    }
    Ok(())
}

struct Header {
    id: u16,
    flags: u16,
    counts: [u16; 2],
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let counts = [u16_at(message, 4)?, u16_at(message, 6)?];
        (message.len() >= HEADER).then_some(Self { id: u16_at(message, 0)?, flags: u16_at(message, 2)?, counts })
    }
}

/// The data of all answer records, which must belong to the question.
fn answers(question: &Question, message: &[u8], mut at: usize, count: u16) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    for number in 0..count {
        let record = Record::read(message, at).ok_or_else(|| format!("answer record {number} cannot be read"))?;
        let owner = &message[at..];
        let length = question.name.len();
        let named = owner.starts_with(&[0xc0, 0x0c])
            || owner.get(..length).is_some_and(|name| name.eq_ignore_ascii_case(&question.name));
        if !named || record.kind != question.kind || record.class != question.class {
            return Err(format!("answer record {number} is of another name, type or class"));
        }
        found.push(record.data.to_vec());
        at = record.end;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::wire::build_query;

    fn answer(query: &[u8]) -> Vec<u8> {
        let query = &Query::parse(query).unwrap();
        let question = &query.question;
        Answer {
            id: query.id,
            query,
            question,
            subject: question,
            rcode: None,
            ttl: 1,
            keepalive: None,
            size_max: 65_535,
        }
        .write()
    }

    #[test]
    fn the_labs_own_answers_match() {
        for name in ["www.Example.com", ".", "nx.test", "nodata.test", "servfail.test", "refused.test", "big.test"] {
            for kind in [1, 2, 5, 6, 15, 16, 28, 33, 65, 257] {
                let query = build_query(77, name, kind, Some(1232));
                assert_eq!(answer_matches(&query, &answer(&query)), Ok(()), "{name} {kind}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_that_matters_is_seen() {
        let query = build_query(77, "www.example.com", 28, None);
        let good = answer(&query);
        let question_end = query.len();
        // Id, QR, TC and rcode; the question; the owner, type, class; then length and data of the record.
        let bits = (0..16)
            .chain([16, 22, 28, 29, 30, 31])
            .chain(HEADER * 8..(question_end + 6) * 8)
            .chain((question_end + 10) * 8..good.len() * 8);
        for bit in bits {
            let mut bad = good.clone();
            bad[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(answer_matches(&query, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_answer_to_another_question_does_not_match() {
        let query = build_query(77, "a.example", 1, None);
        for other in [build_query(77, "b.example", 1, None), build_query(77, "A.example", 1, None)] {
            assert!(answer_matches(&query, &answer(&other)).unwrap_err().starts_with("question"));
        }
        let own = Query::parse(&query).unwrap();
        let other = Query::parse(&build_query(77, "b.example", 1, None)).unwrap();
        let crossed = Answer {
            id: 77,
            query: &own,
            question: &own.question,
            subject: &other.question,
            rcode: None,
            ttl: 1,
            keepalive: None,
            size_max: 512,
        };
        assert!(answer_matches(&query, &crossed.write()).unwrap_err().starts_with("records"));
    }

    #[test]
    fn cut_answers_do_not_match_and_do_not_panic() {
        let query = build_query(77, "a.example", 16, None);
        let good = answer(&query);
        for cut in 0..good.len() {
            assert!(answer_matches(&query, &good[..cut]).is_err(), "cut at {cut}");
        }
    }
}
