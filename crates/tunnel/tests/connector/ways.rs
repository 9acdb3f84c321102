//! Every way out: HTTP proxies, TLS to the proxy, chains of two, this machine itself.

use keepwarm_lab::{Ca, LabProxyProtocol};
use keepwarm_pool::DialPhase;
use keepwarm_transport::tls::TlsRoots;

use super::*;

async fn through(protocol: LabProxyProtocol, ca: &Ca) -> (ProxyLab, Arc<Proxy>) {
    let spec = ProxySpec { protocol, ..with_password() };
    let lab = ProxyLab::start_with_ca(spec, ca).await.unwrap();
    let scheme = match protocol {
        LabProxyProtocol::Socks5 => "socks5",
        LabProxyProtocol::Http => "http",
        LabProxyProtocol::Https => "https",
    };
    let proxy = Proxy::parse(&format!("{scheme}://ann:s3cret@{}", lab.addr())).unwrap();
    (lab, Arc::new(proxy))
}

#[tokio::test]
async fn every_kind_of_proxy_and_every_chain_of_two_has_spares() {
    let kinds = [LabProxyProtocol::Socks5, LabProxyProtocol::Http, LabProxyProtocol::Https];
    let ca = Ca::new();
    let echo = EchoLab::start(1).await.unwrap();
    for last in kinds {
        for first in [None, Some(kinds[0]), Some(kinds[1]), Some(kinds[2])] {
            let what = format!("{last:?} through {first:?}");
            let (lab, proxy) = through(last, &ca).await;
            let before = match first {
                Some(first) => Some(through(first, &ca).await),
                None => None,
            };
            let mut exit = UpstreamConfig::new("exit", UpstreamKind::Proxy(proxy));
            exit.through = before.as_ref().map(|(_, proxy)| Arc::clone(proxy));
            let roots = TlsRoots::only([ca.root()]);
            let connector = start(TunnelConfig { roots, ..group(vec![exit]) });
            until(&what, || idle(&connector, "exit") == 4).await;
            let tls = [Some(last), first].contains(&Some(LabProxyProtocol::Https));
            // An HTTP proxy is asked for something with the destination first, unless another one stands before it.
            let asks = first.is_some() || last == LabProxyProtocol::Socks5;
            let expected = [(DialPhase::Connect, true), (DialPhase::Proxy, asks), (DialPhase::Tls, tls)];
            let pool = connector.pools().pop().unwrap().pool.stats();
            let phases: Vec<_> = pool.dial_phases.iter().map(|(phase, times)| (phase, times.count())).collect();
            let expected: Vec<_> = expected
                .into_iter()
                .filter(|(_, is_there)| *is_there)
                .map(|(phase, _)| (phase, pool.counters.opened))
                .collect();
            assert_eq!(phases, expected, "{what}");
            let tunnel = proved(&connector, &echo, 0).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(tunnel.trace().spare.is_some(), "{what}");
            assert_eq!(lab.counters().connects, 1, "{what}");
            if let Some((before, _)) = &before {
                assert!(before.counters().connects >= 4, "{what}: each spare is a tunnel of the first proxy");
            }
            connector.close().await;
        }
    }
    assert_eq!(echo.foreign(), 0);
}

#[tokio::test]
async fn names_are_looked_up_by_the_proxy_and_never_here() {
    #[derive(Debug)]
    struct Nobody;
    impl keepwarm_transport::resolve::Resolve for Nobody {
        fn resolve(&self, host: &str) -> keepwarm_transport::resolve::Resolving {
            panic!("{host} was looked up here");
        }
    }
    let proxy = ProxyLab::start(with_password()).await.unwrap();
    let echo = EchoLab::start(1).await.unwrap();
    proxy.pin("echo.test", echo.addr(0));
    let connector = Connector::new(group(vec![upstream("exit", &proxy)]), Arc::new(Nobody)).unwrap();
    let target = Target::new("echo.test", echo.addr(0).port()).unwrap();
    let mut tunnel = connector.connect(&target).await.unwrap();
    exchange(&mut tunnel, &mut Tagged::random(echo.addr(0)), 50).await;
}

#[tokio::test]
async fn this_machine_connects_itself_where_no_upstream_is_asked_for() {
    let echo = EchoLab::start(1).await.unwrap();
    let connector = start(TunnelConfig::default());
    let tunnel = proved(&connector, &echo, 0).await.unwrap();
    assert_eq!((&*tunnel.trace().upstream, tunnel.trace().spare), ("direct", None));
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connector.connect(&Target::from(nobody)).await.unwrap_err();
    assert_eq!(error.kind(), keepwarm_tunnel::ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn a_config_that_leads_nowhere_is_refused() {
    let resolver = || Arc::new(SystemResolver::default());
    let config = TunnelConfig { default: Via::Group("nobody".into()), ..TunnelConfig::default() };
    assert!(Connector::new(config, resolver()).unwrap_err().to_string().contains("nobody"));
    let twice = || UpstreamConfig::new("exit", UpstreamKind::Direct);
    let config = TunnelConfig { upstreams: vec![twice(), twice()], ..TunnelConfig::default() };
    assert!(Connector::new(config, resolver()).unwrap_err().to_string().contains("two upstreams named exit"));
}
