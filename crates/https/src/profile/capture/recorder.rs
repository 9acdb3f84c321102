//! A TLS server on loopback that records how its clients connect.
//!
//! Each connection gets one answer and is closed, so that a browser makes the next one anew and resumes its session on it. The
//! bytes are copied as they are read, below and above TLS; rustls and the HTTP libraries do the talking.

use std::{convert::Infallible, future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    tls::TlsServer,
};
use parking_lot::Mutex;
use rustls::HandshakeKind;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Capture, Captures, Negotiated, answer,
    tee::{Copied, Tee},
};
use crate::profile::{
    code::Code,
    hello::{Hello, RecordedHello},
    preface::Preface,
};

/// A listener that records.
#[derive(Debug)]
pub struct Recorder {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: TlsServer,
}

impl Recorder {
    /// The most connections that are open at once; further ones wait to be taken.
    pub const OPEN_MAX: usize = 16;

    /// How long a connection may take from its first byte to its last. Browsers open some that they never use.
    pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

    /// Listens on a loopback address; port 0 leaves the port to the system.
    ///
    /// # Errors
    /// When the address is none of this machine alone, or is taken.
    pub async fn bind(listen: SocketAddr, tls: TlsServer) -> Result<Recorder, Error> {
        let tried = format!("listen on {listen} (tls)");
        // What it records says who the user is, and it answers anyone.
        if !listen.ip().is_loopback() {
            return Err(Error::new(ErrorKind::Denied, Phase::Listen, tried, "only loopback addresses are recorded on"));
        }
        let fail = |error| Error::from_io(error, Phase::Listen, tried.as_str());
        let listener = TcpListener::bind(listen).await.map_err(fail)?;
        let local_addr = listener.local_addr().map_err(fail)?;
        Ok(Recorder { listener, local_addr, tls })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Records until `count` connections have asked for something, or for `wait_max`. `seen` is called with each capture as it is
    /// made; a connection that only said hello is one too but does not count. No more than [`Captures::MAX`] are kept.
    ///
    /// # Cancel safety
    /// Dropping the future closes all connections and loses what was recorded.
    pub async fn record(self, count: usize, wait_max: Duration, seen: impl Fn(&Capture)) -> Vec<Capture> {
        let session = Session { count: count.min(Captures::MAX), made: Mutex::default(), seen };
        // When the time is over, what there is by then is what was asked for.
        let _ = timeout(wait_max, self.serve(&session)).await;
        session.made.into_inner().captures
    }

    async fn serve<F: Fn(&Capture)>(&self, session: &Session<F>) {
        let acceptor = TlsAcceptor::from(self.tls.config(&[b"h2", b"http/1.1"]));
        let mut open = FuturesUnordered::new();
        while !(session.left() == 0 && open.is_empty()) {
            tokio::select! {
                accepted = self.listener.accept(), if session.left() > 0 && open.len() < Recorder::OPEN_MAX => {
                    match accepted {
                        Ok((tcp, _)) => open.push(timeout(Recorder::CONNECTION_TIMEOUT, session.serve(tcp, &acceptor))),
                        // A client that went away before it was taken; a shortage of files passes when connections close.
                        Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                    }
                }
                Some(_) = open.next() => {}
                // Those that have not asked by now are not waited for any longer than the page takes to be told.
                () = tokio::time::sleep(LAST_ANSWERS), if session.left() == 0 => return,
            }
        }
    }
}

/// One recording: what all its connections share.
struct Session<F> {
    count: usize,
    made: Mutex<Made>,
    seen: F,
}

#[derive(Default)]
struct Made {
    captures: Vec<Capture>,
    /// How many of them came with a request.
    asked: usize,
}

impl<F: Fn(&Capture)> Session<F> {
    /// Connections that are still wanted.
    fn left(&self) -> usize {
        let made = self.made.lock();
        if made.captures.len() < Captures::MAX { self.count.saturating_sub(made.asked) } else { 0 }
    }

