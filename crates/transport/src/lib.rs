//! Everything in keepwarm that opens a socket: UDP, TCP, TLS, QUIC, HTTP/3, HTTP/2 and HTTP/1.1, and proxies.
//!
//! Each module turns an address and a deadline into something connected, or into an [`error::Error`] that says what was
//! tried, which phase failed and whose fault it is. What is deliberately not here: DNS messages, pooling, retries and
//! the choice of an upstream; and any way to leave a certificate unverified.

pub mod error;
pub mod http;
pub mod network;
pub mod proxy;
pub mod quic;
pub mod reload;
pub mod resolve;
#[cfg(feature = "ssh")]
pub mod ssh;
pub mod tcp;
pub mod tls;
pub mod udp;

#[cfg(test)]
mod testing;
