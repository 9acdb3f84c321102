//! A multiplexed connection: 1,000 requests of 40 tasks share connections that carry 8 requests at once, answers out of order.
//!
//! The server announces that it goes away after 300 requests on a connection, as HTTP/2 servers do with GOAWAY; the connection's
//! reader tells the pool, which opens the next connection and lets the old one finish.
//!
//! `cargo run -p keepwarm-pool --example multiplexed`

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keepwarm_pool::{CloseReason, Connected, Connector, Limits, Pool, Slot};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Requests that a connection carries at once.
const CAPACITY: u32 = 8;
/// Requests after which the server goes away.
const REQUESTS_MAX: u32 = 300;

/// "Dials" a server within this process.
struct Dialler;

impl Connector for Dialler {
    type Key = &'static str;
    type Connection = Client;
    type Error = Infallible;

    async fn connect(&self, _: &&'static str, slot: Slot<Self>) -> Result<Connected<Client>, Infallible> {
        // Both are bounded by the leases, of which there are at most `CAPACITY`, and one more frame.
        let (requests, inbox) = mpsc::channel(CAPACITY as usize);
        let (outbox, frames) = mpsc::channel(CAPACITY as usize + 1);
        let client = Client { requests, next_id: AtomicU32::new(0), pending: Pending::default() };
        tokio::spawn(serve(inbox, outbox));
        tokio::spawn(read(frames, Arc::clone(&client.pending), slot));
        Ok(Connected::new(client).capacity(CAPACITY))
    }
}

/// What the server sends.
enum Frame {
    Answer { id: u32, text: String },
    GoAway,
}

type Pending = Arc<Mutex<HashMap<u32, oneshot::Sender<String>>>>;

/// The client's end of a connection.
struct Client {
    requests: mpsc::Sender<(u32, String)>,
    next_id: AtomicU32,
    pending: Pending,
}

impl Client {
    /// Asks; the answer is found by its id, whatever comes before it.
    async fn ask(&self, text: String) -> Option<String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.pending.lock().insert(id, answer);
        self.requests.send((id, text)).await.ok()?;
        answered.await.ok()
    }
}

/// The connection's reader: it alone sees what the peer does, so it alone tells the pool.
async fn read(mut frames: mpsc::Receiver<Frame>, pending: Pending, slot: Slot<Dialler>) {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Answer { id, text } => {
                if let Some(answer) = pending.lock().remove(&id) {
                    // Whoever asked may have lost interest.
                    let _ = answer.send(text);
                }
            }
            Frame::GoAway => slot.drain(),
        }
    }
    // Nobody waits for what cannot come any more.
    pending.lock().clear();
    slot.closed(CloseReason::PeerClosed);
}

/// The server: answers after one to three milliseconds, so out of order.
async fn serve(mut inbox: mpsc::Receiver<(u32, String)>, outbox: mpsc::Sender<Frame>) {
    let mut served = 0;
    while let Some((id, text)) = inbox.recv().await {
        let outbox = outbox.clone();
        served += 1;
        if served == REQUESTS_MAX && outbox.send(Frame::GoAway).await.is_err() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(id % 3) + 1)).await;
            let _ = outbox.send(Frame::Answer { id, text: format!("{text}!") }).await;
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pool = Pool::builder(Dialler).limits(Limits::per_host(2)).build();
    // A handle skips the look-up of the key.
    let host = pool.host(&"server");

    let mut tasks = JoinSet::new();
    for task in 0..40 {
        let host = host.clone();
        tasks.spawn(async move {
            for request in 0..25 {
                let text = format!("{task}/{request}");
                let lease = host.acquire().await.map_err(|error| error.to_string())?;
                let answer = lease.ask(text.clone()).await.ok_or("the connection ended before the answer")?;
                if answer != format!("{text}!") {
                    return Err(format!("asked {text}, got {answer}"));
                }
            }
            Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }

    let stats = host.stats();
    let counters = &stats.counters;
    let mut out = io::stdout().lock();
    writeln!(out, "{} requests over {} connections of capacity {CAPACITY}", counters.acquires, counters.opened)?;
    writeln!(
        out,
        "shared {}, alone {}, waited {} (p99 {:?})",
        counters.shared_hits,
        counters.hits,
        counters.waited,
        stats.wait.quantile(0.99)
    )?;
    writeln!(out, "went away {}, open {}", counters.closed(CloseReason::GoAway), stats.gauges.open)?;
    Ok(())
}
