//! A server far away: passes on what it receives after a pause, in both directions.
//!
//! A client's connection is open at once, since the kernel accepts it here. So that it pays the round trip of a SYN all the same,
//! what it sends is not passed on before that would have been over. Each direction of a connection has two threads, for sleeping
//! threads are exact to some 50 us and timers of a runtime to a millisecond.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

/// Where to, and how far.
#[derive(Args)]
pub(crate) struct DelayArgs {
    /// The server.
    #[arg(long)]
    to: SocketAddr,
    /// The way in one direction.
    #[arg(long, value_name = "MICROSECONDS")]
    micros: u64,
    /// Connections at a time; one more is closed at once.
    #[arg(long, value_name = "N", default_value_t = 64)]
    open_max: usize,
}

/// Says where it listens, on a line, and passes on until it is ended.
#[expect(clippy::print_stdout, reason = "its parent reads it")]
pub(super) fn run(args: &DelayArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    println!("{}", listener.local_addr()?);
    serve(&listener, args.to, Duration::from_micros(args.micros), args.open_max)
}

fn serve(listener: &TcpListener, to: SocketAddr, way: Duration, open_max: usize) -> anyhow::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (client, _) = listener.accept().context("accept")?;
        let accepted = Instant::now();
        if open.load(Ordering::Relaxed) >= open_max {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        thread::spawn(move || {
            // Either side sees that the connection ended; there is nobody else to tell.
            let _ = connection(client, to, accepted, way);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn connection(client: TcpStream, to: SocketAddr, accepted: Instant, way: Duration) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    // The client sends when the answer to its SYN has arrived, and not before.
    let established = accepted + 2 * way;
    let up = thread::spawn(move || direction(client_too, server_too, established, way));
    direction(server, client, established, way);
    let _ = up.join();
    Ok(())
}

/// Passes on until the end of one side, and the end too.
fn direction(from: TcpStream, to: TcpStream, not_before: Instant, way: Duration) {
    let (sender, receiver) = sync_channel(PIECES_MAX);
    let reader = thread::spawn(move || receive(from, &sender, not_before, way));
    send(to, &receiver);
    drop(receiver);
    let _ = reader.join();
}

fn receive(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>, not_before: Instant, way: Duration) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).unwrap_or(0);
        let due = Instant::now().max(not_before) + way;
        // Nothing stands for the end.
        if pieces.send((due, buffer[..len].to_vec())).is_err() || len == 0 {
            return;
        }
    }
}

fn send(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    // The reader of the other direction ends with the peer, which hears of it now.
    let _ = to.shutdown(Shutdown::Write);
}

/// Pieces on their way in one direction of a connection.
const PIECES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_and_not_before_its_time() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).unwrap();
            stream.write_all(&seen).unwrap();
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let way = Duration::from_millis(5);
        thread::spawn(move || serve(&listener, to, way, 64));

        let start = Instant::now();
        let mut client = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert!(seen == sent, "{} octets of {}", seen.len(), sent.len());
        // The round trip of the connection, and that of the octets.
        assert!(start.elapsed() >= 4 * way, "{:?}", start.elapsed());
        echo.join().unwrap();
    }
}
