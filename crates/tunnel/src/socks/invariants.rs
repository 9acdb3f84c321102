//! What holds for whatever a client sends: run by the fuzz target and by a property test.

use super::{Answer, Handshake, MESSAGE_MAX, Refusal, Request, Step, Version};

/// All that came of an input.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<[u8; 2]>,
    consumed: usize,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Unfinished,
    Request(Version, Request),
    Refused(Refusal),
}

/// The size of the pieces, whether users are needed (one: `ann`, `one`), and what the client sends.
///
/// # Panics
/// Where something does not hold.
pub(crate) fn check(data: &[u8]) {
    let Some((&[piece, flags], input)) = data.split_first_chunk() else { return };
    let needs_user = flags & 1 == 1;
    let whole = run(input, input.len().max(1), needs_user);
    assert_eq!(run(input, usize::from(piece).max(1), needs_user), whole);
    assert_eq!(run(input, 1, needs_user), whole);
    match &whole.end {
        End::Unfinished => assert!(input.len() - whole.consumed < MESSAGE_MAX, "it waits for what cannot come"),
        End::Request(version, request) => {
            assert_eq!(whole.answers.is_empty(), *version == Version::V4);
            assert!(!needs_user || whole.answers == [[5, 2], [1, 0]], "somebody came in without being asked");
            assert!(!needs_user || contains(input, b"\x03ann\x03one"));
            // What follows is not looked at: it is the destination's.
            assert_eq!(run(&input[..whole.consumed], 1, needs_user), whole);
            again(request);
        }
        End::Refused(refusal) => refused(&refusal.answer),
    }
}

fn run(input: &[u8], piece: usize, needs_user: bool) -> Outcome {
    let mut handshake = Handshake::new(needs_user);
    let (mut answers, mut consumed, mut there) = (Vec::new(), 0, 0);
    let end = loop {
        let (used, step) =
            handshake.step(&input[consumed..there], |name, password| (name, password) == (b"ann", b"one"));
        consumed += used;
        assert!(consumed <= there, "more was consumed than there was");
        match step {
            Step::More if there == input.len() => break End::Unfinished,
            Step::More => there = input.len().min(there + piece),
            Step::Answer(answer) => answers.push(answer),
            Step::Request(version, request) => break End::Request(version, request),
            Step::Refused(refusal) => break End::Refused(refusal),
        }
    };
    Outcome { answers, consumed, end }
}

/// A destination can be asked for again, by its text, and is the same.
fn again(request: &Request) {
    let Request::Connect(target) = request else { return };
    assert!(target.port() != 0);
    let host = target.host();
    assert!(host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
    if target.ip().is_none() {
        assert!(host.split('.').all(|label| (1..=63).contains(&label.len())), "{host:?}");
        assert!(host.bytes().all(|byte| !byte.is_ascii_uppercase()), "one host has two spellings: {host:?}");
    }
    assert!(target.ip().is_none_or(|ip| !ip.is_unspecified() && ip == ip.to_canonical()), "{target}");
    let length = u8::try_from(host.len()).expect("it has at most 253 bytes");
    let mut input = vec![5, 1, 0, 5, 1, 0, 3, length];
    input.extend_from_slice(host.as_bytes());
    input.extend_from_slice(&target.port().to_be_bytes());
    assert_eq!(run(&input, input.len(), false).end, End::Request(Version::V5, request.clone()));
}

/// No refusal may read like a success.
fn refused(answer: &Answer) {
    let is_right = match answer.as_slice() {
        [] | [5, 0xff] | [1, 1] => true,
        [5, code, 0, 1, 0, 0, 0, 0, 0, 0] => (1..=8).contains(code),
        [0, code, 0, 0, 0, 0, 0, 0] => [91, 93].contains(code),
        _ => false,
    };
    assert!(is_right, "{answer:?}");
}

fn contains(input: &[u8], part: &[u8]) -> bool {
    input.windows(part.len()).any(|window| window == part)
}
