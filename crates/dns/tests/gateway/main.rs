//! The proxy between real clients and the lab's upstreams, on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "test code shared by modules: a failure is a panic, a skip is said"
)]

mod answers;
mod cache;
mod clients;
mod crossed;
mod families;
mod faults;
mod health;
mod network;
mod pooling;
mod quic;
mod shortage;
mod spoofing;
mod support;
