//! `keepwarm cache` and `keepwarm cache flush`: the cache of the running daemon.
//!
//! Figures and deeds are the daemon's; here they only become words.

use anyhow::Context as _;
use comfy_table::CellAlignment;

use crate::{
    ask::unavailable,
    cli::{CacheArgs, CacheCommand, Exit, FlushArgs, print},
    table,
};
use keepwarm_control::{
    client,
    rows::{CacheStatus, FlushRequest, Flushed},
};

/// Asks the daemon for its cache, or to flush it, and prints what it says.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address; the daemon's words when it refuses.
pub fn main(args: &CacheArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let daemon = args.ask.daemon()?;
    match &args.what {
        None => {
            let status: CacheStatus = runtime.block_on(client::get(&daemon, "/api/v1/cache")).map_err(unavailable)?;
            print(&args.output.one(&status, &["size", "bytes", "entries"], || text(&status))?)
        }
        Some(CacheCommand::Flush(FlushArgs { name, all: _ })) => {
            let request = FlushRequest { name: name.clone() };
            let asked = client::post(&daemon, "/api/v1/cache/flush", &request, client::TIMEOUT);
            let flushed: Flushed = runtime.block_on(asked).map_err(unavailable)?;
            print(&args.output.one(&flushed, &[], || flushed_text(name.as_deref(), flushed))?)
        }
    }
}

/// The cache for people.
fn text(status: &CacheStatus) -> String {
    if status.size == 0 {
        return "the cache is off: the daemon's config has size = \"0\" in [dns.cache]\n".into();
    }
    let row = [
        bytes(status.size),
        bytes(status.bytes),
        status.entries.to_string(),
        status.hits.to_string(),
        status.misses.to_string(),
        status.hit_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0)),
        status.stale.to_string(),
        status.prefetches.to_string(),
    ];
    table::render(&COLUMNS, [row])
}

fn flushed_text(name: Option<&str>, flushed: Flushed) -> String {
    match (name, flushed.flushed) {
        (None, 0) => "nothing to flush: the cache was empty\n".into(),
        (None, 1) => "flushed 1 answer\n".into(),
        (None, count) => format!("flushed {count} answers\n"),
        (Some(name), 0) => format!("nothing to flush: no answer about {name} was in the cache\n"),
        (Some(name), 1) => format!("flushed 1 answer about {name}\n"),
        (Some(name), count) => format!("flushed {count} answers about {name}\n"),
    }
}

/// A number of bytes with three digits or so: `812 B`, `1.2 MiB`, `64 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB"] {
        // What would round to 1024 of a unit is one of the next.
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let tenth = (value * 10.0).round() / 10.0;
    match tenth < 10.0 && tenth.fract() > 0.0 {
        true => format!("{tenth:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

const COLUMNS: [table::Column; 8] = [
    ("SIZE", CellAlignment::Right),
    ("USED", CellAlignment::Right),
    ("ENTRIES", CellAlignment::Right),
    ("HITS", CellAlignment::Right),
    ("MISSES", CellAlignment::Right),
    ("HIT RATIO", CellAlignment::Right),
    ("STALE", CellAlignment::Right),
    ("PREFETCHES", CellAlignment::Right),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_one_row_with_its_limit() {
        let status = CacheStatus {
            size: 64 << 20,
            entries: 4312,
            bytes: 1_310_000,
            hits: 90_210,
            misses: 10_000,
            hit_ratio: Some(0.9002),
            stale: 3,
            prefetches: 412,
        };
        insta::assert_snapshot!(text(&status), @r"
          SIZE     USED  ENTRIES   HITS  MISSES  HIT RATIO  STALE  PREFETCHES
        64 MiB  1.2 MiB     4312  90210   10000     90.0 %      3         412
        ");
        let empty = CacheStatus { size: 1 << 20, ..CacheStatus::default() };
        insta::assert_snapshot!(text(&empty), @r"
         SIZE  USED  ENTRIES  HITS  MISSES  HIT RATIO  STALE  PREFETCHES
        1 MiB   0 B        0     0       0          -      0           0
        ");
    }

    #[test]
    fn a_cache_that_is_off_says_where_it_is_turned_on() {
        assert!(text(&CacheStatus::default()).contains("[dns.cache]"));
    }

    #[test]
    fn a_flush_tells_what_it_found() {
        let words = |name, flushed| flushed_text(name, Flushed { flushed });
        assert_eq!(words(None, 0), "nothing to flush: the cache was empty\n");
        assert_eq!(words(None, 2), "flushed 2 answers\n");
        assert_eq!(words(Some("a.test"), 0), "nothing to flush: no answer about a.test was in the cache\n");
        assert_eq!(words(Some("a.test"), 1), "flushed 1 answer about a.test\n");
    }

    #[test]
    fn bytes_are_short() {
        for (count, words) in [
            (0, "0 B"),
            (812, "812 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10_189, "10 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (64 << 20, "64 MiB"),
            (64 << 30, "64 GiB"),
            (5000 << 30, "5000 GiB"),
        ] {
            assert_eq!(bytes(count), words);
        }
    }
}
