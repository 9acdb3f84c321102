//! One repetition: a proxy is started, prepared, loaded and ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::{
    load::{LoadArgs, Mode},
    peers::Peer,
    reading::{Held, Reading},
    row::{Figure, Row, SOON},
    workshop::{Server, Workshop},
};
use crate::cpu;

/// Puts a row's load on a proxy. Taken twice when others disturbed it, and the quieter one counts.
pub(super) fn repetition(workshop: &mut Workshop, peer: &Peer, row: Row, quick: bool) -> anyhow::Result<Reading> {
    let first = once(workshop, peer, row, quick)?;
    if !first.is_disturbed() {
        return Ok(first);
    }
    let second = once(workshop, peer, row, quick)?;
    Ok(if second.foreign_cores < first.foreign_cores { second } else { first })
}

fn once(workshop: &mut Workshop, peer: &Peer, row: Row, quick: bool) -> anyhow::Result<Reading> {
    let server = peer.kind.is_server(row).then(|| workshop.start(peer, row)).transpose()?;
    let found = loaded(workshop, server.as_ref(), row, row.amount(peer.kind, quick));
    found.map_err(|error| match &server {
        Some(server) => anyhow!("{error:#}; its log ends with: {}", server.last_words()),
        None => error,
    })
}

fn loaded(workshop: &Workshop, server: Option<&Server>, row: Row, amount: u64) -> anyhow::Result<Reading> {
    // Without a server the client goes to the upstream by itself, which wants user and password.
    let (proxy, user) = match server {
        Some(server) => (server.address, row.has_user()),
        None => (workshop.upstream(row), true),
    };
    let load = |amount| load(row, proxy, user, workshop.port, amount);
    let mut preparation = load(row.preparation(amount));
    if preparation.mode == Mode::Hold {
        preparation.mode = Mode::Setup;
    }
    workshop.load(&preparation, || ())?;
    thread::sleep(SETTLE);

    let held = || server.map(Server::held).unwrap_or_default();
    let spent = || server.map(Server::spent).unwrap_or_default();
    let (before, start) = (held(), Instant::now());
    let (machine, used, ours) = (cpu::machine_busy(), spent(), workshop.spent()?);
    let (outcome, during) =
        workshop.load(&load(amount), || if row.figure() == Figure::Memory { held() } else { Held::default() })?;
    // What it still does for tunnels that have ended is part of what they cost.
    thread::sleep(SETTLE);
    let (machine, used) = (cpu::machine_busy().saturating_sub(machine), spent().saturating_sub(used));
    let foreign = machine.saturating_sub(used).saturating_sub(workshop.spent()?.saturating_sub(ours));
    let foreign_cores = foreign.as_secs_f64() / start.elapsed().as_secs_f64();
    Ok(Reading { outcome, cpu_s: used.as_secs_f64(), held: [before, during], foreign_cores })
}

fn load(row: Row, proxy: std::net::SocketAddr, user: bool, port: u16, amount: u64) -> LoadArgs {
    let is_bulk = row.figure() == Figure::Relay;
    LoadArgs {
        proxy,
        user,
        port,
        mode: row.mode(),
        tunnels: if is_bulk { row.at_once() as u64 } else { amount },
        at_once: row.at_once(),
        bytes: if is_bulk { amount / row.at_once() as u64 } else { 0 },
        rate: f64::from(row.rate()),
        soon_micros: u64::try_from(SOON.as_micros()).unwrap_or(u64::MAX),
    }
}

/// From the end of a load to the reading.
const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shared_by_the_streams() {
        let proxy = ([127, 0, 0, 1], 1080).into();
        let bulk = load(Row::Up8, proxy, false, 9, 4_000_000_000);
        assert_eq!((bulk.mode, bulk.at_once, bulk.bytes), (Mode::Up, 8, 500_000_000));
        let setup = load(Row::Setup32User, proxy, true, 9, 10_000);
        assert_eq!((setup.mode, setup.at_once, setup.tunnels, setup.bytes), (Mode::Setup, 32, 10_000, 0));
        assert!((load(Row::Ready20, proxy, false, 9, 1_200).rate - 20.0).abs() < 1e-9);
    }
}
