//! Bodies in both directions: streamed, with trailers, given up, and no faster than they are read.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use keepwarm_https::{
    Client, RequestBody,
    config::{HttpVersions, OriginConfig, PoolConfig},
};
use keepwarm_lab::{OriginLab, Upload, expected_body};

use crate::setup::{client_of, eventually, first, lab, origin, url, whole};

const BOTH: [HttpVersions; 2] = [HttpVersions::Both, HttpVersions::Http1];

fn client(lab: &OriginLab, http: HttpVersions) -> Client {
    client_of(lab, OriginConfig { http, ..origin(lab) }, PoolConfig::default())
}

/// Pieces of a kilobyte each, and how many of them were asked for.
struct Pieces {
    left: usize,
    asked: Arc<AtomicUsize>,
    trailers: Option<HeaderMap>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        self.left -= 1;
        self.asked.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1024])))))
    }
}

fn pieces(left: usize) -> (RequestBody, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    (RequestBody::stream(Pieces { left, asked: asked.clone(), trailers: None }), asked)
}

#[tokio::test]
async fn long_bodies_arrive_byte_for_byte() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        let path = "/bytes/5000000";
        let body = whole(client.get(&url(&lab, path)).await.expect("an answer")).await;
        assert!(body == expected_body(path, 0..5_000_000), "{http:?}");
        let (body, _) = pieces(3000);
        let answer = client.post(&url(&lab, "/upload"), body).await.expect("an answer");
        let upload: Upload = serde_json::from_slice(&whole(answer).await).expect("json");
        assert_eq!(upload.length, 3000 * 1024);
        assert_eq!(upload.sha256, keepwarm_lab::sha256_hex(&vec![7; 3000 * 1024]));
        assert_eq!(lab.total().accepted, 1, "both went over one connection");
    }
}

#[tokio::test]
async fn trailers_go_both_ways() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        let trailers = HeaderMap::from_iter([("x-sum".parse().expect("valid"), "42".parse().expect("valid"))]);
        let body = Pieces { left: 3, asked: Arc::default(), trailers: Some(trailers) };
        let request = Request::post(url(&lab, "/trailers")).header("trailer", "x-sum").header("te", "trailers");
        let request = request.body(RequestBody::stream(body)).expect("valid");
        let answer = client.request(request).await.expect("an answer");
        let collected = http_body_util::BodyExt::collect(answer.into_body()).await.expect("the whole answer");
        let trailers = collected.trailers().cloned().expect("trailers");
        assert_eq!(trailers["echo-x-sum"], "42", "{http:?}");
        assert_eq!(trailers["lab-sha256"], keepwarm_lab::sha256_hex(&[7; 3 * 1024]).as_str());
        assert_eq!(collected.to_bytes().len(), 3 * 1024);
    }
}

#[tokio::test]
async fn a_body_waits_for_100_continue_and_is_not_sent_after_417() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        let (body, asked) = pieces(4);
        let request = Request::post(url(&lab, "/expect")).header("expect", "100-continue").body(body).expect("valid");
        let upload: Upload =
            serde_json::from_slice(&whole(client.request(request).await.expect("an answer")).await).expect("json");
        assert_eq!((upload.length, asked.load(Ordering::SeqCst)), (4096, 4), "{http:?}");

        let (body, asked) = pieces(4);
        let request = Request::post(url(&lab, "/expect/417")).header("expect", "100-continue").body(body);
        let answer = client.request(request.expect("valid")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::EXPECTATION_FAILED);
        whole(answer).await;
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{http:?}: nothing of the body was asked for");
        assert_eq!(whole(client.get(&url(&lab, "/bytes/10")).await.expect("an answer")).await.len(), 10);
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_is_passed_on_and_spoils_nothing() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        for _ in 0..3 {
            let (body, _) = pieces(4000);
            // The server may also cut the connection before its answer was read (RFC 9112 section 9.6).
            if let Ok(answer) = client.post(&url(&lab, "/early"), body).await {
                assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{http:?}");
                let _ = answer.into_body().collect(1 << 20).await;
            }
            let path = "/bytes/1000";
            let body = whole(client.get(&url(&lab, path)).await.expect("an answer")).await;
            assert!(body == expected_body(path, 0..1000));
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_fails_the_request_and_not_the_connection_of_others() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(std::io::Error::other("disk on fire"))];
        let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
        let error = client.post(&url(&lab, "/upload"), body).await.expect_err("its body failed");
        assert_eq!(error.kind(), keepwarm_https::ErrorKind::RequestBody, "{error}");
        assert!(error.to_string().contains("disk on fire"), "{error}");
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
        let rows = client.inventory(&crate::setup::authority(&lab)).expect("known");
        assert_eq!(rows[0].failures, 0, "the address is not blamed");
    }
}

#[tokio::test]
async fn an_answer_that_is_given_up_frees_its_stream_or_closes_its_connection() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        for _ in 0..20 {
            let mut answer = client.get(&url(&lab, "/stream")).await.expect("an answer");
            answer.body_mut().frame().await.expect("a first piece").expect("data");
        }
        eventually("no stream is open", || lab.total().streams_open == 0).await;
        let stats = client.pool_stats();
        assert_eq!(stats.gauges.in_flight, 0);
        match http {
            HttpVersions::Http1 => eventually("all are closed", || lab.total().open == 0).await,
            _ => assert_eq!(lab.total().accepted, 1),
        }
    }
}

