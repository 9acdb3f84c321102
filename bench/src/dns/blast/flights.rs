//! The queries that wait for their answers, and what became of the others. No sockets and no clock.

use std::{collections::VecDeque, time::Duration};

use super::{
    super::{
        net::nanos,
        wire::{self, Name, Verdict},
    },
    Outcome,
};
use crate::histogram::Histogram;

/// Every query of a load.
pub(super) struct Flights {
    sockets: Vec<Ids>,
    /// In the order in which they were sent, answered ones included.
    order: VecDeque<(u64, usize, u16)>,
    outstanding: usize,
    timeout: u64,
    outcome: Outcome,
    latency: Histogram,
}

/// The ids of a socket.
struct Ids {
    waiting: Vec<Option<Waiting>>,
    next: u16,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    sent_at: u64,
    name: Name,
}

impl Flights {
    pub(super) fn new(sockets: usize, timeout: Duration) -> Flights {
        Flights {
            sockets: (0..sockets).map(|_| Ids { waiting: vec![None; IDS], next: 0 }).collect(),
            order: VecDeque::new(),
            outstanding: 0,
            timeout: nanos(timeout),
            outcome: Outcome::default(),
            latency: Histogram::new(),
        }
    }

    /// Takes an id for a query; `None` when the next ones all wait.
    pub(super) fn open(&mut self, socket: usize, name: Name, now: u64) -> Option<u16> {
        let ids = &mut self.sockets[socket];
        let next = ids.next;
        let id = (0..64).map(|step| (next + step) % IDS_U16).find(|id| ids.at(*id).is_none())?;
        ids.next = id + 1;
        *ids.at(id) = Some(Waiting { sent_at: now, name });
        self.order.push_back((now, socket, id));
        self.outstanding += 1;
        self.outcome.sent += 1;
        Some(id)
    }

    /// Checks an answer. One that nobody waits for is late or a duplicate, and no matter.
    pub(super) fn close(&mut self, socket: usize, answer: &[u8], now: u64) {
        let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
        let Some(id) = id.filter(|id| *id < IDS_U16) else {
            self.outcome.wrong += 1;
            return;
        };
        let Some(waiting) = self.sockets[socket].at(id).take() else { return };
        self.outstanding -= 1;
        match wire::verify(&wire::query(id, waiting.name), answer) {
            Verdict::Right => {
                self.outcome.right += 1;
                self.latency.add(now.saturating_sub(waiting.sent_at));
            }
            Verdict::Wrong => self.outcome.wrong += 1,
            Verdict::ServFail => self.outcome.servfail += 1,
            Verdict::Refused => self.outcome.refused += 1,
            Verdict::OtherRcode | Verdict::Truncated | Verdict::Empty => self.outcome.useless += 1,
        }
    }

    /// Gives up on what has waited too long.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((sent_at, socket, id)) = self.order.front().copied() {
            let waiting = self.sockets[socket].at(id);
            // The id may wait for a later query by now.
            if waiting.is_some_and(|waiting| waiting.sent_at == sent_at) {
                if now.saturating_sub(sent_at) < self.timeout {
                    return;
                }
                *waiting = None;
                self.outstanding -= 1;
                self.outcome.timeouts += 1;
            }
            self.order.pop_front();
        }
    }

    /// Gives up on all that waits on a closed connection.
    pub(super) fn abandon(&mut self, socket: usize) {
        let lost = self.sockets[socket].waiting.iter_mut().filter_map(Option::take).count();
        self.outstanding -= lost;
        self.outcome.closed += lost as u64;
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn sent(&self) -> u64 {
        self.outcome.sent
    }

    pub(super) fn right(&self) -> u64 {
        self.outcome.right
    }

    /// The sum of it, of which so many right answers came in the seconds that were asked for.
    pub(super) fn outcome(self, counted: u64, seconds: f64) -> Outcome {
        let micros = |share| self.latency.percentile(share).map_or(0.0, |latency| latency.as_secs_f64() * 1e6);
        Outcome { rate: counted as f64 / seconds, seconds, p50: micros(0.5), p99: micros(0.99), ..self.outcome }
    }
}

