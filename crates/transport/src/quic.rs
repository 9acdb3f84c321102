//! QUIC (RFC 9000) for small exchanges: DNS over QUIC and DNS over HTTP/3.
//!
//! What is deliberately not here: what is sent on a stream, 0-RTT (a query could be replayed) and migration to another
//! address, both of which are off.

mod client;
pub mod server;

pub use client::QuicClient;