#[tokio::test]
async fn requests_that_are_given_up_leave_nothing_behind() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        lab.update_faults(first(&lab), |faults| faults.ignore_requests = true);
        for _ in 0..10 {
            let url = url(&lab, "/");
            let request = client.get(&url);
            assert!(tokio::time::timeout(Duration::from_millis(30), request).await.is_err());
        }
        lab.update_faults(first(&lab), |faults| faults.ignore_requests = false);
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
        eventually("no stream is open", || lab.total().streams_open == 0).await;
        assert_eq!(client.pool_stats().gauges.in_flight, 0);
        let requests = client.stats()[0].requests;
        assert_eq!((requests.came, requests.answered, requests.cancelled, requests.failed), (11, 1, 10, 0));
        let rows = client.inventory(&crate::setup::authority(&lab)).expect("known");
        assert_eq!((rows[0].in_flight, rows[0].failures), (0, 0));
    }
}

#[tokio::test]
async fn a_slow_reader_slows_the_server_and_not_the_other_streams() {
    let lab = lab(1).await;
    let client = client(&lab, HttpVersions::Both);
    let path = "/bytes/50000000";
    let mut slow = client.get(&url(&lab, path)).await.expect("an answer").into_body();
    let first_piece = slow.frame().await.expect("a piece").expect("data").into_data().expect("data");
    for n in 0..20 {
        let other = format!("/bytes/{}", 10_000 + n);
        let body = whole(client.get(&url(&lab, &other)).await.expect("an answer")).await;
        assert!(body == expected_body(&other, 0..10_000 + n));
    }
    assert_eq!(lab.total().accepted, 1, "all on one connection");
    let mut at = first_piece.len() as u64;
    while let Some(frame) = slow.frame().await {
        let data = frame.expect("data").into_data().expect("data");
        let end = at + data.len() as u64;
        assert!(data == expected_body(path, at..end));
        at = end;
    }
    assert_eq!(at, 50_000_000);
}

#[tokio::test]
async fn a_body_that_stalls_is_an_error_in_time() {
    for http in BOTH {
        let lab = lab(1).await;
        let config = OriginConfig { http, body_timeout: Duration::from_millis(200), ..origin(&lab) };
        let client = client_of(&lab, config, PoolConfig::default());
        lab.update_faults(first(&lab), |faults| faults.bytes_per_second = Some(1));
        let answer = client.get(&url(&lab, "/bytes/100000")).await.expect("an answer");
        let error = answer.into_body().collect(1 << 20).await.expect_err("stalled");
        assert!(error.is_timeout(), "{error}");
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_wait_for_an_answer() {
    for http in BOTH {
        let lab = lab(1).await;
        let config = OriginConfig { http, timeout: Duration::from_millis(300), ..origin(&lab) };
        let client = client_of(&lab, config, PoolConfig::default());
        let pieces = futures_util::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (n < 10).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece"))), n + 1))
        });
        let body = RequestBody::stream(StreamBody::new(pieces));
        let answer = client.post(&url(&lab, "/upload"), body).await.unwrap_or_else(|error| panic!("{http:?}: {error}"));
        let upload: Upload = serde_json::from_slice(&whole(answer).await).expect("json");
        assert_eq!(upload.length, 50, "{http:?}");
    }
}

#[tokio::test]
async fn a_get_whose_body_streams_arrives_with_it() {
    for http in BOTH {
        let lab = lab(1).await;
        let client = client(&lab, http);
        let (body, _) = pieces(2);
        let request = Request::get(url(&lab, "/upload")).body(body).expect("valid");
        let answer = client.request(request).await.expect("an answer");
        let upload: Upload = serde_json::from_slice(&whole(answer).await).expect("json");
        assert_eq!(upload.length, 2048, "{http:?}");
    }
}

#[tokio::test]
async fn a_body_that_timed_out_frees_its_stream_while_it_is_held() {
    for http in BOTH {
        let lab = lab(1).await;
        let config = OriginConfig { http, body_timeout: Duration::from_millis(200), ..origin(&lab) };
        let client = client_of(&lab, config, PoolConfig::default());
        lab.update_faults(first(&lab), |faults| faults.bytes_per_second = Some(1));
        let mut held = client.get(&url(&lab, "/bytes/100000")).await.expect("an answer").into_body();
        while let Some(Ok(_)) = held.frame().await {}
        eventually("the server hears of it", || lab.total().streams_open == 0).await;
        drop(held);
    }
}

#[tokio::test]
async fn an_upload_that_nobody_takes_ends_in_time() {
    for http in BOTH {
        let lab = lab(1).await;
        let brief = Duration::from_millis(300);
        let config = OriginConfig { http, timeout: brief, body_timeout: brief, ..origin(&lab) };
        let client = client_of(&lab, config, PoolConfig::default());
        lab.update_faults(first(&lab), |faults| faults.ignore_requests = true);
        let (body, _) = pieces(usize::MAX);
        let url = url(&lab, "/upload");
        let upload = client.post(&url, body);
        let answer = tokio::time::timeout(Duration::from_secs(20), upload).await;
        answer.unwrap_or_else(|_| panic!("{http:?}: it went on for ever")).expect_err("no answer");
    }
}
