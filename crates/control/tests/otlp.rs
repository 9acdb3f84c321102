//! What a collector gets, which listens on loopback and reads with the official messages.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use keepwarm_control::{Control, ControlOptions, otlp::OtlpOptions};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{metric::Data, number_data_point},
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

#[path = "metrics/fake.rs"]
mod fake;

/// A collector that refuses the first posts with 503 and takes the others.
async fn collector(refused: usize) -> (u16, mpsc::Receiver<(String, bytes::Bytes)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (taken, posts) = mpsc::channel(64);
    tokio::spawn(async move {
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(refused));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (taken, left) = (taken.clone(), Arc::clone(&left));
            let service = service_fn(move |request: Request<Incoming>| {
                let (taken, left) = (taken.clone(), Arc::clone(&left));
                async move {
                    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let refused = left.fetch_update(
                        std::sync::atomic::Ordering::Relaxed,
                        std::sync::atomic::Ordering::Relaxed,
                        |left| left.checked_sub(1),
                    );
                    let mut answer = Response::new(Full::new(bytes::Bytes::new()));
                    match refused {
                        Ok(_) => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                        Err(_) => taken.send((path, body)).await.unwrap(),
                    }
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, posts)
}

struct Exporting {
    _control: Arc<Control>,
    stop: watch::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn exporting(port: u16) -> Exporting {
    let (stop, stopped) = watch::channel(());
    let fake = fake::Fake::whole().await;
    let control = Control::new(Arc::new(fake), ([127, 0, 0, 1], 9).into(), ControlOptions::default(), stopped);
    let options = OtlpOptions::from_environment(|name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://127.0.0.1:{port}/some/where")),
        "OTEL_METRIC_EXPORT_INTERVAL" => Some("1000".into()),
        "OTEL_SERVICE_NAME" => Some("edge".into()),
        _ => None,
    });
    let task = tokio::spawn(Control::export(Arc::downgrade(&control), options.unwrap().unwrap()));
    Exporting { _control: control, stop, task }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

#[tokio::test]
async fn a_collector_gets_every_metric_and_each_slow_request_once() {
    let (port, mut posts) = collector(0).await;
    let exporting = exporting(port).await;

    let (path, body) = posts.recv().await.unwrap();
    assert_eq!(path, "/some/where/v1/metrics");
    let message = ExportMetricsServiceRequest::decode(body).unwrap();
    let [resource] = &message.resource_metrics[..] else { panic!("{message:?}") };
    let about = attributes(&resource.resource.as_ref().unwrap().attributes);
    assert_eq!((about["service.name"].as_str(), about["service.version"].as_str()), ("edge", "9.9.9"));
    let metrics = &resource.scope_metrics[0].metrics;
    assert!(metrics.len() > 80, "{}", metrics.len());
    let find = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();

    let Some(Data::Sum(queries)) = &find("keepwarm_dns_queries").data else { panic!("no sum") };
    assert!(queries.is_monotonic);
    assert_eq!(queries.data_points[0].value, Some(number_data_point::Value::AsInt(100)));
    let lived = queries.data_points[0].time_unix_nano - queries.data_points[0].start_time_unix_nano;
    assert_eq!(lived, 100_000_000_000);
    let wait = find("keepwarm_pool_wait_duration");
    assert_eq!(wait.unit, "s");
    let Some(Data::Histogram(wait)) = &wait.data else { panic!("no histogram") };
    let dns = wait.data_points.iter().find(|point| attributes(&point.attributes)["pool"] == "dns").unwrap();
    assert_eq!(dns.bucket_counts.len(), dns.explicit_bounds.len() + 1);
    assert_eq!((dns.count, dns.bucket_counts.iter().sum::<u64>()), (1999, 1999));
    let Some(Data::Gauge(oldest)) = &find("keepwarm_pool_oldest_wait").data else { panic!("no gauge") };
    assert!(oldest.data_points.iter().any(|point| point.value == Some(number_data_point::Value::AsDouble(1.5))));

    let (path, body) = posts.recv().await.unwrap();
    assert_eq!(path, "/some/where/v1/traces");
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["request", "wait", "connect", "tls"]);
    let parent = &spans[0];
    assert_eq!(parent.end_time_unix_nano - parent.start_time_unix_nano, 1_250_000_000);
    assert_eq!((parent.trace_id.len(), parent.span_id.len(), parent.parent_span_id.len()), (16, 8, 0));
    assert_eq!(parent.status.as_ref().unwrap().code, 2);
    assert_eq!(attributes(&parent.attributes)["keepwarm.upstream"], "up-1");
    for (child, next) in spans[1..].iter().zip(&spans[2..]) {
        assert_eq!((&child.parent_span_id, &child.trace_id), (&parent.span_id, &parent.trace_id));
        assert_eq!(child.end_time_unix_nano, next.start_time_unix_nano);
    }
    assert_eq!(spans[1].start_time_unix_nano, parent.start_time_unix_nano);
    assert_eq!(spans[3].end_time_unix_nano, parent.end_time_unix_nano);

    // The request is still among the recent ones, and was told of.
    for _ in 0..2 {
        assert_eq!(posts.recv().await.unwrap().0, "/some/where/v1/metrics");
    }
    exporting.stop.send(()).unwrap();
    exporting.task.await.unwrap();
}

#[tokio::test]
async fn what_a_collector_refused_is_told_again() {
    let (port, mut posts) = collector(2).await;
    let exporting = exporting(port).await;
    let paths = [posts.recv().await.unwrap().0, posts.recv().await.unwrap().0];
    assert_eq!(paths, ["/some/where/v1/metrics", "/some/where/v1/traces"]);
    drop(exporting.stop);
    exporting.task.await.unwrap();
}

#[tokio::test]
async fn a_collector_that_is_silent_does_not_hold_up_the_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporting = exporting(listener.local_addr().unwrap().port()).await;
    let (_silent, _) = listener.accept().await.unwrap();
    drop(exporting.stop);
    tokio::time::timeout(Duration::from_secs(5), exporting.task).await.unwrap().unwrap();
}
