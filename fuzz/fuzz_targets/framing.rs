//! Length-prefixed messages in pieces of any size come out as they would in one piece, and as a plain reading has them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[usual, piece], stream)) = data.split_first_chunk() else { return };
    let mut expected = Vec::new();
    let mut left = stream;
    while let Some((length, rest)) = left.split_first_chunk() {
        let Some((message, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
        expected.push(message.to_vec());
        left = rest;
    }
    for piece in [usize::from(piece).max(1), 1, usize::MAX] {
        let read = keepwarm_dns::fuzzing::frames(stream, piece, usize::from(usual).max(1));
        assert_eq!(read, expected, "pieces of {piece}");
    }
});
