//! An origin of plain HTTP, which has what programs ask for in the clear. That over TLS is the lab's.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use keepwarm_lab::{expected_body, sha256_hex};
use tokio::net::TcpListener;

/// Serves `/bytes/N` as the lab's origin does, and answers anything else with the checksum of the request's body.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(serving);
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // What is meant for the proxy is no origin's to see.
    let leaks = request.headers().keys().any(|name| name.as_str().starts_with("proxy-"));
    let path = request.uri().path().to_owned();
    let (status, body) = match path.strip_prefix("/bytes/").and_then(|length| length.parse().ok()) {
        _ if leaks || request.uri().authority().is_some() => (StatusCode::BAD_REQUEST, Bytes::from("for a proxy")),
        Some(length) => (StatusCode::OK, expected_body(&path, 0..length).into()),
        None => match request.into_body().collect().await {
            Ok(body) => (StatusCode::OK, sha256_hex(&body.to_bytes()).into()),
            Err(_) => (StatusCode::BAD_REQUEST, Bytes::from("cut off")),
        },
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}
