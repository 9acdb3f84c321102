//! The load generator: one thread that asks, checks every answer, and says what it saw.
//!
//! A closed loop keeps a number of queries outstanding and finds the highest rate; an open one asks at a fixed rate whether
//! answers come or not, and finds the latency that a client sees (a closed loop would spare a server that stalls).

use std::{
    io,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{
    net::{BATCH, Clock, LOOPBACK, Poller, Ready, Receiver, Sender, nanos, udp_socket},
    stream::{Progress, Stream, messages, push_message},
    wire::{self, Name},
};
use crate::cpu;
use flights::Flights;
use pace::Pace;

mod flights;
mod pace;

/// A load.
#[derive(Debug, Clone, Args)]
pub(super) struct BlastArgs {
    /// Server to ask.
    #[arg(long)]
    pub(super) server: SocketAddr,
    #[arg(long, value_enum, default_value = "udp")]
    pub(super) client: Client,
    /// Queries a second; without it as many as are answered.
    #[arg(long, value_name = "QUERIES")]
    pub(super) rate: Option<u32>,
    /// Queries outstanding at most.
    #[arg(long, default_value_t = 100)]
    pub(super) outstanding: usize,
    #[arg(long, default_value_t = 1.0)]
    pub(super) seconds: f64,
    /// Ask for so many names again and again; without it for each name once.
    #[arg(long, value_name = "NAMES")]
    pub(super) hot: Option<u64>,
    /// Tells the names of this load from those of others.
    #[arg(long, default_value_t = 0)]
    pub(super) salt: u32,
    /// Ask so many queries and no more.
    #[arg(long)]
    pub(super) queries: Option<u64>,
}

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    Udp,
    Tcp,
}

/// What was seen: the output, as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) sent: u64,
    /// Answered rightly.
    pub(super) right: u64,
    /// Right answers a second, while questions were asked.
    pub(super) rate: f64,
    /// Wrong id, question, address or form. Nothing but 0 is acceptable.
    pub(super) wrong: u64,
    pub(super) servfail: u64,
    pub(super) refused: u64,
    /// Other errors, truncated answers and answers without a record.
    pub(super) useless: u64,
    /// No answer within two seconds.
    pub(super) timeouts: u64,
    /// Were on a connection that closed.
    pub(super) closed: u64,
    /// Of right answers; in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// How long questions were asked; answers to the last ones may have come later.
    pub(super) seconds: f64,
    /// CPU time of the load generator.
    pub(super) cpu_nanos: u64,
}

impl Outcome {
    /// Queries without a right answer.
    pub(super) fn failed(&self) -> u64 {
        self.sent - self.right
    }
}

/// Runs a load and prints its outcome.
pub(super) fn run(args: &BlastArgs) -> anyhow::Result<()> {
    let mut outcome = Generator::connect(args)?.run()?;
    outcome.cpu_nanos = nanos(cpu::usage(std::process::id()).cpu);
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

struct Generator<'a> {
    args: &'a BlastArgs,
    poller: Poller,
    sockets: Vec<Socket>,
    flights: Flights,
    clock: Clock,
    receiver: Receiver,
    sender: Sender,
    scratch: Vec<u8>,
    /// Which name comes next.
    next_name: u64,
    next_socket: usize,
}

enum Socket {
    Datagrams(UdpSocket),
    Stream(Box<Stream>),
    /// A connection that the server closed.
    Closed,
}

