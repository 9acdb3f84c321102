use super::*;

fn target(number: usize) -> Target {
    Target::new(&format!("host{number}.example"), 53).unwrap()
}

fn addresses(hosts: &[u8]) -> Addresses {
    Addresses::new(hosts.iter().map(|host| ([192, 0, 2, *host], 53).into())).unwrap()
}

fn direct(hosts: &[u8]) -> Result<Route, UdpDropped> {
    Ok(Route::Direct(addresses(hosts)))
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn datagrams_wait_for_their_route_in_order() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    assert_eq!(routes.datagram(&target(1), b"1", now), Next::Find);
    assert_eq!(routes.datagram(&target(1), b"2", now), Next::Wait);
    let waiting: Vec<_> = routes.found(&target(1), (direct(&[1]), MINUTE), now).into_iter().collect();
    assert_eq!(waiting, [Box::from(*b"1"), Box::from(*b"2")]);
    assert_eq!(routes.datagram(&target(1), b"3", now), Next::Send(&mut direct(&[1]).unwrap()));
    assert_eq!(routes.finding, 0);
}

#[tokio::test]
async fn a_refusal_holds_for_its_time() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    assert_eq!(routes.datagram(&target(1), b"1", now), Next::Find);
    assert_eq!(routes.found(&target(1), (Err(UdpDropped::Rejected), MINUTE), now).into_iter().count(), 1);
    assert_eq!(routes.datagram(&target(1), b"2", now), Next::Drop(UdpDropped::Rejected));
    assert_eq!(routes.datagram(&target(1), b"3", now + MINUTE), Next::Find);
}

#[tokio::test]
async fn what_waits_is_bounded_by_destinations_by_datagrams_and_by_bytes() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    for number in 0..FINDING_MAX {
        assert_eq!(routes.datagram(&target(number), b"1", now), Next::Find);
    }
    assert_eq!(routes.datagram(&target(FINDING_MAX), b"1", now), Next::Drop(UdpDropped::Full));
    for _ in 1..64 {
        assert_eq!(routes.datagram(&target(0), b"1", now), Next::Wait);
    }
    assert_eq!(routes.datagram(&target(0), b"1", now), Next::Drop(UdpDropped::Full));
    let large = vec![0; 65_000];
    let fitting = (0..8).filter(|_| routes.datagram(&target(1), &large, now) == Next::Wait).count();
    assert_eq!(fitting, 4);
    drop(routes.found(&target(0), (direct(&[1]), MINUTE), now));
    assert_eq!(routes.datagram(&target(FINDING_MAX), b"1", now), Next::Find);
}

#[tokio::test]
async fn the_route_that_was_not_used_for_longest_gives_way() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    for number in 0..ROUTES_MAX {
        assert_eq!(routes.datagram(&target(number), b"1", now), Next::Find);
        drop(routes.found(&target(number), (direct(&[1]), MINUTE), now));
    }
    assert!(matches!(routes.datagram(&target(0), b"1", now), Next::Send(_)));
    assert_eq!(routes.datagram(&target(ROUTES_MAX), b"1", now), Next::Find);
    assert_eq!(routes.entries.len(), ROUTES_MAX);
    assert!(routes.entries.contains_key(&target(0)) && !routes.entries.contains_key(&target(1)));
}

#[tokio::test]
async fn a_name_that_is_looked_up_again_keeps_its_address_where_it_can() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let mut used = |hosts: &[u8], at: Instant| {
        assert_eq!(routes.datagram(&target(1), b"1", at), Next::Find);
        drop(routes.found(&target(1), (direct(hosts), MINUTE), at));
        let Next::Send(Route::Direct(addresses)) = routes.datagram(&target(1), b"1", at) else { panic!("known") };
        addresses.used().ip()
    };
    assert_eq!(used(&[1, 2], now).to_string(), "192.0.2.1");
    assert_eq!(used(&[2, 1], now + MINUTE).to_string(), "192.0.2.1");
    assert_eq!(used(&[3, 2], now + 2 * MINUTE).to_string(), "192.0.2.3");
}

#[test]
fn an_address_that_the_system_does_not_take_is_passed_over_for_good() {
    let mut addresses = addresses(&[1, 2]);
    let mut tried = Vec::new();
    let mut send = |address: SocketAddr| {
        tried.push(address.ip().to_string());
        if address.ip().to_string() == "192.0.2.1" { Err(UdpDropped::Failed) } else { Ok(()) }
    };
    assert_eq!(addresses.send(&mut send), Ok(()));
    assert_eq!(addresses.send(&mut send), Ok(()));
    assert_eq!(tried, ["192.0.2.1", "192.0.2.2", "192.0.2.2"]);
    let mut tries = 0;
    let mut none = |_| {
        tries += 1;
        Err(UdpDropped::Failed)
    };
    assert_eq!(addresses.send(&mut none), Err(UdpDropped::Failed));
    assert_eq!(tries, 2);
    assert_eq!(addresses.send(|_| Err(UdpDropped::TooLarge)), Err(UdpDropped::TooLarge));
}

#[tokio::test]
async fn routes_over_a_lost_relay_fail_for_a_while_and_are_then_looked_for_anew() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    for (number, upstream) in [(1, "first"), (2, "second")] {
        assert_eq!(routes.datagram(&target(number), b"1", now), Next::Find);
        drop(routes.found(&target(number), (Ok(Route::Over(upstream.into())), 60 * MINUTE), now));
    }
    routes.lost("first", &(Err(UdpDropped::Failed), MINUTE), now);
    assert_eq!(routes.datagram(&target(1), b"2", now), Next::Drop(UdpDropped::Failed));
    assert_eq!(routes.datagram(&target(1), b"3", now + MINUTE), Next::Find);
    assert_eq!(routes.datagram(&target(2), b"2", now), Next::Send(&mut Route::Over("second".into())));
}
