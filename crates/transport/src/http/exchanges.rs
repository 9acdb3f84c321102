//! Many small requests of one kind on one connection, moved together with it by one task.
//!
//! A future for each request and a task for the connection would wake each other for every frame. Here all of them are
//! polled in turns: what was started leaves in as few writes as the connection can make of it, what came in is handed
//! out together, and what one part of a turn asks of another does not wake the task once more.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response, header, request};
use slab::Slab;
use tokio::sync::watch;

use super::{HttpConnection, HttpDriver, HttpEnd, HttpStatus, Peer, Protocol, h2};
use crate::error::{Error, ErrorKind};

/// A request's `context` as it was given, and what came of the request.
pub type Finished<T> = (T, Result<Response<Bytes>, Error>);

/// The requests under way on a connection, and the connection's driver.
///
/// Requests differ in their body alone; `T` is what the caller wants back with the answer. The number of requests under
/// way is the caller's to limit; see [`HttpStatus::max_streams`].
pub struct HttpExchanges<T> {
    sender: Option<Sender>,
    driver: Option<HttpDriver>,
    peer: Peer,
    status: watch::Receiver<HttpStatus>,
    head: request::Parts,
    /// The length of a body that `head` tells of.
    length: usize,
    max_body: usize,
    under_way: Slab<(T, Exchange)>,
    signal: Arc<Signal>,
    /// The driver's, and one for each place in `under_way`: the places are used again, and so are their wakers.
    driver_waker: Waker,
    wakers: Vec<Waker>,
    /// Scratch: the places to be polled in this turn.
    turn: Vec<usize>,
}

enum Sender {
    Http2(h2::Sender),
    /// HTTP/1.1 and HTTP/3: a future for each request.
    Other(HttpConnection),
}

enum Exchange {
    Http2(h2::Exchange),
    /// A request that never began.
    Failed(Error),
    /// HTTP/1.1 has one exchange at a time: nothing to gain there. With HTTP/3 it is how h3 goes about a request.
    Other(Pin<Box<dyn Future<Output = Result<Response<Bytes>, Error>> + Send>>),
}

