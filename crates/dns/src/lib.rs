//! A DNS proxy whose upstreams are reached over pooled UDP, TCP, DoT, DoH (HTTP/1.1, 2 and 3) and DoQ connections, and whose clients
//! come in over any of these.
//!
//! [`server::Server`] is the way in: it takes a [`config::DnsConfig`], listens, and answers. What stands between is pure
//! where it can be: [`message`] reads and rewrites messages, [`strategy`] decides which upstream is asked when,
//! [`health`] when one is left alone, [`cache`] keeps answers, [`local`]
//! answers what needs no upstream, [`wheel`] keeps the time. How settings are written in a
//! file, and what an operator sees, are not here.

pub mod cache;
pub mod config;
pub mod error;
mod exchange;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod local;
pub mod message;
pub mod server;
pub mod strategy;
pub mod upstream;
pub mod wheel;

pub use keepwarm_pool::health;
