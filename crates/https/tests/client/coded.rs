//! Answers that are compressed because the profile asked for it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use keepwarm_https::{
    Client,
    config::{AddressSource, HttpsConfig, OriginConfig},
    profile::Profile,
};
use keepwarm_lab::Ca;
use keepwarm_transport::{resolve::Fixed, tls::TlsRoots};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use crate::setup::whole;

const TEXT: &[u8] = b"a line that is said often enough to be worth compressing\n";

async fn compressed(coding: &str) -> Vec<u8> {
    let text = TEXT.repeat(5000);
    let mut coded = Vec::new();
    let read = match coding {
        "br" => BrotliEncoder::new(text.as_slice()).read_to_end(&mut coded).await,
        "gzip" => GzipEncoder::new(text.as_slice()).read_to_end(&mut coded).await,
        "deflate" => ZlibEncoder::new(text.as_slice()).read_to_end(&mut coded).await,
        _ => ZstdEncoder::new(text.as_slice()).read_to_end(&mut coded).await,
    };
    read.expect("compressed");
    coded
}

/// Answers `/CODING` with the text in that coding, `/broken` with something else, and says what it was asked for.
async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let coding = request.uri().path().trim_start_matches('/').to_owned();
    let accepted = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let (name, body) = match coding.as_str() {
        "broken" => ("gzip", b"not gzip at all".to_vec()),
        coding => (coding, compressed(coding).await),
    };
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(header::CONTENT_ENCODING, name.parse().expect("valid"));
    if let Some(accepted) = accepted {
        answer.headers_mut().insert("x-accepted", accepted);
    }
    Ok(answer)
}

async fn server(ca: &Ca) -> SocketAddr {
    let (chain, key) = ca.issue(&["coded.test"]).expect("issued");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Ends with its client.
                let _ = connection.await;
            });
        }
    });
    address
}

async fn client() -> (Client, String) {
    let ca = Ca::new();
    let address = server(&ca).await;
    let origin = OriginConfig {
        port: address.port(),
        addresses: vec![AddressSource::Net(address.ip().into())],
        profile: Profile::builtin("chrome").expect("there"),
        ..OriginConfig::new("coded.test")
    };
    let config = HttpsConfig { origins: vec![origin], roots: TlsRoots::only([ca.root()]), ..HttpsConfig::default() };
    let client = Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client");
    (client, format!("https://coded.test:{}", address.port()))
}

#[tokio::test]
async fn what_the_profile_asked_for_compressed_is_decoded_for_the_caller() {
    let (client, url) = client().await;
    for coding in ["br", "gzip", "deflate", "zstd", "br"] {
        let answer = client.get(&format!("{url}/{coding}")).await.expect("an answer");
        assert_eq!(answer.headers()["x-accepted"], "gzip, deflate, br, zstd");
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING));
        assert!(!answer.headers().contains_key(header::CONTENT_LENGTH));
        assert!(whole(answer).await == TEXT.repeat(5000), "{coding}");
    }
    assert_eq!(client.pool_stats().counters.opened, 1, "a decoded answer gives its connection back");
}

#[tokio::test]
async fn what_the_caller_asked_for_compressed_stays_so() {
    let (client, url) = client().await;
    let request = Request::get(format!("{url}/gzip")).header(header::ACCEPT_ENCODING, "gzip").body(()).expect("valid");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(whole(answer).await == compressed("gzip").await);
}

#[tokio::test]
async fn a_coding_that_is_broken_is_an_error_of_the_upstream() {
    let (client, url) = client().await;
    let answer = client.get(&format!("{url}/broken")).await.expect("a head");
    let error = answer.into_body().collect(1 << 20).await.expect_err("broken");
    assert!(error.to_string().contains("not valid"), "{error}");
    assert_eq!(error.side(), keepwarm_https::Side::Upstream);
}

#[tokio::test]
async fn a_range_is_asked_for_as_it_is() {
    let (client, url) = client().await;
    let request = Request::get(format!("{url}/gzip")).header(header::RANGE, "bytes=5-").body(()).expect("valid");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.headers()["x-accepted"], "identity");
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip", "what comes all the same is left alone");
}
