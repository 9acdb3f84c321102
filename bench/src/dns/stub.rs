//! The upstream of a comparison: one thread that answers over UDP, TCP, DoT and DoH, at once or after a delay.
//!
//! It costs about a microsecond a query over a stream, so that it does not limit what is measured. It is told what to do on
//! standard input, a command a line, and answers each with a line of JSON; it ends with the input.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use nix::sys::socket::SockaddrIn;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{
    net::{BATCH, Clock, LOOPBACK, Poller, Ready, Receiver, Sender, nanos, udp_socket},
    stream::{Progress, Stream, messages, push_message},
    wire::{self, ANSWER_MAX},
};
use http2::Http2;

mod certificate;
mod http2;

/// The name in the stub's certificate.
pub(super) const SERVER_NAME: &str = "upstream.lab";

/// How the stub is started.
#[derive(Args)]
pub(super) struct StubArgs {
    /// Where to write the certificate that the stub is to be trusted by.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

/// Where the stub listens: its first line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Listening {
    /// UDP and TCP.
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) https: SocketAddr,
}

/// What the stub saw since the last command: the answer to each.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) queries: u64,
    /// Most queries that waited for their delay at once.
    pub(super) in_flight_max: u64,
}

/// Serves until standard input ends.
pub(super) fn run(args: &StubArgs) -> anyhow::Result<()> {
    let (tls, https) = certificate::make(&args.ca)?;
    let mut stub = Stub::listen(tls, https).context("listen on loopback")?;
    say(&stub.listening)?;
    let mut ready = Vec::new();
    loop {
        ready.clear();
        stub.poller.wait(stub.desk.next_due(), &mut ready)?;
        for ready in &ready {
            match ready.token {
                STDIN => match stub.command()? {
                    true => {}
                    false => return Ok(()),
                },
                UDP => stub.datagrams(),
                token @ FIRST_LISTENER..FIRST_CONNECTION => stub.accept(index(token - FIRST_LISTENER))?,
                _ => stub.connection_ready(*ready)?,
            }
        }
        stub.send_due()?;
    }
}

fn say(line: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

struct Stub {
    poller: Poller,
    udp: UdpSocket,
    receiver: Receiver,
    sender: Sender,
    listeners: [(TcpListener, Kind); 3],
    connections: Slab<Connection>,
    /// Tells a connection from an earlier one of the same index.
    opened: u64,
    desk: Desk,
    scratch: Vec<u8>,
    commands: Vec<u8>,
    listening: Listening,
}

/// What a listener speaks.
enum Kind {
    Tcp,
    Tls(Arc<ServerConfig>),
    Https(Arc<ServerConfig>),
}

struct Connection {
    stream: Stream,
    number: u64,
    framing: Framing,
    wants_write: bool,
}

enum Framing {
    Length,
    Http2(Box<Http2>),
}

impl Stub {
    fn listen(tls: Arc<ServerConfig>, https: Arc<ServerConfig>) -> io::Result<Stub> {
        let (udp, tcp) = pair()?;
        let listeners = [
            (tcp, Kind::Tcp),
            (TcpListener::bind(LOOPBACK)?, Kind::Tls(tls)),
            (TcpListener::bind(LOOPBACK)?, Kind::Https(https)),
        ];
        let poller = Poller::new()?;
        poller.add(io::stdin(), STDIN)?;
        poller.add(&udp, UDP)?;
        for ((listener, _), token) in listeners.iter().zip(FIRST_LISTENER..) {
            listener.set_nonblocking(true)?;
            poller.add(listener, token)?;
        }
        let listening = Listening {
            plain: udp.local_addr()?,
            tls: listeners[1].0.local_addr()?,
            https: listeners[2].0.local_addr()?,
        };
        Ok(Stub {
            poller,
            udp,
            receiver: Receiver::new(),
            sender: Sender::new(),
            listeners,
            connections: Slab::new(),
            opened: 0,
            desk: Desk::new(),
            scratch: vec![0; 1 << 16],
            commands: Vec::new(),
            listening,
        })
    }

    /// Does what standard input says; false when it ended.
    fn command(&mut self) -> anyhow::Result<bool> {
        let len = io::stdin().read(&mut self.scratch)?;
        self.commands.extend_from_slice(&self.scratch[..len]);
        while let Some(end) = self.commands.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.commands.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split_whitespace();
            match (words.next(), words.next().map(str::parse)) {
                (Some("delay"), Some(Ok(micros))) => self.desk.delay = Duration::from_micros(micros),
                (Some("seen"), None) => {}
                _ => anyhow::bail!("unknown command {line:?}"),
            }
            say(&std::mem::take(&mut self.desk.seen))?;
        }
        Ok(len > 0)
    }

    fn datagrams(&mut self) {
        // Not without end: streams want their turn.
        for _ in 0..8 {
            let count = self.receiver.receive(&self.udp);
            for index in 0..count {
                let (query, from) = self.receiver.datagram(index);
                let Some(from) = from else { continue };
                if self.desk.delay.is_zero() {
                    self.desk.seen.queries += 1;
                    self.sender.push(Some(from), |out| wire::answer(query, out));
                } else {
                    self.desk.defer(To::Datagram(from), query);
                }
            }
            self.sender.flush(&self.udp);
            if count < BATCH {
                return;
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let (listener, kind) = &self.listeners[listener];
        // The peer of a failed accept is gone already.
        while let Ok((socket, _)) = listener.accept() {
            let (tls, framing) = match kind {
                Kind::Tcp => (None, Framing::Length),
                Kind::Tls(config) => (Some(config), Framing::Length),
                Kind::Https(config) => (Some(config), Framing::Http2(Box::new(Http2::new()))),
            };
            self.opened += 1;
            let stream = Stream::new(socket, tls)?;
            let entry = self.connections.vacant_entry();
            self.poller.add(&stream.socket, FIRST_CONNECTION + entry.key() as u64)?;
            entry.insert(Connection { stream, number: self.opened, framing, wants_write: false });
        }
        Ok(())
    }

    fn connection_ready(&mut self, ready: Ready) -> io::Result<()> {
        let index = index(ready.token - FIRST_CONNECTION);
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        let mut open = true;
        if ready.readable {
            open = connection.stream.read(&mut self.scratch) != Progress::Closed;
            open &= connection.serve(index, &mut self.desk);
        }
        self.flush(index, open)
    }

    fn flush(&mut self, index: usize, open: bool) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        let progress = if open { connection.stream.flush() } else { Progress::Closed };
        let blocked = progress == Progress::Blocked;
        if progress == Progress::Closed {
            self.connections.remove(index);
        } else if blocked != connection.wants_write {
            connection.wants_write = blocked;
            self.poller.want_write(&connection.stream.socket, FIRST_CONNECTION + index as u64, blocked)?;
        }
        Ok(())
    }

    /// Sends the answers whose delay is over.
    fn send_due(&mut self) -> io::Result<()> {
        let now = self.desk.clock.nanos();
        let mut touched = Vec::new();
        while let Some(due) = self.desk.waiting.pop_front_if(|waiting| waiting.at <= now) {
            let answer = &due.answer[..due.len];
            match due.to {
                To::Datagram(to) => {
                    if self.sender.is_full() {
                        self.sender.flush(&self.udp);
                    }
                    self.sender.push(Some(to), |out| {
                        out[..answer.len()].copy_from_slice(answer);
                        Some(answer.len())
                    });
                }
                To::Connection { index, number, stream } => {
                    let Some(connection) = self.connections.get_mut(index).filter(|found| found.number == number)
                    else {
                        continue;
                    };
                    connection.framing.put(stream, answer, &mut connection.stream.output);
                    touched.push(index);
                }
            }
        }
        self.sender.flush(&self.udp);
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().try_for_each(|index| self.flush(index, true))
    }
}

impl Connection {
    /// Answers the queries that came in; false when the peer does not speak as it should.
    fn serve(&mut self, index: usize, desk: &mut Desk) -> bool {
        let Connection { stream, number, framing, .. } = self;
        let (input, output) = (&stream.input, &mut stream.output);
        let to = |stream| To::Connection { index, number: *number, stream };
        let used = match framing {
            Framing::Length => {
                Some(messages(input, |query| desk.ask(to(0), query, |answer| push_message(output, answer))))
            }
            Framing::Http2(http2) => {
                let used = http2.read(input, output);
                http2.requests(|http2, stream, query| {
                    desk.ask(to(stream), query, |answer| http2.put(stream, answer, output));
                });
                used
            }
        };
        stream.consume(used.unwrap_or(0));
        used.is_some()
    }
}

impl Framing {
    fn put(&mut self, stream: u32, answer: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Length => push_message(out, answer),
            Framing::Http2(http2) => http2.put(stream, answer, out),
        }
    }
}

