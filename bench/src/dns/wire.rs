//! The messages of the bench: queries, the stub's answers, and the check of what comes back.
//!
//! The address in an answer is a hash of the name asked for. So the load generator knows the only right answer without a
//! table, and an answer that was meant for another query is caught.

/// A name as a number: `u<10 hex digits of number><5 of salt>.bench.lab`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) number: u64,
    /// Tells the names of one load from those of another. 20 bits.
    pub(crate) salt: u32,
}

/// Length of every query: header, name, type and class.
pub(crate) const QUERY_LEN: usize = HEADER + 17 + ZONE.len() + 4;

/// Longest answer that `answer` writes: header, longest question, record, OPT.
pub(crate) const ANSWER_MAX: usize = HEADER + 255 + 4 + 28 + 11;

/// A recursive query of type A for `name`.
pub(crate) fn query(id: u16, name: Name) -> [u8; QUERY_LEN] {
    let mut message = [0; QUERY_LEN];
    message[..HEADER].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message[..2].copy_from_slice(&id.to_be_bytes());
    message[HEADER] = 16;
    message[HEADER + 1] = b'u';
    hex(name.number, &mut message[HEADER + 2..HEADER + 12]);
    hex(u64::from(name.salt), &mut message[HEADER + 12..HEADER + 17]);
    message[HEADER + 17..QUERY_LEN - 4].copy_from_slice(ZONE);
    message[QUERY_LEN - 4..].copy_from_slice(&[0, 1, 0, 1]);
    message
}

/// Writes the answer to a query and returns its length; `None` when the query is not understood.
///
/// Names under `lab.` have the address that `address` derives, all others do not exist.
pub(crate) fn answer(query: &[u8], out: &mut [u8]) -> Option<usize> {
    // A standard query with one question.
    if query.len() < HEADER + 5 || query[2] & 0xf8 != 0 || query[4..6] != [0, 1] {
        return None;
    }
    let name = name_at(query, HEADER)?;
    let question_end = HEADER + name.len() + 4;
    let kind = *query.get(question_end - 4..question_end)?.first_chunk::<2>()?;
    let edns = query[11] > 0 && query.get(question_end..question_end + 3) == Some(&[0, 0, 41]);
    // Servers ask for names of their own to see whether an upstream is honest; those are outside.
    let exists = name.len() == 1 || name.to_ascii_lowercase().ends_with(b"\x03lab\0");
    let has_address = exists && kind == [0, 1];

    out.get_mut(..ANSWER_MAX)?[..question_end].copy_from_slice(&query[..question_end]);
    out[2] = 0x80 | (query[2] & 0x01);
    out[3] = 0x80 | (query[3] & 0x10) | if exists { 0 } else { NXDOMAIN };
    out[6..12].copy_from_slice(&[0, u8::from(has_address), 0, 0, 0, u8::from(edns)]);
    let mut end = question_end;
    if has_address {
        out[end..end + 12].copy_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
        out[end + 12..end + 16].copy_from_slice(&address(name));
        end += 16;
    }
    if edns {
        out[end..end + 11].copy_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        end += 11;
    }
    Some(end)
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    ServFail,
    Refused,
    OtherRcode,
    Truncated,
    /// No error, and no record either.
    Empty,
    /// To another question, or with another address, or broken.
    Wrong,
}

/// Checks an answer against its query: id, question, rcode, and the address.
pub(crate) fn verify(query: &[u8; QUERY_LEN], answer: &[u8]) -> Verdict {
    let Some(header) = answer.first_chunk::<HEADER>() else { return Verdict::Wrong };
    if header[..2] != query[..2] || header[2] & 0x80 == 0 {
        return Verdict::Wrong;
    }
    let rcode = header[3] & 0x0f;
    let asked = &query[HEADER..];
    let same_question = header[4..6] == [0, 1]
        && answer.get(HEADER..QUERY_LEN).is_some_and(|question| question.eq_ignore_ascii_case(asked));
    // An error may come without the question.
    if !same_question && (rcode == 0 || header[5] != 0) {
        return Verdict::Wrong;
    }
    match rcode {
        0 => {}
        2 => return Verdict::ServFail,
        5 => return Verdict::Refused,
        _ => return Verdict::OtherRcode,
    }
    if header[2] & 0x02 != 0 {
        return Verdict::Truncated;
    }
    if header[6..8] == [0, 0] {
        return Verdict::Empty;
    }
    match first_address(answer, QUERY_LEN) {
        Some(found) if found == address(&asked[..asked.len() - 4]) => Verdict::Right,
        _ => Verdict::Wrong,
    }
}

/// The address of a name in wire form: FNV-1a over its lower-case octets, folded to 24 bits, under 127.0.0.0/8.
fn address(name: &[u8]) -> [u8; 4] {
    let hash = name
        .iter()
        .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193));
    let [_, a, b, c] = ((hash >> 24) ^ (hash & 0xff_ffff)).to_be_bytes();
    [127, a, b, c]
}

