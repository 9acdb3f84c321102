//! Hot HTTPS: validated, pre-warmed connections to many addresses of a host, with a browser-accurate TLS profile.
//!
//! A request names an origin; it goes over a connection that is open already, to an address that was found good, and the
//! answer says which. Addresses that fail are put aside and come back after a probe.

pub mod config;
pub mod http2_profile;
pub mod inventory;
pub mod profile;
pub mod tls;

mod body;
mod client;
mod connection;
#[cfg(feature = "browser")]
mod decode;
mod error;
mod exchange;
mod gateway;
mod head;
mod keeper;
mod origin;
mod served;
mod site;

pub use body::{Body, BoxError, RequestBody};
pub use client::{Client, OriginStats, Outcome, Prepared, RecentRequest, RequestOptions, Requests, StartError};
pub use connection::Key;
pub use error::{Error, ErrorKind, Side};
pub use gateway::{Gateway, GatewayStats, GatewayWatch, PreparedGateway};
pub use keeper::WarmUp;
pub use served::{Phases, Protocol, Served};