/// Answers queries now or later, and counts them.
struct Desk {
    delay: Duration,
    seen: Seen,
    clock: Clock,
    /// In the order in which they are due: the delay is the same for all.
    waiting: VecDeque<Waiting>,
}

/// Where an answer goes.
#[derive(Clone, Copy)]
enum To {
    Datagram(SockaddrIn),
    Connection { index: usize, number: u64, stream: u32 },
}

struct Waiting {
    at: u64,
    to: To,
    answer: [u8; ANSWER_MAX],
    len: usize,
}

impl Desk {
    fn new() -> Desk {
        Desk { delay: Duration::ZERO, seen: Seen::default(), clock: Clock::start(), waiting: VecDeque::new() }
    }

    fn ask(&mut self, to: To, query: &[u8], answer_now: impl FnOnce(&[u8])) {
        if !self.delay.is_zero() {
            return self.defer(to, query);
        }
        self.seen.queries += 1;
        let mut answer = [0; ANSWER_MAX];
        if let Some(len) = wire::answer(query, &mut answer) {
            answer_now(&answer[..len]);
        }
    }

    fn defer(&mut self, to: To, query: &[u8]) {
        self.seen.queries += 1;
        let mut answer = [0; ANSWER_MAX];
        if let Some(len) = wire::answer(query, &mut answer) {
            let at = self.clock.nanos() + nanos(self.delay);
            self.waiting.push_back(Waiting { at, to, answer, len });
            self.seen.in_flight_max = self.seen.in_flight_max.max(self.waiting.len() as u64);
        }
    }

    fn next_due(&self) -> Option<Duration> {
        let first = self.waiting.front()?;
        Some(Duration::from_nanos(first.at.saturating_sub(self.clock.nanos())))
    }
}

/// The place in a list that a token stands for.
fn index(token: u64) -> usize {
    usize::try_from(token).unwrap_or(usize::MAX)
}

/// UDP and TCP on one port.
fn pair() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..20 {
        let udp = udp_socket(LOOPBACK)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

const STDIN: u64 = 0;
const UDP: u64 = 1;
const FIRST_LISTENER: u64 = 2;
const FIRST_CONNECTION: u64 = 16;
