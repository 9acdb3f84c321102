//! Another config for a gateway that runs.

use std::{io, net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use keepwarm_https::config::{GatewayConfig, User};
use keepwarm_transport::reload::Changes;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use crate::setup::{Rig, Settings, eventually, rig, start, whole};

fn config(listen: &[SocketAddr]) -> GatewayConfig {
    GatewayConfig { listen: listen.to_vec(), ..GatewayConfig::default() }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("valid")
}

fn apply(rig: &Rig, config: Option<&GatewayConfig>) -> Changes {
    rig.watch.prepare(config).expect("prepared").apply()
}

fn ann() -> Vec<User> {
    vec![User { name: "ann".to_owned(), password: "hunter2".to_owned() }]
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<bytes::Bytes>>;

/// A client with a connection that it keeps.
async fn keeping(at: SocketAddr) -> Sender {
    let stream = TcpStream::connect(at).await.expect("it listens");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

async fn status(rig: &Rig, client: &mut Sender, headers: &[(&str, &str)]) -> u16 {
    let request = rig.request("GET", &rig.path("/"), headers);
    whole(client.send_request(request).await.expect("an answer")).await.status
}

#[tokio::test]
async fn users_hold_for_the_next_request_of_a_connection_that_is_open() {
    let rig = rig().await;
    let mut client = keeping(rig.gateway).await;
    assert_eq!(status(&rig, &mut client, &[]).await, 200);
    let with_users = GatewayConfig { users: ann(), ..config(&[any_port()]) };
    assert_eq!(apply(&rig, Some(&with_users)).changed, ["https.users"]);
    assert_eq!(status(&rig, &mut client, &[]).await, 407);
    let basic = format!("Basic {}", STANDARD.encode("ann:hunter2"));
    assert_eq!(status(&rig, &mut client, &[("keepwarm-authorization", &basic)]).await, 200);
    let changes = apply(&rig, Some(&with_users));
    assert_eq!((changes.kept, changes.changed), (vec!["https.gateway".to_owned()], vec![]));
    let others = GatewayConfig { upgrade: false, max_clients: 1, ..config(&[any_port()]) };
    assert_eq!(apply(&rig, Some(&others)).changed, ["https.max_clients", "https.upgrade", "https.users"]);
    assert_eq!(status(&rig, &mut client, &[]).await, 200);
    let mut beyond = TcpStream::connect(rig.gateway).await.expect("it listens");
    let mut answer = String::new();
    beyond.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(rig.watch.addresses(), [rig.gateway], "it is the same listener");
}

#[tokio::test]
async fn a_listener_that_is_gone_ends_its_answers_and_a_new_one_serves() {
    let rig = rig().await;
    rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.delay = Duration::from_millis(300));
    let (mut asking, mut idle) = (keeping(rig.gateway).await, keeping(rig.gateway).await);
    let asked = tokio::spawn(asking.send_request(rig.request("GET", &rig.path("/bytes/100000"), &[])));
    eventually("the request is there", || rig.lab.total().requests == 1 && rig.watch.stats().clients == 2).await;
    // Port 0 in another form, since the same address would be the same listener.
    let other: SocketAddr = "127.0.0.2:0".parse().expect("valid");
    let prepared = rig.watch.prepare(Some(&config(&[other]))).expect("prepared");
    let new = prepared.addresses()[0];
    let changes = prepared.apply();
    assert_eq!((changes.changed, changes.kept, changes.added), (vec!["https.gateway".to_owned()], vec![], vec![]));
    assert_eq!(changes.drained.len(), 1);
    assert_eq!(changes.drained[0].name, format!("https.gateway.{}", rig.gateway));
    assert_eq!(changes.drained[0].connections, 2);
    assert_eq!(rig.watch.addresses(), [new]);
    assert_eq!(status(&rig, &mut keeping(new).await, &[]).await, 200);
    let answer = whole(asked.await.expect("no panic").expect("an answer")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    idle.ready().await.expect_err("it is closed");
    eventually("clients of the old one are gone", || rig.watch.stats().clients <= 1).await;
    let is_free = async || TcpListener::bind(rig.gateway).await.is_ok();
    for _ in 0..1000 {
        if is_free().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port is not free");
}

#[tokio::test]
async fn a_gateway_stops_and_begins_to_listen() {
    let rig = rig().await;
    let changes = apply(&rig, None);
    assert_eq!((changes.changed.len(), changes.drained.len()), (1, 1));
    assert_eq!(apply(&rig, None), Changes::default());
    assert_eq!(rig.watch.addresses(), []);
    assert_eq!(apply(&rig, Some(&config(&[any_port()]))).added, ["https.gateway"]);
    let at = rig.watch.addresses()[0];
    assert_eq!(status(&rig, &mut keeping(at).await, &[]).await, 200);
    let watch = rig.watch.clone();
    let (_lab, running) = rig.stop();
    assert_eq!(running.await.expect("no panic"), 0);
    // Nobody would accept any more.
    watch.prepare(Some(&config(&[at]))).expect("prepared").apply();
    assert_eq!(watch.addresses(), []);
    TcpStream::connect(at).await.expect_err("nobody listens");
}

#[tokio::test]
async fn a_config_that_cannot_work_changes_nothing() {
    let rig = rig().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = taken.local_addr().map(|at| (at, taken)).expect("bound");
    let free: SocketAddr = "127.0.0.3:0".parse().expect("valid");
    let all = SocketAddr::from(([0, 0, 0, 0], rig.gateway.port()));
    let colon = vec![User { name: "a:b".to_owned(), password: String::new() }];
    for (bad, kind, words) in [
        (config(&[any_port(), free, taken.0]), io::ErrorKind::AddrInUse, "listen on 127.0.0.1"),
        (GatewayConfig { users: ann(), ..config(&[all]) }, io::ErrorKind::AddrInUse, "takes a restart"),
        (config(&[]), io::ErrorKind::InvalidInput, "no address"),
        (config(&["0.0.0.0:0".parse().expect("valid")]), io::ErrorKind::InvalidInput, "everyone"),
        (GatewayConfig { max_clients: 0, ..config(&[any_port()]) }, io::ErrorKind::InvalidInput, "0 clients"),
        (GatewayConfig { users: colon, ..config(&[any_port()]) }, io::ErrorKind::InvalidInput, "colon"),
    ] {
        let error = rig.watch.prepare(Some(&bad)).expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let prepared = rig.watch.prepare(Some(&config(&[free]))).expect("prepared");
    let unused = prepared.addresses()[0];
    assert_eq!(rig.watch.prepare(None).expect_err("one at a time").kind(), io::ErrorKind::ResourceBusy);
    drop(prepared);
    TcpStream::connect(unused).await.expect_err("it is closed again");
    assert_eq!(rig.watch.addresses(), [rig.gateway]);
    assert_eq!(status(&rig, &mut keeping(rig.gateway).await, &[]).await, 200);
}

#[tokio::test]
async fn who_came_in_before_the_users_were_gone_stays_out() {
    let settings = Settings { gateway: GatewayConfig { users: ann(), ..config(&[any_port()]) }, ..Settings::default() };
    let rig = start(settings).await;
    rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.delay = Duration::from_millis(300));
    let basic = format!("Basic {}", STANDARD.encode("ann:hunter2"));
    let first = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nkeepwarm-authorization: {basic}\r\n\r\n", rig.path("/"));
    let second = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", rig.path("/secret"));
    // Two requests at once: the second is read when the first has been answered, by when the listener is gone.
    let asked = tokio::spawn({
        let (at, both) = (rig.gateway, first + &second);
        async move {
            use tokio::io::AsyncWriteExt as _;
            let mut stream = TcpStream::connect(at).await.expect("it listens");
            stream.write_all(both.as_bytes()).await.expect("written");
            let mut answers = String::new();
            // An end without order is one too.
            let _ = stream.read_to_string(&mut answers).await;
            answers
        }
    });
    eventually("the request is there", || rig.lab.total().requests == 1).await;
    apply(&rig, Some(&config(&["127.0.0.2:0".parse().expect("valid")])));
    let answers = asked.await.expect("no panic");
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(rig.lab.total().requests, 1);
}

#[tokio::test]
async fn a_hundred_reloads_fail_no_request_and_leave_no_task() {
    let rig = rig().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut client = keeping(rig.gateway).await;
    assert_eq!(status(&rig, &mut client, &[]).await, 200);
    eventually("nothing else is under way", || rig.watch.stats().clients == 1).await;
    let before = tasks();
    for turn in 0..100 {
        // The first stays, the second comes and goes.
        let mut listen = vec![any_port()];
        listen.extend((turn % 2 == 0).then(|| SocketAddr::from(([127, 0, 0, 2], 0))));
        let users = if turn % 3 == 0 { ann() } else { Vec::new() };
        let has_users = !users.is_empty();
        apply(&rig, Some(&GatewayConfig { users, ..config(&listen) }));
        assert_eq!(rig.watch.addresses()[0], rig.gateway);
        let expected = if has_users { 407 } else { 200 };
        assert_eq!(status(&rig, &mut client, &[]).await, expected);
        if let Some(second) = rig.watch.addresses().get(1) {
            assert_eq!(status(&rig, &mut keeping(*second).await, &[]).await, expected);
        }
    }
    eventually("tasks are where they were", || tasks() <= before).await;
    assert_eq!(rig.watch.stats().failed, 0);
    drop(
        client
            .send_request(rig.request("GET", &rig.path("/"), &[]))
            .await
            .expect("an answer")
            .into_body()
            .collect()
            .await,
    );
}
