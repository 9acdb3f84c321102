//! What it costs to carry a byte: the relay by splice and by copy, beside tokio's `copy_bidirectional`.
//!
//! Senders and receivers are threads of their own; what counts is the processor time of the relay's thread alone, which runs all
//! streams of a case. All ways have their turn in each round. `cargo bench -p keepwarm-tunnel --bench relay`, with `ROUNDS` and
//! `MEGABYTES` in the environment where 3 and 1024 are not wanted.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "prints its figures")]

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
        thread,
        time::Duration,
    };

    use keepwarm_tunnel::{
        Traffic,
        relay::{RelayOptions, relay},
    };
    use rustix::time::{ClockId, clock_gettime};
    use tokio::{
        io::copy_bidirectional_with_sizes,
        net::{TcpListener, TcpStream},
        runtime::Builder,
        task::JoinSet,
    };

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        Splice,
        Copy,
        Tokio(usize),
    }

    const WAYS: [(&str, Way); 4] = [
        ("relay, splice", Way::Splice),
        ("relay, copy", Way::Copy),
        ("copy_bidirectional, 256 KiB", Way::Tokio(256 * 1024)),
        ("copy_bidirectional, 8 KiB", Way::Tokio(8 * 1024)),
    ];
    const STREAMS: [usize; 2] = [1, 8];

    pub(crate) fn run() {
        let (rounds, megabytes) = (number("ROUNDS", 3), number("MEGABYTES", 1024));
        let mut figures = vec![[Vec::new(), Vec::new()]; WAYS.len()];
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                let way = (turn + round) % WAYS.len();
                for (case, streams) in STREAMS.into_iter().enumerate() {
                    figures[way][case].push(measure(WAYS[way].1, streams, megabytes * 1_000_000 / streams));
                }
            }
        }
        println!(
            "CPU seconds of the relay's thread per GB: median of {rounds} rounds (least to most), {megabytes} MB each\n"
        );
        println!("| way | 1 stream | 8 streams |\n|---|---|---|");
        for ((name, _), figures) in WAYS.iter().zip(&mut figures) {
            let [one, eight] = figures.each_mut().map(|figures| spread(figures));
            println!("| {name} | {one} | {eight} |");
        }
    }

    fn number(name: &str, default: usize) -> usize {
        std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
    }

    fn spread(figures: &mut [f64]) -> String {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        format!("{:.3} ({least:.3} to {most:.3})", figures[figures.len() / 2])
    }

    /// Sends `bytes` through each of `streams` relays and gives the CPU seconds per GB.
    fn measure(way: Way, streams: usize, bytes: usize) -> f64 {
        let sinks = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let sink = sinks.local_addr().unwrap();
        let receivers: Vec<_> = (0..streams)
            .map(|_| {
                let sinks = sinks.try_clone().unwrap();
                thread::spawn(move || receive(sinks.accept().unwrap().0))
            })
            .collect();
        let seconds = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(carry(way, streams, bytes, sink))
        })
        .join()
        .unwrap();
        let received: usize = receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum();
        assert_eq!(received, streams * bytes, "every byte arrives");
        seconds / (received as f64 / 1e9)
    }

    async fn carry(way: Way, streams: usize, bytes: usize, sink: SocketAddr) -> f64 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let senders: Vec<_> = (0..streams).map(|_| thread::spawn(move || send(addr, bytes))).collect();
        let mut pairs = Vec::new();
        for _ in 0..streams {
            pairs.push((listener.accept().await.unwrap().0, TcpStream::connect(sink).await.unwrap()));
        }
        let start = clock_gettime(ClockId::ThreadCPUTime);
        let mut relays = JoinSet::new();
        for (client, upstream) in pairs {
            relays.spawn(one(way, client, upstream));
        }
        relays.join_all().await;
        let end = clock_gettime(ClockId::ThreadCPUTime);
        for sender in senders {
            sender.join().unwrap();
        }
        Duration::try_from(end - start).unwrap().as_secs_f64()
    }

    async fn one(way: Way, mut client: TcpStream, mut upstream: TcpStream) {
        if let Way::Tokio(size) = way {
            copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size).await.unwrap();
            return;
        }
        let options = RelayOptions {
            idle_timeout: Duration::from_secs(60),
            half_open_timeout: Duration::from_secs(60),
            splice: way == Way::Splice,
        };
        relay(client.into(), upstream.into(), &options, &Traffic::default()).await;
    }

    fn send(addr: SocketAddr, bytes: usize) {
        let mut stream = StdStream::connect(addr).unwrap();
        let chunk = vec![7; CHUNK];
        let mut left = bytes;
        while left > 0 {
            left -= stream.write(&chunk[..left.min(CHUNK)]).unwrap();
        }
    }

    fn receive(mut stream: StdStream) -> usize {
        let (mut chunk, mut received) = (vec![0; CHUNK], 0);
        loop {
            match stream.read(&mut chunk).unwrap() {
                0 => return received,
                n => received += n,
            }
        }
    }

    const CHUNK: usize = 256 * 1024;
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::run();
    #[cfg(not(target_os = "linux"))]
    println!("needs Linux: it counts the processor time of a thread");
}
