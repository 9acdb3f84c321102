//! Every byte arrives, in order, whatever carries it.

use super::*;

#[tokio::test]
async fn bytes_arrive_by_splice_copy_and_in_memory() {
    for len in [0, 1, 1000, 16 * 1024, 300_000, 5_000_003] {
        for piece_max in [700, 70_000, 1 << 20] {
            if len / piece_max < 2000 {
                both_ways(Relayed::tcp(&options()).await, len, piece_max).await;
                both_ways(Relayed::tcp(&copying()).await, len, piece_max).await;
                both_ways(Relayed::memory(5000, &options()), len, piece_max).await;
            }
        }
    }
}

async fn both_ways<S: AsyncRead + AsyncWrite + Unpin>(mut relayed: Relayed<S>, len: usize, piece_max: usize) {
    let (up, down) = (pattern(1, len), pattern(2, len / 2 + 1));
    let (client_read, client_write) = tokio::io::split(&mut relayed.client);
    let (upstream_read, upstream_write) = tokio::io::split(&mut relayed.upstream);
    let ((), (), at_client, at_upstream) = tokio::join!(
        send(client_write, &up, piece_max),
        send(upstream_write, &down, piece_max),
        receive(client_read),
        receive(upstream_read),
    );
    at_client.1.unwrap();
    at_upstream.1.unwrap();
    assert!(at_client.0 == down, "{len} {piece_max}: what the client got");
    assert!(at_upstream.0 == up, "{len} {piece_max}: what the upstream got");
    let traffic = Arc::clone(&relayed.traffic);
    assert_eq!(relayed.reason().await, RelayReason::Closed);
    assert_eq!(traffic.sent.load(Ordering::Relaxed), up.len() as u64);
    assert_eq!(traffic.received.load(Ordering::Relaxed), down.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tunnels_at_once_keep_apart() {
    let tunnels = (0..100_u64).map(|number| {
        tokio::spawn(async move {
            let mut relayed = Relayed::tcp(&options()).await;
            let (up, down) = (pattern(2 * number, 700_000), pattern(2 * number + 1, 700_000));
            let (client_read, client_write) = relayed.client.split();
            let (upstream_read, upstream_write) = relayed.upstream.split();
            let ((), (), at_client, at_upstream) = tokio::join!(
                send(client_write, &up, 100_000),
                send(upstream_write, &down, 100_000),
                receive(client_read),
                receive(upstream_read),
            );
            assert!(at_client.0 == down && at_upstream.0 == up, "tunnel {number}");
            assert_eq!(relayed.reason().await, RelayReason::Closed);
        })
    });
    for tunnel in tunnels.collect::<Vec<_>>() {
        tunnel.await.unwrap();
    }
}

#[tokio::test]
async fn a_byte_does_not_wait_for_more() {
    let mut relayed = Relayed::tcp(&options()).await;
    for (number, byte) in (0..200_u8).enumerate() {
        relayed.client.write_u8(byte).await.unwrap();
        assert_eq!(relayed.upstream.read_u8().await.unwrap(), byte);
        relayed.upstream.write_u8(byte).await.unwrap();
        assert_eq!(relayed.client.read_u8().await.unwrap(), byte);
        assert_eq!((relayed.sent(), relayed.received()), (number as u64 + 1, number as u64 + 1));
    }
}

#[tokio::test]
async fn bulk_chatter_and_bulk_again_keep_their_order() {
    let mut relayed = Relayed::tcp(&options()).await;
    for round in 0..6 {
        let bulk = pattern(round, 3_000_000);
        let mut got = vec![0; bulk.len()];
        let (written, read) = tokio::join!(relayed.client.write_all(&bulk), relayed.upstream.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == bulk, "round {round}");
        for byte in 0..20 {
            relayed.client.write_u8(byte).await.unwrap();
            assert_eq!(relayed.upstream.read_u8().await.unwrap(), byte, "round {round}");
        }
    }
}
