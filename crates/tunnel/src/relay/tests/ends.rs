//! Ends are passed on as ends, errors as resets, and silence has a limit.

use tokio::time::{Instant, sleep, timeout};

use super::*;

#[tokio::test]
async fn each_side_may_end_first_and_still_hear_the_other() {
    for options in [options(), copying()] {
        let mut relayed = Relayed::tcp(&options).await;
        talk_after_end(&mut relayed.client, &mut relayed.upstream).await;
        assert_eq!(relayed.reason().await, RelayReason::Closed);

        let mut relayed = Relayed::tcp(&options).await;
        talk_after_end(&mut relayed.upstream, &mut relayed.client).await;
        assert_eq!(relayed.reason().await, RelayReason::Closed);

        let mut relayed = Relayed::memory(100, &options);
        talk_after_end(&mut relayed.upstream, &mut relayed.client).await;
        assert_eq!(relayed.reason().await, RelayReason::Closed);
    }
}

/// `first` says its last word; `second` answers with much.
async fn talk_after_end(
    first: &mut (impl AsyncRead + AsyncWrite + Unpin),
    second: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    first.write_all(b"that is all").await.unwrap();
    first.shutdown().await.unwrap();
    let (heard, end) = receive(&mut *second).await;
    end.unwrap();
    assert_eq!(heard, b"that is all");
    let answer = pattern(3, 2_000_000);
    let ((), (heard, end)) = tokio::join!(send(second, &answer, 50_000), receive(first));
    end.unwrap();
    assert!(heard == answer);
}

