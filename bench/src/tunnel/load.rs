//! Opens tunnels through a SOCKS5 proxy and measures them as their client sees them. One thread, a process of its own.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time,
};

use super::{
    destination::{Wish, send, spread, take},
    socks,
};
use arrivals::Arrivals;
pub(super) use outcome::Outcome;
#[cfg(test)]
pub(super) use outcome::Percentiles;
use outcome::Tally;

mod arrivals;
mod outcome;

/// What to open, and through whom.
#[derive(Args, Debug, Clone, PartialEq)]
pub(crate) struct LoadArgs {
    /// The proxy.
    #[arg(long)]
    pub(super) proxy: SocketAddr,
    /// It wants user and password.
    #[arg(long)]
    pub(super) user: bool,
    /// The destination's port, on every loopback address.
    #[arg(long)]
    pub(super) port: u16,
    #[arg(long)]
    pub(super) mode: Mode,
    /// Tunnels in all, or at a pace on average.
    #[arg(long, default_value_t = 1)]
    pub(super) tunnels: u64,
    /// Tunnels at a time.
    #[arg(long, default_value_t = 1)]
    pub(super) at_once: usize,
    /// Bytes of each tunnel, where bytes are moved.
    #[arg(long, default_value_t = 0)]
    pub(super) bytes: u64,
    /// Tunnels a second, where there is a pace.
    #[arg(long, default_value_t = 1.0)]
    pub(super) rate: f64,
    /// A tunnel that is ready in this time counts as soon.
    #[arg(long, default_value_t = 0)]
    pub(super) soon_micros: u64,
}

/// What is done with tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Opened, one byte there and back, closed; the next when one of those at a time is done.
    Setup,
    /// The same at a pace, at random moments, whether others are done or not.
    Pace,
    /// Bytes from the destination.
    Down,
    /// Bytes to the destination.
    Up,
    /// Opened, one byte there and back, and held until the input ends.
    Hold,
}

impl LoadArgs {
    /// The command line that says the same.
    pub(super) fn argv(&self) -> Vec<String> {
        let mode = self.mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut argv = vec!["tunnel-load".to_owned()];
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        option("--proxy", self.proxy.to_string());
        option("--port", self.port.to_string());
        option("--mode", mode);
        option("--tunnels", self.tunnels.to_string());
        option("--at-once", self.at_once.to_string());
        option("--bytes", self.bytes.to_string());
        option("--rate", self.rate.to_string());
        option("--soon-micros", self.soon_micros.to_string());
        argv.extend(self.user.then(|| "--user".to_owned()));
        argv
    }
}

/// Does it, prints the [`Outcome`], and ends when the input does.
#[expect(clippy::print_stdout, reason = "its parent reads it")]
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (outcome, _held) = time::timeout(LOAD_MAX, done(args)).await.context("the load takes too long")??;
        println!("{}", serde_json::to_string(&outcome)?);
        // The parent looks at the proxy meanwhile.
        io::copy(&mut io::stdin().lock(), &mut io::sink()).context("wait for the end").map(drop)
    })
}

/// What was measured, and what is held on.
async fn done(args: &LoadArgs) -> anyhow::Result<(Outcome, Vec<TcpStream>)> {
    match args.mode {
        Mode::Setup => Ok((setup(args).await, Vec::new())),
        Mode::Pace => Ok((pace(args).await?, Vec::new())),
        Mode::Down | Mode::Up => Ok((bulk(args).await?, Vec::new())),
        Mode::Hold => Ok(hold(args).await),
    }
}

/// A tunnel that carried a byte there and back, and when.
struct Opened {
    stream: TcpStream,
    /// From the client's `connect` to the proxy's word.
    ready: Duration,
    /// From there to the destination's first byte.
    first: Duration,
}

async fn open(args: &LoadArgs, number: u64) -> io::Result<Opened> {
    let start = Instant::now();
    let mut stream = socks::open(args.proxy, args.user, spread(number, args.port)).await?;
    let ready = start.elapsed();
    stream.write_all(&Wish::Echo.bytes()).await?;
    stream.read_u8().await?;
    Ok(Opened { stream, ready, first: start.elapsed() })
}

