//! Clients over QUIC, made of quinn and h3 alone: what they get, and what ends their connections.

mod arrivals;
mod client;
mod doq;
mod h3;
mod interop;
