//! Another config while the server runs: what stays, what goes, what is refused, and that no query notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Listen, ListenTls, ListenTransport, RouteConfig, Strategy, Transport},
    server::{Server, StartError},
};
use keepwarm_lab::{Ca, Faults, Lab};
use keepwarm_pool::Limits;
use keepwarm_transport::reload::{Changes, Drained};
use tokio::{io::AsyncReadExt, net::TcpListener, net::UdpSocket};

use crate::{certificate::Certificate, support::*};

/// A server, its config, and labs that may be its upstreams.
struct Setup {
    labs: Vec<Lab>,
    config: DnsConfig,
    server: Server,
    address: SocketAddr,
}

impl Setup {
    async fn new(transport: Transport, labs: usize, change: impl FnOnce(&mut DnsConfig)) -> Setup {
        Setup::with(transport, vec![Faults::default(); labs], change).await
    }

    async fn with(transport: Transport, faults: Vec<Faults>, change: impl FnOnce(&mut DnsConfig)) -> Setup {
        let (labs, ca): (Vec<Lab>, Ca) = labs(faults).await;
        let mut config = config(&labs, &ca, transport);
        change(&mut config);
        let server = Server::start(config.clone()).expect("the server starts");
        let address = server.listening()[0].address;
        Setup { labs, config, server, address }
    }

    async fn reload(&mut self, change: impl FnOnce(&mut DnsConfig)) -> Changes {
        change(&mut self.config);
        self.server.prepare(self.config.clone()).await.expect("the config is good").apply().await
    }

    async fn refused(&self, change: impl FnOnce(&mut DnsConfig)) -> StartError {
        let mut config = self.config.clone();
        change(&mut config);
        self.server.prepare(config).await.err().expect("the config is refused")
    }

    async fn ask(&self, name: &str) -> Result<(), String> {
        ask(self.address, name).await
    }

    /// The ids of the open connections of the host whose name begins with this.
    fn connections(&self, pool: &str, host: &str) -> Vec<u64> {
        let pools = self.server.named_pools();
        let pool = pools.iter().find(|named| named.name == pool).expect("there is such a pool");
        let hosts = pool.pool.hosts();
        let host = hosts.into_iter().filter(|view| view.name.starts_with(host));
        let mut ids: Vec<_> = host.flat_map(|host| host.connections).map(|connection| connection.id).collect();
        ids.sort_unstable();
        ids
    }

