//! What every upstream has to do: carry tunnels over spares, and come back after it was down.

use std::sync::Arc;

use keepwarm_lab::{EchoLab, Tagged};
use keepwarm_transport::{
    proxy::{Proxy, Target},
    resolve::Fixed,
};
use keepwarm_tunnel::{
    Connector, Error, ErrorKind, Tunnel, UpstreamStats,
    config::{PoolConfig, TunnelConfig, UpstreamConfig, UpstreamKind, Via},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    SECOND,
    program::{Daemon, Nowhere},
    until,
};

/// A connector with one upstream, and a destination behind it.
pub(crate) struct Outside {
    pub(crate) connector: Connector,
    pub(crate) echo: EchoLab,
    /// Whether a tunnel goes on in one direction after the other one has ended.
    pub(crate) half_closes: bool,
    pub(crate) nobody: Nowhere,
    pub(crate) has_spares: bool,
}

/// A SOCKS5 server, with what stands before the host of its URL.
pub(crate) fn socks(daemon: &Daemon, user: &str) -> UpstreamKind {
    proxy(&format!("socks5://{user}127.0.0.1:{}", daemon.port))
}

pub(crate) fn proxy(url: &str) -> UpstreamKind {
    UpstreamKind::Proxy(Proxy::parse(url).unwrap().into())
}

impl Outside {
    pub(crate) async fn start(kind: UpstreamKind) -> Outside {
        Outside::start_with(UpstreamConfig::new("exit", kind)).await
    }

    pub(crate) async fn start_with(exit: UpstreamConfig) -> Outside {
        let has_spares = matches!(exit.kind, UpstreamKind::Proxy(_));
        let config = TunnelConfig {
            upstreams: vec![exit],
            default: Via::Upstream("exit".into()),
            pool: PoolConfig { spares: SPARES, spares_min: SPARES, ..PoolConfig::default() },
            timeout: 30 * SECOND,
            acquire_timeout: 30 * SECOND,
            ..TunnelConfig::default()
        };
        let connector = Connector::new(config, Arc::new(Fixed(Vec::new()))).unwrap();
        let (echo, nobody) = (EchoLab::start(2).await.unwrap(), Nowhere::new());
        Outside { connector, echo, half_closes: true, nobody, has_spares }
    }

    pub(crate) fn stats(&self) -> UpstreamStats {
        self.connector.stats().upstreams.swap_remove(0)
    }

    pub(crate) fn idle(&self) -> usize {
        self.stats().spares.unwrap().pool.gauges.idle
    }

    /// Where nobody listens.
    pub(crate) fn nobody(&self) -> Target {
        self.nobody.address().into()
    }

    /// By address, and by a name that the upstream looks up.
    fn targets(&self) -> [Target; 2] {
        let [first, second] = [0, 1].map(|index| self.echo.addr(index));
        [first.into(), Target::new("localhost", second.port()).unwrap()]
    }

    /// Waits until all spares are there.
    pub(crate) async fn full(&self) {
        if self.has_spares {
            until("spares are made", || self.idle() >= SPARES).await;
        }
    }

    /// Opens a tunnel and proves it, in both directions at once and, where that can be, past the end of ours.
    pub(crate) async fn proves(&self, index: usize, length: usize) -> Result<(), Error> {
        let (mut tunnel, mut tag) = self.begun(index).await?;
        let (mut reads, mut writes) = tokio::io::split(&mut tunnel);
        let (sent, mut answer) = (tag.request(length), vec![0; length]);
        let write = async {
            writes.write_all(&sent).await.unwrap();
            if self.half_closes {
                writes.shutdown().await.unwrap();
            }
        };
        let read = async { reads.read_exact(&mut answer).await.map(drop).unwrap() };
        tokio::join!(write, read);
        tag.check(&answer).unwrap();
        if self.half_closes {
            assert_eq!(tunnel.read(&mut [0]).await.unwrap(), 0);
        }
        Ok(())
    }

    /// A tunnel over which bytes have gone.
    async fn begun(&self, index: usize) -> Result<(Tunnel, Tagged), Error> {
        let mut tunnel = self.connector.connect(&self.targets()[index % 2]).await?;
        let mut tag = Tagged::random(self.echo.addr(index % 2));
        tunnel.write_all(&tag.request(10)).await.unwrap();
        let mut answer = [0; 10];
        tunnel.read_exact(&mut answer).await.unwrap();
        tag.check(&answer).unwrap();
        Ok((tunnel, tag))
    }

    /// Tunnels one after another over spares, then many at a time.
    pub(crate) async fn carries(&self) {
        for index in 0..6 {
            self.full().await;
            self.proves(index, 50_000).await.unwrap();
        }
        let stats = self.stats();
        let hits = if self.has_spares { 6 } else { 5 };
        assert_eq!((stats.hits, stats.misses), (hits, 6 - hits), "{stats:?}");
        let many = (0..20).map(|index| self.proves(index, 200_000));
        for done in futures_util::future::join_all(many).await {
            done.unwrap();
        }
        let stats = self.stats();
        assert_eq!(stats.failed, 0, "{:?}", stats.last_failure);
    }

    /// A tunnel of before ends, one of after is there at the first word, and meanwhile clients are told that it is down.
    pub(crate) async fn restarts(&self, daemon: &mut Daemon) {
        self.full().await;
        let (mut live, _) = self.begun(0).await.unwrap();
        daemon.kill();
        daemon.revive().await;
        self.proves(0, 1000).await.expect("dead spares are nothing to the client");
        let ended = tokio::time::timeout(10 * SECOND, live.read(&mut [0])).await.expect("it ends");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        self.full().await;
        daemon.kill();
        for index in 0..2 {
            let error = self.proves(index, 10).await.unwrap_err();
            println!("while it is down: {error}");
            assert_eq!(error.kind(), ErrorKind::Upstream, "{error}");
        }
        daemon.revive().await;
        self.proves(1, 1000).await.expect("the only upstream is tried, whatever happened to it before");
        self.full().await;
    }

    /// What must not have happened.
    pub(crate) async fn check(&self) {
        until("tunnels end", || self.connector.stats().live == 0).await;
        assert_eq!(self.echo.foreign(), 0, "not one byte crossed");
    }
}

pub(crate) const SPARES: usize = 4;
