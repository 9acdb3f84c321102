//! Decides what becomes of a query: whether it is answered, when, and with which messages. All transports come here; none
//! of them is known here beyond its name. Faults of connections (close, reset, idle) are the connections' own affair.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::answer::{Answer, Special};
use crate::counters::Tally;
use crate::timer::Timer;
use crate::wire::{Query, Question};
use crate::{CloseKind, Faults};

/// Where a query came in. Also an index into what is kept for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp = 0,
    Tcp = 1,
    Tls = 2,
    Https = 3,
    Quic = 4,
    H3 = 5,
}

impl Transport {
    pub(crate) const ALL: [Transport; 6] =
        [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic, Transport::H3];

    /// An answer is the body of an HTTP response.
    fn is_http(self) -> bool {
        matches!(self, Transport::Https | Transport::H3)
    }

    /// A query has a stream of its own, with room for one answer alone.
    fn is_stream_a_query(self) -> bool {
        self.is_http() || self == Transport::Quic
    }
}

/// What the lab's owner wants at the moment; every task watches it.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) faults: Arc<Faults>,
    /// Counts the calls to close all connections; a connection older than the last one ends.
    pub(crate) closes: u64,
    pub(crate) close_kind: CloseKind,
    pub(crate) stopping: bool,
}

/// State that all tasks of a lab share.
#[derive(Debug)]
pub(crate) struct Core {
    control: watch::Sender<Control>,
    tallies: [Tally; 6],
    held: [Mutex<Option<Held>>; 6],
    pub(crate) timer: Timer,
}

/// Whom to answer.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Udp { socket: Arc<UdpSocket>, peer: SocketAddr },
    Connection { replies: mpsc::UnboundedSender<Reply>, ticket: u64 },
}

/// The messages that answer one query, for its connection to send. The channel is unbounded, but a connection stops
/// reading while too many of its queries wait.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Which of the connection's queries.
    pub(crate) ticket: u64,
    pub(crate) messages: Vec<Vec<u8>>,
}

/// What the timer does when it is time.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        transport: Transport,
        target: Target,
        messages: Vec<Vec<u8>>,
    },
    /// A datagram, counted already, that the socket had no room for.
    Send {
        socket: Arc<UdpSocket>,
        peer: SocketAddr,
        message: Vec<u8>,
    },
    /// Nobody came to swap answers with.
    Release {
        transport: Transport,
        number: u64,
    },
}

/// Whether a query will ever be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    Lost,
}

/// A query whose answer waits for another one to be swapped with.
#[derive(Debug)]
struct Held {
    number: u64,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    query: Query,
    target: Target,
    due: Instant,
}

impl Core {
    pub(crate) fn new(faults: Faults) -> Self {
        let control =
            Control { faults: Arc::new(faults), closes: 0, close_kind: CloseKind::default(), stopping: false };
        Self {
            control: watch::Sender::new(control),
            tallies: Default::default(),
            held: Default::default(),
            timer: Timer::default(),
        }
    }

    pub(crate) fn tally(&self, transport: Transport) -> &Tally {
        &self.tallies[transport as usize]
    }

    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.control.borrow().faults)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
    }

    /// Tells all tasks and the timer's thread to end.
    pub(crate) fn stop(&self) {
        self.update(|control| control.stopping = true);
        self.timer.stop();
    }

    /// Takes a query that has been counted. If its fate is to be lost, the caller counts that too.
    pub(crate) fn submit(&self, transport: Transport, query: Query, target: Target) -> Fate {
        let faults = self.faults();
        let special = Special::of(&query.question);
        if is_lost(&faults, transport, special) {
            return Fate::Lost;
        }
        let now = now();
        let waiting = Waiting { query, target, due: now + delay(&faults, special) };
        if chance(faults.swap) {
            self.swap(&faults, transport, waiting, now);
        } else {
            self.answer(&faults, transport, waiting, now);
        }
        Fate::Answered
    }

    fn answer(&self, faults: &Faults, transport: Transport, waiting: Waiting, now: Instant) {
        let messages = messages(faults, transport, &waiting.query);
        self.deliver(transport, waiting.target, messages, waiting.due, now);
    }

    /// Exchanges the answers of this query and the one held, or holds this one.
    fn swap(&self, faults: &Faults, transport: Transport, waiting: Waiting, now: Instant) {
        let mut slot = self.held[transport as usize].lock();
        let Some(held) = slot.take() else {
            let number = self.timer.push(now + SWAP_WAIT, |number| Event::Release { transport, number });
            *slot = Some(Held { number, waiting });
            return;
        };
        drop(slot);
        let other = held.waiting;
        if other.query.question.same_ignoring_case(&waiting.query.question) {
            self.answer(faults, transport, other, now);
            self.answer(faults, transport, waiting, now);
            return;
        }
        let pair = [(&waiting, &other), (&other, &waiting)].map(|(own, foreign)| {
            let question = &foreign.query.question;
            answer(faults, transport, &own.query, own.query.id, question, question)
        });
        let [own, foreign] = pair;
        self.deliver(transport, waiting.target, vec![own], waiting.due, now);
        self.deliver(transport, other.target, vec![foreign], other.due, now);
    }

    /// Sends now what is due, and leaves the rest to the timer.
    fn deliver(&self, transport: Transport, target: Target, messages: Vec<Vec<u8>>, due: Instant, now: Instant) {
        if due > now {
            self.timer.push(due, |_| Event::Deliver { transport, target, messages });
            return;
        }
        match target {
            // Counted before it is sent: who has the answer may look at the counters.
            Target::Udp { socket, peer } => {
                self.tally(transport).answered(messages.len() as u64, 1);
                for message in messages {
                    self.send(&socket, peer, message, now);
                }
            }
            Target::Connection { replies, ticket } => {
                // The connection may be gone; it has counted its queries as settled then.
                let _ = replies.send(Reply { ticket, messages });
            }
        }
    }

    /// Sends a datagram, or leaves it to the timer while the socket is full. A client that has gone is no fault here.
    fn send(&self, socket: &Arc<UdpSocket>, peer: SocketAddr, message: Vec<u8>, now: Instant) {
        if socket.try_send_to(&message, peer).is_err_and(|error| would_block(&error)) {
            let socket = Arc::clone(socket);
            self.timer.push(now + SEND_PAUSE, |_| Event::Send { socket, peer, message });
        }
    }

    /// Does what the timer says.
    pub(crate) fn fire(&self, event: Event) {
        let now = now();
        match event {
            Event::Deliver { transport, target, messages } => self.deliver(transport, target, messages, now, now),
            Event::Send { socket, peer, message } => self.send(&socket, peer, message, now),
            Event::Release { transport, number } => {
                let held = self.held[transport as usize].lock().take_if(|held| held.number == number);
                if let Some(held) = held {
                    self.answer(&self.faults(), transport, held.waiting, now);
                }
            }
        }
    }
}

