//! CONNECT.

use keepwarm_transport::resolve::Resolving;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::*;
use crate::config::{HostMatch, Match, Rule, Via};

fn connect(port: u16) -> String {
    format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")
}

/// Sends through a tunnel that is there, both ways, and ends it both ways.
async fn use_up(mut client: Client, mut upstream: Client) {
    upstream.send("from the origin").await;
    assert_eq!(client.exactly(15).await, "from the origin");
    client.send("from the client").await;
    client.0.shutdown().await.unwrap();
    assert_eq!(upstream.rest().await, "from the client");
    upstream.send("still here").await;
    upstream.0.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "still here");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_its_ends() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&connect(origin.port())).await;
        let upstream = origin.accept().await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(fields(&head), Vec::<String>::new(), "no length and no chunks: RFC 9110 section 9.3.6");
        use_up(client, upstream).await;
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_payload_behind_the_head_arrives_once_and_in_order() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        // In one piece, more than the proxy reads at first, with a second empty line in it, and in the two pieces around each byte.
        let long = "x".repeat(100_000);
        for payload in ["hello", "GET / HTTP/1.1\r\n\r\nbody", "\r\n\r\n", &long] {
            let mut client = proxy.client().await;
            client.send(&format!("{}{payload}", connect(origin.port()))).await;
            let mut upstream = origin.accept().await;
            assert_eq!(upstream.exactly(payload.len()).await, payload);
            assert_eq!(status(&client.head().await), "200");
            use_up(client, upstream).await;
        }
        let text = format!("{}hello", connect(origin.port()).replace("\r\n", "\n"));
        for cut in 1..text.len() {
            let mut client = proxy.client().await;
            client.0.set_nodelay(true).unwrap();
            client.send(&text[..cut]).await;
            tokio::task::yield_now().await;
            client.send(&text[cut..]).await;
            let mut upstream = origin.accept().await;
            assert_eq!(upstream.exactly(5).await, "hello", "{cut}");
            assert_eq!(status(&client.head().await), "200");
            use_up(client, upstream).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_may_follow_requests_on_the_same_connection() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        // All at once: what is behind the second head is known to nobody but the reader of heads.
        let get = format!("GET http://localhost:{}/ HTTP/1.1\r\nhost: x\r\n\r\n", origin.port());
        client.send(&format!("{get}{}hello", connect(origin.port()))).await;
        let mut plain = origin.accept().await;
        plain.head().await;
        plain.send(OK).await;
        client.until("ok").await;
        let mut upstream = origin.accept().await;
        assert_eq!(status(&client.head().await), "200");
        assert_eq!(upstream.exactly(5).await, "hello");
        assert_eq!(plain.rest().await, "", "the connection for requests ends with them");
        use_up(client, upstream).await;
    })
    .await;
}

#[tokio::test]
async fn the_destination_may_speak_first_and_at_length() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&connect(origin.port())).await;
        let mut upstream = origin.accept().await;
        let bulk = "0123456789abcdef".repeat(200_000);
        let sent = bulk.clone();
        let send = tokio::spawn(async move {
            upstream.send(&sent).await;
            upstream
        });
        assert_eq!(status(&client.head().await), "200");
        assert!(client.exactly(bulk.len()).await == bulk);
        use_up(client, send.await.unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn clients_of_http_1_0_get_tunnels_too() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&format!("CONNECT 127.0.0.1:{} HTTP/1.0\r\n\r\n", origin.port())).await;
        let upstream = origin.accept().await;
        assert!(client.head().await.starts_with("HTTP/1.0 200 "));
        use_up(client, upstream).await;
    })
    .await;
}

/// Says when it is asked, and when the asker has lost interest; answers when told.
#[derive(Debug)]
struct Slow {
    asked: mpsc::UnboundedSender<oneshot::Sender<()>>,
    answer: Arc<Mutex<mpsc::UnboundedReceiver<()>>>,
}

impl Resolve for Slow {
    fn resolve(&self, _: &str) -> Resolving {
        let (asked, answer) = (self.asked.clone(), self.answer.clone());
        Box::pin(async move {
            let (interest, lost) = oneshot::channel();
            asked.send(interest).unwrap();
            answer.lock().await.recv().await;
            drop(lost);
            Ok(vec!["127.0.0.1".parse().unwrap()])
        })
    }
}

