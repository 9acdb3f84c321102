//! A server for clients to come to, its upstream, and what they find behind it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use keepwarm_lab::{EchoLab, OriginLab, OriginSpec, ProxyLab, ProxySpec, Tagged, expected_body, sha256_hex};
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::Proxy,
    resolve::{Resolve, Resolving},
};
use keepwarm_tunnel::{
    Connector, Server, ServerWatch,
    config::{HostMatch, Listen, ListenKind, Match, Rule, TunnelConfig, UpstreamConfig, UpstreamKind, User, Via},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    SECOND, plain,
    program::{Nowhere, Program, Ran, file},
    until,
};

/// A server whose upstream wants a user and password.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) watch: ServerWatch,
    pub(crate) connector: Connector,
    pub(crate) proxy: ProxyLab,
    pub(crate) echo: EchoLab,
    /// `tiles.test`, over TLS.
    pub(crate) web: OriginLab,
    /// `plain.test`, without.
    pub(crate) plain: SocketAddr,
    /// Nobody listens there: `nobody.test`.
    pub(crate) nobody: Nowhere,
    folder: TempDir,
    looked_up: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

/// Counts who asks, and knows nobody: names are the upstream's to look up.
#[derive(Debug, Clone, Default)]
struct Nobody(Arc<AtomicUsize>);

impl Gateway {
    /// A server that lets everybody in.
    pub(crate) async fn open() -> Gateway {
        Gateway::start(Vec::new()).await
    }

    /// One that knows `ann` alone, with a password that has to be quoted here and there.
    pub(crate) async fn guarded() -> Gateway {
        Gateway::start(vec![User { name: "ann".into(), password: PASSWORD.into() }]).await
    }

    pub(crate) async fn start(users: Vec<User>) -> Gateway {
        let credential = Some(("out".to_owned(), "s3cret".to_owned()));
        let proxy = ProxyLab::start(ProxySpec { credential, ..ProxySpec::default() }).await.unwrap();
        let (echo, web) = (EchoLab::start(1).await.unwrap(), OriginLab::start(OriginSpec::default()).await.unwrap());
        let (plain, nobody) = (plain::start().await, Nowhere::new());
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        proxy.pin("echo.test", echo.addr(0));
        proxy.pin("tiles.test", local(web.port()));
        proxy.pin("plain.test", plain);
        proxy.pin("nobody.test", nobody.address());
        let address = Proxy::parse(&format!("socks5://out:s3cret@{}", proxy.addr())).unwrap();
        let blocked = Match { host: HostMatch::Name("blocked.test".into()), ports: None };
        let config = TunnelConfig {
            listen: vec![Listen { address: local(0), kind: ListenKind::Mixed }],
            users,
            upstreams: vec![UpstreamConfig::new("exit", UpstreamKind::Proxy(address.into()))],
            rules: vec![Rule { matches: vec![blocked], via: Via::Reject, speculate: 0 }],
            default: Via::Upstream("exit".into()),
            acquire_timeout: 30 * SECOND,
            ..TunnelConfig::default()
        };
        let looked_up = Arc::new(AtomicUsize::new(0));
        let connector = Connector::new(config, Arc::new(Nobody(looked_up.clone()))).unwrap();
        let server = Server::bind(connector.clone()).unwrap();
        let (address, watch) = (server.addresses()[0], server.watch());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.run(stopped, 5 * SECOND));
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "ca.pem", web.ca_pem());
        Gateway { address, watch, connector, proxy, echo, web, plain, nobody, folder, looked_up, _stop: stop }
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What signed the certificate of `tiles.test`.
    pub(crate) fn ca(&self) -> String {
        super::program::at(self.folder(), "ca.pem")
    }

    pub(crate) fn plain_url(&self, path: &str) -> String {
        format!("http://plain.test:{}{path}", self.plain.port())
    }

    pub(crate) fn tls_url(&self, path: &str) -> String {
        format!("https://tiles.test:{}{path}", self.web.port())
    }

    /// Clients at a time, more than one destination may have, each with bytes of its own from its input to its output.
    pub(crate) async fn carries(&self, program: &Program, arguments: &[&str]) {
        let clients = (0..CLIENTS).map(|_| async {
            let mut tag = Tagged::random(self.echo.addr(0));
            let answer = program.feed(arguments, &tag.request(LENGTH)).await.well();
            tag.check(&answer).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
            assert_eq!(tag.outstanding(), 0, "{arguments:?}");
        });
        futures_util::future::join_all(clients).await;
    }

    /// What all clients together must not have done.
    pub(crate) async fn check(&self) {
        until("tunnels end", || self.connector.stats().live == 0).await;
        assert_eq!(self.looked_up.load(Ordering::Relaxed), 0, "names are the upstream's to look up");
        assert_eq!(self.echo.foreign(), 0, "not one byte crossed");
        let stats = self.connector.stats();
        let exit = &stats.upstreams[0];
        assert!(exit.hits > 0 && exit.failed == 0, "{exit:?}");
    }
}

impl Resolve for Nobody {
    fn resolve(&self, host: &str) -> Resolving {
        self.0.fetch_add(1, Ordering::Relaxed);
        let host = host.to_owned();
        Box::pin(async move {
            Err(Error::new(ErrorKind::Resolve, Phase::Resolve, format!("resolve {host}"), "it is not for us to ask"))
        })
    }
}

/// Whether a download is whole.
pub(crate) fn is_whole(ran: Ran) {
    let answer = ran.well();
    assert!(answer == expected_body(BYTES, 0..SIZE), "{} bytes", answer.len());
}

/// What is uploaded, and what its checksum is.
pub(crate) fn upload(folder: &Path) -> (String, String) {
    let bytes = expected_body("/upload", 0..SIZE);
    std::fs::write(folder.join("upload"), &bytes).unwrap();
    (super::program::at(folder, "upload"), sha256_hex(&bytes))
}

/// Of `ann`.
pub(crate) const PASSWORD: &str = "p@ss: w/rd";

/// A path of the origins, with so many bytes.
pub(crate) const BYTES: &str = "/bytes/1000000";
pub(crate) const SIZE: u64 = 1_000_000;

const CLIENTS: usize = 12;
const LENGTH: usize = 300_000;
