//! Tunnels through proxies that misbehave, to destinations whose bytes prove whose they are.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "connector/ahead.rs"]
mod ahead;
#[path = "connector/checks.rs"]
mod checks;
#[path = "connector/crossed.rs"]
mod crossed;
#[path = "connector/failover.rs"]
mod failover;
#[path = "connector/limits.rs"]
mod limits;
#[path = "connector/reload.rs"]
mod reload;
#[path = "connector/spares.rs"]
mod spares;
#[path = "connector/steer.rs"]
mod steer;
#[path = "connector/ways.rs"]
mod ways;

use std::{sync::Arc, time::Duration};

use keepwarm_lab::{EchoLab, ProxyLab, ProxySpec, Tagged};
use keepwarm_transport::{
    proxy::{Proxy, Target},
    resolve::SystemResolver,
};
use keepwarm_tunnel::{
    Connector, Error, Tunnel, UpstreamStats,
    config::{PoolConfig, TunnelConfig, UpstreamConfig, UpstreamKind, Via},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A proxy that wants a user and password.
fn with_password() -> ProxySpec {
    ProxySpec { credential: Some(("ann".to_owned(), "s3cret".to_owned())), ..ProxySpec::default() }
}

fn upstream(name: &str, lab: &ProxyLab) -> UpstreamConfig {
    let proxy = Proxy::parse(&format!("socks5://ann:s3cret@{}", lab.addr())).unwrap();
    UpstreamConfig::new(name, UpstreamKind::Proxy(Arc::new(proxy)))
}

fn group(upstreams: Vec<UpstreamConfig>) -> TunnelConfig {
    TunnelConfig {
        upstreams,
        default: Via::Group("default".into()),
        pool: PoolConfig { spares: 4, spares_min: 4, spares_max: 16, ..PoolConfig::default() },
        timeout: 5 * SECOND,
        ..TunnelConfig::default()
    }
}

fn start(config: TunnelConfig) -> Connector {
    Connector::new(config, Arc::new(SystemResolver::default())).unwrap()
}

/// One proxy, its connector, and so many destinations.
async fn one(spec: ProxySpec, destinations: usize) -> (ProxyLab, EchoLab, Connector) {
    let (proxy, echo) = (ProxyLab::start(spec).await.unwrap(), EchoLab::start(destinations).await.unwrap());
    let connector = start(group(vec![upstream("exit", &proxy)]));
    (proxy, echo, connector)
}

fn stats(connector: &Connector, name: &str) -> UpstreamStats {
    connector.stats().upstreams.into_iter().find(|upstream| &*upstream.name == name).unwrap()
}

fn idle(connector: &Connector, name: &str) -> usize {
    stats(connector, name).spares.unwrap().pool.gauges.idle
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + 20 * SECOND;
    while !is_so() {
        assert!(tokio::time::Instant::now() < limit, "{what}");
        tokio::time::sleep(5 * MS).await;
    }
}

/// Sends some bytes through a tunnel and checks that what comes back is theirs.
async fn exchange(tunnel: &mut Tunnel, tag: &mut Tagged, length: usize) {
    tunnel.write_all(&tag.request(length)).await.unwrap();
    let mut answer = vec![0; length];
    tunnel.read_exact(&mut answer).await.unwrap();
    tag.check(&answer).unwrap();
}

/// A tunnel to a destination that proved itself.
async fn proved(connector: &Connector, echo: &EchoLab, index: usize) -> Result<Tunnel, Error> {
    let mut tunnel = connector.connect(&Target::from(echo.addr(index))).await?;
    let mut tag = Tagged::random(echo.addr(index));
    exchange(&mut tunnel, &mut tag, 100).await;
    Ok(tunnel)
}
