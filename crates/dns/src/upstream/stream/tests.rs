//! A line over a stream that counts what is written and says what it is told to.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
};

use allocation_counter::measure;
use parking_lot::Mutex;
use tokio::io::ReadBuf;

use super::*;
use crate::{exchange::Answers, framing::push_frame, message::Query};

/// The far end.
#[derive(Default)]
struct Far {
    writes: Vec<Vec<u8>>,
    /// Bytes that it takes at most at a time; 0 for any number.
    room: usize,
    /// Writes that it takes before it takes none.
    writes_max: Option<usize>,
    flushes: usize,
    reads: VecDeque<Vec<u8>>,
}

impl AsyncRead for Far {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(bytes) = self.reads.pop_front() else { return Poll::Pending };
        into.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writes_max == Some(self.writes.len()) {
            return Poll::Pending;
        }
        let taken = if self.room == 0 { bytes.len() } else { bytes.len().min(self.room) };
        self.writes.push(bytes[..taken].to_vec());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Keeps tokens and results, and counts deliveries.
#[derive(Default)]
struct Asking {
    told: Mutex<Vec<(u64, Result<(), ErrorKind>)>>,
    deliveries: AtomicUsize,
}

impl Replies for Asking {
    fn reply(&self, token: u64, result: Result<Bytes, Error>) {
        self.told.lock().push((token, result.map(drop).map_err(|error| error.kind())));
    }

    fn reply_all(&self, answers: &mut Answers) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.told.lock().extend(answers.iter().map(|(token, _)| (token, Ok(()))));
        answers.clear();
    }
}

struct Bench {
    line: Line<Far>,
    pipe: Arc<Pipe>,
    asking: Arc<Asking>,
    replies: Arc<dyn Replies>,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let now = Clock::now().into_std();
        let asking = Arc::<Asking>::default();
        let replies: Arc<dyn Replies> = asking.clone();
        Bench { line: Line::new(Far::default(), "tcp://lab"), pipe: Pipe::new(now), asking, replies, now }
    }

    fn ask(&self, token: u64) {
        let query = message::build_query(&format!("name{token}.example"), message::TYPE_A).unwrap();
        let question_end = Query::parse(&query).unwrap().question.end;
        self.pipe.submit(Outgoing { message: &query, question_end, bare: false, now: self.now }, token, &self.replies);
    }

    /// One wake-up of the driver.
    fn turn(&mut self) -> Poll<End> {
        let cx = &mut Context::from_waker(Waker::noop());
        let received = self.line.receive(cx, &self.pipe, self.now);
        self.line.exchange.askers.deliver();
        if received.is_pending() {
            let _ = self.line.send(cx);
        }
        received
    }

    /// The queries that the far end has, and forgets.
    fn queries(&mut self) -> Vec<Vec<u8>> {
        let bytes = self.line.stream.writes.drain(..).flatten().collect::<Vec<_>>();
        let mut rest = &bytes[..];
        let mut queries = Vec::new();
        while let Some((length, others)) = rest.split_first_chunk() {
            let (query, others) = others.split_at(usize::from(u16::from_be_bytes(*length)));
            queries.push(query.to_vec());
            rest = others;
        }
        queries
    }

    /// The far end says all of this at once.
    fn say(&mut self, messages: &[Vec<u8>]) {
        let mut bytes = Vec::new();
        for message in messages {
            assert!(push_frame(&mut bytes, message));
        }
        self.line.stream.reads.push_back(bytes);
    }

    fn told(&self) -> Vec<(u64, Result<(), ErrorKind>)> {
        std::mem::take(&mut self.asking.told.lock())
    }
}

fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

#[test]
fn queries_that_wait_leave_in_one_write_and_their_answers_come_back_in_one_piece() {
    let mut bench = Bench::new();
    for token in 0..100 {
        bench.ask(token);
    }
    assert!(bench.turn().is_pending());
    assert_eq!((bench.line.stream.writes.len(), bench.line.stream.flushes), (1, 1));
    let queries = bench.queries();
    assert_eq!(queries.len(), 100);
    let ids: std::collections::HashSet<_> = queries.iter().map(|query| [query[0], query[1]]).collect();
    assert_eq!(ids.len(), 100, "each query has an id of its own");
    // Out of order.
    bench.say(&queries.iter().rev().map(|query| answer(query)).collect::<Vec<_>>());
    assert!(bench.turn().is_pending());
    assert_eq!(bench.told(), (0..100).rev().map(|token| (token, Ok(()))).collect::<Vec<_>>());
    assert_eq!(bench.asking.deliveries.load(Ordering::Relaxed), 1);
    assert_eq!(
        (bench.line.stream.writes.len(), bench.line.stream.flushes),
        (0, 1),
        "nothing to write, nothing to flush"
    );
}

