//! What browsers ask of BoringSSL and the `boring` crate does not wrap.
