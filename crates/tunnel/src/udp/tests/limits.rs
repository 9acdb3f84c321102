//! What is refused, dropped and counted.

use keepwarm_transport::resolve::Resolving;
use tokio::io::AsyncWriteExt as _;

use super::*;

/// Never answers.
#[derive(Debug)]
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _host: &str) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn one_association_too_many_is_refused_with_1_and_may_come_again() {
    let mut config = TunnelConfig::default();
    config.udp.max_associations = 2;
    let rig = Rig::new("127.0.0.1", config, Fixed(Vec::new())).await;
    let (first, second) = (rig.client().await, rig.client().await);
    let (mut control, served) = rig.ask(port::unspecified(true, 0)).await;
    control.write_all(b"nobody reads this").await.unwrap();
    assert_eq!(read_reply(&mut control).await, (GENERAL_FAILURE, port::unspecified(true, 0)));
    assert_eq!(control.read(&mut [0; 1]).await.unwrap(), 0);
    drop(control);
    served.await.unwrap();
    first.close().await;
    let third = rig.client().await;
    let peer = Peer::new("127.0.0.1").await;
    second.round_trip(&peer).await;
    third.round_trip(&peer).await;
    let stats = rig.counters.stats();
    assert_eq!((stats.associations, stats.opened, stats.refused), (2, 3, 1));
}

#[tokio::test]
async fn without_udp_the_command_is_not_supported() {
    let mut config = TunnelConfig::default();
    config.udp.enabled = false;
    let rig = Rig::new("127.0.0.1", config, Fixed(Vec::new())).await;
    let (mut control, served) = rig.ask(port::unspecified(true, 0)).await;
    assert_eq!(read_reply(&mut control).await.0, COMMAND_NOT_SUPPORTED);
    drop(control);
    served.await.unwrap();
    assert_eq!((rig.counters.stats().associations, rig.counters.stats().refused), (0, 1));
}

#[tokio::test]
async fn fragments_are_dropped() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    for fragment in [1, 2, 0x80, 0x81, 0xff] {
        let mut datagram = to(peer.address(), b"part");
        datagram[2] = fragment;
        client.send(&datagram).await;
    }
    client.round_trip(&peer).await;
    assert_eq!((rig.dropped(UdpDropped::Fragment), rig.counters.stats().datagrams_sent), (5, 1));
}

#[tokio::test]
async fn malformed_datagrams_are_dropped() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    client.round_trip(&peer).await;
    let whole = to(peer.address(), b"");
    for length in 0..whole.len() {
        client.send(&whole[..length]).await;
    }
    let wrong: [&[u8]; 5] = [
        b"\0\x01\0\x01\x7f\0\0\x01\0\x35reserved",
        b"\0\0\0\x02\x7f\0\0\x01\0\x35type",
        b"\0\0\0\x01\x7f\0\0\x01\0\0port 0",
        b"\0\0\0\x01\0\0\0\0\0\x35nowhere",
        b"\0\0\0\x03\x04a\0b.\0\x35no name",
    ];
    for datagram in wrong {
        client.send(datagram).await;
    }
    client.send(b"\0\0\0\x01\xe0\0\0\xfb\x14\xe9multicast").await;
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Malformed), (whole.len() + wrong.len()) as u64);
    assert_eq!((rig.dropped(UdpDropped::Unsupported), rig.counters.stats().datagrams_sent), (1, 2));
}

#[tokio::test]
async fn a_lookup_that_takes_long_keeps_neither_other_destinations_nor_more_than_may_wait() {
    let rig = Rig::new("127.0.0.1", TunnelConfig::default(), Silent).await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    for _ in 0..70 {
        client.send(&to_name("slow.example", 53, b"?")).await;
    }
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Full), 70 - 64);
    assert_eq!(rig.counters.stats().datagrams_sent, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_without_an_answer_is_given_up_with_what_waits_for_it() {
    let mut config = TunnelConfig::default();
    config.udp.idle_timeout = 2 * config.timeout;
    let rig = Rig::new("127.0.0.1", config, Silent).await;
    let client = rig.client().await;
    client.send(&to_name("slow.example", 53, b"?")).await;
    client.send(&to_name("slow.example", 53, b"?")).await;
    client.served.await.unwrap();
    assert_eq!(rig.dropped(UdpDropped::Unresolved), 2);
}