    /// Serves one connection to its end.
    async fn serve(&self, tcp: TcpStream, acceptor: &TlsAcceptor) {
        let _ = tcp.set_nodelay(true);
        let raw = Copied::up_to(RAW_MAX);
        let Ok(tls) = acceptor.accept(Tee::new(tcp, raw.clone())).await else {
            // The client does not trust our certificate yet: its hello is as good as any.
            self.keep(&raw, None, None);
            return;
        };
        let negotiated = negotiated(&tls);
        let is_http2 = negotiated.as_ref().is_some_and(|negotiated| negotiated.alpn.as_deref() == Some("h2"));
        let clear = Copied::up_to(CLEAR_MAX);
        let connection =
            Connection { session: self, raw, clear: clear.clone(), negotiated, is_kept: Mutex::new(false) };
        let stream = Tee::new(tls, clear);
        if is_http2 {
            connection.http2(stream).await;
        } else {
            connection.http1(stream).await;
        }
        connection.keep(None);
    }

    fn keep(&self, raw: &Copied, negotiated: Option<Negotiated>, asked: Option<Option<Preface>>) {
        // What does not begin with a hello is no client of ours to record.
        let Ok(Some(recorded)) = raw.with(RecordedHello::read) else { return };
        let is_asked = asked.is_some();
        let capture = Capture { negotiated, preface: asked.flatten(), ..Capture::new(recorded) };
        let mut made = self.made.lock();
        if made.captures.len() < Captures::MAX {
            (self.seen)(&capture);
            made.captures.push(capture);
            made.asked += usize::from(is_asked);
        }
    }

    fn answer(&self, path: &str) -> Response<Bytes> {
        let left = self.left();
        answer::to(path, &self.made.lock().captures, left)
    }
}

/// One connection after its handshake.
struct Connection<'a, F> {
    session: &'a Session<F>,
    raw: Copied,
    clear: Copied,
    negotiated: Option<Negotiated>,
    is_kept: Mutex<bool>,
}

impl<F: Fn(&Capture)> Connection<'_, F> {
    /// Records the connection, once: at its first request, or at its end without one.
    fn keep(&self, asked: Option<Option<Preface>>) {
        if !std::mem::replace(&mut *self.is_kept.lock(), true) {
            self.session.keep(&self.raw, self.negotiated.clone(), asked);
        }
    }

    /// Answers what is asked before the client has taken the GOAWAY that follows the first answer.
    async fn http2(&self, stream: Tee<TlsStream<Tee<TcpStream>>>) {
        let mut builder = http2::server::Builder::new();
        builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADERS_MAX);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            self.keep(Some(self.clear.with(Preface::read).ok().flatten()));
            let (head, body) = self.session.answer(request.uri().path()).into_parts();
            if let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), false) {
                // A stream that the client has reset needs no body.
                let _ = stream.send_data(body, true);
            }
            connection.graceful_shutdown();
        }
        let _ = poll_fn(|cx| connection.poll_closed(cx)).await;
    }

    async fn http1(&self, stream: Tee<TlsStream<Tee<TcpStream>>>) {
        let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
            self.keep(Some(None));
            Ok::<_, Infallible>(self.session.answer(request.uri().path()).map(Full::new))
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        // A client that breaks off has been recorded if it asked.
        let _ = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
    }
}

fn negotiated(tls: &TlsStream<Tee<TcpStream>>) -> Option<Negotiated> {
    let (_, session) = tls.get_ref();
    Some(Negotiated {
        version: Code::from(u16::from(session.protocol_version()?)),
        cipher: Code::from(u16::from(session.negotiated_cipher_suite()?.suite())),
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

/// Bytes kept of a connection below TLS: the longest hello, in records of any size that clients use.
const RAW_MAX: usize = Hello::LENGTH_MAX + 4096;

/// Bytes kept of a connection above TLS: the longest block of headers and as much before it.
const CLEAR_MAX: usize = 2 * Preface::BLOCK_MAX;

/// Requests at once on a connection that is to have one.
const STREAMS_MAX: u32 = 8;

/// Bytes of the largest request.
const HEADERS_MAX: u32 = 64 * 1024;

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the last answers may take, after which connections that were opened and not used are closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