    async fn stop(self) {
        self.server.stop(Duration::from_secs(2)).await;
        for lab in self.labs {
            lab.stop().await;
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_as_it_was_keeps_its_connections_and_one_that_changed_is_drained() {
    for transport in TRANSPORTS {
        let mut setup = Setup::new(transport, 2, |config| config.strategy = Strategy::Parallel).await;
        let pool = if transport == Transport::Udp { "dns.udp" } else { "dns" };
        for round in 0..8 {
            setup.ask(&format!("before{round}.example")).await.unwrap();
        }
        until("both are connected", || ["lab0", "lab1"].iter().all(|lab| !setup.connections(pool, lab).is_empty()))
            .await;
        let (kept, gone) = (setup.connections(pool, "lab0"), setup.connections(pool, "lab1"));
        let answers = setup.server.pools()[0].answers;

        let changes = setup.reload(|config| config.upstreams[1].padding ^= true).await;
        assert_eq!(changes.kept, ["dns.upstream.lab0", "dns.listen"]);
        assert_eq!(changes.changed, ["dns.upstream.lab1"]);
        let [Drained { name, connections }] = &changes.drained[..] else { panic!("{changes:?}") };
        assert_eq!((name.as_str(), *connections), ("dns.upstream.lab1", gone.len()), "{transport:?}");
        for round in 0..8 {
            setup.ask(&format!("after{round}.example")).await.unwrap();
        }
        until("what is drained goes", || {
            let now = setup.connections(pool, "lab1");
            !now.is_empty() && gone.iter().all(|id| !now.contains(id))
        })
        .await;
        let now = setup.connections(pool, "lab0");
        assert!(kept.iter().all(|id| now.contains(id)), "{transport:?}: {kept:?} {now:?}");
        assert!(setup.server.pools()[0].answers > answers, "its counters go on");
        setup.stop().await;
    }
}

#[tokio::test]
async fn upstreams_come_and_go_and_what_those_did_that_went_stays_in_the_totals() {
    let mut setup = Setup::new(Transport::Tls, 2, |config| config.upstreams.truncate(1)).await;
    setup.ask("first.example").await.unwrap();
    let opened = setup.server.named_pools()[0].pool.stats().counters.opened;
    let second = upstream(1, &setup.labs[1], Transport::Tls);
    let changes = setup.reload(|config| config.upstreams = vec![second]).await;
    assert_eq!((changes.added, changes.kept), (vec!["dns.upstream.lab1".into()], vec!["dns.listen".into()]));
    assert_eq!(changes.drained[0].name, "dns.upstream.lab0");
    setup.ask("second.example").await.unwrap();
    assert_eq!(counted(&setup.labs[1], Transport::Tls).queries, 1);
    until("the old one is forgotten", || setup.connections("dns", "lab0").is_empty()).await;
    let stats = setup.server.named_pools()[0].pool.stats();
    assert_eq!(stats.hosts, 1);
    assert!(
        stats.counters.opened > opened
            && stats.counters.opened == stats.gauges.open as u64 + stats.counters.closed_total()
    );
    assert_eq!(setup.server.pools().iter().map(|row| &*row.name).collect::<Vec<_>>(), ["lab1"]);
    setup.stop().await;
}

#[tokio::test]
async fn group_and_weight_are_no_reason_to_connect_anew() {
    let mut setup = Setup::new(Transport::Tcp, 2, |_| {}).await;
    setup.ask("first.example").await.unwrap();
    let kept = setup.connections("dns", "lab0");
    let changes = setup
        .reload(|config| {
            config.upstreams[0].group = "own".into();
            config.upstreams[0].weight = 7;
            config.routes = vec![RouteConfig { suffixes: vec!["corp.example".into()], group: "own".into() }];
            config.strategy = Strategy::Fastest;
            config.timeout = Duration::from_secs(3);
        })
        .await;
    assert_eq!(changes.changed, ["dns.upstream.lab0", "dns.strategy", "dns.timeout", "dns.route"]);
    assert_eq!((changes.kept, changes.drained), (vec!["dns.upstream.lab1".into(), "dns.listen".into()], vec![]));
    let before = counted(&setup.labs[0], Transport::Tcp).queries;
    setup.ask("other.example").await.unwrap();
    assert_eq!(counted(&setup.labs[0], Transport::Tcp).queries, before, "it answers for its route alone");
    setup.ask("x.corp.example").await.unwrap();
    assert_eq!(counted(&setup.labs[0], Transport::Tcp).queries, before + 1);
    assert!(kept.iter().all(|id| setup.connections("dns", "lab0").contains(id)));
    setup.stop().await;
}

#[tokio::test]
async fn a_query_in_flight_ends_on_what_it_began_with() {
    for transport in TRANSPORTS {
        let slow = Faults { delay: Duration::from_millis(600), ..Faults::default() };
        let mut setup = Setup::with(transport, vec![slow, Faults::default()], |config| {
            config.upstreams.truncate(1);
        })
        .await;
        let address = setup.address;
        let asked: Vec<_> = (0..20)
            .map(|number| tokio::spawn(async move { ask(address, &format!("slow{number}.example")).await }))
            .collect();
        until("they are in flight", || setup.server.status().queries == 20).await;
        let second = upstream(1, &setup.labs[1], transport);
        setup.reload(|config| config.upstreams = vec![second]).await;
        setup.ask("slow0.example").await.unwrap();
        assert_eq!(counted(&setup.labs[1], transport).queries, 1, "what begins now does not join what began before");
        for asked in asked {
            asked.await.unwrap().unwrap();
        }
        assert_eq!(counted(&setup.labs[1], transport).queries, 1, "{transport:?}");
        assert_eq!(setup.server.status().failed, 0);
        until("the old one is forgotten", || {
            ["dns", "dns.udp"].iter().all(|pool| setup.connections(pool, "lab0").is_empty())
        })
        .await;
        setup.stop().await;
    }
}

#[tokio::test]
async fn limits_and_times_of_the_pool_hold_at_once() {
    let mut setup = Setup::new(Transport::Tcp, 1, |config| config.pool.min_idle = 4).await;
    until("four are open", || setup.connections("dns", "lab0").len() == 4).await;
    let before = setup.connections("dns", "lab0");
    let changes = setup
        .reload(|config| {
            (config.pool.max_per_host, config.pool.min_idle) = (2, 2);
            config.pool.acquire_timeout = Duration::from_millis(700);
        })
        .await;
    assert_eq!((changes.changed, changes.needs_restart), (vec!["dns.pool".to_owned()], vec![]));
    until("two are left", || setup.connections("dns", "lab0").len() == 2).await;
    assert!(setup.connections("dns", "lab0").iter().all(|id| before.contains(id)));
    assert_eq!(setup.server.pools()[0].max, 2);
    setup.ask("first.example").await.unwrap();

    let pools = setup.server.named_pools();
    let own = Limits { max_per_host: 3, max_idle_per_host: 3, ..pools[0].pool.limits() };
    pools[0].pool.set_limits(own).unwrap();
    setup.reload(|config| config.timeout = Duration::from_secs(3)).await;
    assert_eq!(pools[0].pool.limits(), own, "what an operator set stays where the config is as it was");
    let changes = setup.reload(|config| (config.pool.reuse, config.workers) = (false, 3)).await;
    assert_eq!(changes.needs_restart, ["limits.workers", "dns.pool.reuse"]);
    assert!(changes.changed.is_empty() && changes.drained.is_empty());
    setup.stop().await;
}

#[tokio::test]
async fn listeners_are_opened_kept_and_closed() {
    let certificate = Certificate::new();
    let mut setup = Setup::new(Transport::Udp, 1, |_| {}).await;
    let mut client = TcpClient::connect(setup.address).await;
    client.send(&query("kept.example", 1)).await;
    client.receive().await.unwrap();
    // No client of another test connects from here, so a port that UDP got is TCP's as well.
    let any: SocketAddr = if cfg!(target_os = "linux") { "127.0.1.77:0" } else { "127.0.0.1:0" }.parse().unwrap();
    let changes = setup
        .reload(|config| {
            config.tls = Some(certificate.files());
            let of = |transport| Listen::new(any, transport);
            config.listen.extend([ListenTransport::Udp, ListenTransport::Tls, ListenTransport::Quic].map(of));
        })
        .await;
    assert_eq!(changes.changed, ["dns.tls", "dns.listen"]);
    let listening = setup.server.listening();
    assert_eq!((listening.len(), listening[0].address), (4, setup.address), "{listening:?}");
    setup.ask("plain.example").await.unwrap();
    ask(listening[1].address, "second.example").await.unwrap();
    client.send(&query("kept.example", 1)).await;
    client.receive().await.expect("its listener stays, and so does the connection");
    let mut tls = tokio::net::TcpStream::connect(listening[2].address).await.unwrap();

    // Addresses may be written with the ports that the system chose.
    let second = listening[1].clone();
    let changes = setup.reload(|config| config.listen = vec![second.clone()]).await;
    assert_eq!(setup.server.listening(), std::slice::from_ref(&second));
    assert!(changes.changed.contains(&"dns.listen".to_owned()), "{changes:?}");
    ask(second.address, "third.example").await.unwrap();
    assert!(client.receive().await.is_none(), "its listener has gone");
    assert_eq!(tls.read(&mut [0; 8]).await.unwrap_or(0), 0);
    let again = UdpSocket::bind(setup.address).await.expect("the port is free");
    let both = TcpListener::bind(setup.address).await.expect("the port is free");
    drop((again, both));

    // The same port, with TCP as well, and back.
    let udp = second.address;
    setup.reload(|config| config.listen = vec![Listen::plain(udp)]).await;
    let mut client = TcpClient::connect(udp).await;
    client.send(&query("tcp.example", 1)).await;
    client.receive().await.unwrap();
    ask(udp, "udp.example").await.unwrap();

    // Both apart, and together again: the same sockets, of which nobody has one twice, and the connection stays.
    let apart = [ListenTransport::Tcp, ListenTransport::Udp].map(|transport| Listen::new(udp, transport));
    for listen in [apart.to_vec(), vec![Listen::plain(udp)]] {
        let sockets = entries("/proc/self/fd");
        setup.reload(|config| config.listen = listen.clone()).await;
        assert_eq!(setup.server.listening(), listen);
        assert_eq!(entries("/proc/self/fd"), sockets, "{listen:?}");
        client.send(&query("stays.example", 1)).await;
        client.receive().await.expect("its listener stays");
        ask(udp, "udp.example").await.unwrap();
    }
    // And one of them alone; the other's port is free.
    setup.reload(|config| config.listen = vec![Listen::new(udp, ListenTransport::Tcp)]).await;
    client.send(&query("stays.example", 1)).await;
    client.receive().await.expect("its listener stays");
    drop(UdpSocket::bind(udp).await.expect("the port is free"));
    setup.stop().await;
}

#[tokio::test]
async fn answers_of_upstreams_that_are_replaced_are_forgotten() {
    let mut setup = Setup::new(Transport::Udp, 2, |config| config.cache = CacheSettings::default()).await;
    let second = setup.config.upstreams[1].clone();
    let changes: [fn(&mut DnsConfig); 4] = [
        |config| config.upstreams[1].group = "other".into(),
        |config| config.upstreams[0].padding ^= true,
        |config| config.fallback = Some("other".into()),
        |config| (config.fallback, config.upstreams[1].group) = (None, config.upstreams[0].group.clone()),
    ];
    for change in changes {
        setup.ask("cached.example").await.unwrap();
        assert_eq!(setup.server.status().cache_entries, 1);
        let changes = setup.reload(|config| config.upstreams[0].weight += 1).await;
        assert!(changes.kept.contains(&"dns.cache".to_owned()), "{changes:?}");
        assert_eq!(setup.server.status().cache_entries, 1);
        let changes = setup.reload(change).await;
        assert!(changes.changed.contains(&"dns.cache".to_owned()), "{changes:?}");
        assert_eq!(setup.server.status().cache_entries, 0);
    }
    for upstreams in [1, 2] {
        setup.ask("cached.example").await.unwrap();
        let all = [setup.config.upstreams[0].clone(), second.clone()];
        let changes = setup.reload(|config| config.upstreams = all[..upstreams].to_vec()).await;
        assert!(changes.changed.contains(&"dns.cache".to_owned()), "{changes:?}");
        assert_eq!(setup.server.status().cache_entries, 0);
    }
    setup.stop().await;
}

#[tokio::test]
async fn a_query_in_flight_does_not_fill_the_cache_of_a_later_config() {
    let slow = Faults { delay: Duration::from_millis(600), ..Faults::default() };
    let mut setup = Setup::with(Transport::Udp, vec![slow, Faults::default()], |config| {
        config.upstreams.truncate(1);
        config.cache = CacheSettings::default();
    })
    .await;
    let address = setup.address;
    let asked = tokio::spawn(async move { ask(address, "slow.example").await });
    until("it is in flight", || setup.server.status().queries == 1).await;
    let second = upstream(1, &setup.labs[1], Transport::Udp);
    setup.reload(|config| config.upstreams = vec![second]).await;
    asked.await.unwrap().unwrap();
    assert_eq!(setup.server.status().cache_entries, 0);
    setup.stop().await;
}

#[tokio::test]
async fn a_config_that_cannot_work_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    let holder = std::net::UdpSocket::bind(taken).unwrap();
    let mut setup = Setup::new(Transport::Tls, 1, |_| {}).await;
    setup.ask("before.example").await.unwrap();
    let (ids, listening) = (setup.connections("dns", ""), setup.server.listening());
    let refused = setup.refused(|config| {
        config.upstreams[0].padding ^= true;
        config.listen.push(Listen::plain(taken));
    });
    assert!(matches!(refused.await, StartError::Listen(_)));
    let refused = setup.refused(|config| {
        config.listen.push(Listen::new("127.0.0.1:0".parse().unwrap(), ListenTransport::Tls));
        config.tls = Some(ListenTls { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() });
    });
    assert!(matches!(refused.await, StartError::Certificate(_)));
    let refused =
        setup.refused(|config| config.listen.push(Listen::new("127.0.0.1:0".parse().unwrap(), ListenTransport::Https)));
    assert!(matches!(refused.await, StartError::NoCertificate(_)));
    assert!(matches!(
        setup.refused(|config| config.local.hosts = vec!["/nowhere/hosts".into()]).await,
        StartError::Local(_)
    ));
    let route = RouteConfig { suffixes: vec!["corp.example".into()], group: "nobody".into() };
    assert!(matches!(setup.refused(|config| config.routes = vec![route]).await, StartError::Groups(_)));
    assert!(matches!(setup.refused(|config| config.pool.min_idle = 99).await, StartError::Limits(_)));
    drop(holder);
    // One that was prepared and is not applied changes nothing either, and is not in the way of the next.
    let mut other = setup.config.clone();
    other.upstreams[0].padding ^= true;
    drop(setup.server.prepare(other).await.unwrap());

    assert_eq!((setup.connections("dns", ""), setup.server.listening()), (ids, listening));
    setup.ask("after.example").await.unwrap();
    assert_eq!(setup.server.pools()[0].opened, u64::try_from(setup.connections("dns", "").len()).unwrap());
    let changes = setup.reload(|_| {}).await;
    assert_eq!((changes.changed, changes.added, changes.drained), (vec![], vec![], vec![]));
    setup.stop().await;
}

#[tokio::test]
async fn names_answers_and_access_change_at_once() {
    let files = tempfile::tempdir().unwrap();
    let hosts = files.path().join("hosts");
    std::fs::write(&hosts, "192.0.2.7 local.example\n").unwrap();
    let mut setup = Setup::new(Transport::Udp, 1, |config| config.cache = CacheSettings::default()).await;
    setup.ask("cached.example").await.unwrap();
    let changes = setup.reload(|config| config.cache.max_ttl = Duration::from_secs(50)).await;
    assert_eq!(changes.changed, ["dns.cache"]);
    let hits = setup.server.status().cache_hits;
    setup.ask("cached.example").await.unwrap();
    assert_eq!(setup.server.status().cache_hits, hits + 1, "what is kept stays");

    let changes = setup.reload(|config| config.local.hosts = vec![hosts.clone()]).await;
    assert_eq!((changes.changed, changes.kept.contains(&"dns.cache".to_owned())), (vec!["dns.local".to_owned()], true));
    let local = exchange_udp(setup.address, &query("local.example", 1)).await.unwrap();
    assert!(local.windows(4).any(|bytes| bytes == [192, 0, 2, 7]));
    std::fs::write(&hosts, "192.0.2.8 local.example other.example\n").unwrap();
    until("the new hosts file is looked at", || {
        let Setup { address, .. } = setup;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&query("local.example", 1), address).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap_or(0);
        buffer[..length].windows(4).any(|bytes| bytes == [192, 0, 2, 8])
    })
    .await;
    let changes = setup.reload(|config| config.local.hosts.clear()).await;
    assert_eq!(changes.changed, ["dns.local"]);
    let upstream = exchange_udp(setup.address, &query("local.example", 1)).await.unwrap();
    assert!(!upstream.windows(4).any(|bytes| bytes == [192, 0, 2, 8]), "its watch has ended");

    let route = RouteConfig { suffixes: vec!["corp.example".into()], group: "default".into() };
    let changes = setup.reload(|config| config.routes = vec![route]).await;
    assert_eq!(changes.changed, ["dns.route", "dns.cache"], "what is kept may be from another horizon");
    assert_eq!(setup.server.status().cache_entries, 0);
    let mut client = TcpClient::connect(setup.address).await;
    client.send(&query("cached.example", 1)).await;
    assert_eq!(rcode(&client.receive().await.unwrap()), 0);
    setup.reload(|config| config.allow = vec!["192.0.2.0/24".parse().unwrap()]).await;
    client.send(&query("cached.example", 1)).await;
    assert_eq!(rcode(&client.receive().await.unwrap()), 5, "who was let in before is looked at again");
    let answer = exchange_udp(setup.address, &query("cached.example", 1)).await.unwrap();
    assert_eq!(rcode(&answer), 5);
    setup.stop().await;
}

#[tokio::test]
async fn every_strategy_follows_every_other_under_load() {
    const STRATEGIES: [Strategy; 8] = [
        Strategy::Hedged,
        Strategy::Racing,
        Strategy::Fastest,
        Strategy::Hedged,
        Strategy::LeastLoaded,
        Strategy::Random,
        Strategy::Parallel,
        Strategy::RoundRobin,
    ];
    let delayed = Faults { delay: Duration::from_millis(5), ..Faults::default() };
    let mut setup = Setup::with(Transport::Udp, vec![delayed.clone(), delayed], |_| {}).await;
    let load = Load::start(setup.address, 8);
    for strategy in STRATEGIES {
        let done = load.answered() + 200;
        setup.reload(|config| config.strategy = strategy).await;
        until("the load goes on", || load.answered() >= done).await;
    }
    assert_eq!(load.stop().await, Vec::<String>::new());
    assert_eq!(setup.server.status().failed, 0);
    setup.stop().await;
}

#[tokio::test]
async fn a_hundred_reloads_under_load_lose_no_query_and_leave_nothing_behind() {
    let mut setup = Setup::new(Transport::Tls, 3, |config| {
        config.strategy = Strategy::RoundRobin;
        config.upstreams[2].transport = Transport::Udp;
    })
    .await;
    let lab = upstream(2, &setup.labs[2], Transport::Udp);
    setup.reload(|config| config.upstreams[2] = lab).await;
    let kept = setup.connections("dns", "lab0");
    let load = Load::start(setup.address, 8);
    let spare = Listen::new("127.0.0.1:0".parse().unwrap(), ListenTransport::Plain);
    let turn = async |setup: &mut Setup| {
        let done = load.answered() + 10;
        let changes = setup
            .reload(|config| {
                config.upstreams[1].cookies ^= true;
                config.upstreams[2].cookies ^= true;
                config.upstreams[1].padding ^= true;
                config.timeout += Duration::from_millis(1);
                match config.listen.len() {
                    1 => config.listen.push(spare.clone()),
                    _ => config.listen.truncate(1),
                }
            })
            .await;
        assert_eq!(changes.kept, ["dns.upstream.lab0"]);
        until("the load goes on", || load.answered() >= done).await;
    };
    for _ in 0..20 {
        turn(&mut setup).await;
    }
    let (files, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    for _ in 0..100 {
        turn(&mut setup).await;
    }
    assert_eq!(load.stop().await, Vec::<String>::new());
    assert_eq!((setup.server.status().failed, setup.server.status().refused), (0, 0));
    let now = setup.connections("dns", "lab0");
    assert!(kept.iter().all(|id| now.contains(id)), "{kept:?} {now:?}");
    let hosts = |pool: usize| setup.server.named_pools()[pool].pool.stats().hosts;
    until("what is drained goes", || hosts(0) == 3 && hosts(1) == 1).await;
    // A thread that frees what is old lives on for ten seconds.
    until("no thread is left behind", || entries("/proc/self/task") <= threads).await;
    // Connections of a pool come and go with the load; what would be left behind by each reload is more.
    until("no socket is left behind", || entries("/proc/self/fd") < files + 20).await;
    setup.stop().await;
}

/// Clients that ask one question after the other and check each answer.
struct Load {
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
    answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Load {
    fn start(server: SocketAddr, clients: usize) -> Load {
        let (answered, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let clients = (0..clients).map(|client| {
            let (answered, over) = (answered.clone(), over.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("load{client}-{number}.example");
                    failures.extend(ask(server, &name).await.err().map(|error| format!("{name}: {error}")));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        });
        Load { clients: clients.collect(), answered, over }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    async fn stop(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.expect("clients do not panic"));
        }
        failures
    }
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
