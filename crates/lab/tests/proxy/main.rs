//! What clients see of proxies, echoing destinations and delays, and what these count.

#![expect(clippy::unwrap_used, reason = "the tests' own clients, too, fail by panicking")]

mod client;
mod delay;
mod echo;
mod ends;
mod http;
mod idle;
mod socks5;
mod udp;