impl<'a> Generator<'a> {
    fn connect(args: &'a BlastArgs) -> io::Result<Generator<'a>> {
        let poller = Poller::new()?;
        let mut sockets = Vec::new();
        for token in 0..SOCKETS as u64 {
            sockets.push(match args.client {
                Client::Udp => {
                    let socket = udp_socket(LOOPBACK)?;
                    socket.connect(args.server)?;
                    poller.add(&socket, token)?;
                    Socket::Datagrams(socket)
                }
                Client::Tcp => {
                    let stream = Stream::new(TcpStream::connect_timeout(&args.server, TIMEOUT)?, None)?;
                    poller.add(&stream.socket, token)?;
                    Socket::Stream(Box::new(stream))
                }
            });
        }
        Ok(Generator {
            args,
            poller,
            sockets,
            flights: Flights::new(SOCKETS, TIMEOUT),
            clock: Clock::start(),
            receiver: Receiver::new(),
            sender: Sender::new(),
            scratch: vec![0; 1 << 16],
            next_name: 0,
            next_socket: 0,
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let end = nanos(Duration::from_secs_f64(self.args.seconds));
        let mut pace = Pace::new(self.args.rate, self.args.outstanding);
        let mut right_in_time = 0;
        let mut ready = Vec::new();
        self.clock = Clock::start();
        let asked_until = loop {
            let now = self.clock.nanos();
            self.flights.expire(now);
            let left = self.args.queries.map(|queries| queries.saturating_sub(self.flights.sent()));
            let done = now >= end || left == Some(0);
            if !done {
                right_in_time = self.flights.right();
                let due = pace.due(now, self.flights.outstanding(), right_in_time);
                self.ask(left.map_or(due, |left| due.min(usize::try_from(left).unwrap_or(usize::MAX))), now)?;
            } else if self.flights.outstanding() == 0 {
                break now.min(end);
            }
            ready.clear();
            let patience = if done { DRAIN_INTERVAL } else { pace.patience() };
            self.poller.wait(Some(patience), &mut ready)?;
            for ready in &ready {
                self.hear(*ready)?;
            }
        };
        let counted = if self.args.queries.is_some() { self.flights.right() } else { right_in_time };
        Ok(self.flights.outcome(counted, asked_until as f64 / 1e9))
    }

    /// Sends so many queries, spread over the sockets.
    fn ask(&mut self, mut wanted: usize, now: u64) -> io::Result<()> {
        let (mut idle, share) = (0, wanted / SOCKETS + 1);
        while wanted > 0 && idle < SOCKETS {
            let socket = self.next_socket;
            self.next_socket = (socket + 1) % SOCKETS;
            let asked = self.ask_on(socket, share.min(wanted).min(BATCH), now)?;
            idle = if asked == 0 { idle + 1 } else { 0 };
            wanted -= asked;
        }
        Ok(())
    }

    fn ask_on(&mut self, socket: usize, count: usize, now: u64) -> io::Result<usize> {
        let mut asked = 0;
        while asked < count && !matches!(self.sockets[socket], Socket::Closed) {
            let number = match self.args.hot {
                // A prime stride: a round meets every name once, and neighbours are far apart.
                Some(names) => self.next_name.wrapping_mul(7_919) % names,
                None => self.next_name,
            };
            let name = Name { number, salt: self.args.salt };
            let Some(id) = self.flights.open(socket, name, now) else { break };
            self.next_name += 1;
            asked += 1;
            let query = wire::query(id, name);
            match &mut self.sockets[socket] {
                Socket::Datagrams(_) => self.sender.push(None, |out| {
                    out[..query.len()].copy_from_slice(&query);
                    Some(query.len())
                }),
                Socket::Stream(stream) => push_message(&mut stream.output, &query),
                Socket::Closed => {}
            }
        }
        if asked > 0 {
            self.flush(socket)?;
        }
        Ok(asked)
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        match &mut self.sockets[index] {
            // What the system does not take times out as lost.
            Socket::Datagrams(socket) => drop(self.sender.flush(socket)),
            Socket::Stream(stream) => match stream.flush() {
                Progress::Done => {}
                Progress::Blocked => self.poller.want_write(&stream.socket, index as u64, true)?,
                Progress::Closed => self.close(index),
            },
            Socket::Closed => {}
        }
        Ok(())
    }

    fn hear(&mut self, ready: Ready) -> io::Result<()> {
        let index = usize::try_from(ready.token).unwrap_or(usize::MAX);
        let progress = match &mut self.sockets[index] {
            Socket::Datagrams(socket) => {
                loop {
                    let count = self.receiver.receive(socket);
                    let now = self.clock.nanos();
                    for answer in 0..count {
                        self.flights.close(index, self.receiver.datagram(answer).0, now);
                    }
                    if count < BATCH {
                        break;
                    }
                }
                Progress::Done
            }
            Socket::Stream(stream) => {
                let progress = if ready.readable { stream.read(&mut self.scratch) } else { Progress::Done };
                let now = self.clock.nanos();
                let used = messages(&stream.input, |answer| self.flights.close(index, answer, now));
                stream.consume(used);
                progress
            }
            Socket::Closed => Progress::Done,
        };
        if progress == Progress::Closed {
            self.close(index);
        } else if ready.writable {
            if let Socket::Stream(stream) = &self.sockets[index] {
                self.poller.want_write(&stream.socket, ready.token, false)?;
            }
            self.flush(index)?;
        }
        Ok(())
    }

    fn close(&mut self, index: usize) {
        self.sockets[index] = Socket::Closed;
        self.flights.abandon(index);
    }
}

/// Sockets or connections of the clients.
const SOCKETS: usize = 10;
/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often time-outs are looked at once everything is asked.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
