//! Queries at an even rate, of which every single answer is looked at.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinHandle, time::Instant};

/// A load until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Outcome>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub asked: u64,
    pub answered: u64,
    /// Response codes that were not NOERROR, and questions that nobody asked.
    pub wrong: u64,
    pub slowest: Duration,
}

impl Load {
    /// Asks so many different names a second.
    pub fn start(dns: SocketAddr, rate: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        Load { stop: Arc::clone(&stop), task: tokio::spawn(run(dns, rate, stop)) }
    }

    /// Stops asking, waits for what is still to come, and says what became of all.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(dns: SocketAddr, rate: u64, stop: Arc<AtomicBool>) -> Outcome {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    let (mut outcome, mut pending) = (Outcome::default(), HashMap::new());
    let start = Instant::now();
    let mut buffer = [0; 1500];
    let mut stopped_at = None;
    loop {
        let due = u64::try_from(start.elapsed().as_micros()).unwrap() * rate / 1_000_000;
        if stop.load(Ordering::Relaxed) {
            let since = *stopped_at.get_or_insert_with(Instant::now);
            if pending.is_empty() || since.elapsed() > LAST_ANSWER {
                return outcome;
            }
        } else {
            // A pause of the whole machine is not made up for in one burst, which no socket would take.
            for _ in 0..due.saturating_sub(outcome.asked).min(BURST) {
                let id = u16::try_from(outcome.asked % 65_536).unwrap();
                let name = format!("n{}.example", outcome.asked);
                let query = keepwarm_lab::build_query(id, &name, 1, None);
                socket.send(&query).await.unwrap();
                pending.insert(id, (query[12..].to_vec(), Instant::now()));
                outcome.asked += 1;
            }
        }
        let wait = tokio::time::timeout(Duration::from_millis(2), socket.recv(&mut buffer)).await;
        let Ok(Ok(length)) = wait else { continue };
        take(&buffer[..length], &mut pending, &mut outcome);
        while let Ok(length) = socket.try_recv(&mut buffer) {
            take(&buffer[..length], &mut pending, &mut outcome);
        }
    }
}

fn take(answer: &[u8], pending: &mut HashMap<u16, (Vec<u8>, Instant)>, outcome: &mut Outcome) {
    let id = u16::from_be_bytes([answer[0], answer[1]]);
    match pending.remove(&id) {
        Some((question, asked)) if answer[12..].starts_with(&question) => {
            outcome.answered += 1;
            outcome.slowest = outcome.slowest.max(asked.elapsed());
            outcome.wrong += u64::from(answer[3] & 15 != 0);
        }
        _ => outcome.wrong += 1,
    }
}

/// Questions at once.
const BURST: u64 = 64;
/// For how long the last answers are waited for.
const LAST_ANSWER: Duration = Duration::from_secs(20);
