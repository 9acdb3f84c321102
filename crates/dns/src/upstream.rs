//! The servers that answer: who they are, how they fare, and how they are reached.
//!
//! An `Upstream` is one entry of the config. It has one `Endpoint` a transport: `udp://` upstreams have a second one
//! over TCP for truncated answers (RFC 7766 section 5). Health is kept per endpoint and address family. Which upstream a
//! query goes to is `strategy`'s business, not here.

pub(crate) mod bootstrap;
mod connector;
mod cookie;
pub(crate) mod ddr;
mod doh;
mod doq;
mod dress;
pub(crate) mod ech;
mod endpoint;
mod habits;
mod latencies;
mod stream;
pub(crate) mod svcb;
mod udp;

pub use bootstrap::BootstrapResolver;
pub(crate) use connector::{Connection, DnsConnector};
pub(crate) use cookie::{Cookies, Verdict};
pub(crate) use ddr::Designation;
pub(crate) use dress::Dress;
pub(crate) use endpoint::{Endpoint, EndpointKey, Family, count};
pub(crate) use stream::STALLED;
pub(crate) use udp::{Found, UdpConnection};

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use keepwarm_transport::{
    resolve::{Resolve, SystemResolver, literal},
    tls::RootsError,
};
use tokio::task::AbortHandle;

use crate::{
    config::{Ddr, DnsConfig, Ech, Transport, UpstreamConfig},
    server::Pools,
};

/// One entry of the config. With the last query that may go to it, it closes its connections.
pub(crate) struct Upstream {
    /// Where queries go.
    pub(crate) main: Arc<Endpoint>,
    /// Where a query goes whose answer was truncated; only for `udp://`.
    pub(crate) tcp: Option<Arc<Endpoint>>,
    /// Its encrypted face, where one is to be discovered.
    pub(crate) ddr: Option<Arc<Designation>>,
    pools: Pools,
    /// What finds out what it publishes; ends with it.
    tasks: OnceLock<Vec<AbortHandle>>,
}

/// Who is asked for the addresses of upstreams.
pub(crate) fn resolver(bootstrap: &[SocketAddr]) -> Arc<dyn Resolve> {
    match bootstrap {
        [] => Arc::new(SystemResolver::default()),
        servers => Arc::new(BootstrapResolver::new(servers)),
    }
}

impl Upstream {
    /// Prepares an upstream; nothing is connected yet.
    pub(crate) fn new(
        config: &UpstreamConfig,
        dns: &DnsConfig,
        resolver: &Arc<dyn Resolve>,
        pools: &Pools,
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
        Ok(Upstream { main, tcp, ddr: Designation::of(config), pools: pools.clone(), tasks: OnceLock::new() })
    }

    /// All endpoints, the main one first.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let designated = self.ddr.iter().flat_map(|designation| designation.endpoints());
        std::iter::once(&self.main).chain(&self.tcp).chain(designated)
    }

    /// Whether an entry of `new` is what an entry of `old` has made: its connections and all that is known of it stay then. Its group and
    /// its weight are no part of it.
    pub(crate) fn is_same(
        (old, before): (&UpstreamConfig, &DnsConfig),
        (new, after): (&UpstreamConfig, &DnsConfig),
    ) -> bool {
        let alike = UpstreamConfig { group: new.group.clone(), weight: new.weight, ..old.clone() } == *new;
        let encrypted = new.transport.is_encrypted() || new.ddr != Ddr::Off;
        let asks = new.addresses.is_empty() && literal(&new.host).is_none() || encrypted && new.ech != Ech::Off;
        let is_quic = matches!(new.transport, Transport::Quic | Transport::H3);
        alike
            && (!encrypted || before.roots == after.roots)
            && (!asks || before.bootstrap == after.bootstrap)
            // QUIC promises it to the server in its handshake.
            && (!is_quic || before.pool.idle_timeout == after.pool.idle_timeout)
    }

    /// Takes over what a new config says of all upstreams.
    pub(crate) fn adopt(&self, dns: &DnsConfig) {
        self.endpoints().for_each(|endpoint| endpoint.adopt(dns));
    }

    /// Connections to it that are open.
    pub(crate) fn open(&self) -> usize {
        let hosts = self.pools.all().flat_map(keepwarm_pool::Pool::host_stats);
        let own = hosts.filter(|(key, _)| self.endpoints().any(|endpoint| Arc::ptr_eq(endpoint, &key.endpoint)));
        own.map(|(_, stats)| stats.gauges.open).sum()
    }

    /// Has these tasks end with it. Once.
    pub(crate) fn keep(&self, tasks: Vec<AbortHandle>) {
        let _ = self.tasks.set(tasks);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.take().into_iter().flatten().for_each(|task| task.abort());
        for endpoint in self.endpoints() {
            self.pools.retire(endpoint);
        }
    }
}
