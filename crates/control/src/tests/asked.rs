//! What commands do: ask with a token, and listen.

use super::*;
use crate::client::{Daemon, events};

fn token(text: &str) -> Option<Token> {
    Some(Token::new(text).unwrap())
}

async fn guarded() -> Served {
    served_with(Fake::default(), ControlOptions { token: token("0123456789abcdef"), ..ControlOptions::default() }).await
}

#[tokio::test]
async fn a_client_sends_its_token_and_is_told_when_it_is_wrong() {
    let served = guarded().await;
    let daemon = |token| Daemon { address: served.address, token };
    let status: StatusRow = get(&daemon(token("0123456789abcdef")), "/api/v1/status").await.unwrap();
    assert_eq!(status.version, "9.9.9");
    for (token, remedy) in [(None, "--token-file"), (token("0123456789abcdeF"), "another token")] {
        let sent = token.is_some();
        let refused = get::<StatusRow>(&daemon(token), "/api/v1/status").await.unwrap_err();
        assert!(matches!(refused, ClientError::Unauthorized { sent: told, .. } if told == sent), "{refused:?}");
        assert!(refused.to_string().contains(remedy), "{refused}");
        assert!(!format!("{refused:?} {refused}").contains("0123456789"), "no token is shown");
    }
}

#[tokio::test]
async fn a_listener_gets_looks_until_the_daemon_stops() {
    let served = guarded().await;
    let daemon = Daemon { address: served.address, token: token("0123456789abcdef") };
    let mut stop = Some(served.stop);
    let mut looks = 0;
    let listened = events(&daemon, |look| {
        assert_eq!((look.status.version.as_str(), look.pools.len()), ("9.9.9", 1));
        looks += 1;
        if looks == 2 {
            stop.take();
        }
    });
    tokio::time::timeout(Duration::from_secs(20), listened).await.expect("it ends with the daemon").unwrap();
    assert!(looks >= 2, "{looks}");
    let gone = events(&daemon, |_| panic!("nobody is there")).await.unwrap_err();
    assert!(matches!(gone, ClientError::NotRunning { .. }), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_silent_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: nothing\n\n").await.unwrap();
        stream
    });
    let silent = events(address, |_| panic!("no event came")).await.unwrap_err();
    assert!(silent.to_string().contains("silent for 10s"), "{silent}");
    drop(peer.await.unwrap());
}
