//! Tunnels: a local SOCKS5 and HTTP proxy whose upstream proxies are reached over warm, authenticated connections.
//!
//! A [`Connector`] makes a [`Tunnel`] to a destination: it takes a permit of the destination, asks the rules which upstreams may be
//! used, and sends the CONNECT over a spare, a connection to the proxy that was greeted and authenticated beforehand. A [`Server`]
//! takes clients in by SOCKS5, SOCKS4a, HTTP and fixed forwards and relays their bytes. Nothing of a tunnel is ever used again.

pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod relay;

mod connector;
mod error;
mod gate;
mod http;
mod meaning;
mod order;
mod parked;
mod permits;
mod ready;
mod rules;
mod server;
mod sizing;
mod socks;
mod spares;
#[cfg(feature = "ssh")]
mod ssh;
mod stream;
mod udp;
mod upstream;
mod users;
mod vitals;

pub use connector::{
    ConnectOptions, Connector, ConnectorStats, DestinationStats, Live, Prepared, RecentTunnel, StartError, Totals,
    Trace, Traffic, Tunnel,
};
pub use error::{Error, ErrorKind, Side};
pub use server::{HandshakeFailure, Server, ServerStats, ServerWatch, TunnelRow};
pub use spares::Pipelining;
pub use stream::{Io, Stream};
pub use udp::{UdpDropped, UdpStats};
pub use upstream::{SpareStats, UpstreamStats};
