//! tor, without a network: its greeting, its refusals and its silence.

use std::path::Path;

use keepwarm_transport::proxy::Target;
use keepwarm_tunnel::{ConnectOptions, ErrorKind, config::UpstreamKind};

use super::{
    SECOND,
    program::{Daemon, at, free_port, words},
    until,
    upstream::{Outside, SPARES, proxy, socks},
};

/// tor whose only authority is not there, and which could leave from loopback alone. Its SOCKS port is the daemon's; it speaks HTTP at
/// the other one.
async fn tor(http: u16) -> Option<Daemon> {
    let authority = free_port().await;
    let arguments = |port: u16, folder: &Path| {
        let (data, none) = (at(folder, "data"), at(folder, "none"));
        let print = "0123456789ABCDEF0123456789ABCDEF01234567";
        let line = format!(
            "-f {none} --ignore-missing-torrc --defaults-torrc {none} --DataDirectory {data} --ClientOnly 1 \
             --TestingTorNetwork 1 --OutboundBindAddress 127.0.0.1 --HTTPTunnelPort 127.0.0.1:{http} \
             --SocksPort 127.0.0.1:{port} --DirAuthority"
        );
        let authority = format!("lab orport={authority} no-v2 v3ident={print} 127.0.0.1:{authority} {print}");
        [words(&line), vec![authority]].concat()
    };
    Daemon::start("tor", "tor", arguments).await
}

#[tokio::test]
async fn tor_is_greeted_and_what_it_cannot_reach_is_no_failure_of_its() {
    let http = free_port().await;
    let Some(tor) = tor(http).await else { return };
    // It takes any user, and gives each a way of his own.
    let ways = [
        (socks(&tor, ""), ErrorKind::Upstream),
        (socks(&tor, "ann:any@"), ErrorKind::Upstream),
        (proxy(&format!("http://127.0.0.1:{http}")), ErrorKind::HostUnreachable),
    ];
    for (kind, refused) in ways {
        refuses_and_waits(kind, refused).await;
    }
}

async fn refuses_and_waits(kind: UpstreamKind, refused: ErrorKind) {
    let outside = Outside::start(kind).await;
    outside.full().await;
    // There is no such name: its checksum is wrong.
    let onion = Target::new(&format!("{}.onion", "a".repeat(56)), 80).unwrap();
    let error = outside.connector.connect(&onion).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), refused, "{error}");
    // For this it would have to know a way.
    let deadline = Some((tokio::time::Instant::now() + SECOND).into_std());
    let options = ConnectOptions { deadline, ..ConnectOptions::default() };
    let name = Target::new("name.example", 80).unwrap();
    let error = outside.connector.connect_with(&name, options).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    until("spares are replaced", || outside.idle() >= SPARES).await;
    let stats = outside.stats();
    assert_eq!((stats.hits, stats.misses, stats.failed), (2, 0, 0), "{stats:?}");
}