impl<T> HttpExchanges<T> {
    /// Takes a connection and its driver. `head` is the method, path and headers of every request; scheme, authority and
    /// version are added as by [`HttpConnection::send`], and `content-length` to each with a body. Answers of more than
    /// `max_body` bytes are refused.
    ///
    /// # Errors
    /// [`ErrorKind::Other`](crate::error::ErrorKind::Other) for a URL that is not valid with the connection's authority.
    pub fn new(
        connection: HttpConnection,
        driver: HttpDriver,
        head: Request<()>,
        max_body: usize,
    ) -> Result<HttpExchanges<T>, Error> {
        let (mut head, ()) = head.into_parts();
        let (peer, status) = (connection.peer.clone(), connection.status.clone());
        let sender = match &connection.protocol {
            Protocol::Http2(handle) => {
                head.uri = peer.absolute(head.uri)?;
                head.version = http::Version::HTTP_2;
                Sender::Http2(handle.sender())
            }
            Protocol::Http1(_) | Protocol::Http3(_) => Sender::Other(connection),
        };
        let signal = Arc::<Signal>::default();
        let driver_waker = Waker::from(Arc::new(Bell { signal: signal.clone(), place: None }));
        Ok(HttpExchanges {
            peer,
            status,
            sender: Some(sender),
            driver: Some(driver),
            head,
            length: 0,
            max_body,
            under_way: Slab::new(),
            signal,
            driver_waker,
            wakers: Vec::new(),
            turn: Vec::new(),
        })
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether no request is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Requests that may be under way at a time, as the server says now; see
    /// [`HttpStatus::max_streams`].
    pub fn max_streams(&self) -> usize {
        self.status.borrow().max_streams
    }

    /// Starts a request. It leaves with the next [`poll`](Self::poll), which is the caller's to see to: this wakes nobody.
    pub fn start(&mut self, body: Bytes, context: T) {
        self.signal.busy.store(true, Ordering::SeqCst);
        let exchange = self.begin(body);
        self.signal.busy.store(false, Ordering::SeqCst);
        let place = self.under_way.insert((context, exchange));
        if place == self.wakers.len() {
            let bell = Bell { signal: self.signal.clone(), place: Some(place) };
            self.wakers.push(Waker::from(Arc::new(bell)));
        }
        // Its first poll tells it whom to wake.
        self.turn.push(place);
    }

    /// The head of the next request, with a body of so many bytes. Mostly they are as many as before.
    fn head(&mut self, length: usize) -> request::Parts {
        if length != self.length {
            self.length = length;
            // RFC 9110 section 8.6: a client should tell. BIND answers 400 to a POST over HTTP/2 that does not.
            match length {
                0 => self.head.headers.remove(header::CONTENT_LENGTH),
                _ => self.head.headers.insert(header::CONTENT_LENGTH, length.into()),
            };
        }
        self.head.clone()
    }

    fn begin(&mut self, body: Bytes) -> Exchange {
        let head = self.head(body.len());
        match &mut self.sender {
            Some(Sender::Http2(sender)) => {
                let request = Request::from_parts(head, ());
                let cx = &mut Context::from_waker(&self.driver_waker);
                sender.start(request, body, &self.peer, cx).map_or_else(Exchange::Failed, Exchange::Http2)
            }
            Some(Sender::Other(connection)) => {
                let request = Request::from_parts(head, body);
                Exchange::Other(Box::pin(connection.send(request, self.max_body)))
            }
            None => {
                let happened = "the connection was closed on this side";
                Exchange::Failed(self.peer.error(ErrorKind::Cancelled, happened).not_processed())
            }
        }
    }

    /// Moves the connection's bytes and appends what has ended to `finished`. Ready, once, with the end of the
    /// connection; requests may be under way even then, see [`disconnect`](Self::disconnect).
    pub fn poll(&mut self, cx: &mut Context<'_>, finished: &mut Vec<Finished<T>>) -> Poll<HttpEnd> {
        self.signal.task.register(cx.waker());
        self.signal.busy.store(true, Ordering::SeqCst);
        let mut end = Poll::Pending;
        for _ in 0..TURNS_MAX {
            end = self.poll_driver();
            self.poll_exchanges(finished);
            if end.is_ready() || !self.signal.is_set() {
                break;
            }
        }
        self.signal.busy.store(false, Ordering::SeqCst);
        // Whoever rang since did not wake the task.
        if end.is_pending() && self.signal.is_set() {
            cx.waker().wake_by_ref();
        }
        end
    }

    /// Closes the connection at once. What is under way fails with it, or has its answer already: see
    /// [`poll_rest`](Self::poll_rest).
    pub fn disconnect(&mut self) {
        self.driver = None;
        self.sender = None;
    }

    /// Appends what is left to `finished`. Ready when nothing is under way any more, which after
    /// [`disconnect`](Self::disconnect) is soon.
    pub fn poll_rest(&mut self, cx: &mut Context<'_>, finished: &mut Vec<Finished<T>>) -> Poll<()> {
        self.signal.task.register(cx.waker());
        self.turn = self.under_way.iter().map(|(place, _)| place).collect();
        self.poll_exchanges(finished);
        if self.under_way.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_driver(&mut self) -> Poll<HttpEnd> {
        self.signal.driver.store(false, Ordering::SeqCst);
        let Some(driver) = &mut self.driver else { return Poll::Pending };
        let end = ready!(Pin::new(driver).poll(&mut Context::from_waker(&self.driver_waker)));
        self.driver = None;
        Poll::Ready(end)
    }

    fn poll_exchanges(&mut self, finished: &mut Vec<Finished<T>>) {
        self.turn.append(&mut self.signal.places());
        for place in self.turn.drain(..) {
            // Bells may ring twice, or for a request that has ended.
            let Some((_, exchange)) = self.under_way.get_mut(place) else { continue };
            let cx = &mut Context::from_waker(&self.wakers[place]);
            if let Poll::Ready(result) = exchange.poll(cx, self.max_body, &self.peer) {
                let (context, _) = self.under_way.remove(place);
                finished.push((context, result));
            }
        }
    }
}

impl Exchange {
    fn poll(&mut self, cx: &mut Context<'_>, max_body: usize, peer: &Peer) -> Poll<Result<Response<Bytes>, Error>> {
        match self {
            Exchange::Http2(exchange) => exchange.poll(cx, max_body, peer),
            Exchange::Other(exchange) => exchange.as_mut().poll(cx),
            Exchange::Failed(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl<T> fmt::Debug for HttpExchanges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpExchanges").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

/// What there is to be polled, as it is rung for.
#[derive(Default)]
struct Signal {
    /// The one task, unless it is in the middle of a turn and sees for itself.
    task: AtomicWaker,
    busy: AtomicBool,
    driver: AtomicBool,
    places: Mutex<Vec<usize>>,
}

impl Signal {
    fn is_set(&self) -> bool {
        self.driver.load(Ordering::SeqCst) || !self.places().is_empty()
    }

    fn places(&self) -> MutexGuard<'_, Vec<usize>> {
        // A panic elsewhere leaves the list whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rings for one request, or for the driver.
struct Bell {
    signal: Arc<Signal>,
    place: Option<usize>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.place {
            Some(place) => self.signal.places().push(place),
            None => self.signal.driver.store(true, Ordering::SeqCst),
        }
        if !self.signal.busy.load(Ordering::SeqCst) {
            self.signal.task.wake();
        }
    }
}

/// Turns before other tasks have theirs.
const TURNS_MAX: usize = 4;
