//! Hot HTTPS: validated, pre-warmed connections to many addresses of a host, with a browser-accurate TLS profile.
//!
//! A request names an origin; it goes over a connection that is open already, to an address that was found good, and the
//! answer says which. Addresses that fail are put aside and come back after a probe.

pub mod config;
pub mod http2_profile;
pub mod profile;
pub mod tls;
