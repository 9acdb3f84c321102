//! The clients of the demo: each a UDP socket with a source port of its own, and each answer checked against its question.
//!
//! Every query has a name that no other has, so that nothing can be answered from memory or merged with another query. There
//! are no retries: what is lost shows. All clients live on the caller's thread (a `LocalSet`), which keeps what they
//! cost small and the same for every run.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::Context as _;
use keepwarm_lab::{answer_matches, build_query};
use tokio::{
    net::UdpSocket,
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Queries sent.
    pub(super) queries: u64,
    /// Answers that were right.
    pub(super) answered: u64,
    /// Answers that were not the answer to a question of that client.
    pub(super) wrong: u64,
    /// Answers that say that the server failed (SERVFAIL) or refuses.
    pub(super) failed: u64,
    /// Queries without an answer within [`PATIENCE`].
    pub(super) unanswered: u64,
    /// What was wrong with the first wrong answer.
    pub(super) first_wrong: Option<String>,
    /// From the first query to the last answer.
    pub(super) took: Duration,
    /// The most that a query left later than planned, because this machine was busy.
    pub(super) lag_max: Duration,
    /// When, after the start, each rightly answered query left, and how long its answer took.
    pub(super) times: Vec<(Duration, Duration)>,
}

/// Many clients of one server. Dropping them closes their sockets.
#[derive(Debug)]
pub(super) struct Clients {
    clients: Vec<Rc<Client>>,
    state: Rc<State>,
    /// Aborted on drop.
    _readers: JoinSet<()>,
}

#[derive(Debug)]
struct Client {
    socket: UdpSocket,
    pending: RefCell<HashMap<u16, Pending>>,
}

#[derive(Debug)]
struct Pending {
    query: Vec<u8>,
    sent: Instant,
}

#[derive(Debug)]
struct State {
    outcome: RefCell<Outcome>,
    waiting: Cell<usize>,
    settled: Notify,
    started: Cell<Instant>,
    names: RefCell<Names>,
    on_answer: OnAnswer,
}

/// Called for each query that came to its end, for a progress bar.
#[derive(Clone)]
pub(super) struct OnAnswer(pub(super) Rc<dyn Fn()>);

impl std::fmt::Debug for OnAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnAnswer")
    }
}

impl Clients {
    /// Opens `count` clients of the server at `server`. The names are those of `seed` and `part`. Needs a `LocalSet`.
    ///
    /// # Errors
    /// A socket that cannot be opened.
    pub(super) async fn open(
        server: SocketAddr,
        count: usize,
        seed: u64,
        part: &str,
        on_answer: OnAnswer,
    ) -> anyhow::Result<Clients> {
        let state = Rc::new(State {
            outcome: RefCell::default(),
            waiting: Cell::new(0),
            settled: Notify::new(),
            started: Cell::new(Instant::now()),
            names: RefCell::new(Names::new(seed, part)),
            on_answer,
        });
        let mut clients = Vec::with_capacity(count);
        let mut readers = JoinSet::new();
        for number in 1..=count {
            let open = async {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                socket.connect(server).await?;
                Ok::<_, io::Error>(socket)
            };
            let socket = open.await.with_context(|| format!("open the socket of client {number} of {count}"))?;
            let client = Rc::new(Client { socket, pending: RefCell::default() });
            readers.spawn_local(read(Rc::clone(&client), Rc::clone(&state)));
            clients.push(client);
        }
        Ok(Clients { clients, state, _readers: readers })
    }

    /// All clients ask once, at the same instant.
    pub(super) async fn burst(&self) -> anyhow::Result<Outcome> {
        // Built first: then only the system calls stand between the first query and the last.
        let queries: Vec<_> = self.clients.iter().map(|client| (client, self.state.query(client))).collect();
        self.start();
        for (client, query) in queries {
            client.ask(&self.state, query).await?;
        }
        Ok(self.finish().await)
    }

    /// Sends `queries` evenly over `length`; the clients take turns.
    pub(super) async fn paced(&self, queries: usize, length: Duration) -> anyhow::Result<Outcome> {
        self.start();
        let start = self.state.started.get();
        for (number, client) in (0..queries).zip(self.clients.iter().cycle()) {
            let due = start + length.mul_f64(number as f64 / queries as f64);
            sleep_until(due).await;
            let lag = Instant::now().saturating_duration_since(due);
            let query = self.state.query(client);
            client.ask(&self.state, query).await?;
            let mut outcome = self.state.outcome.borrow_mut();
            outcome.lag_max = outcome.lag_max.max(lag);
        }
        Ok(self.finish().await)
    }

    fn start(&self) {
        *self.state.outcome.borrow_mut() = Outcome::default();
        self.state.started.set(Instant::now());
    }