fn is_lost(faults: &Faults, transport: Transport, special: Special) -> bool {
    let share = if transport == Transport::Udp { faults.loss } else { faults.stream_loss };
    faults.silent || special == Special::Drop || (faults.refuse && transport == Transport::Udp) || chance(share)
}

fn delay(faults: &Faults, special: Special) -> Duration {
    let mut delay = faults.delay + faults.jitter.mul_f64(rand::random::<f64>());
    if let Special::Delay(more) = special {
        delay += more;
    }
    if chance(faults.late) {
        delay += faults.late_by;
    }
    delay
}

/// The answer with what faults put before and after it.
fn messages(faults: &Faults, transport: Transport, query: &Query) -> Vec<Vec<u8>> {
    let question = &query.question;
    let forge = chance(faults.forge);
    if transport.is_stream_a_query() {
        return vec![if forge {
            forged(faults, transport, query)
        } else {
            answer(faults, transport, query, query.id, question, question)
        }];
    }
    let mut messages = Vec::with_capacity(1);
    if forge {
        messages.push(forged(faults, transport, query));
    }
    messages.push(answer(faults, transport, query, query.id, question, question));
    if chance(faults.duplicate) {
        messages.push(messages[messages.len() - 1].clone());
    }
    messages
}

/// A wrong answer that differs from the true one in id or question, whatever else.
fn forged(faults: &Faults, transport: Transport, query: &Query) -> Vec<u8> {
    let true_question = &query.question;
    let other = mutated(true_question, b'x');
    // Over HTTP the id says nothing, so that the question must differ.
    let lowest = u8::from(transport.is_http());
    match rand::random_range(lowest..3) {
        0 => {
            let id = query.id ^ rand::random_range(1..=u16::MAX);
            answer(faults, transport, query, id, true_question, &other)
        }
        1 => answer(faults, transport, query, query.id, &other, true_question),
        _ => answer(faults, transport, query, query.id, &other, &mutated(true_question, b'y')),
    }
}

/// The question with another first letter.
fn mutated(question: &Question, letter: u8) -> Question {
    let mut mutated = question.clone();
    if mutated.name.len() < 2 {
        mutated.name = vec![1, letter, 0];
    } else {
        mutated.name[1] = if mutated.name[1].eq_ignore_ascii_case(&letter) { b'z' } else { letter };
    }
    mutated
}

fn answer(
    faults: &Faults,
    transport: Transport,
    query: &Query,
    id: u16,
    question: &Question,
    subject: &Question,
) -> Vec<u8> {
    let size_max = match transport {
        Transport::Udp if chance(faults.truncate) => 0,
        // RFC 6891 section 6.2.3: sizes below 512 mean 512.
        Transport::Udp => usize::from(query.edns.unwrap_or(512).max(512)),
        _ => usize::from(u16::MAX),
    };
    let keepalive = matches!(transport, Transport::Tcp | Transport::Tls).then_some(faults.keepalive).flatten();
    let id = if transport.is_http() { faults.doh_id.unwrap_or(id) } else { id };
    Answer { id, query, question, subject, rcode: faults.rcode, ttl: faults.ttl, keepalive, size_max }.write()
}

/// Waits until the lab is to stop.
pub(crate) async fn stopped(control: &mut watch::Receiver<Control>) {
    // An error means that the lab is gone altogether.
    let _ = control.wait_for(|control| control.stopping).await;
}

pub(crate) fn chance(share: f64) -> bool {
    share > 0.0 && rand::random::<f64>() < share
}

pub(crate) fn would_block(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long a datagram waits for room in the socket before the next attempt.
const SEND_PAUSE: Duration = Duration::from_millis(1);
/// How long an answer waits for another one to be swapped with.
const SWAP_WAIT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_matches;
    use crate::wire::{HEADER, build_query, u16_at};

    #[test]
    fn a_forged_answer_never_has_both_id_and_question_right() {
        for name in [".", "x", "X.y", "yy.z", "zone.test", "www.example"] {
            let wire = build_query(0x1234, name, 1, None);
            let query = Query::parse(&wire).unwrap();
            for transport in Transport::ALL {
                for _ in 0..200 {
                    let forged = forged(&Faults::default(), transport, &query);
                    let (question, _) = Question::read(&forged, HEADER).unwrap();
                    let same_id = u16_at(&forged, 0) == Some(query.id);
                    let same_question = question.same_ignoring_case(&query.question);
                    assert!(!(same_id && same_question), "{forged:?}");
                    assert!(same_id || !transport.is_http());
                    assert!(answer_matches(&wire, &forged).is_err());
                }
            }
        }
    }
}
