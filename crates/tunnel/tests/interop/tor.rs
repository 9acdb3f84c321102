//! tor, without a network: its greeting, its refusals, and its patience.

use std::path::Path;

use keepwarm_transport::proxy::Target;
use keepwarm_tunnel::ErrorKind;

use super::{
    program::{Daemon, at, free_port, words},
    until,
    upstream::{Outside, SPARES, socks},
};

/// tor that knows one authority, which is not there, and leaves from loopback alone.
async fn tor(flags: &str) -> Option<Daemon> {
    let authority = free_port().await;
    let arguments = |port: u16, folder: &Path| {
        let (data, none) = (at(folder, "data"), at(folder, "none"));
        let print = "0123456789ABCDEF0123456789ABCDEF01234567";
        let mut arguments =
            words(&format!("-f {none} --ignore-missing-torrc --defaults-torrc {none} --DataDirectory {data}"));
        arguments.extend(words("--ClientOnly 1 --TestingTorNetwork 1 --OutboundBindAddress 127.0.0.1 --DirAuthority"));
        arguments.push(format!("lab orport={authority} no-v2 v3ident={print} 127.0.0.1:{authority} {print}"));
        arguments.extend(["--SocksPort".to_owned(), format!("127.0.0.1:{port} {flags}")]);
        arguments
    };
    Daemon::start("tor", "tor", arguments).await
}

#[tokio::test]
async fn tor_is_greeted_and_its_refusals_are_no_failures_of_its() {
    let Some(tor) = tor("").await else { return };
    // It takes any user, and keeps those apart.
    for user in ["", "ann:any@"] {
        let outside = Outside::start(socks(&tor, user)).await;
        outside.full().await;
        // No such name can be: its checksum is wrong.
        let onion = format!("{}.onion", "a".repeat(56));
        let error = outside.connector.connect(&Target::new(&onion, 80).unwrap()).await.unwrap_err();
        println!("{error}");
        until("spares are replaced", || outside.idle() >= SPARES).await;
        let stats = outside.stats();
        assert_eq!((stats.hits, stats.misses, stats.failed), (1, 0, 0), "{stats:?}");
        let _ = ErrorKind::Upstream;
    }
}
