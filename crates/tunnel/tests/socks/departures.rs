//! Clients that go away, in each phase.

use keepwarm_tunnel::{HandshakeFailure, config::ListenKind};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    GREETING, Names, Running, connect_name, destination, echo, expect, listen, open, pair, reset, rest, take, target,
    within,
};

/// No limit ends anything within a test.
fn running(names: &Names) -> Running {
    Running::start_with(open(), names, std::time::Duration::from_secs(30))
}

#[tokio::test]
async fn a_reset_or_an_end_in_the_handshake_leaves_nothing_behind() {
    let running = Running::start(open());
    let whole = [GREETING, &connect_name("a.example", 80)].concat();
    let mut gone = 0;
    for length in 0..whole.len() {
        for is_reset in [false, true] {
            let mut stream = running.client().await;
            stream.write_all(&whole[..length]).await.unwrap();
            if length >= GREETING.len() {
                expect(&mut stream, &[5, 0]).await;
            }
            if is_reset {
                reset(stream);
            } else {
                drop(stream);
            }
            gone += u64::from(length > 0);
        }
    }
    // A reset may overtake what was sent before it, so that the server never saw a byte of it.
    running.until(|stats| stats.accepted == 2 * whole.len() as u64 && stats.clients == 0).await;
    let stats = running.watch.stats();
    let counted = stats.handshakes_failed(HandshakeFailure::Gone);
    assert!((gone / 2..=gone).contains(&counted), "{counted} of {gone}");
    assert_eq!(stats.handshakes_failed.iter().sum::<u64>(), counted);
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_takes_its_connection_along() {
    let names = Names::default();
    let running = running(&names);
    let asked = [GREETING, &connect_name("waits.example", 80)].concat();
    for (payload, is_reset) in [(&b""[..], false), (b"", true), (b"payload", true)] {
        let before = running.watch.stats().gone_early;
        let mut stream = running.client().await;
        stream.write_all(&[&asked[..], payload].concat()).await.unwrap();
        expect(&mut stream, &[5, 0]).await;
        names.until_waiting(1).await;
        if is_reset {
            reset(stream);
        } else {
            drop(stream);
        }
        names.until_waiting(0).await;
        running.until(|stats| stats.gone_early == before + 1 && stats.clients == 0).await;
    }
    let stats = running.watch.stats();
    assert_eq!((stats.tunnels_opened, stats.tunnels_failed.iter().sum::<u64>()), (0, 0));
}

#[tokio::test]
async fn a_client_that_has_sent_all_before_the_reply_gets_its_answer() {
    let address = echo("127.0.0.1").await;
    // Behind the request in one piece, or later into the socket.
    for is_coalesced in [true, false] {
        let names = Names::with("waits.example", address.ip());
        let running = running(&names);
        let mut stream = running.client().await;
        let asked = [GREETING, &connect_name("waits.example", address.port())].concat();
        let payload = b"all that I have to say";
        if is_coalesced {
            stream.write_all(&[&asked[..], payload].concat()).await.unwrap();
            expect(&mut stream, &[5, 0]).await;
            names.until_waiting(1).await;
        } else {
            stream.write_all(&asked).await.unwrap();
            expect(&mut stream, &[5, 0]).await;
            names.until_waiting(1).await;
            stream.write_all(payload).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        // Long enough for the end to have been seen, were it taken for a departure.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(*names.waiting.borrow(), 1, "coalesced: {is_coalesced}");
        names.may_end.send_replace(true);
        take(&mut stream, 10).await;
        expect(&mut stream, payload).await;
        assert_eq!(rest(&mut stream).await, b"");
    }
}

#[tokio::test]
async fn a_forward_whose_client_only_listens_is_made_although_it_has_ended() {
    let (listener, address) = destination().await;
    let mut config = open();
    config.listen = vec![listen(ListenKind::Forward(target(address)))];
    let running = Running::start(config);
    let mut client = running.client().await;
    client.shutdown().await.unwrap();
    let (mut server, _) = within(listener.accept()).await.unwrap();
    assert_eq!(rest(&mut server).await, b"");
    server.write_all(b"the banner").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await, b"the banner");
}

#[tokio::test]
async fn an_end_is_passed_on_in_both_directions_and_the_other_goes_on() {
    let (listener, _) = destination().await;
    let running = Running::start(open());
    for client_first in [true, false] {
        let ((mut client, _), (mut server, _)) = pair(&running, &listener).await;
        let (first, second) = if client_first { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.write_all(b"the last words").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(rest(second).await, b"the last words");
        assert_eq!(running.watch.stats().tunnels, 1);
        second.write_all(b"the answer").await.unwrap();
        expect(first, b"the answer").await;
        second.shutdown().await.unwrap();
        assert_eq!(rest(first).await, b"");
        running.until(|stats| stats.tunnels == 0 && stats.clients == 0).await;
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one_in_both_directions() {
    let (listener, _) = destination().await;
    let running = Running::start(open());
    for client_first in [true, false] {
        let ((mut client, _), (mut server, _)) = pair(&running, &listener).await;
        client.write_all(b"ping").await.unwrap();
        expect(&mut server, b"ping").await;
        let (first, mut second) = if client_first { (client, server) } else { (server, client) };
        reset(first);
        assert_eq!(crate::harness::broken(&mut second).await.kind(), std::io::ErrorKind::ConnectionReset);
        running.until(|stats| stats.tunnels == 0 && stats.clients == 0).await;
    }
}
