//! Queries handed over from one side, taken from the other.

use std::{sync::atomic::AtomicUsize, task::Wake};

use super::*;

type Told = Result<Vec<u8>, ErrorKind>;

/// Keeps what it is told, and counts how often it is told.
#[derive(Default)]
struct Asking {
    told: Mutex<Vec<(u64, Told)>>,
    calls: AtomicUsize,
}

impl Replies for Asking {
    fn reply(&self, token: u64, result: Result<Bytes, Error>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.told.lock().push((token, result.map(|answer| answer.to_vec()).map_err(|error| error.kind())));
    }

    fn reply_all(&self, answers: &mut Answers) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.told.lock().extend(answers.iter().map(|(token, answer)| (token, Ok(answer.to_vec()))));
        answers.clear();
    }
}

/// Counts wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn asking() -> (Arc<Asking>, Arc<dyn Replies>) {
    let asking = Arc::<Asking>::default();
    (asking.clone(), asking)
}

fn query() -> Outgoing<'static> {
    Outgoing { message: b"query", question_end: 5, bare: false, now: tokio::time::Instant::now().into_std() }
}

fn new_pipe() -> Arc<Pipe> {
    Pipe::new(tokio::time::Instant::now().into_std())
}

#[test]
fn a_batch_of_queries_costs_one_wake() {
    let (pipe, (_, replies), count) = (new_pipe(), asking(), Arc::<Count>::default());
    let waker = Waker::from(count.clone());
    let cx = Context::from_waker(&waker);
    let (mut batch, mut askers) = (Batch::default(), Askers::default());
    for round in 1..=3 {
        assert!(pipe.take(&cx, &mut batch, &mut askers));
        assert!(batch.items.is_empty());
        for token in 0..100 {
            pipe.submit(query(), token, &replies);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), round);
        assert!(pipe.take(&cx, &mut batch, &mut askers));
        assert_eq!((batch.items.len(), batch.bytes.len()), (100, 500));
    }
    pipe.release();
    assert_eq!(count.0.load(Ordering::Relaxed), 4);
    assert!(!pipe.take(&cx, &mut batch, &mut askers));
}

#[test]
fn answers_go_to_those_who_asked_each_told_once() {
    let pipe = new_pipe();
    let askings = [asking(), asking(), asking()];
    let (once, once_replies) = asking();
    for token in 0..30 {
        pipe.submit(query(), token, &askings[usize::try_from(token % 3).unwrap()].1);
    }
    pipe.submit_once(query(), 30, &once_replies);
    let (mut batch, mut askers) = (Batch::default(), Askers::default());
    assert!(pipe.take(&Context::from_waker(Waker::noop()), &mut batch, &mut askers));
    for item in batch.items.drain(..) {
        askers.answer(item.asker, item.token, &item.token.to_be_bytes());
    }
    askers.deliver();
    askers.deliver();
    for (number, (asking, _)) in (0..).zip(&askings) {
        let expected: Vec<_> = (0..10)
            .map(|round| round * 3 + number)
            .map(|token: u64| (token, Ok(token.to_be_bytes().to_vec())))
            .collect();
        assert_eq!(*asking.told.lock(), expected);
        assert_eq!(asking.calls.load(Ordering::Relaxed), 1);
    }
    assert_eq!(*once.told.lock(), [(30, Ok(30_u64.to_be_bytes().to_vec()))]);
}

#[test]
fn what_is_queued_when_the_connection_ends_fails_and_so_does_what_comes_later() {
    let (pipe, (asking, replies), (once, once_replies)) = (new_pipe(), asking(), asking());
    pipe.submit(query(), 1, &replies);
    pipe.submit_once(query(), 2, &once_replies);
    pipe.end(&closed("lab", "it ended"));
    pipe.submit(query(), 3, &replies);
    assert_eq!(*asking.told.lock(), [(1, Err(ErrorKind::Closed)), (3, Err(ErrorKind::Closed))]);
    assert_eq!(*once.told.lock(), [(2, Err(ErrorKind::Closed))]);
}

#[test]
fn a_driver_that_is_dropped_lets_go_of_those_who_ask() {
    let (pipe, (asking, replies)) = (new_pipe(), asking());
    let driven = Driven(pipe.clone());
    pipe.submit(query(), 1, &replies);
    drop(driven);
    assert_eq!(*asking.told.lock(), [(1, Err(ErrorKind::Closed))]);
    drop(replies);
    assert_eq!(Arc::strong_count(&asking), 1);
}
