//! The document, the health of the whole, events and the past.

use super::*;

#[tokio::test]
async fn the_document_has_every_endpoint_and_no_name_twice() {
    let served = served().await;
    let document: Value = get(served.address, "/api/v1/openapi.json").await.unwrap();
    let mut names = std::collections::BTreeSet::new();
    for endpoint in endpoints() {
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["summary"], endpoint.summary);
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", endpoint.path);
    }
    let text = document.to_string();
    let referred = text.split("\"$ref\":\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in referred {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not in the document");
    }
}

#[tokio::test]
async fn the_status_says_what_is_wrong_and_readyz_with_it() {
    let served = served_by(Fake { down: true, ..Fake::default() }).await;
    let status: StatusRow = get(served.address, "/api/v1/status").await.unwrap();
    assert_eq!(status.health, DaemonHealth::Failing);
    assert_eq!(status.troubles, ["dns: no upstream answers", "dns upstream quad9 is down: it is silent"]);
    let (status, body) =
        raw(served.address, "GET /readyz?verbose HTTP/1.1\nHost: localhost\nConnection: close\n\n").await;
    assert_eq!((status, &*body), (503, "[-] upstreams: of dns\nnot ready\n"));
}

#[tokio::test]
async fn events_come_at_once_and_then_each_second() {
    let fake = Fake::default();
    let pool = fake.pool.clone();
    let served = served_by(fake).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let lease =
        read_until(&mut stream, &mut text, "\"acquires\":0", || async { pool.acquire(&"up").await.unwrap() }).await;
    read_until(&mut stream, &mut text, "\"acquires\":1", || async {}).await;
    assert!(text.contains("event: sample") && text.contains("content-type: text/event-stream"), "{text}");
    drop((lease, served.stop));
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await;
    rest.expect("the stream ends with the daemon").unwrap();
}

/// Reads until `wanted` came, then does something.
async fn read_until<T, F: Future<Output = T>>(
    stream: &mut TcpStream,
    text: &mut String,
    wanted: &str,
    then: impl FnOnce() -> F,
) -> T {
    while !text.contains(wanted) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
        let length = read.expect("it comes").unwrap();
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    then().await
}

#[tokio::test]
async fn those_who_listen_are_bounded() {
    let served = served().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        read_until(&mut stream, &mut text, "event: sample", || async {}).await;
        streams.push(stream);
    }
    let (status, body) =
        raw(served.address, "GET /api/v1/events HTTP/1.1\nHost: localhost\nConnection: close\n\n").await;
    assert_eq!(status, 503, "{body}");
}

#[tokio::test(start_paused = true)]
async fn the_past_is_kept_in_steps() {
    let fake = Fake::default();
    let pool = fake.pool.clone();
    let (_stop, stopped) = watch::channel(());
    let control = Control::new(Arc::new(fake), ([127, 0, 0, 1], 1).into(), ControlOptions::default(), stopped);
    let recorder = tokio::spawn(history::record(Arc::downgrade(&control)));
    for _ in 0..3 {
        drop(pool.acquire(&"up").await.unwrap());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let past = control.history.row().unwrap();
    let series = &past.pools[0];
    assert_eq!((past.step, &*series.pool), (10, "lab"));
    assert_eq!((series.acquires.iter().sum::<u64>(), series.opened.iter().sum::<u64>()), (3, 1), "{series:?}");
    assert_eq!((series.open.last(), series.acquires.len()), (Some(&1), past.upstreams[0].requests.len()));
    let slow = &past.slow[0];
    assert_eq!((&*slow.name, slow.count.len()), ("dns.other", series.acquires.len()));
    recorder.abort();
}