/// A proxy whose connects hang, what tells of them, and what lets them go on.
async fn slow() -> (Proxy, mpsc::UnboundedReceiver<oneshot::Sender<()>>, mpsc::UnboundedSender<()>) {
    let ((asked, asks), (go_on, answer)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let resolver = Slow { asked, answer: Arc::new(Mutex::new(answer)) };
    // No time-out of the connect ends what a test waits for.
    let config = TunnelConfig { timeout: Duration::from_secs(3600), ..TunnelConfig::default() };
    (Proxy::resolving(config, Arc::new(resolver)).await, asks, go_on)
}

#[tokio::test]
async fn success_is_not_said_before_it_is_so() {
    timely(async {
        let ((proxy, mut asks, go_on), origin) = (slow().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&connect(origin.port())).await;
        let _interest = asks.recv().await.unwrap();
        let nothing = client.0.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        // What is sent meanwhile waits for it.
        client.send("early").await;
        go_on.send(()).unwrap();
        let mut upstream = origin.accept().await;
        assert_eq!(status(&client.head().await), "200");
        assert_eq!(upstream.exactly(5).await, "early");
        use_up(client, upstream).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_connect_with_it() {
    timely(async {
        let (proxy, mut asks, _go_on) = slow().await;
        let mut client = proxy.client().await;
        client.send(&connect(9)).await;
        let mut interest = asks.recv().await.unwrap();
        drop(client);
        interest.closed().await;
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_reset_behind_its_payload_takes_its_connect_with_it() {
    timely(async {
        let (proxy, mut asks, _go_on) = slow().await;
        let mut client = proxy.client().await;
        client.send(&format!("{}payload", connect(9))).await;
        let mut interest = asks.recv().await.unwrap();
        client.send("more of it, which stays in the socket").await;
        client.0.set_zero_linger().unwrap();
        drop(client);
        interest.closed().await;
        proxy.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_sent_everything_still_gets_its_tunnel() {
    timely(async {
        let ((proxy, mut asks, go_on), origin) = (slow().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&format!("{}all of it", connect(origin.port()))).await;
        client.0.shutdown().await.unwrap();
        let _interest = asks.recv().await.unwrap();
        go_on.send(()).unwrap();
        let mut upstream = origin.accept().await;
        assert_eq!(upstream.rest().await, "all of it");
        upstream.send("answer").await;
        drop(upstream);
        assert_eq!(status(&client.head().await), "200");
        assert_eq!(client.rest().await, "answer");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_is_not_made_is_explained_and_ends_the_connection() {
    timely(async {
        let closed = Origin::start().await.port();
        let origin = Origin::start().await;
        let rule = Rule {
            matches: vec![Match { host: HostMatch::Name("no.example".to_owned()), ports: None }],
            via: Via::Reject,
            speculate: 0,
        };
        let proxy = Proxy::with(TunnelConfig { rules: vec![rule], ..TunnelConfig::default() }).await;
        let own = proxy.address.port();
        for (target, expected, kind) in [
            (format!("127.0.0.1:{closed}"), "502", "refused"),
            ("no.example:443".to_owned(), "403", "rejected"),
            (format!("127.0.0.1:{own}"), "403", "rejected"),
            ("localhost".to_owned(), "400", "request"),
            ("localhost:0".to_owned(), "400", "request"),
            ("[::1]".to_owned(), "400", "request"),
        ] {
            // What follows is no request, whatever it looks like.
            let smuggled = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nhost: x\r\n\r\n", origin.port());
            let answer = proxy.ask(&format!("CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}")).await;
            let (head, text) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(status(head), expected, "{target}: {answer}");
            let fields = fields(head);
            assert!(fields.contains(&"connection: close".to_owned()), "{answer}");
            assert!(fields.contains(&format!("keepwarm-error: {kind}")), "{answer}");
            assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
        }
        assert!(origin.is_untouched());
    })
    .await;
}

#[tokio::test]
async fn a_destination_whose_tunnels_are_taken_is_tried_again_later() {
    timely(async {
        let origin = Origin::start().await;
        let config = TunnelConfig { max_per_destination: 1, max_waiters: 0, ..TunnelConfig::default() };
        let proxy = Proxy::with(config).await;
        let mut client = proxy.client().await;
        client.send(&connect(origin.port())).await;
        let upstream = origin.accept().await;
        client.head().await;
        let answer = proxy.ask(&connect(origin.port())).await;
        assert_eq!(status(&answer), "503");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        use_up(client, upstream).await;
        proxy.idle().await;
        let mut client = proxy.client().await;
        client.send(&connect(origin.port())).await;
        assert_eq!(status(&client.head().await), "200");
    })
    .await;
}

#[tokio::test]
async fn connect_has_no_body() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        for fields in ["content-length: 5", "transfer-encoding: chunked"] {
            let head = format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n", origin.port());
            let answer = proxy.ask(&format!("{head}hello")).await;
            assert_eq!(status(&answer), "400", "{fields}");
        }
        assert!(origin.is_untouched());
        let mut client = proxy.client().await;
        client.send(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\ncontent-length: 0\r\n\r\n", origin.port())).await;
        assert_eq!(status(&client.head().await), "200");
    })
    .await;
}

#[tokio::test]
async fn live_tunnels_are_listed_and_counted() {
    timely(async {
        let (proxy, origin) = (Proxy::start().await, Origin::start().await);
        let mut client = proxy.client().await;
        client.send(&format!("{}hello", connect(origin.port()))).await;
        let mut upstream = origin.accept().await;
        client.head().await;
        upstream.exactly(5).await;
        upstream.send("world!").await;
        client.exactly(6).await;
        let opened = proxy.shared.connector.stats();
        assert_eq!(opened.opened, 1, "{opened:?}");
        use_up(client, upstream).await;
        proxy.idle().await;
    })
    .await;
}
