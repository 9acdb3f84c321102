//! The control plane: the status API, metrics, the dashboard, and what is kept of the past.
//!
//! It knows [`Snapshots`] and plain rows, not the DNS server, hot HTTPS or tunnels: whoever runs them implements the trait. [`Control`]
//! serves it over HTTP/1.1. Its clients may be slow or hostile: connections, streams, bodies and waits are bounded, what is shown is made
//! at most some times a second however many ask, and no lock of the data path is held while anybody is waited for.
//!
//! What is deliberately not here: TLS (put a reverse proxy or an SSH forward in front), users and roles (there is one token), and any
//! way to change what is written in the config file.

pub mod access;
pub mod client;
mod dashboard;
pub mod events;
pub mod explain;
mod heavy;
mod history;
pub mod https;
pub mod metrics;
mod openapi;
#[cfg(feature = "otlp")]
pub mod otlp;
mod pools;
mod ready;
mod routes;
pub mod rows;
mod sample;
mod seconds;
mod serve;
mod snapshots;
pub mod tunnel;

pub use access::Token;
pub use routes::{Endpoint, endpoints};
pub use serve::{Control, ControlOptions};
pub use snapshots::{Answer, Checks, QueryFuture, Refusal, Snapshots};

#[cfg(test)]
mod tests;
