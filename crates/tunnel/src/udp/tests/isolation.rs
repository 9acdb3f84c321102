//! Nobody but the client and those it asked is heard, and nothing goes from one client to another.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn a_foreign_sender_is_not_taken_for_the_client() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    let elsewhere = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    elsewhere.send_to(&to(peer.address(), b"foreign"), client.relay).await.unwrap();
    client.round_trip(&peer).await;
    // Now the client's port is known too.
    let same_ip = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    same_ip.send_to(&to(peer.address(), b"foreign"), client.relay).await.unwrap();
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Foreign), 2);
    assert_eq!(rig.counters.stats().datagrams_sent, 2);
}

#[tokio::test]
async fn a_declared_port_is_the_only_one() {
    let rig = Rig::usual().await;
    let peer = Peer::new("127.0.0.1").await;
    let declared = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = declared.local_addr().unwrap().port();
    let mut client = rig.client_that_declares(port::unspecified(true, port)).await;
    client.send(&to(peer.address(), b"other port")).await;
    client.socket = declared;
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Foreign), 1);
    // An address that is not the client's says that there is a NAT, which changes ports as well.
    let client = rig.client_that_declares(SocketAddr::from(([10, 0, 0, 7], port))).await;
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Foreign), 1);
}

#[tokio::test]
async fn a_datagram_without_a_header_does_not_claim_the_association() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    let stray = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stray.send_to(b"\0\0\0\x03stray", client.relay).await.unwrap();
    client.round_trip(&peer).await;
    assert_eq!((rig.dropped(UdpDropped::Malformed), rig.dropped(UdpDropped::Foreign)), (1, 0));
}

#[tokio::test]
async fn only_addresses_that_were_asked_may_answer() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    client.send(&to(peer.address(), b"?")).await;
    let (_, outlet) = peer.receive().await;
    let stranger = Peer::new("127.0.0.3").await;
    stranger.0.send_to(b"forged", outlet).await.unwrap();
    // Another port of the same address may: TFTP and the like answer from there.
    let other_port = Peer::new("127.0.0.1").await;
    other_port.0.send_to(b"from another port", outlet).await.unwrap();
    peer.0.send_to(b"real", outlet).await.unwrap();
    assert_eq!(client.receive().await, (other_port.address(), b"from another port".to_vec()));
    assert_eq!(client.receive().await, (peer.address(), b"real".to_vec()));
    assert_eq!(rig.dropped(UdpDropped::Unasked), 1);
    // Once it is asked, it is heard.
    client.send(&to(stranger.address(), b"?")).await;
    stranger.echo().await;
    assert_eq!(client.receive().await, (stranger.address(), b"?".to_vec()));
}

#[tokio::test]
async fn a_client_cannot_reach_anothers_association_through_the_gateway() {
    let rig = Rig::usual().await;
    let (client, other, peer) = (rig.client().await, rig.client().await, Peer::new("127.0.0.1").await);
    // It comes from an outlet of ours on 127.0.0.1, which is the other client's address.
    client.send(&to(other.relay, &to(peer.address(), b"in another's name"))).await;
    client.round_trip(&peer).await;
    other.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Foreign), 1);
    assert_eq!(rig.counters.stats().datagrams_sent, 3, "to the other's relay, and two to the peer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_see_each_others_datagrams() {
    let rig = Rig::usual().await;
    let peer = Arc::new(Peer::new("127.0.0.1").await);
    let echo = tokio::spawn({
        let peer = peer.clone();
        async move {
            loop {
                peer.echo().await;
            }
        }
    });
    let mut clients = Vec::new();
    for tag in 0..8_u16 {
        let client = rig.client().await;
        let peer = peer.address();
        clients.push(tokio::spawn(async move {
            for burst in 0..DATAGRAMS / BURST {
                let numbers = burst * BURST..(burst + 1) * BURST;
                let tagged = |number: u16| [tag.to_be_bytes(), number.to_be_bytes()].concat();
                for number in numbers.clone() {
                    client.send(&to(peer, &tagged(number))).await;
                }
                let mut seen = BTreeSet::new();
                for _ in 0..BURST {
                    let (from, data) = client.receive().await;
                    assert_eq!(from, peer);
                    seen.insert(data);
                }
                assert_eq!(seen, numbers.map(tagged).collect());
            }
            client.close().await;
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    echo.abort();
    let stats = rig.counters.stats();
    let all = 8 * u64::from(DATAGRAMS);
    assert_eq!((stats.datagrams_sent, stats.datagrams_received, stats.associations), (all, all, 0));
}

/// Of each client.
const DATAGRAMS: u16 = 2000;
/// Few enough that no socket's buffer is ever full, with all clients at once.
const BURST: u16 = 10;
