//! edns-tcp-keepalive towards upstreams (RFC 7828), and cookies over TCP.

use keepwarm_dns::config::Transport;

use super::*;

async fn over_tcp(cookies: bool) -> Scripted {
    Scripted::start(|config| {
        config.upstreams[0].transport = Transport::Tcp;
        config.upstreams[0].cookies = cookies;
        config.pool.min_idle = 0;
        config.pool.max_per_host = 1;
    })
    .await
}

#[tokio::test]
async fn the_first_query_of_a_connection_asks_how_long_it_may_idle() {
    let scripted = over_tcp(false).await;
    let client = scripted.ask(without_edns("first.example"));
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    assert_eq!(options(&asked), Some(vec![(KEEPALIVE, vec![])]), "without a time-out of its own");
    stream.send(&reply(&asked, 0, Some(&[(KEEPALIVE, &300_u16.to_be_bytes())]))).await;
    assert_eq!(options(&client.await.unwrap().unwrap()), None, "it is no business of the client");
    let query = query("second.example", 1);
    let client = scripted.ask(query.clone());
    let asked = stream.receive().await.unwrap();
    assert_eq!(asked[2..], query[2..], "the others are as the client sent them");
    stream.send(&reply(&asked, 0, Some(&[]))).await;
    client.await.unwrap().unwrap();
    let limit = scripted.server.pools()[0].idle_limit.expect("a limit below ours");
    assert!(limit <= std::time::Duration::from_secs(30), "{limit:?}");
    scripted.end().await;
}

#[tokio::test]
async fn a_keepalive_of_zero_closes_the_connection_once_all_answers_are_there() {
    let scripted = over_tcp(false).await;
    let first = scripted.ask(query("first.example", 1));
    let mut stream = scripted.accept().await;
    let asked_first = stream.receive().await.unwrap();
    let second = scripted.ask(query("second.example", 1));
    let asked_second = stream.receive().await.unwrap();
    stream.send(&reply(&asked_first, 0, Some(&[(KEEPALIVE, &[0, 0])]))).await;
    first.await.unwrap().unwrap();
    stream.send(&reply(&asked_second, 0, Some(&[]))).await;
    assert_eq!(rcode(&second.await.unwrap().unwrap()), 0, "what was under way is waited for");
    assert_eq!(stream.receive().await, None, "and then we close");
    let third = scripted.ask(query("third.example", 1));
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    stream.send(&reply(&asked, 0, Some(&[]))).await;
    assert_eq!(rcode(&third.await.unwrap().unwrap()), 0);
    scripted.end().await;
}

#[tokio::test]
async fn a_server_that_refuses_the_keepalive_is_asked_without_and_remembered() {
    let scripted = over_tcp(false).await;
    let client = scripted.ask(without_edns("old.example"));
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    assert!(options(&asked).is_some());
    stream.send(&reply(&asked, 1, None)).await;
    let asked = stream.receive().await.unwrap();
    assert_eq!(options(&asked), None);
    stream.send(&reply(&asked, 0, None)).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0);
    drop(stream);
    let client = scripted.ask(without_edns("again.example"));
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    assert_eq!(options(&asked), None, "nor over the next connection");
    stream.send(&reply(&asked, 0, None)).await;
    client.await.unwrap().unwrap();
    scripted.end().await;
}

#[tokio::test]
async fn cookies_are_learned_over_tcp_and_a_wrong_one_is_not_taken() {
    let scripted = over_tcp(true).await;
    let client = scripted.ask(query("first.example", 1));
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    let cookie = [&option(&asked, COOKIE).unwrap()[..], &[5; 16]].concat();
    stream.send(&reply(&asked, 0, Some(&[(COOKIE, &cookie)]))).await;
    client.await.unwrap().unwrap();
    let client = scripted.ask(query("second.example", 1));
    let asked = stream.receive().await.unwrap();
    assert_eq!(option(&asked, COOKIE).unwrap(), cookie);
    let mut wrong = cookie.clone();
    wrong[0] ^= 1;
    stream.send(&reply(&asked, 3, Some(&[(COOKIE, &wrong)]))).await;
    // As with an answer to another question, the query goes over a fresh connection and the old one is left.
    let mut fresh = scripted.accept().await;
    let asked = fresh.receive().await.unwrap();
    fresh.send(&reply(&asked, 0, Some(&[(COOKIE, &cookie)]))).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0);
    assert_eq!(scripted.server.pools()[0].cookie_errors, 1);
    scripted.end().await;
}
