//! Proxies from Debian as upstreams: microsocks, dante, tinyproxy.

use std::{path::Path, sync::Arc};

use keepwarm_transport::proxy::Proxy;
use keepwarm_tunnel::{
    ErrorKind, Side,
    config::{UpstreamConfig, UpstreamKind},
};

use super::{
    MS, SECOND,
    program::{Daemon, Nowhere, file, words},
    upstream::{Outside, proxy, socks},
};

/// microsocks, with `more` options.
pub(crate) async fn microsocks(more: &str) -> Option<Daemon> {
    Daemon::start("microsocks", "microsocks", |port, _| words(&format!("-i 127.0.0.1 -p {port} {more}"))).await
}

/// dante, with `more` lines of settings.
pub(crate) async fn dante(more: &str) -> Option<Daemon> {
    let arguments = |port: u16, folder: &Path| {
        let text = format!(
            "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nsocksmethod: none\nclientmethod: none\n\
             {more}\nclient pass {{ from: 0/0 to: 0/0 }}\nsocks pass {{ from: 0/0 to: 0/0 }}\n"
        );
        words(&format!("-f {} -p {}", file(folder, "conf", &text), super::program::at(folder, "pid")))
    };
    Daemon::start("danted", "dante-server", arguments).await
}

/// tinyproxy, with `more` lines of settings.
async fn tinyproxy(more: &str) -> Option<Daemon> {
    let arguments = |port: u16, folder: &Path| {
        let text = format!("Port {port}\nListen 127.0.0.1\nMaxClients 100\n{more}\n");
        words(&format!("-d -c {}", file(folder, "conf", &text)))
    };
    Daemon::start("tinyproxy", "tinyproxy", arguments).await
}

/// One that ends a tunnel in both directions as soon as one has ended, as microsocks and tinyproxy do.
async fn outside_of_whole(kind: UpstreamKind) -> Outside {
    Outside { half_closes: false, ..Outside::start(kind).await }
}

/// Tunnels, restarts, and a destination where nobody is.
async fn fares(outside: &Outside, daemon: &mut Daemon, refused: ErrorKind) {
    outside.carries().await;
    outside.restarts(daemon).await;
    let failed = outside.stats().failed;
    let error = outside.connector.connect(&outside.nobody()).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), outside.stats().failed), (refused, failed), "{error}");
    outside.check().await;
}

/// A wrong password is told as what it is, and is our fault.
async fn knows_nobody(kind: UpstreamKind) {
    let outside = Outside::start(kind).await;
    let error = outside.proves(0, 10).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.side()), (ErrorKind::Upstream, Side::Local), "{error}");
    assert!(error.to_string().contains("password") && !error.to_string().contains("wrong"), "{error}");
    assert_eq!(outside.idle(), 0);
}

#[tokio::test]
async fn microsocks_carries_tunnels_and_comes_back() {
    let Some(mut plain) = microsocks("").await else { return };
    fares(&outside_of_whole(socks(&plain, "")).await, &mut plain, ErrorKind::Refused).await;
    let Some(mut known) = microsocks("-u ann -P p@ss:w").await else { return };
    fares(&outside_of_whole(socks(&known, "ann:p%40ss%3Aw@")).await, &mut known, ErrorKind::Refused).await;
    knows_nobody(socks(&known, "ann:wrong@")).await;
}

#[tokio::test]
async fn dante_carries_tunnels_and_comes_back() {
    let Some(mut dante) = dante("").await else { return };
    fares(&Outside::start(socks(&dante, "")).await, &mut dante, ErrorKind::Refused).await;
}

