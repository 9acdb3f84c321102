//! When associations end, and that nothing of them is left.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::*;

/// Whether nobody holds that port.
fn is_free(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind(address).is_ok()
}

#[tokio::test]
async fn the_port_closes_with_the_control_connection() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    client.send(&to(peer.address(), b"?")).await;
    let (_, outlet) = peer.receive().await;
    let relay = client.relay;
    assert!(!is_free(relay) && !is_free(outlet));
    client.close().await;
    assert!(is_free(relay) && is_free(outlet));
    assert_eq!((rig.counters.stats().associations, rig.counters.stats().opened), (0, 1));
    assert!(!rig.counters.is_outlet(outlet));
}

#[tokio::test]
async fn a_reset_ends_it_as_well() {
    let rig = Rig::usual().await;
    let client = rig.client().await;
    client.control.set_zero_linger().unwrap();
    client.close().await;
    assert_eq!(rig.counters.stats().associations, 0);
}

#[tokio::test]
async fn what_is_said_on_the_control_connection_changes_nothing() {
    let rig = Rig::usual().await;
    let mut client = rig.client().await;
    client.control.write_all(&[0; 5000]).await.unwrap();
    client.round_trip(&Peer::new("127.0.0.1").await).await;
    client.control.shutdown().await.unwrap();
    assert_eq!(client.control.read(&mut [0; 1]).await.unwrap(), 0);
    client.served.await.unwrap();
}

#[tokio::test]
async fn it_ends_with_the_server() {
    let rig = Rig::usual().await;
    let mut client = rig.client().await;
    rig.closing.send_replace(true);
    assert_eq!(client.control.read(&mut [0; 1]).await.unwrap(), 0);
    client.served.await.unwrap();
    // One that comes now gets its answer and its end.
    let mut client = rig.client().await;
    assert_eq!(client.control.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_idle() {
    let rig = Rig::usual().await;
    let mut client = rig.client().await;
    let start = Instant::now();
    assert_eq!(client.control.read(&mut [0; 1]).await.unwrap(), 0);
    client.served.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn each_datagram_of_either_side_keeps_it_alive_and_foreign_ones_do_not() {
    let rig = Rig::usual().await;
    let (mut client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    let advance = || tokio::time::advance(Duration::from_secs(200));
    advance().await;
    client.send(&to(peer.address(), b"?")).await;
    let (_, outlet) = peer.receive().await;
    advance().await;
    peer.0.send_to(b"!", outlet).await.unwrap();
    assert_eq!(client.receive().await, (peer.address(), b"!".to_vec()));
    let answered = Instant::now();
    advance().await;
    let foreign = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    foreign.send_to(&to(peer.address(), b"?"), client.relay).await.unwrap();
    assert_eq!(client.control.read(&mut [0; 1]).await.unwrap(), 0);
    client.served.await.unwrap();
    assert_eq!(answered.elapsed(), Duration::from_secs(300));
    assert_eq!(rig.dropped(UdpDropped::Foreign), 1);
}
