//! What clients see of an origin, and what it counts.

#![expect(clippy::unwrap_used, reason = "the tests' own clients, too, fail by panicking")]

mod broken;
mod client;
mod ends;
mod limits;
mod requests;
mod tls;