/// Like [`open`], and given up in time.
async fn try_open(args: &LoadArgs, number: u64) -> io::Result<Opened> {
    time::timeout(TUNNEL_MAX, open(args, number)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn setup(args: &LoadArgs) -> Outcome {
    let (next, start, mut workers) = (Arc::new(AtomicU64::new(0)), Instant::now(), JoinSet::new());
    for _ in 0..args.at_once {
        let (args, next) = (args.clone(), Arc::clone(&next));
        workers.spawn(async move {
            let mut tally = Tally::new(&args);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= args.tunnels {
                    return tally;
                }
                tally.add(try_open(&args, number).await.map(|opened| (opened.ready, opened.first)));
            }
        });
    }
    let tallies = workers.join_all().await;
    Tally::sum(tallies).outcome(start.elapsed())
}

async fn pace(args: &LoadArgs) -> anyhow::Result<Outcome> {
    let (start, mut running, mut tally) = (Instant::now(), JoinSet::new(), Tally::new(args));
    for (number, at) in (0..args.tunnels).zip(Arrivals::new(args.rate)) {
        time::sleep_until((start + at).into()).await;
        let args = args.clone();
        running.spawn(async move { try_open(&args, number).await.map(|opened| (opened.ready, opened.first)) });
        // Those that are done are taken out, so that there are never more than run.
        while let Some(done) = running.try_join_next() {
            tally.add(done?);
        }
    }
    while let Some(done) = running.join_next().await {
        tally.add(done?);
    }
    Ok(tally.outcome(start.elapsed()))
}

async fn bulk(args: &LoadArgs) -> anyhow::Result<Outcome> {
    let (start, mut streams) = (Instant::now(), JoinSet::new());
    for number in 0..args.at_once as u64 {
        let args = args.clone();
        streams.spawn(async move { stream(&args, number).await });
    }
    let mut bytes = 0;
    while let Some(done) = streams.join_next().await {
        bytes += done?.context("move bytes")?;
    }
    let wanted = args.bytes * args.at_once as u64;
    if bytes != wanted {
        bail!("{bytes} bytes arrived instead of {wanted}");
    }
    Ok(Outcome { bytes, tunnels: args.at_once as u64, ..Tally::new(args).outcome(start.elapsed()) })
}

/// How many bytes arrived.
async fn stream(args: &LoadArgs, number: u64) -> io::Result<u64> {
    let mut stream = socks::open(args.proxy, args.user, spread(number, args.port)).await?;
    if args.mode == Mode::Down {
        stream.write_all(&Wish::Send(args.bytes).bytes()).await?;
        return take(&stream, u64::MAX).await;
    }
    stream.write_all(&Wish::Take(args.bytes).bytes()).await?;
    send(&mut stream, args.bytes).await?;
    stream.read_u64().await
}

async fn hold(args: &LoadArgs) -> (Outcome, Vec<TcpStream>) {
    let (start, mut tally, mut held) = (Instant::now(), Tally::new(args), Vec::new());
    for number in 0..args.tunnels {
        match try_open(args, number).await {
            Ok(opened) => {
                tally.add(Ok((opened.ready, opened.first)));
                held.push(opened.stream);
            }
            Err(error) => tally.add(Err(error)),
        }
    }
    (tally.outcome(start.elapsed()), held)
}

/// How long one tunnel may take.
const TUNNEL_MAX: Duration = Duration::from_secs(10);
/// How long a load may take in all.
const LOAD_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    #[test]
    fn a_load_is_told_by_its_command_line() {
        let load = LoadArgs {
            proxy: ([127, 0, 0, 1], 1080).into(),
            user: true,
            port: 4567,
            mode: Mode::Pace,
            tunnels: 1_200,
            at_once: 8,
            bytes: 5,
            rate: 20.0,
            soon_micros: 75_000,
        };
        assert_eq!(Line::parse_from(load.argv()).load, load);
    }
}