#[tokio::test]
async fn dante_forbids_and_is_not_blamed() {
    let forbidden = Nowhere::new();
    let rule = format!("socks block {{ from: 0/0 to: 0/0 port = {} }}", forbidden.address().port());
    let Some(dante) = dante(&rule).await else { return };
    let outside = Outside::start(socks(&dante, "")).await;
    let error = outside.connector.connect(&forbidden.address().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    outside.proves(0, 1000).await.unwrap();
    assert_eq!(outside.stats().failed, 0);
}

#[tokio::test]
async fn tinyproxy_carries_tunnels_and_comes_back() {
    // It answers a destination that refuses with 500, as it does its own troubles.
    let Some(mut plain) = tinyproxy("Timeout 60").await else { return };
    let url = format!("127.0.0.1:{}", plain.port);
    fares(&outside_of_whole(proxy(&format!("http://{url}"))).await, &mut plain, ErrorKind::HostUnreachable).await;
    let Some(mut known) = tinyproxy("Timeout 60\nBasicAuth ann p4ss").await else { return };
    let url = format!("127.0.0.1:{}", known.port);
    let outside = outside_of_whole(proxy(&format!("http://ann:p4ss@{url}"))).await;
    fares(&outside, &mut known, ErrorKind::HostUnreachable).await;
}

/// HTTP has no greeting: the first tunnel finds out.
#[tokio::test]
async fn tinyproxy_knows_nobody_with_a_wrong_password() {
    let Some(known) = tinyproxy("BasicAuth ann p4ss").await else { return };
    let outside = Outside::start(proxy(&format!("http://ann:wrong@127.0.0.1:{}", known.port))).await;
    let error = outside.proves(0, 10).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.side()), (ErrorKind::Upstream, Side::Local), "{error}");
    assert!(error.to_string().contains("password") && !error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn proxies_of_two_makers_are_chained_and_have_spares() {
    let (Some(micro), Some(dante), Some(tiny)) =
        (microsocks("-u ann -P s3cret").await, dante("").await, tinyproxy("Timeout 60").await)
    else {
        return;
    };
    let url = |start: &str, daemon: &Daemon| Proxy::parse(&format!("{start}127.0.0.1:{}", daemon.port)).unwrap().into();
    let (micro, tiny) = (url("socks5://ann:s3cret@", &micro), url("http://", &tiny));
    for (first, second) in [(&micro, &tiny), (&tiny, &micro), (&url("socks5://", &dante), &tiny)] {
        let mut exit = UpstreamConfig::new("exit", UpstreamKind::Proxy(Arc::clone(second)));
        exit.through = Some(Arc::clone(first));
        let outside = Outside { half_closes: false, ..Outside::start_with(exit).await };
        outside.carries().await;
        outside.check().await;
    }
}

/// The proxies close what says nothing for 2 s. Clients come all the while, and notice nothing.
#[tokio::test]
async fn the_idle_limits_of_dante_and_tinyproxy_are_learned_without_a_failure() {
    let (Some(dante), Some(tiny)) = (dante("timeout.negotiate: 2").await, tinyproxy("Timeout 2").await) else { return };
    let outside = [
        Outside::start(socks(&dante, "")).await,
        outside_of_whole(proxy(&format!("http://127.0.0.1:{}", tiny.port))).await,
    ];
    let sparse = outside.iter().map(|outside| async {
        let limit = tokio::time::Instant::now() + 20 * SECOND;
        let mut tunnels = 0;
        while outside.stats().spares.unwrap().pool.idle_limit > 2 * SECOND {
            assert!(tokio::time::Instant::now() < limit, "{:?}", outside.stats().spares);
            outside.proves(tunnels, 1000).await.unwrap();
            tunnels += 1;
            tokio::time::sleep(250 * MS).await;
        }
        for index in 0..8 {
            outside.proves(index, 1000).await.unwrap();
            tokio::time::sleep(250 * MS).await;
        }
        let stats = outside.stats();
        println!("{}: limit {:?}, {stats:?}", stats.address, stats.spares.as_ref().unwrap().pool.idle_limit);
        assert!(stats.failed == 0 && outside.connector.stats().failed.is_empty(), "{stats:?}");
    });
    futures_util::future::join_all(sparse).await;
}