#[tokio::test]
async fn a_reset_before_any_byte_is_passed_on() {
    let mut relayed = Relayed::tcp(&options()).await;
    reset(relayed.client);
    assert_eq!(relayed.upstream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let end = relayed.task.await.unwrap();
    assert_eq!(end.reason, RelayReason::ClientFailed(io::ErrorKind::ConnectionReset));

    let mut relayed = Relayed::tcp(&options()).await;
    reset(relayed.upstream);
    assert_eq!(relayed.client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let end = relayed.task.await.unwrap();
    assert_eq!(end.reason, RelayReason::UpstreamFailed(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_came_before_a_reset_is_delivered_before_the_reset() {
    for options in [options(), copying()] {
        let mut relayed = Relayed::tcp(&options).await;
        let bytes = pattern(4, 20_000_000);
        // The client reads nothing until the upstream can write no more, and the upstream is gone before it reads.
        let mut written = 0;
        while let Ok(wrote) = timeout(STALLED, relayed.upstream.write(&bytes[written..])).await {
            written += wrote.unwrap();
        }
        reset(relayed.upstream);
        let (got, end) = receive(&mut relayed.client).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(got[..] == bytes[..got.len()]);
        let reason = relayed.task.await.unwrap().reason;
        assert!(matches!(reason, RelayReason::UpstreamFailed(_)), "{reason:?}");
        assert_eq!(relayed.traffic.received.load(Ordering::Relaxed), got.len() as u64);
    }
}

/// Loopback moves bytes at once; a stream that takes none for so long takes none until its reader reads.
const STALLED: Duration = Duration::from_millis(300);

#[tokio::test]
async fn what_a_side_had_said_arrives_though_it_takes_no_more() {
    for options in [options(), copying()] {
        let mut relayed = Relayed::tcp(&options).await;
        let answer = pattern(5, 300_000);
        // A server that answers early and closes without reading the request: its kernel resets the connection. The client goes on
        // with the request, so that it is the write which fails first.
        relayed.client.write_all(b"request").await.unwrap();
        relayed.upstream.readable().await.unwrap();
        relayed.upstream.write_all(&answer).await.unwrap();
        while relayed.received() < answer.len() as u64 {
            tokio::task::yield_now().await;
        }
        drop(relayed.upstream);
        relayed.client.write_all(b"rest of the request").await.unwrap();
        let mut got = vec![0; answer.len()];
        relayed.client.read_exact(&mut got).await.unwrap();
        assert!(got == answer);
        assert_eq!(relayed.client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let reason = relayed.task.await.unwrap().reason;
        assert!(matches!(reason, RelayReason::UpstreamFailed(_)), "{reason:?}");
    }
}

#[tokio::test]
async fn a_reset_after_the_other_side_has_ended_is_passed_on() {
    for options in [options(), copying()] {
        let mut relayed = Relayed::tcp(&options).await;
        relayed.client.shutdown().await.unwrap();
        assert_eq!(relayed.upstream.read(&mut [0]).await.unwrap(), 0);
        relayed.upstream.write_all(b"half an ans").await.unwrap();
        let mut got = [0; 11];
        relayed.client.read_exact(&mut got).await.unwrap();
        reset(relayed.upstream);
        assert_eq!(relayed.client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let reason = relayed.task.await.unwrap().reason;
        assert_eq!(reason, RelayReason::UpstreamFailed(io::ErrorKind::ConnectionReset));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_side_that_has_ended_is_found_though_the_other_is_silent() {
    let mut relayed = Relayed::tcp(&options()).await;
    relayed.client.shutdown().await.unwrap();
    assert_eq!(relayed.upstream.read(&mut [0]).await.unwrap(), 0);
    let start = Instant::now();
    reset(relayed.client);
    let reason = relayed.task.await.unwrap().reason;
    assert!(matches!(reason, RelayReason::ClientFailed(_)), "{reason:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(relayed.upstream.take_error().unwrap().is_some(), "the reset is passed on");
}

#[tokio::test]
async fn a_side_that_takes_nothing_any_more_ends_the_tunnel() {
    let mut relayed = Relayed::tcp(&options()).await;
    relayed.client.shutdown().await.unwrap();
    assert_eq!(relayed.upstream.read(&mut [0]).await.unwrap(), 0);
    reset(relayed.client);
    let bytes = pattern(6, 100_000);
    let mut result = Ok(());
    while result.is_ok() {
        result = relayed.upstream.write_all(&bytes).await;
    }
    let reason = relayed.task.await.unwrap().reason;
    assert!(matches!(reason, RelayReason::ClientFailed(_)), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_tunnel_and_each_byte_puts_it_off() {
    let mut relayed = Relayed::memory(100, &options());
    for _ in 0..3 {
        sleep(Duration::from_secs(3599)).await;
        relayed.client.write_u8(1).await.unwrap();
        relayed.upstream.read_u8().await.unwrap();
        sleep(Duration::from_secs(3599)).await;
        relayed.upstream.write_u8(1).await.unwrap();
        relayed.client.read_u8().await.unwrap();
    }
    let last = Instant::now();
    assert_eq!(relayed.reason().await, RelayReason::IdleTimeout);
    assert_eq!(last.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn a_side_alone_has_less_patience() {
    let mut relayed = Relayed::memory(100, &options());
    sleep(Duration::from_secs(1000)).await;
    relayed.upstream.shutdown().await.unwrap();
    assert_eq!(relayed.client.read(&mut [0]).await.unwrap(), 0);
    for _ in 0..3 {
        sleep(Duration::from_secs(299)).await;
        relayed.client.write_u8(1).await.unwrap();
        relayed.upstream.read_u8().await.unwrap();
    }
    let last = Instant::now();
    assert_eq!(relayed.reason().await, RelayReason::HalfOpenTimeout);
    assert_eq!(last.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn silence_is_passed_on_as_a_reset() {
    let mut relayed = Relayed::tcp(&options()).await;
    assert_eq!(relayed.client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relayed.upstream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relayed.reason().await, RelayReason::IdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn an_endless_timeout_is_no_panic() {
    let endless = RelayOptions { idle_timeout: Duration::MAX, half_open_timeout: Duration::MAX, splice: true };
    let mut relayed = Relayed::memory(100, &endless);
    sleep(Duration::from_secs(365 * 86_400)).await;
    talk_after_end(&mut relayed.client, &mut relayed.upstream).await;
    assert_eq!(relayed.reason().await, RelayReason::Closed);
}

/// A client whose upstream has room for 100 bytes and has taken none of them: 1000 bytes were read from the client, 500 are in its socket.
async fn stalled() -> (TcpStream, DuplexStream, Relayed<()>) {
    let ((mut client, near_client), (upstream, near_upstream)) = (tcp_pair().await, duplex(100));
    let relayed = Relayed::run((), near_client.into(), (), Stream::Other(Box::new(near_upstream)), &options());
    client.write_all(&pattern(9, 1500)[..1000]).await.unwrap();
    while relayed.sent() < 100 {
        tokio::task::yield_now().await;
    }
    client.write_all(&pattern(9, 1500)[1000..]).await.unwrap();
    (client, upstream, relayed)
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_found_though_the_other_side_takes_nothing() {
    let (client, _upstream, relayed) = stalled().await;
    sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    reset(client);
    assert_eq!(relayed.reason().await, RelayReason::ClientFailed(io::ErrorKind::ConnectionReset));
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_was_found_does_not_cut_off_who_reads_slowly() {
    let (client, mut upstream, relayed) = stalled().await;
    reset(client);
    let mut got = vec![0; 1500];
    for piece in got.chunks_mut(100) {
        sleep(Duration::from_secs(9)).await;
        upstream.read_exact(piece).await.unwrap();
    }
    assert!(got == pattern(9, 1500));
    // The look has taken the error from the socket, which then shows a mere end.
    assert_eq!(relayed.reason().await, RelayReason::ClientFailed(io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_ends_a_tunnel_whose_other_side_takes_nothing() {
    let (client, mut upstream, relayed) = stalled().await;
    reset(client);
    // It is the write to the client that takes the error from its socket.
    upstream.write_all(b"to nobody").await.unwrap();
    let start = Instant::now();
    let reason = relayed.reason().await;
    assert!(matches!(reason, RelayReason::ClientFailed(_)), "{reason:?}");
    assert!(start.elapsed() <= Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_is_no_failure() {
    let (mut client, mut upstream, relayed) = stalled().await;
    sleep(Duration::from_secs(3000)).await;
    let mut got = vec![0; 1500];
    upstream.read_exact(&mut got).await.unwrap();
    assert!(got == pattern(9, 1500));
    talk_after_end(&mut client, &mut upstream).await;
    assert_eq!(relayed.reason().await, RelayReason::Closed);
}
