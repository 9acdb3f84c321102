//! Whatever a client of SOCKS sends is taken the same in pieces, lets nobody in unasked, and a refusal never reads like a success.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The size of the pieces, whether users are needed (one: ann, one), what comes.
fuzz_target!(|data: &[u8]| keepwarm_tunnel::fuzzing::socks(data));
