use super::*;
use keepwarm_control::tunnel::{TimesRow, TunnelListenRow, UdpRow};

fn times(p50: u64, p99: u64) -> TimesRow {
    let time = |micros| Some(Duration::from_micros(micros));
    TimesRow { count: 500, mean: time(p50), p50: time(p50), p90: time(p99), p99: time(p99), max: time(p99) }
}

fn named(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn well() -> TunnelUpstreamRow {
    TunnelUpstreamRow {
        name: "exit".into(),
        address: "socks5://exit.example.com:1080".into(),
        live: 3,
        tunnels: 500,
        hits: 496,
        misses: 4,
        hit_ratio: Some(0.992),
        retries: 2,
        ready: times(50_900, 53_100),
        spares: Some(SparesRow {
            target: 8,
            max: 64,
            idle: 7,
            dialing: 1,
            age_limit: Duration::from_secs(12),
            pipelining: "greeting".into(),
            ages: times(2_400_000, 9_000_000),
            ..SparesRow::default()
        }),
        ..TunnelUpstreamRow::default()
    }
}

fn left_alone() -> TunnelUpstreamRow {
    TunnelUpstreamRow {
        name: "backup".into(),
        address: "https://[2001:db8::1]:443".into(),
        through: Some("socks5://hop.example.com:1080".into()),
        breaker: BreakerState::Open,
        retry_in: Some(Duration::from_millis(3_500)),
        failed: 5,
        failures_in_a_row: 5,
        last_failure: Some("connect to 2001:db8::1: refused\x1b[2J".into()),
        last_failure_ago: Some(Duration::from_secs(2)),
        spares: Some(SparesRow {
            target: 1,
            max: 64,
            age_limit: Duration::from_secs(12),
            dial_errors: named(&[("refused", 5)]),
            ..SparesRow::default()
        }),
        ..TunnelUpstreamRow::default()
    }
}

fn view() -> View {
    let sessions = TunnelUpstreamRow {
        name: "bastion".into(),
        address: "ssh://bastion.example.com:22".into(),
        spares: Some(SparesRow { idle: 2, age_limit: Duration::from_secs(30), ..SparesRow::default() }),
        ..TunnelUpstreamRow::default()
    };
    let direct = TunnelUpstreamRow { name: "direct".into(), address: "direct".into(), ..TunnelUpstreamRow::default() };
    let listen = |address: &str, kind: &str, target: Option<&str>| TunnelListenRow {
        address: address.into(),
        kind: kind.into(),
        target: target.map(str::to_owned),
    };
    let tunnel = TunnelStatus {
        listen: vec![
            listen("127.0.0.1:1080", "mixed", None),
            listen("127.0.0.1:5432", "forward", Some("db.example.com:5432")),
        ],
        opened: 500,
        live: 3,
        max: 4096,
        waiting: 2,
        failed: named(&[("refused", 3), ("busy", 1)]),
        waits: times(4_000, 900_000),
        clients: Some(ClientsRow {
            connected: 5,
            accepted: 510,
            socks5: 480,
            http: 30,
            handshakes_failed: named(&[("user", 2)]),
            ..ClientsRow::default()
        }),
        udp: Some(UdpRow {
            associations: 1,
            max: 256,
            opened: 4,
            datagrams_sent: 70,
            dropped: named(&[("fragment", 2)]),
            ..UdpRow::default()
        }),
        upstreams: vec![well(), left_alone(), sessions, direct],
        ..TunnelStatus::default()
    };
    let destination = |destination: &str, live, waiting| DestinationRow {
        destination: destination.into(),
        live,
        max: 10,
        waiting,
        total: 40,
    };
    let live = LiveRow {
        client: "127.0.0.1:40112".into(),
        destination: "tiles.example.com:443".into(),
        upstream: "exit".into(),
        age: Duration::from_secs(75),
        spare: Some(Duration::from_millis(2_400)),
        sent: 812,
        received: 6 << 20,
    };
    View {
        tunnel,
        destinations: vec![destination("tiles.example.com:443", 10, 2), destination("api.example.com:443", 1, 0)],
        tunnels: Some(vec![live]),
    }
}

#[test]
fn a_wide_terminal_shows_everything() {
    let text = view().text(None);
    assert!(!text.contains('\x1b'), "what a proxy says does not steer the terminal: {text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_narrow_terminal_keeps_state_spares_live_and_hits() {
    let text = view().text(Some(60));
    let tables = text.lines().filter(|line| !line.contains(": ") && !line.contains(", "));
    assert!(tables.clone().count() > 8 && tables.clone().all(|line| line.chars().count() <= 60), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn what_was_not_used_is_not_told() {
    let direct = TunnelUpstreamRow { name: "direct".into(), ..TunnelUpstreamRow::default() };
    let tunnel = TunnelStatus { max: 10, upstreams: vec![direct], ..TunnelStatus::default() };
    assert_eq!(spares(&tunnel), None);
    let view = View { tunnel, destinations: Vec::new(), tunnels: Some(Vec::new()) };
    assert_eq!(view.text(None), "tunnels     0 of 10 live, 0 waiting, 0 made\n\nno live tunnels of clients\n");
}

#[test]
fn the_pools_of_tunnels_are_those_with_spares() {
    let text = spares(&view().tunnel).unwrap();
    assert!(text.contains("exit") && text.contains("bastion") && !text.contains("direct "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}