#[test]
fn a_write_that_was_cut_goes_on_where_it_stopped() {
    let mut bench = Bench::new();
    bench.line.stream.room = 7;
    bench.line.stream.writes_max = Some(3);
    bench.ask(1);
    bench.ask(2);
    assert!(bench.turn().is_pending());
    assert_eq!(bench.line.stream.flushes, 0);
    // More is handed over meanwhile.
    bench.ask(3);
    bench.line.stream.writes_max = None;
    assert!(bench.turn().is_pending());
    assert_eq!(bench.line.stream.flushes, 1);
    let queries = bench.queries();
    assert_eq!(queries.len(), 3);
    bench.say(&queries.iter().map(|query| answer(query)).collect::<Vec<_>>());
    assert!(bench.turn().is_pending());
    assert_eq!(bench.told(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
}

#[test]
fn an_answer_to_another_question_drains_the_connection_and_fails_its_query() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    assert!(bench.turn().is_pending());
    let queries = bench.queries();
    let mut wrong = answer(&queries[1]);
    wrong[..2].copy_from_slice(&queries[0][..2]);
    bench.say(&[wrong]);
    assert!(bench.turn().is_pending());
    assert_eq!(bench.told(), [(1, Err(ErrorKind::Mismatch))]);
    assert_eq!(bench.line.exchange.noticed.wrong, 1);
    assert!(bench.line.exchange.noticed.drain);
}

#[test]
fn a_duplicate_is_skipped_while_others_wait_and_stray_on_an_idle_connection() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    assert!(bench.turn().is_pending());
    let queries = bench.queries();
    bench.say(&[answer(&queries[0]), answer(&queries[0])]);
    assert!(bench.turn().is_pending());
    assert_eq!((bench.told(), bench.line.exchange.noticed.wrong), (vec![(1, Ok(()))], 1));
    bench.say(&[answer(&queries[1]), answer(&queries[1])]);
    assert!(matches!(bench.turn(), Poll::Ready((CloseReason::StrayBytes, _))));
    assert_eq!(bench.told(), [(2, Ok(()))], "the answer before it still counts");
}

#[test]
fn the_keepalive_option_of_an_answer_is_noticed() {
    let mut bench = Bench::new();
    bench.ask(1);
    assert!(bench.turn().is_pending());
    let mut answer = answer(&bench.queries()[0]);
    // RFC 7828 section 3.1: code 11, two bytes, 30 s in units of 100 ms; the OPT record was the last and had no data.
    let length = answer.len() - 2;
    answer[length..].copy_from_slice(&[0, 6]);
    answer.extend([0, 11, 0, 2, 1, 44]);
    bench.say(&[answer]);
    assert!(bench.turn().is_pending());
    assert_eq!(bench.line.exchange.noticed.idle_limit, Some(Duration::from_secs(30)));
    assert_eq!(bench.told(), [(1, Ok(()))]);
}

#[test]
fn silence_drains_first_and_ends_the_connection_later() {
    let mut bench = Bench::new();
    let (start, patience) = (bench.now, Duration::from_secs(4));
    let exchange = &mut bench.line.exchange;
    assert!(!exchange.silent(start, start + patience * 2, patience), "nobody waits");
    bench.ask(1);
    assert!(bench.turn().is_pending());
    let exchange = &mut bench.line.exchange;
    assert!(!exchange.silent(start, start + STALLED / 2, patience) && !exchange.noticed.drain);
    assert!(!exchange.silent(start, start + STALLED, patience) && exchange.noticed.drain);
    assert!(!exchange.silent(start + STALLED, start + patience, patience), "something came meanwhile");
    assert!(exchange.silent(start, start + patience, patience));
    exchange.fail(&closed("lab", "nothing came back"));
    assert_eq!(bench.told(), [(1, Err(ErrorKind::Closed))]);
}

#[test]
fn a_connection_that_is_let_go_ends_at_once() {
    let mut bench = Bench::new();
    bench.pipe.release();
    assert!(matches!(bench.turn(), Poll::Ready((CloseReason::Drained, _))));
}

#[test]
fn a_batch_at_steady_state_allocates_nothing() {
    let mut bench = Bench::new();
    let round = |bench: &mut Bench| {
        let (mut sent, mut received) = (0, 0);
        let query = Outgoing { message: QUERY, question_end: QUERY.len(), bare: false, now: bench.now };
        let asked = measure(|| (0..50).for_each(|token| bench.pipe.submit(query, token, &bench.replies)));
        bench.line.stream.writes.reserve(1);
        let out = measure(|| sent = usize::from(bench.turn().is_pending()));
        let answers = bench.queries().iter().map(|query| answer(query)).collect::<Vec<_>>();
        bench.say(&answers);
        bench.asking.told.lock().reserve(50);
        let back = measure(|| received = usize::from(bench.turn().is_pending()));
        assert_eq!((sent, received, bench.told().len()), (1, 1, 50));
        // The far end keeps what was written in a vector of its own.
        (asked.count_total, out.count_total - 1, back.count_total)
    };
    for _ in 0..8 {
        round(&mut bench);
    }
    assert_eq!(round(&mut bench), (0, 0, 0));
}

/// `name.example. IN A`, with id 0.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x04name\x07example\0\0\x01\0\x01";
