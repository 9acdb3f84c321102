//! Each fault and each counter of the lab, seen from outside by small clients of the tests' own.

#![expect(clippy::unwrap_used, reason = "the tests' own clients, too, fail by panicking")]

mod client;
mod connections;
mod https;
mod quic;
mod streams;
mod udp;