impl Ids {
    fn at(&mut self, id: u16) -> &mut Option<Waiting> {
        &mut self.waiting[usize::from(id)]
    }
}

/// Ids of a socket: more than are ever outstanding, and few enough to stay in a core's cache.
const IDS: usize = 1 << 14;
const IDS_U16: u16 = 1 << 14;

#[cfg(test)]
mod tests {
    use super::{super::super::wire::ANSWER_MAX, *};

    const NAME: Name = Name { number: 5, salt: 6 };

    fn flights() -> Flights {
        Flights::new(2, Duration::from_nanos(1_000))
    }

    fn answer(id: u16, name: Name) -> Vec<u8> {
        let mut out = [0; ANSWER_MAX];
        let len = wire::answer(&wire::query(id, name), &mut out).unwrap();
        out[..len].to_vec()
    }

    #[test]
    fn a_right_answer_is_counted_once() {
        let mut flights = flights();
        let id = flights.open(0, NAME, 10).unwrap();
        flights.close(0, &answer(id, NAME), 110);
        flights.close(0, &answer(id, NAME), 120);
        let outcome = flights.outcome(0, 1.0);
        assert_eq!((outcome.sent, outcome.right, outcome.wrong, outcome.failed()), (1, 1, 0, 0));
        assert!((outcome.p50 - 0.1).abs() < 0.01, "{outcome:?}");
    }

    #[test]
    fn swapped_answers_are_wrong() {
        let mut flights = flights();
        let other = Name { number: 7, ..NAME };
        let (a, b) = (flights.open(0, NAME, 0).unwrap(), flights.open(0, other, 0).unwrap());
        flights.close(0, &answer(a, other), 1);
        flights.close(0, &answer(b, NAME), 1);
        assert_eq!(flights.outstanding(), 0);
        let outcome = flights.outcome(0, 1.0);
        assert_eq!((outcome.right, outcome.wrong, outcome.failed()), (0, 2, 2));
    }

    #[test]
    fn the_answer_on_another_socket_is_no_answer() {
        let mut flights = flights();
        let id = flights.open(0, NAME, 0).unwrap();
        flights.close(1, &answer(id, NAME), 1);
        assert_eq!(flights.outstanding(), 1);
        flights.expire(999);
        assert_eq!(flights.outstanding(), 1);
        flights.expire(1_000);
        assert_eq!(flights.outstanding(), 0);
        assert_eq!(flights.outcome(0, 1.0).timeouts, 1);
    }

    #[test]
    fn a_reused_id_does_not_inherit_the_age_of_the_query_before() {
        let mut flights = Flights::new(1, Duration::from_nanos(1_000));
        let first = flights.open(0, NAME, 0).unwrap();
        flights.close(0, &answer(first, NAME), 1);
        flights.sockets[0].next = first;
        assert_eq!(flights.open(0, NAME, 900), Some(first));
        flights.expire(1_500);
        assert_eq!((flights.outstanding(), flights.outcome.timeouts), (1, 0));
        flights.expire(1_900);
        assert_eq!((flights.outstanding(), flights.outcome.timeouts), (0, 1));
    }

    #[test]
    fn a_closed_connection_takes_its_queries_along() {
        let mut flights = flights();
        for socket in [0, 0, 1] {
            flights.open(socket, NAME, 0).unwrap();
        }
        flights.abandon(0);
        assert_eq!((flights.outstanding(), flights.outcome(0, 1.0).closed), (1, 2));
    }

    #[test]
    fn ids_run_out_rather_than_collide() {
        let mut flights = flights();
        let ids: std::collections::HashSet<_> = (0..IDS).filter_map(|_| flights.open(0, NAME, 0)).collect();
        assert_eq!(ids.len(), IDS);
        assert_eq!(flights.open(0, NAME, 0), None);
    }
}
