//! keepwarm with one worker on a core of its own, and with two on cores that it shares with upstream and load generator.
//!
//! On a machine of two cores the second case cannot show twice the rate, since the tools need their share. So the CPU time
//! per query stands beside it: while that does not grow with the workers, capacity is cores divided by it.

use std::time::Duration;

use super::{
    blast::BlastArgs,
    figures::Reading,
    measure::{HOT_CACHE, HOT_NAMES, Server},
    peers::{Cache, Peer, Task, Transport},
    tools::Workshop,
};
use crate::{figures::Spread, pin::Cores, process::check_interrupt};

/// One load on so many workers.
#[derive(Debug, Clone)]
pub(super) struct Scaled {
    pub(super) load: &'static str,
    pub(super) workers: u32,
    pub(super) readings: Vec<Reading>,
}

impl Scaled {
    pub(super) fn spread(&self, figure: impl Fn(&Reading) -> f64) -> Option<Spread> {
        Spread::of(self.readings.iter().map(figure))
    }

    /// What kept the rate from being higher.
    pub(super) fn limit(&self) -> String {
        let median = |figure: fn(&Reading) -> f64| self.spread(figure).map_or(0.0, |spread| spread.median);
        let (server, tools) = (median(|reading| reading.server_cores), median(|reading| reading.load_cores));
        let foreign = median(|reading| reading.foreign_cores);
        let of_whom = format!("server {server:.2}, upstream and load generator {tools:.2}, others {foreign:.2}");
        if self.workers == 1 && server > 0.93 {
            "its core is full".to_owned()
        } else if server + tools + foreign > 1.86 {
            format!("both cores are full: {of_whom}")
        } else if self.workers == 1 && tools > 0.93 {
            "upstream and load generator fill their core".to_owned()
        } else {
            format!("no core is full: {of_whom}")
        }
    }
}

/// Measures both loads on one worker and on two, in turn.
pub(super) fn scaled(workshop: &mut Workshop, peer: &Peer, reps: u32, length: Duration) -> anyhow::Result<Vec<Scaled>> {
    let split = workshop.cores.clone();
    let mut found = Vec::new();
    for load in [HITS, FORWARDED] {
        for workers in [1, 2] {
            found.push(Scaled { load, workers, readings: Vec::new() });
        }
    }
    for _ in 0..reps {
        for scaled in &mut found {
            check_interrupt()?;
            workshop.move_to(if scaled.workers == 1 { split.clone() } else { Cores::shared() })?;
            scaled.readings.push(reading(workshop, peer, scaled, length)?);
        }
    }
    workshop.move_to(split)?;
    Ok(found)
}

fn reading(workshop: &mut Workshop, peer: &Peer, scaled: &Scaled, length: Duration) -> anyhow::Result<Reading> {
    let hits = scaled.load == HITS;
    let cache = if hits { HOT_CACHE } else { Cache::Off };
    let task = Task { transport: Transport::Udp, cache, threads: scaled.workers, in_flight: Task::IN_FLIGHT };
    let server = Server::start(workshop, peer, task)?;
    let load = BlastArgs { outstanding: 400, hot: hits.then_some(HOT_NAMES), ..server.load(length) };
    let fill = BlastArgs { queries: Some(2 * HOT_NAMES), rate: Some(20_000), ..load.clone() };
    workshop.blast(BlastArgs { seconds: 3.0, ..fill }, || {})?;
    server.measure(workshop, &load)
}

const HITS: &str = "cache hits";
const FORWARDED: &str = "UDP upstream";