/// The address in a first record of type A and class IN.
fn first_address(message: &[u8], at: usize) -> Option<[u8; 4]> {
    let name_end = match *message.get(at)? {
        0xc0.. => at + 2,
        _ => at + name_at(message, at)?.len(),
    };
    let record = message.get(name_end..name_end + 14)?;
    if record[..4] != [0, 1, 0, 1] || record[8..10] != [0, 4] {
        return None;
    }
    record[10..].first_chunk().copied()
}

/// An uncompressed name with its root octet.
fn name_at(message: &[u8], start: usize) -> Option<&[u8]> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => return message.get(start..=at).filter(|name| name.len() <= 255),
            label @ 1..=63 => at += usize::from(label) + 1,
            _ => return None,
        }
    }
}

fn hex(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

const HEADER: usize = 12;
const ZONE: &[u8] = b"\x05bench\x03lab\0";
const NXDOMAIN: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { number: 0x12_3456_789a, salt: 0xabcde };

    fn answered() -> ([u8; QUERY_LEN], Vec<u8>) {
        let query = query(0x1234, NAME);
        let mut out = [0; ANSWER_MAX];
        let len = answer(&query, &mut out).unwrap();
        (query, out[..len].to_vec())
    }

    #[test]
    fn the_stubs_answer_is_right() {
        let (query, answer) = answered();
        assert!(query.windows(17).any(|w| w == b"\x10u123456789aabcde"));
        assert_eq!(verify(&query, &answer), Verdict::Right);
    }

    #[test]
    fn letter_case_does_not_matter() {
        let (query, mut answer) = answered();
        answer[HEADER + 1] = b'U';
        assert_eq!(verify(&query, &answer), Verdict::Right);
    }

    #[test]
    fn each_kind_of_wrong_answer_is_caught() {
        let (query, right) = answered();
        let with = |at: usize, octet: u8| {
            let mut answer = right.clone();
            answer[at] = octet;
            verify(&query, &answer)
        };
        assert_eq!(with(0, 0x55), Verdict::Wrong, "id");
        assert_eq!(with(2, 0x01), Verdict::Wrong, "not an answer");
        assert_eq!(with(HEADER + 5, b'z'), Verdict::Wrong, "another name");
        assert_eq!(with(QUERY_LEN - 3, 28), Verdict::Wrong, "another type");
        assert_eq!(with(right.len() - 1, right[right.len() - 1] ^ 1), Verdict::Wrong, "another address");
        assert_eq!(with(QUERY_LEN + 3, 28), Verdict::Wrong, "another record");
        assert_eq!(with(3, 0x82), Verdict::ServFail);
        assert_eq!(with(3, 0x85), Verdict::Refused);
        assert_eq!(with(3, 0x83), Verdict::OtherRcode);
        assert_eq!(with(2, 0x83), Verdict::Truncated);
        assert_eq!(with(7, 0), Verdict::Empty);
        for len in 0..right.len() {
            assert_eq!(verify(&query, &right[..len]), Verdict::Wrong, "cut after {len}");
        }
    }

    #[test]
    fn the_answer_to_another_query_is_caught_even_with_the_right_id() {
        let (_, answer) = answered();
        let other = query(0x1234, Name { number: NAME.number + 1, ..NAME });
        assert_eq!(verify(&other, &answer), Verdict::Wrong);
    }

    #[test]
    fn an_error_may_come_without_the_question() {
        let (query, mut answer) = answered();
        answer.truncate(HEADER);
        answer[3] = 0x82;
        answer[4..8].fill(0);
        assert_eq!(verify(&query, &answer), Verdict::ServFail);
    }

    #[test]
    fn names_outside_do_not_exist_and_broken_queries_get_no_answer() {
        let mut out = [0; ANSWER_MAX];
        let mut outside = query(1, NAME);
        outside[QUERY_LEN - 6] = b'x';
        assert!(answer(&outside, &mut out).is_some() && out[3] & 15 == NXDOMAIN && out[7] == 0);
        let query = query(1, NAME);
        for len in 0..QUERY_LEN {
            assert_eq!(answer(&query[..len], &mut out), None, "cut after {len}");
        }
        assert_eq!(answer(&query, &mut [0; 20]), None, "no room");
    }

    #[test]
    fn a_query_with_edns_is_answered_with_edns() {
        let mut asked = query(1, NAME).to_vec();
        asked[11] = 1;
        asked.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let mut out = [0; ANSWER_MAX];
        let len = answer(&asked, &mut out).unwrap();
        assert_eq!((out[11], &out[len - 11..len - 8]), (1, &[0, 0, 41][..]));
        assert_eq!(verify(&query(1, NAME), &out[..len]), Verdict::Right);
    }
}
