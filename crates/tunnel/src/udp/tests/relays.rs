//! Datagrams that leave over upstream proxies.

use keepwarm_transport::{proxy::Proxy, resolve::Resolving};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::config::{HostMatch, Match, Rule, UpstreamConfig, UpstreamKind, Via};

/// An upstream proxy whose relays are worked by hand.
struct Upstream(TcpListener);

/// A relay that it opened.
struct Relay {
    control: TcpStream,
    socket: UdpSocket,
}

/// For whom a lookup is a leak.
#[derive(Debug)]
struct NoLookups;

impl Resolve for NoLookups {
    fn resolve(&self, host: &str) -> Resolving {
        panic!("{host} is looked up here")
    }
}

impl Upstream {
    async fn new() -> Upstream {
        Upstream(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn config(&self, name: &str) -> UpstreamConfig {
        let proxy = Proxy::parse(&format!("socks5://{}", self.0.local_addr().unwrap())).unwrap();
        UpstreamConfig::new(name, UpstreamKind::Proxy(proxy.into()))
    }

    /// Serves clients until one asks for a relay; answers with `code`.
    async fn associate(&self, code: u8) -> Relay {
        loop {
            let (mut control, _) = self.0.accept().await.unwrap();
            let mut greeting = [0; 3];
            control.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, [5, 1, 0]);
            control.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            // A spare that is not used is closed, or stays.
            if control.read_exact(&mut request).await.is_err() {
                continue;
            }
            assert_eq!(request, [5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            control.write_all(&reply(code, socket.local_addr().unwrap())).await.unwrap();
            return Relay { control, socket };
        }
    }
}

impl Relay {
    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }
}

fn through(upstreams: Vec<UpstreamConfig>) -> TunnelConfig {
    let mut config =
        TunnelConfig { default: Via::Upstream(upstreams[0].name.clone()), upstreams, ..Default::default() };
    // Each greeted connection that the upstream sees is the relay's.
    config.pool.spares = 0;
    config.pool.spares_min = 0;
    config
}

fn rule(name: &str, via: Via) -> Rule {
    Rule { matches: vec![Match { host: HostMatch::Name(name.into()), ports: None }], via, speculate: 0 }
}

async fn rig(config: TunnelConfig) -> Rig {
    Rig::new("127.0.0.1", config, NoLookups).await
}

#[tokio::test]
async fn one_relay_of_the_upstream_carries_all_destinations_and_names_are_its_to_look_up() {
    let upstream = Upstream::new().await;
    let rig = rig(through(vec![upstream.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("One.example", 53, b"1")).await;
    client.send(&to_name("two.example", 53, b"2")).await;
    client.send(&to("192.0.2.1:53".parse().unwrap(), b"3")).await;
    let relay = upstream.associate(SUCCEEDED).await;
    let (first, outlet) = relay.receive().await;
    assert_eq!(first, to_name("one.example", 53, b"1"));
    assert_eq!(relay.receive().await, (to_name("two.example", 53, b"2"), outlet));
    assert_eq!(relay.receive().await, (to("192.0.2.1:53".parse().unwrap(), b"3"), outlet));
    let sender = "198.51.100.7:53".parse().unwrap();
    relay.socket.send_to(&to(sender, b"answer"), outlet).await.unwrap();
    assert_eq!(client.receive().await, (sender, b"answer".to_vec()));
    let stats = rig.counters.stats();
    assert_eq!((stats.datagrams_sent, stats.bytes_sent), (3, 3));
    assert_eq!((stats.datagrams_received, stats.bytes_received), (1, 6));
}

#[tokio::test]
async fn an_association_goes_by_the_rules_and_upstreams_that_are_in_force() {
    let (first, second) = (Upstream::new().await, Upstream::new().await);
    let rig = rig(through(vec![first.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    let mut old = first.associate(SUCCEEDED).await;
    assert_eq!(old.receive().await.0, to_name("one.example", 53, b"1"));
    let other = through(vec![second.config("exit")]);
    drop(rig.connector.prepare(other.clone()).unwrap().apply());
    client.send(&to_name("one.example", 53, b"2")).await;
    let mut new = second.associate(SUCCEEDED).await;
    assert_eq!(new.receive().await.0, to_name("one.example", 53, b"2"));
    assert_eq!(old.control.read(&mut [0]).await.unwrap(), 0);
    drop(rig.connector.prepare(TunnelConfig { default: Via::Reject, ..other }).unwrap().apply());
    client.send(&to_name("one.example", 53, b"3")).await;
    assert_eq!(new.control.read(&mut [0]).await.unwrap(), 0);
    assert_eq!((rig.dropped(UdpDropped::Rejected), rig.counters.stats().datagrams_sent), (1, 2));
}

#[tokio::test]
async fn what_waits_for_a_relay_of_before_is_sent_over_that_of_now() {
    let (first, second) = (Upstream::new().await, Upstream::new().await);
    let rig = rig(through(vec![first.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    // It is never answered.
    let (mut silent, _) = first.0.accept().await.unwrap();
    drop(rig.connector.prepare(through(vec![second.config("exit")])).unwrap().apply());
    client.send(&to_name("one.example", 53, b"2")).await;
    let relay = second.associate(SUCCEEDED).await;
    assert_eq!(relay.receive().await.0, to_name("one.example", 53, b"1"));
    assert_eq!(relay.receive().await.0, to_name("one.example", 53, b"2"));
    assert!(silent.read(&mut [0; 3]).await.is_ok());
}

#[tokio::test]
async fn only_the_relay_itself_is_heard_and_only_with_a_header() {
    let upstream = Upstream::new().await;
    let rig = rig(through(vec![upstream.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"?")).await;
    let relay = upstream.associate(SUCCEEDED).await;
    let (_, outlet) = relay.receive().await;
    let sender = "198.51.100.7:53".parse().unwrap();
    let stranger = Peer::new("127.0.0.1").await;
    stranger.0.send_to(&to(sender, b"forged"), outlet).await.unwrap();
    let mut fragment = to(sender, b"part");
    fragment[2] = 1;
    for datagram in [b"no header".as_slice(), &fragment, &to(sender, b"real")] {
        relay.socket.send_to(datagram, outlet).await.unwrap();
    }
    assert_eq!(client.receive().await, (sender, b"real".to_vec()));
    let dropped = [UdpDropped::Unasked, UdpDropped::Malformed, UdpDropped::Fragment].map(|reason| rig.dropped(reason));
    assert_eq!(dropped, [1, 1, 1]);
}

#[tokio::test]
async fn each_client_has_a_relay_of_its_own_which_ends_with_it() {
    let upstream = Upstream::new().await;
    let rig = rig(through(vec![upstream.config("exit")])).await;
    let mut relays = Vec::new();
    let clients = [rig.client().await, rig.client().await];
    for (tag, client) in clients.iter().enumerate() {
        let tag = tag.to_le_bytes();
        client.send(&to_name("one.example", 53, &tag)).await;
        let relay = upstream.associate(SUCCEEDED).await;
        let (datagram, outlet) = relay.receive().await;
        assert_eq!(datagram, to_name("one.example", 53, &tag));
        relays.push((relay, outlet));
    }
    let sender = "198.51.100.7:53".parse().unwrap();
    for (tag, (relay, outlet)) in relays.iter().enumerate() {
        relay.socket.send_to(&to(sender, &tag.to_le_bytes()), outlet).await.unwrap();
    }
    for ((tag, client), (relay, _)) in clients.into_iter().enumerate().zip(&mut relays) {
        assert_eq!(client.receive().await, (sender, tag.to_le_bytes().to_vec()));
        client.close().await;
        assert_eq!(relay.control.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_relay_that_its_upstream_closes_is_opened_anew() {
    let upstream = Upstream::new().await;
    let rig = rig(through(vec![upstream.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    let relay = upstream.associate(SUCCEEDED).await;
    relay.receive().await;
    drop(relay);
    // Until the end of the control connection has been seen, datagrams go nowhere.
    while rig.dropped(UdpDropped::Failed) == 0 {
        client.send(&to_name("one.example", 53, b"1")).await;
        tokio::task::yield_now().await;
    }
    client.send(&to_name("two.example", 53, b"2")).await;
    let relay = upstream.associate(SUCCEEDED).await;
    assert_eq!(relay.receive().await.0, to_name("two.example", 53, b"2"));
}

#[tokio::test]
async fn datagrams_go_past_a_paused_upstream() {
    let (first, second) = (Upstream::new().await, Upstream::new().await);
    let config = through(vec![first.config("first"), second.config("second")]);
    let rig = rig(TunnelConfig { default: Via::Group("default".into()), ..config }).await;
    let pools = rig.connector.pools();
    assert_eq!(pools.iter().find(|pool| pool.name == "tunnel.first").unwrap().pool.pause(None), 1);
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    let relay = timeout(std::time::Duration::from_secs(20), second.associate(SUCCEEDED)).await.expect("it is asked");
    assert_eq!(relay.receive().await.0, to_name("one.example", 53, b"1"));
    assert_eq!(rig.dropped(UdpDropped::Failed), 0);
}

/// What a NAT on the way has forgotten is no longer answered.
#[tokio::test]
async fn a_spare_that_is_silent_is_replaced_by_a_fresh_connection() {
    let upstream = Upstream::new().await;
    let mut config = through(vec![upstream.config("exit")]);
    (config.pool.spares, config.pool.spares_min, config.pool.spares_max) = (1, 1, 1);
    let rig = rig(config).await;
    let (mut forgotten, _) = upstream.0.accept().await.unwrap();
    forgotten.read_exact(&mut [0; 3]).await.unwrap();
    forgotten.write_all(&[5, 0]).await.unwrap();
    let spares = || rig.connector.stats().upstreams[0].spares.clone().unwrap().pool.gauges.idle;
    while spares() == 0 {
        tokio::task::yield_now().await;
    }
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    // One takes its place as a spare, and one is dialled for the relay.
    let relay = async {
        let (mut asked, _) = upstream.0.accept().await.unwrap();
        asked.read_exact(&mut [0; 3]).await.unwrap();
        asked.write_all(&[5, 0]).await.unwrap();
        let other = upstream.associate(SUCCEEDED);
        let mut request = [0; 10];
        tokio::select! {
            relay = other => relay,
            read = asked.read_exact(&mut request) => {
                read.unwrap();
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                asked.write_all(&reply(SUCCEEDED, socket.local_addr().unwrap())).await.unwrap();
                Relay { control: asked, socket }
            }
        }
    };
    let relay = timeout(std::time::Duration::from_secs(20), relay).await.expect("it is asked again");
    assert_eq!(relay.receive().await.0, to_name("one.example", 53, b"1"));
    forgotten.read_exact(&mut [0; 10]).await.expect("it was asked first");
}

#[tokio::test]
async fn an_upstream_that_refuses_loses_what_waits() {
    let upstream = Upstream::new().await;
    let rig = rig(through(vec![upstream.config("exit")])).await;
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"1")).await;
    client.send(&to_name("two.example", 53, b"2")).await;
    upstream.associate(COMMAND_NOT_SUPPORTED).await;
    while rig.dropped(UdpDropped::Unsupported) + rig.dropped(UdpDropped::Failed) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.counters.stats().datagrams_sent, 0);
}

#[tokio::test]
async fn the_rules_choose_for_each_destination() {
    let (first, second) = (Upstream::new().await, Upstream::new().await);
    let mut config = through(vec![first.config("first"), second.config("second")]);
    config.rules.push(rule("second.example", Via::Upstream("second".into())));
    config.rules.push(rule("127.0.0.1", Via::Direct));
    config.rules[1].matches[0].host = HostMatch::Net("127.0.0.0/8".parse().unwrap());
    config.rules.push(rule("nowhere.example", Via::Reject));
    let (rig, peer) = (rig(config).await, Peer::new("127.0.0.1").await);
    let client = rig.client().await;
    client.send(&to_name("nowhere.example", 53, b"?")).await;
    client.send(&to_name("nowhere.example", 53, b"?")).await;
    client.round_trip(&peer).await;
    client.send(&to_name("first.example", 53, b"1")).await;
    let relay = first.associate(SUCCEEDED).await;
    assert_eq!(relay.receive().await.0, to_name("first.example", 53, b"1"));
    client.send(&to_name("second.example", 53, b"2")).await;
    let relay = second.associate(SUCCEEDED).await;
    assert_eq!(relay.receive().await.0, to_name("second.example", 53, b"2"));
    assert_eq!(rig.dropped(UdpDropped::Rejected), 2);
}

#[tokio::test]
async fn an_http_proxy_carries_no_datagrams() {
    let proxy = Proxy::parse("http://127.0.0.1:1").unwrap();
    let mut config = through(vec![UpstreamConfig::new("exit", UpstreamKind::Proxy(proxy.into()))]);
    config.rules.push(rule("127.0.0.1", Via::Direct));
    config.rules[0].matches[0].host = HostMatch::Net("127.0.0.0/8".parse().unwrap());
    let (rig, peer) = (rig(config).await, Peer::new("127.0.0.1").await);
    let client = rig.client().await;
    client.send(&to_name("one.example", 53, b"?")).await;
    client.round_trip(&peer).await;
    assert_eq!(rig.dropped(UdpDropped::Unsupported), 1);
}
