//! QUIC (RFC 9000) for small exchanges: DNS over QUIC and DNS over HTTP/3.
//!
//! A connection is a handle; what moves its bytes runs on the runtime that it was made on. What is deliberately not here:
//! what is sent on a stream, 0-RTT (a query could be replayed, RFC 9250 section 4.5) and migration to another address.

mod client;
mod exchanges;
pub mod server;

pub use client::{QuicClient, QuicConnection, QuicInfo};
pub use exchanges::{Answered, QuicEnd, QuicExchanges};

#[cfg(test)]
mod tests;
