//! Where datagrams go and come back from.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use keepwarm_transport::resolve::{LookingUp, Resolved, Resolving};

use super::*;

/// Counts the lookups; all names lead to 127.0.0.1 for `ttl`.
#[derive(Debug, Clone)]
struct Counting {
    lookups: Arc<AtomicUsize>,
    ttl: Option<Duration>,
}

impl Resolve for Counting {
    fn resolve(&self, host: &str) -> Resolving {
        let found = self.lookup(host);
        Box::pin(async { Ok(found.await?.addresses) })
    }

    fn lookup(&self, _host: &str) -> LookingUp {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let found = Resolved { addresses: vec![Ipv4Addr::LOCALHOST.into()], ttl: self.ttl };
        Box::pin(async { Ok(found) })
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_destinations_answer_with_their_own_address() {
    let rig = Rig::usual().await;
    let client = rig.client().await;
    for ip in ["127.0.0.1", "::1", "127.0.0.5"] {
        client.round_trip(&Peer::new(ip).await).await;
    }
    let stats = rig.counters.stats();
    assert_eq!((stats.associations, stats.opened), (1, 1));
    assert_eq!((stats.datagrams_sent, stats.bytes_sent), (3, 15));
    assert_eq!((stats.datagrams_received, stats.bytes_received), (3, 15));
    assert!(UdpDropped::ALL.iter().all(|reason| stats.dropped(*reason) == 0), "{stats:?}");
}

#[tokio::test]
async fn an_ipv6_client_reaches_both_families() {
    let rig = Rig::new("::1", TunnelConfig::default(), Fixed(Vec::new())).await;
    let client = rig.client().await;
    assert_eq!(client.relay.ip().to_string(), "::1");
    for ip in ["::1", "127.0.0.1"] {
        client.round_trip(&Peer::new(ip).await).await;
    }
}

#[tokio::test]
async fn what_becomes_our_own_is_not_sent_to_any_longer() {
    let rig = Rig::usual().await;
    let (client, service, peer) = (rig.client().await, Peer::new("127.0.0.1").await, Peer::new("127.0.0.1").await);
    client.round_trip(&service).await;
    rig.own.put(crate::server::destination::Own::new(Vec::new(), &[service.address()]));
    client.send(&to(service.address(), b"not any longer")).await;
    client.round_trip(&peer).await;
    assert_eq!((rig.dropped(UdpDropped::Rejected), rig.counters.stats().datagrams_sent), (1, 2));
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_its_answers_name_an_address() {
    let resolver = Counting { lookups: Arc::default(), ttl: None };
    let rig = Rig::new("127.0.0.1", TunnelConfig::default(), resolver.clone()).await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    for round in 0..5_u8 {
        client.send(&to_name("Peer.example", peer.address().port(), &[round])).await;
        peer.echo().await;
        assert_eq!(client.receive().await, (peer.address(), vec![round]));
    }
    assert_eq!(resolver.lookups.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn datagrams_that_wait_for_a_lookup_keep_their_order() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    for number in 0..20_u8 {
        client.send(&to_name("peer.example", peer.address().port(), &[number])).await;
    }
    for number in 0..20_u8 {
        assert_eq!(peer.receive().await.0, [number]);
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_counted() {
    let rig = Rig::new("127.0.0.1", TunnelConfig::default(), Fixed(Vec::new())).await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    client.send(&to_name("nobody.example", 53, b"?")).await;
    client.round_trip(&peer).await;
    client.send(&to_name("nobody.example", 53, b"?")).await;
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Unresolved), 2);
}

#[tokio::test]
async fn the_reply_has_the_address_that_the_client_reached() {
    for local in ["127.0.0.2", "127.0.0.1", "::1"] {
        let rig = Rig::new(local, TunnelConfig::default(), Fixed(Vec::new())).await;
        let client = rig.client().await;
        assert_eq!(client.relay.ip().to_string(), local);
        assert_ne!(client.relay.port(), 0);
        client.round_trip(&Peer::new(local).await).await;
    }
}

#[tokio::test]
async fn a_listener_for_all_families_replies_to_ipv4_with_ipv4() {
    let mut rig = Rig::usual().await;
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&port::unspecified(false, 0).into()).unwrap();
    socket.listen(8).unwrap();
    rig.listener = TcpListener::from_std(socket.into()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], rig.listener.local_addr().unwrap().port()));
    let mut client = TcpStream::connect(address).await.unwrap();
    let (control, peer) = rig.listener.accept().await.unwrap();
    assert!(peer.is_ipv6(), "mapped");
    let (connector, counters, closing) = (rig.connector.clone(), rig.counters.clone(), rig.closing.subscribe());
    let served = tokio::spawn(async move {
        serve(control, port::unspecified(true, 0), &connector, &Arc::default(), &counters, closing).await;
    });
    let (code, relay) = read_reply(&mut client).await;
    assert_eq!((code, relay.ip()), (SUCCEEDED, Ipv4Addr::LOCALHOST.into()));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = Socks { control: client, socket, relay, served };
    client.round_trip(&Peer::new("127.0.0.1").await).await;
}

#[tokio::test]
async fn an_ipv4_mapped_destination_is_the_ipv4_one() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    let mut datagram = vec![0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    datagram.extend(peer.address().port().to_be_bytes());
    datagram.extend(b"mapped");
    client.send(&datagram).await;
    peer.echo().await;
    assert_eq!(client.receive().await, (peer.address(), b"mapped".to_vec()));
}

#[tokio::test]
async fn datagrams_may_be_empty_and_as_long_as_there_are() {
    let rig = Rig::usual().await;
    let (client, peer) = (rig.client().await, Peer::new("127.0.0.1").await);
    for length in [0_usize, 1, 65_507 - 10] {
        let data = vec![length.to_le_bytes()[0]; length];
        client.send(&to(peer.address(), &data)).await;
        peer.echo().await;
        assert_eq!(client.receive().await, (peer.address(), data));
    }
    // There is no room left for the header of the answer.
    client.send(&to(peer.address(), b"?")).await;
    let (_, outlet) = peer.receive().await;
    peer.0.send_to(&[0; 65_507 - 9], outlet).await.unwrap();
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::TooLarge), 1);
}
