//! What is measured: a connector's settings, a destination, and what its first byte takes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use keepwarm_lab::{EchoLab, ProxyLab, ProxySpec, Tagged};
use keepwarm_transport::proxy::{Proxy, Target};
use keepwarm_tunnel::{
    Tunnel,
    config::{PoolConfig, TunnelConfig, UpstreamConfig, UpstreamKind, Via},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    TunnelArgs, UpstreamUrl,
    load::IN_FLIGHT_MAX,
    report::{Kind, LabRow},
};
use crate::config::Config;

/// What is waited for in a tunnel once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FirstByte {
    /// What the destination says by itself, as servers of SSH and SMTP do.
    Banner,
    /// Its answer to a HEAD request.
    Http,
}

/// How a first byte is asked for.
#[derive(Debug, Clone)]
enum Ask {
    /// Not at all: ready is all that is measured.
    Nothing,
    Banner,
    Http,
    /// The lab's destination, whose bytes are checked.
    Echo(std::net::SocketAddr),
}

/// What is measured.
pub(super) struct Subject {
    config: TunnelConfig,
    pub(super) target: Target,
    ask: Ask,
    lab: Option<(ProxyLab, EchoLab)>,
}

impl Subject {
    /// What the arguments name, or the lab.
    ///
    /// # Errors
    /// When the config is refused or has no tunnels, or the lab cannot be started; within: what is wrong with the arguments.
    pub(super) async fn new(args: &TunnelArgs) -> anyhow::Result<Result<Subject, String>> {
        let Some(target) = &args.target else { return Subject::of_lab().await.map(Ok) };
        let target = match parse_target(target) {
            Ok(target) => target,
            Err(problem) => return Ok(Err(problem)),
        };
        let config = match (&args.config, &args.proxy) {
            (Some(file), _) => {
                let tunnel = Config::load(file)?.config.tunnel;
                tunnel.with_context(|| format!("{} has no [tunnel]: there is no upstream", file.display()))?
            }
            (None, Some(UpstreamUrl(url))) => match Proxy::parse(url) {
                Ok(proxy) => through(proxy),
                Err(error) => return Ok(Err(format!("invalid value for '--proxy <URL>': {error}"))),
            },
            (None, None) => {
                return Ok(Err("--target needs --proxy or --config, through which it is reached".to_owned()));
            }
        };
        let ask = match args.first_byte {
            None => Ask::Nothing,
            Some(FirstByte::Banner) => Ask::Banner,
            Some(FirstByte::Http) => Ask::Http,
        };
        Ok(Ok(Subject { config, target, ask, lab: None }))
    }

    async fn of_lab() -> anyhow::Result<Subject> {
        let (user, password) = ("bench", "bench");
        let credential = Some((user.to_owned(), password.to_owned()));
        let echo = EchoLab::start(1).await.context("start a destination of the lab")?;
        let spec = ProxySpec { credential, delay: ROUND_TRIP, ..ProxySpec::default() };
        let proxy = ProxyLab::start(spec).await.context("start a proxy of the lab")?;
        proxy.pin(DESTINATION, echo.addr(0));
        let url = format!("socks5://{user}:{password}@{}", proxy.addr());
        let config = through(Proxy::parse(&url).context("the address of the lab's proxy")?);
        let target = Target::new(DESTINATION, echo.addr(0).port()).context("the destination of the lab")?;
        Ok(Subject { config, target, ask: Ask::Echo(echo.addr(0)), lab: Some((proxy, echo)) })
    }

    /// The settings of a run. Nobody waits for a place, since that is not what is measured, and nothing is opened ahead. Over fresh
    /// connections nothing is sent ahead either, as clients of a proxy do it.
    pub(super) fn config(&self, kind: Kind) -> TunnelConfig {
        let mut config = TunnelConfig {
            listen: Vec::new(),
            users: Vec::new(),
            max_tunnels: self.config.max_tunnels.max(IN_FLIGHT_MAX),
            max_per_destination: IN_FLIGHT_MAX,
            ..self.config.clone()
        };
        config.pool.check_interval = Duration::ZERO;
        config.rules.iter_mut().for_each(|rule| rule.speculate = 0);
        if kind == Kind::Fresh {
            config.pool = PoolConfig { spares: 0, spares_min: 0, spares_max: 0, ..config.pool };
            config.upstreams.iter_mut().for_each(|upstream| upstream.pipeline = false);
        }
        config
    }

