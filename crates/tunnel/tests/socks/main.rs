//! SOCKS clients, forwards and destinations over real sockets.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod corners;
mod departures;
mod harness;
mod listeners;
mod relayed;
mod reload;
