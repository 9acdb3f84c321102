//! Clients that ask at a steady pace, whether answers come or not, and check every answer.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use keepwarm_lab::{answer_matches, build_query};
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

/// Clients at work.
pub(super) struct Load(JoinSet<Vec<Record>>);

/// One query and what became of it.
pub(super) struct Record {
    /// When it was sent, from the start.
    pub(super) sent: Duration,
    /// Why it failed; `None` when its answer was right.
    pub(super) failure: Option<String>,
}

impl Load {
    /// Starts `clients`, each with a socket of its own, that ask for `length`.
    pub(super) fn start(server: SocketAddr, interval: Duration, clients: usize, length: Duration) -> Load {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let share = u32::try_from(number).unwrap_or(0);
            let first = start + interval * share / u32::try_from(clients.max(1)).unwrap_or(1);
            tasks.spawn(client(server, number, start, first, interval, length));
        }
        Load(tasks)
    }

    /// Waits for the last answer, or for the end of the clients' patience.
    pub(super) async fn records(self) -> Vec<Record> {
        self.0.join_all().await.into_iter().flatten().collect()
    }
}

async fn client(
    server: SocketAddr,
    number: usize,
    start: Instant,
    first: Instant,
    pause: Duration,
    length: Duration,
) -> Vec<Record> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has ports");
    socket.connect(server).await.expect("loopback is reached");
    let mut tick = interval_at(first, pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut records, mut waiting) = (Vec::new(), HashMap::new());
    let mut buffer = [0; 4096];
    let end = start + length;
    let mut id: u16 = 0;
    loop {
        let asking = Instant::now() < end;
        if !asking && (waiting.is_empty() || Instant::now() >= end + PATIENCE) {
            break;
        }
        tokio::select! {
            _ = tick.tick(), if asking => {
                id = id.wrapping_add(1);
                let query = build_query(id, &format!("f{number}-{id}.faults.example"), 1, Some(1232));
                let sent = Instant::now() - start;
                let failure = socket.send(&query).await.err().map(|error| error.to_string());
                records.push(Record { sent, failure });
                waiting.insert(id, (records.len() - 1, query));
            }
            received = socket.recv(&mut buffer) => {
                let Ok(length) = received else { continue };
                let answer = &buffer[..length];
                let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
                let Some((place, query)) = waiting.remove(&id) else { continue };
                let late = Instant::now() - start > records[place].sent + PATIENCE;
                records[place].failure = match answer.get(3).map(|flags| flags & 0x0f) {
                    _ if late => Some("late".to_owned()),
                    Some(2) => Some("SERVFAIL".to_owned()),
                    _ => answer_matches(&query, answer).err(),
                };
            }
            () = sleep_until(if asking { end } else { end + PATIENCE }) => {}
        }
    }
    for (place, _) in waiting.into_values() {
        records[place].failure.get_or_insert_with(|| "unanswered".to_owned());
    }
    records
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