    /// Whether no proxy is asked but those on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.config.upstreams.iter().all(|upstream| match (&upstream.kind, &upstream.through) {
            (_, Some(first)) => is_loopback(&first.host),
            (UpstreamKind::Direct, None) => false,
            (UpstreamKind::Proxy(proxy), None) => is_loopback(&proxy.host),
            (UpstreamKind::Ssh(ssh), None) => is_loopback(&ssh.host),
        })
    }

    /// The upstreams, without credentials.
    pub(super) fn upstreams(&self) -> Vec<String> {
        let shown = |upstream: &UpstreamConfig| match &upstream.kind {
            UpstreamKind::Direct => "direct".to_owned(),
            UpstreamKind::Proxy(proxy) => proxy.to_string(),
            UpstreamKind::Ssh(ssh) => format!("ssh://{}:{}", ssh.host, ssh.port),
        };
        self.config.upstreams.iter().map(shown).collect()
    }

    /// What the lab has seen so far; none where it is not the lab's.
    pub(super) fn lab(&self) -> Option<LabRow> {
        let (proxy, echo) = self.lab.as_ref()?;
        let counters = proxy.counters();
        Some(LabRow {
            round_trip: ROUND_TRIP,
            connections: counters.accepted,
            greeted: counters.greeted,
            connects: counters.connects_ok,
            foreign_bytes: echo.foreign(),
        })
    }

    /// What waits for the first byte, where any is asked for.
    pub(super) fn asks(&self) -> bool {
        !matches!(self.ask, Ask::Nothing)
    }

    /// Ends the lab.
    pub(super) async fn stop(self) {
        if let Some((proxy, echo)) = self.lab {
            proxy.stop().await;
            echo.stop().await;
        }
    }

    /// How its first byte is had, for a task of its own.
    pub(super) fn opener(&self) -> Opener {
        Opener { ask: self.ask.clone(), target: self.target.clone() }
    }
}

/// Asks for the first byte of a tunnel.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    ask: Ask,
    target: Target,
}

impl Opener {
    /// Waits for the first byte; `false`: none is asked for.
    ///
    /// # Errors
    /// When none comes within 10 s, or a byte that is not the destination's.
    pub(super) async fn first_byte(&self, tunnel: &mut Tunnel) -> Result<bool, String> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(tunnel));
        asked.await.map_err(|_| format!("no byte of {} within {PATIENCE:?}", self.target))?
    }

    async fn ask(&self, tunnel: &mut Tunnel) -> Result<bool, String> {
        let words = |error: std::io::Error| format!("{} after its tunnel was ready: {error}", self.target);
        let mut tagged = None;
        match &self.ask {
            Ask::Nothing => return Ok(false),
            Ask::Banner => {}
            Ask::Http => {
                let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.target);
                tunnel.write_all(request.as_bytes()).await.map_err(words)?;
            }
            Ask::Echo(destination) => {
                let tagged = tagged.insert(Tagged::random(*destination));
                let request = tagged.request(1);
                tunnel.write_all(&request).await.map_err(words)?;
            }
        }
        let mut byte = [0];
        tunnel.read_exact(&mut byte).await.map_err(words)?;
        match tagged.map(|mut tagged| tagged.check(&byte)) {
            Some(Err(_)) => Err(format!("a byte that is not of {}", self.target)),
            Some(Ok(())) | None => Ok(true),
        }
    }
}

fn through(proxy: Proxy) -> TunnelConfig {
    let name = "proxy";
    TunnelConfig {
        upstreams: vec![UpstreamConfig::new(name, UpstreamKind::Proxy(Arc::new(proxy)))],
        default: Via::Upstream(name.into()),
        ..TunnelConfig::default()
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    let refused = |why: &str| format!("invalid value for '--target <HOST:PORT>': {why}; accepted: www.example.com:443");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| refused("it has no port"))?;
    let port = port.parse().map_err(|_| refused("its port is no number from 1 to 65535"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Target::new(host, port).map_err(|error| refused(&error.to_string()))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Between client and proxy of the lab.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// The destination's name at the lab's proxy.
const DESTINATION: &str = "echo.lab";

/// Longest wait for a first byte.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_a_host_and_a_port() {
        for (text, shown) in [("a.test:443", "a.test:443"), ("[2001:db8::1]:5", "[2001:db8::1]:5")] {
            assert_eq!(parse_target(text).unwrap().to_string(), shown);
        }
        for text in ["a.test", "a.test:", "a.test:99999", ":1", "a b:1"] {
            let refusal = parse_target(text).unwrap_err();
            assert!(refusal.contains("accepted: www.example.com:443"), "{text}: {refusal}");
        }
    }

    #[test]
    fn only_proxies_on_this_machine_are_local_and_a_chain_is_where_it_begins() {
        let proxy = |url: &str| Arc::new(Proxy::parse(url).unwrap());
        let subject = |url: &str, first: Option<&str>| {
            let mut config = through(Proxy::parse(url).unwrap());
            config.upstreams[0].through = first.map(proxy);
            Subject { config, target: parse_target("a.test:1").unwrap(), ask: Ask::Nothing, lab: None }
        };
        assert!(subject("socks5://127.0.0.1:1", None).is_local());
        assert!(!subject("socks5://192.0.2.1:1", None).is_local());
        assert!(!subject("socks5://127.0.0.1:1", Some("http://192.0.2.1:1")).is_local());
        let fresh = subject("socks5://127.0.0.1:1", None).config(Kind::Fresh);
        assert_eq!((fresh.pool.spares, fresh.pool.spares_max, fresh.upstreams[0].pipeline), (0, 0, false));
    }
}
