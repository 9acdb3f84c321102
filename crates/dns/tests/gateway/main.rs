//! The proxy between real clients and the lab's upstreams, on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "test code shared by modules: a failure is a panic, a skip is said"
)]

mod answers;
mod cache;
mod certificate;
mod clients;
mod crossed;
mod ddr;
mod ech;
mod edns;
mod encrypted;
mod families;
mod faults;
mod health;
mod interleaved;
mod interop;
mod limited;
mod local;
mod network;
mod plain;
mod pooling;
mod proxied;
mod query_log;
mod quic;
mod quic_listeners;
mod recent;
mod reload;
mod resolver;
mod routes;
mod shortage;
mod spoofing;
mod strategies;
mod support;
