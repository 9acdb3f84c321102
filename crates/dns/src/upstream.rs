//! The servers that answer: who they are, how they fare, and how they are reached.
//!
//! An `Upstream` is one entry of the config. It has one `Endpoint` a transport: `udp://` upstreams have a second one
//! over TCP for truncated answers (RFC 7766 section 5). Health is kept per endpoint and address family. Which upstream a
//! query goes to is `strategy`'s business, not here.

mod bootstrap;
mod connector;
mod cookie;
mod doh;
mod doq;
mod dress;
mod endpoint;
mod habits;
mod stream;
mod udp;

pub use bootstrap::BootstrapResolver;
pub(crate) use connector::{Connection, DnsConnector};
pub(crate) use cookie::{Cookies, Verdict};
pub(crate) use dress::Dress;
pub(crate) use endpoint::{Endpoint, EndpointKey, Family, count};
pub(crate) use stream::STALLED;
pub(crate) use udp::{Found, UdpConnection};

use std::sync::Arc;

use keepwarm_transport::{resolve::Resolve, tls::RootsError};

use crate::config::{DnsConfig, Transport, UpstreamConfig};

/// One entry of the config.
pub(crate) struct Upstream {
    /// Where queries go.
    pub(crate) main: Arc<Endpoint>,
    /// Where a query goes whose answer was truncated; only for `udp://`.
    pub(crate) tcp: Option<Arc<Endpoint>>,
}

impl Upstream {
    /// Prepares an upstream; nothing is connected yet.
    pub(crate) fn new(
        config: &UpstreamConfig,
        dns: &DnsConfig,
        resolver: &Arc<dyn Resolve>,
    ) -> Result<Upstream, RootsError> {
        let main = Arc::new(Endpoint::new(config, config.transport, dns, resolver)?);
        let tcp = match config.transport {
            Transport::Udp => {
                let mut tcp = Endpoint::new(config, Transport::Tcp, dns, resolver)?;
                // It is one server, whose cookies are good over both.
                tcp.habits = main.habits.clone();
                Some(Arc::new(tcp))
            }
            _ => None,
        };
        Ok(Upstream { main, tcp })
    }

    /// Both endpoints, the main one first.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        std::iter::once(&self.main).chain(&self.tcp)
    }
}
