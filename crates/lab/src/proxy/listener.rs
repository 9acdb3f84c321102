//! Accepts a proxy's connections, and acts on the faults that come before its protocol.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::connection::{Connection, Stop};
use super::site::Site;
use super::spec::{LabProxyProtocol, ProxyPhase};
use super::{http, socks5};

/// Accepts connections until the lab stops, and then ends them all.
pub(super) async fn serve(site: Arc<Site>) {
    let mut control = site.watch();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stopped = control.wait_for(|control| control.stopping) => {
                drop(stopped);
                break;
            }
            tcp = site.gate.accept() => {
                while connections.try_join_next().is_some() {}
                let max = site.faults().max_connections;
                let room = max.is_none_or(|max| site.tally.open() < max as u64);
                if room && connections.len() < CONNECTIONS_MAX {
                    connections.spawn(run(Connection::new(Arc::clone(&site), tcp)));
                } else {
                    site.count(|counters| counters.over_limit += 1);
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

async fn run(mut connection: Connection) {
    let stop = match talk(&mut connection).await {
        Ok(()) => Stop::Close,
        Err(stop) => stop,
    };
    connection.end(stop).await;
}

async fn talk(connection: &mut Connection) -> Result<(), Stop> {
    connection.at(ProxyPhase::Accept)?;
    if connection.faults().hang_accept {
        return Err(Stop::Silence);
    }
    connection.shake_hands().await?;
    match connection.site.protocol {
        LabProxyProtocol::Socks5 => socks5::serve(connection).await,
        LabProxyProtocol::Http | LabProxyProtocol::Https => http::serve(connection).await,
    }
}

/// Connections of one proxy at a time, whatever its faults say.
const CONNECTIONS_MAX: usize = 16_384;
