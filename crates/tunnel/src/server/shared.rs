//! What all clients have in common.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use keepwarm_transport::proxy::Target;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    counters::Counters,
    destination::{Own, OwnNow},
    door::Door,
    registry::{Listed, Registry},
    terms::Terms,
};
use crate::{
    ConnectOptions, Connector, Error, ErrorKind, Side, Stream, Trace, config::TunnelConfig, gate::Gate, udp,
    users::Users,
};

/// What all clients have in common.
pub(crate) struct Shared {
    /// Makes their tunnels; has the settings.
    pub(crate) connector: Connector,
    /// Who may come.
    users: RwLock<Arc<Users>>,
    /// Room for clients.
    pub(super) places: Arc<Gate>,
    doors: watch::Sender<Arc<[Arc<Door>]>>,
    /// Becomes true when the server stops: idle clients end at once, tunnels get the drain's patience.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) counters: Counters,
    /// Figures of UDP ASSOCIATE.
    pub(crate) udp: Arc<udp::Counters>,
    pub(super) tunnels: Registry,
    /// What is never connected to from here.
    own: OwnNow,
}

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// Its address.
    pub(crate) peer: SocketAddr,
    /// Place in [`TunnelConfig::listen`](crate::config::TunnelConfig::listen), as it was then, of the listener that it came to.
    pub(crate) listener: usize,
}

impl ClientInfo {
    /// Whether it is not known to be on this machine.
    pub(crate) fn is_remote(&self) -> bool {
        is_remote(self.peer)
    }
}

/// Whether who connects from there is not known to be on this machine.
pub(crate) fn is_remote(peer: SocketAddr) -> bool {
    !peer.ip().to_canonical().is_loopback()
}

impl Shared {
    /// For a server that listens on, and is beside, `own`.
    #[cfg(test)]
    pub(crate) fn new(connector: Connector, own: impl Into<Own>) -> Shared {
        let config = connector.config();
        Shared::with(connector, &config, own)
    }

    /// For a server with these settings, which need not be in force yet, that listens on, and is beside, `own`.
    pub(super) fn with(connector: Connector, config: &TunnelConfig, own: impl Into<Own>) -> Shared {
        Shared {
            connector,
            users: RwLock::new(Arc::new(Users::new(&config.users))),
            places: Gate::new(config.max_clients),
            doors: watch::Sender::new(Arc::new([])),
            closing: watch::Sender::new(false),
            counters: Counters::default(),
            udp: Arc::default(),
            tunnels: Registry::default(),
            own: OwnNow::new(own.into()),
        }
    }

    /// Who may come now, on these terms. A handshake that has begun stays with those of its beginning.
    pub(crate) fn users(&self, terms: &Terms) -> Arc<Users> {
        let now = Arc::clone(&self.users.read());
        terms.users(now)
    }

    /// What is never connected to from here.
    pub(crate) fn own(&self) -> &OwnNow {
        &self.own
    }

    /// The listeners.
    pub(super) fn doors(&self) -> Arc<[Arc<Door>]> {
        Arc::clone(&self.doors.borrow())
    }

    /// Tells when there are others.
    pub(super) fn doors_changed(&self) -> watch::Receiver<Arc<[Arc<Door>]>> {
        self.doors.subscribe()
    }

    /// Has these listeners served from now on.
    pub(super) fn set_doors(&self, doors: Vec<Arc<Door>>) {
        self.doors.send_replace(doors.into());
        // The server may have stopped meanwhile, and then has closed those of before.
        if *self.closing.borrow() {
            self.doors().iter().for_each(|door| door.close());
        }
    }

    /// Accepts nobody any more, and says so to those that are here.
    pub(super) fn close_doors(&self) {
        self.closing.send_replace(true);
        self.doors().iter().for_each(|door| door.close());
    }

    /// Puts other users, where they are others, and other services of ours in force.
    pub(super) fn put(&self, users: Option<Users>, own: Own) {
        self.own.put(own);
        if let Some(users) = users {
            *self.users.write() = Arc::new(users);
        }
    }