    /// Waits for what was asked and counts what did not come.
    async fn finish(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while self.state.waiting.get() > 0 && timeout_at(deadline, self.state.settled.notified()).await.is_ok() {}
        for client in &self.clients {
            for _ in client.pending.borrow_mut().drain() {
                self.state.end();
                self.state.outcome.borrow_mut().unanswered += 1;
            }
        }
        self.state.outcome.take()
    }
}

impl Client {
    async fn ask(&self, state: &State, (id, query): (u16, Vec<u8>)) -> anyhow::Result<()> {
        state.waiting.set(state.waiting.get() + 1);
        state.outcome.borrow_mut().queries += 1;
        self.pending.borrow_mut().insert(id, Pending { query: query.clone(), sent: Instant::now() });
        match self.socket.send(&query).await {
            // A refusal is the echo of an earlier datagram to a port that is closed by now. The query counts as unanswered.
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                Err(error).context("send a query to the server under test")
            }
            _ => Ok(()),
        }
    }

    fn settle(&self, state: &State, answer: &[u8]) {
        let now = Instant::now();
        let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
        let asked = id.and_then(|id| self.pending.borrow_mut().remove(&id));
        let mut outcome = state.outcome.borrow_mut();
        let Some(Pending { query, sent }) = asked else {
            outcome.wrong += 1;
            outcome.first_wrong.get_or_insert_with(|| format!("an answer that was not asked for, id {id:?}"));
            return;
        };
        outcome.took = now.saturating_duration_since(state.started.get());
        match judge(&query, answer) {
            Verdict::Right => {
                outcome.answered += 1;
                let left = sent.saturating_duration_since(state.started.get());
                outcome.times.push((left, now.saturating_duration_since(sent)));
            }
            Verdict::Failed => outcome.failed += 1,
            Verdict::Wrong(why) => {
                outcome.wrong += 1;
                outcome.first_wrong.get_or_insert(why);
            }
        }
        drop(outcome);
        state.end();
    }
}

impl State {
    /// A query of `client` with a name of its own and an id that no waiting query of that client has.
    fn query(&self, client: &Client) -> (u16, Vec<u8>) {
        let mut names = self.names.borrow_mut();
        let pending = client.pending.borrow();
        loop {
            let (id, name) = names.next();
            if !pending.contains_key(&id) {
                return (id, build_query(id, &name, TYPE_A, Some(EDNS_SIZE)));
            }
        }
    }

    fn end(&self) {
        self.waiting.set(self.waiting.get() - 1);
        (self.on_answer.0)();
        if self.waiting.get() == 0 {
            self.settled.notify_one();
        }
    }
}

async fn read(client: Rc<Client>, state: Rc<State>) {
    let mut buffer = [0; 2 * EDNS_SIZE as usize];
    loop {
        // An error is the refusal of a datagram by a server that has ended; its query stays unanswered.
        if let Ok(length) = client.socket.recv(&mut buffer).await {
            client.settle(&state, &buffer[..length]);
        }
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Right,
    Failed,
    Wrong(String),
}

/// Tells a right answer from an honest failure and both from a wrong answer.
fn judge(query: &[u8], answer: &[u8]) -> Verdict {
    match answer_matches(query, answer) {
        Ok(()) => Verdict::Right,
        Err(why) => {
            let code = answer.get(3).map(|flags| flags & 0x0f);
            let question = HEADER..query.len() - OPT_LENGTH;
            let is_echoed = answer.get(question.clone()) == query.get(question);
            match code {
                Some(SERVFAIL | REFUSED) if is_echoed => Verdict::Failed,
                _ => Verdict::Wrong(why),
            }
        }
    }
}

/// Ids and names, all different, in an order that the seed decides.
#[derive(Debug)]
struct Names {
    state: u64,
    number: u64,
    suffix: String,
}

impl Names {
    fn new(seed: u64, part: &str) -> Names {
        let mixed = part.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)));
        Names { state: mixed, number: 0, suffix: format!("{part}.demo.example") }
    }

    fn next(&mut self) -> (u16, String) {
        self.number += 1;
        self.state = mix(self.state);
        let [high, low, label @ ..] = self.state.to_be_bytes();
        let label = label.iter().fold(String::new(), |label, byte| format!("{label}{byte:02x}"));
        // The number makes the name unique for certain; the rest spreads it as real names spread.
        (u16::from_be_bytes([high, low]), format!("q{}-{label}.{}", self.number, self.suffix))
    }
}

/// SplitMix64: enough to spread names, and the same on every machine.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// For how long a client waits for an answer: longer than the server tries.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const TYPE_A: u16 = 1;
const EDNS_SIZE: u16 = 1232;
const HEADER: usize = 12;
/// An OPT record without options.
const OPT_LENGTH: usize = 11;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

#[cfg(test)]
mod tests;
