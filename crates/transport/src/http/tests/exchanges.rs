//! Requests that are polled together with their connection.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::{script::*, *};

/// Counts the writes to a stream.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The number of a request, and what came of it.
type Outcome = (u32, Result<Response<Bytes>, Error>);

async fn exchanges(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, alpn: &[u8]) -> HttpExchanges<u32> {
    let (connection, driver) = connect(stream, Some(alpn), "dns.example:8443").await.unwrap();
    HttpExchanges::new(connection, driver, Request::post("/dns-query").body(()).unwrap(), LIMIT).unwrap()
}

async fn scripted(max_streams: u32) -> (HttpExchanges<u32>, Script, Arc<AtomicUsize>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let writes = Arc::<AtomicUsize>::default();
    let mut exchanges = exchanges(Counting(client, writes.clone()), b"h2").await;
    let script = Script::start(server, max_streams).await;
    within(turn(&mut exchanges, |exchanges| exchanges.max_streams() == usize::try_from(max_streams).unwrap())).await;
    (exchanges, script, writes)
}

/// Polls until `enough`.
async fn turn(exchanges: &mut HttpExchanges<u32>, enough: impl Fn(&HttpExchanges<u32>) -> bool) -> Vec<Outcome> {
    let mut finished = Vec::new();
    std::future::poll_fn(|cx| {
        assert!(exchanges.poll(cx, &mut finished).is_pending(), "the connection ended");
        if enough(exchanges) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    finished
}

fn body(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[tokio::test]
async fn requests_that_wait_leave_in_one_write() {
    let (mut exchanges, mut script, writes) = scripted(1000).await;
    let before = writes.load(Ordering::Relaxed);
    for number in 0..100 {
        exchanges.start(body(number), number);
    }
    assert!(turn(&mut exchanges, |exchanges| exchanges.len() == 100).await.is_empty());
    assert_eq!(writes.load(Ordering::Relaxed) - before, 1);
    let mut streams = Vec::new();
    for number in 0..100 {
        let data = within(script.expect(DATA)).await;
        assert_eq!(data.payload, body(number));
        streams.push(data.stream);
    }
    // Out of order.
    for stream in streams.iter().rev() {
        script.answer(*stream, &stream.to_be_bytes()).await;
    }
    let finished = within(turn(&mut exchanges, HttpExchanges::is_empty)).await;
    let answers: HashMap<u32, Bytes> =
        finished.into_iter().map(|(number, result)| (number, result.unwrap().into_body())).collect();
    assert_eq!(answers.len(), 100);
    for (number, stream) in (0..).zip(streams) {
        assert_eq!(answers[&number], stream.to_be_bytes()[..]);
    }
}

#[tokio::test]
async fn what_a_turn_does_wakes_nobody() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (mut exchanges, mut script, _) = scripted(1000).await;
    let count = Arc::<Count>::default();
    let waker = std::task::Waker::from(count.clone());
    let (cx, mut finished) = (&mut Context::from_waker(&waker), Vec::new());
    assert!(exchanges.poll(cx, &mut finished).is_pending());
    for number in 0..50 {
        exchanges.start(body(number), number);
    }
    assert!(exchanges.poll(cx, &mut finished).is_pending());
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "whoever starts requests polls too");
    for _ in 0..50 {
        let stream = within(script.expect(DATA)).await.stream;
        script.answer(stream, b"answer").await;
    }
    let woken = count.0.load(Ordering::Relaxed);
    assert!(woken > 0, "what comes in wakes the task");
    assert!(exchanges.poll(cx, &mut finished).is_pending());
    assert_eq!((finished.len(), count.0.load(Ordering::Relaxed)), (50, woken));
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_a_stream() {
    let (mut exchanges, mut script, _) = scripted(1).await;
    for number in 0..3 {
        exchanges.start(body(number), number);
    }
    let mut order = Vec::new();
    for left in [2, 1, 0] {
        assert!(turn(&mut exchanges, |_| true).await.is_empty());
        let data = within(script.expect(DATA)).await;
        assert!(!script.passed_over(DATA), "one at a time");
        script.answer(data.stream, &data.payload).await;
        let finished = within(turn(&mut exchanges, |exchanges| exchanges.len() == left)).await;
        order.extend(finished.into_iter().map(|(number, result)| (number, result.unwrap().into_body())));
    }
    assert_eq!(order, [(0, body(0)), (1, body(1)), (2, body(2))]);
}

#[tokio::test]
async fn an_answer_in_pieces_is_put_together_and_one_too_large_refused() {
    let (mut exchanges, mut script, _) = scripted(100).await;
    exchanges.start(body(0), 0);
    exchanges.start(body(1), 1);
    assert!(turn(&mut exchanges, |_| true).await.is_empty());
    let (first, second) = (within(script.expect(DATA)).await.stream, within(script.expect(DATA)).await.stream);
    script.answer_head(first, &[]).await;
    script.answer_body(first, b"in ", false).await;
    script.answer_body(first, b"pieces", true).await;
    // RFC 7541 section 6.2.2 with name 28: content-length.
    script.answer_head(second, b"\x0f\x0d\x0570000").await;
    let finished = within(turn(&mut exchanges, HttpExchanges::is_empty)).await;
    for (number, result) in finished {
        match number {
            0 => assert_eq!(result.unwrap().into_body(), b"in pieces"[..]),
            _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::Protocol),
        }
    }
}

#[tokio::test]
async fn the_window_of_the_connection_is_given_back() {
    let (mut exchanges, mut script, _) = scripted(100).await;
    // Twice the connection's window, one frame an answer.
    for round in 0..(2 << 20) / 16_000 {
        exchanges.start(body(round), round);
        let serve = async {
            let stream = script.expect(DATA).await.stream;
            script.answer(stream, &[0; 16_000]).await;
        };
        let (finished, ()) = within(async { tokio::join!(turn(&mut exchanges, HttpExchanges::is_empty), serve) }).await;
        assert!(finished[0].1.is_ok());
    }
    let update = within(script.expect(WINDOW_UPDATE)).await;
    assert_eq!(update.stream, 0);
}

#[tokio::test]
async fn after_a_goaway_what_was_accepted_is_answered_and_the_rest_may_go_elsewhere() {
    let (mut exchanges, mut script, _) = scripted(100).await;
    exchanges.start(body(0), 0);
    exchanges.start(body(1), 1);
    assert!(turn(&mut exchanges, |_| true).await.is_empty());
    let (first, second) = (within(script.expect(DATA)).await.stream, within(script.expect(DATA)).await.stream);
    assert!(first < second);
    script.goaway(first, 0).await;
    let finished = within(turn(&mut exchanges, |exchanges| exchanges.len() == 1)).await;
    assert_eq!(finished[0].0, 1);
    assert!(finished[0].1.as_ref().unwrap_err().is_retryable());
    script.answer(first, b"answer").await;
    let mut finished = Vec::new();
    let end = within(std::future::poll_fn(|cx| exchanges.poll(cx, &mut finished))).await;
    assert!(matches!(end, HttpEnd::GoAway), "{end:?}");
    within(std::future::poll_fn(|cx| exchanges.poll_rest(cx, &mut finished))).await;
    assert_eq!(finished.len(), 1);
    assert_eq!(finished.remove(0).1.unwrap().into_body(), b"answer"[..]);
}

#[tokio::test]
async fn what_is_under_way_fails_with_a_connection_that_we_close() {
    let (mut exchanges, mut script, _) = scripted(100).await;
    exchanges.start(body(0), 0);
    assert!(turn(&mut exchanges, |_| true).await.is_empty());
    script.expect(DATA).await;
    exchanges.disconnect();
    exchanges.start(body(1), 1);
    let mut finished = Vec::new();
    within(std::future::poll_fn(|cx| exchanges.poll_rest(cx, &mut finished))).await;
    let kinds: HashMap<u32, (ErrorKind, bool)> = finished
        .into_iter()
        .map(|(number, result)| (number, result.unwrap_err()))
        .map(|(number, error)| (number, (error.kind(), error.is_retryable())))
        .collect();
    assert_eq!(kinds, HashMap::from([(0, (ErrorKind::Cancelled, false)), (1, (ErrorKind::Cancelled, true))]));
    assert!(script.ends().await);
}

#[tokio::test]
async fn each_request_tells_the_length_of_its_own_body() {
    let (client, server) = tokio::io::duplex(1 << 16);
    let mut exchanges = exchanges(client, b"h2").await;
    let serve = tokio::spawn(async move {
        let mut connection = ::h2::server::handshake(server).await.unwrap();
        let mut told = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            told.push(request.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned()));
            respond.send_response(Response::new(()), true).unwrap();
        }
        told
    });
    for (number, body) in (0..).zip(["question", "another", "longest of all", "", "question", "question"]) {
        exchanges.start(Bytes::from_static(body.as_bytes()), number);
    }
    let finished = within(turn(&mut exchanges, HttpExchanges::is_empty)).await;
    assert!(finished.iter().all(|(_, result)| result.is_ok()), "{finished:?}");
    exchanges.disconnect();
    let told = within(serve).await.unwrap();
    let told: Vec<_> = told.iter().map(Option::as_deref).collect();
    assert_eq!(told, [Some("8"), Some("7"), Some("14"), None, Some("8"), Some("8")]);
}

#[tokio::test]
async fn http1_has_one_exchange_at_a_time() {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let mut exchanges = exchanges(client, b"http/1.1").await;
    exchanges.start(Bytes::from_static(b"one"), 0);
    exchanges.start(Bytes::from_static(b"two"), 1);
    let serve = async {
        for expected in ["one", "two"] {
            let mut request = Vec::new();
            while !request.ends_with(expected.as_bytes()) {
                request.push(server.read_u8().await.unwrap());
            }
            assert!(request.starts_with(b"POST /dns-query HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{expected}");
            server.write_all(answer.as_bytes()).await.unwrap();
        }
        server
    };
    let (finished, _server) =
        within(async { tokio::join!(turn(&mut exchanges, HttpExchanges::is_empty), serve) }).await;
    let answers: Vec<_> = finished.into_iter().map(|(number, result)| (number, result.unwrap().into_body())).collect();
    assert_eq!(answers, [(0, Bytes::from_static(b"one")), (1, Bytes::from_static(b"two"))]);
}