    /// Makes a tunnel for a client, counts it, and shows it among the live ones. `payload`: what the client sent for the destination
    /// already; it is on its way when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] for a destination that is this process itself, where this machine would connect to it; those of the
    /// connector.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was begun.
    pub(crate) async fn open(
        &self,
        client: ClientInfo,
        target: Target,
        payload: Bytes,
    ) -> Result<(Stream, Listed<'_>), Error> {
        let sent = payload.len() as u64;
        // Beyond an upstream the same address is another machine's.
        let made = if self.own.now().is(&target) && self.connector.is_direct(&target) {
            let text = format!("tunnel to {target}: it leads back to this server, or to what is served beside it");
            Err(Error::new(ErrorKind::Rejected, Side::Client, text))
        } else {
            let options = ConnectOptions { payload, remote: client.is_remote(), ..ConnectOptions::default() };
            self.connector.connect_with(&target, options).await
        };
        match made {
            Ok(tunnel) => {
                Counters::count(&self.counters.tunnels_opened);
                let (stream, live) = tunnel.into_parts();
                let listed = self.tunnels.list(client.peer, live);
                listed.traffic().sent.fetch_add(sent, Ordering::Relaxed);
                Ok((stream, listed))
            }
            Err(error) => {
                self.counters.tunnel_failed(error.kind());
                tracing::debug!(client = %client.peer, %error, "no tunnel for a client");
                Err(error)
            }
        }
    }
}

/// The address that a tunnel's connection has on this side, where it is a socket.
pub(super) fn local_address(stream: &Stream, trace: &Trace) -> Option<SocketAddr> {
    let address = trace.local.or_else(|| stream.as_tcp()?.local_addr().ok())?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use keepwarm_transport::{proxy::Proxy, resolve::Fixed};

    use super::*;
    use crate::config::{TunnelConfig, UpstreamConfig, UpstreamKind, Via};

    fn shared(config: TunnelConfig, own: Own) -> Shared {
        Shared::new(Connector::new(config, Arc::new(Fixed(vec![Ipv4Addr::LOCALHOST.into()]))).unwrap(), own)
    }

    async fn open(shared: &Shared, peer: &str, host: &str, port: u16) -> Result<(), ErrorKind> {
        let client = ClientInfo { peer: peer.parse().unwrap(), listener: 0 };
        let opened = shared.open(client, Target::new(host, port).unwrap(), Bytes::new()).await;
        opened.map(drop).map_err(|error| error.kind())
    }

    fn listen() -> std::net::TcpListener {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap()
    }

    const LOCAL: &str = "127.0.0.1:40000";

    #[tokio::test]
    async fn nobody_elsewhere_reaches_what_listens_on_loopback() {
        let listener = listen();
        let port = listener.local_addr().unwrap().port();
        let shared = shared(TunnelConfig::default(), Own::default());
        for host in ["127.0.0.1", "localhost", "rebound.example"] {
            assert_eq!(open(&shared, LOCAL, host, port).await, Ok(()), "{host}");
            assert_eq!(open(&shared, "[::ffff:127.0.0.1]:40000", host, port).await, Ok(()), "{host}");
            let refused = open(&shared, "192.0.2.9:40000", host, port).await;
            assert_eq!(refused, Err(ErrorKind::Forbidden), "{host}");
        }
    }

    #[tokio::test]
    async fn what_this_process_serves_is_reached_by_nobody() {
        let (tunnel, control) = (listen(), listen());
        let addresses = [&tunnel, &control].map(|listener| listener.local_addr().unwrap());
        let shared = shared(TunnelConfig::default(), Own::new(vec![addresses[0]], &addresses[1..]));
        for address in addresses {
            for host in ["127.0.0.1", "localhost"] {
                assert_eq!(open(&shared, LOCAL, host, address.port()).await, Err(ErrorKind::Rejected), "{host}");
            }
        }
    }

    #[tokio::test]
    async fn the_same_address_beyond_an_upstream_is_another_machines() {
        let nobody = listen().local_addr().unwrap();
        let proxy = Arc::new(Proxy::parse(&format!("socks5://{nobody}")).unwrap());
        let upstream = UpstreamConfig::new("exit", UpstreamKind::Proxy(proxy));
        let config = TunnelConfig {
            upstreams: vec![upstream],
            default: Via::Upstream("exit".into()),
            ..TunnelConfig::default()
        };
        let shared = shared(config, vec![LOCAL.parse().unwrap()].into());
        // It got as far as the upstream, which there is not.
        assert_eq!(open(&shared, LOCAL, "127.0.0.1", 40000).await, Err(ErrorKind::Upstream));
    }
}
