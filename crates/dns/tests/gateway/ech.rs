//! Encrypted client hello (RFC 9849) towards upstreams: who sees which name, and what happens when it is refused.

mod boring;
mod hello;
mod server;

use std::{sync::Arc, time::Duration};

use keepwarm_dns::{
    config::{DnsConfig, Ech, Strategy, Transport, UpstreamConfig},
    message::{TYPE_A, TYPE_HTTPS, TYPE_SVCB},
    server::{PoolStatus, Server},
};
use keepwarm_lab::{Ca, CloseKind, Lab, LabSpec, TlsVersions};

use self::server::{Answer, EchServer, Offer, Seen};
use crate::{
    plain::{Plain, binding, until},
    support::{ask, config},
};

const SECRET: &str = "upstream.lab";
const PUBLIC: &str = "public.lab";

/// What the server before the lab does.
enum Kind {
    /// It accepts encrypted client hellos.
    Accepts,
    /// It ignores them, and has a certificate for its public name.
    Rejects,
    /// It ignores them, and has none: whoever sits on the way would look like this.
    Pretends,
}

struct Setup {
    lab: Lab,
    server: EchServer,
    /// The bootstrap resolver.
    plain: Plain,
    config: DnsConfig,
}

/// A running daemon.
struct Running {
    setup: Setup,
    daemon: Server,
}

impl Setup {
    async fn new(kind: Kind, transport: Transport, ech: Ech) -> Setup {
        let ca = Arc::new(Ca::new());
        let names: &[&str] = if matches!(kind, Kind::Pretends) { &[SECRET] } else { &[SECRET, PUBLIC] };
        let server_names = names.iter().map(|name| (*name).to_owned()).collect();
        let spec = LabSpec { server_names, ..LabSpec::default() };
        let lab = Lab::start_with_ca(spec, &ca).await.expect("loopback");
        let (answer, behind) = match (&kind, transport) {
            (Kind::Accepts, _) => (Answer::Accept(ca.clone(), SECRET), lab.tcp_addr()),
            (_, Transport::Https) => (Answer::Ignore, lab.https_addr()),
            _ => (Answer::Ignore, lab.tls_addr()),
        };
        let server = EchServer::start(PUBLIC, answer, behind).await;
        let plain = Plain::start("127.0.0.1", None).await;
        let upstream = UpstreamConfig {
            addresses: vec![server.address.ip()],
            ech,
            ..UpstreamConfig::new("hidden", transport, SECRET, server.address.port())
        };
        let mut config = config(&[], &ca, transport);
        // Connections are made when a test asks for them.
        config.pool.min_idle = 0;
        let config = DnsConfig {
            upstreams: vec![upstream],
            bootstrap: vec![plain.address],
            timeout: Duration::from_secs(2),
            ..config
        };
        Setup { lab, server, plain, config }
    }

    /// Publishes the server's keys where those of its transport stand.
    fn publish(self) -> Setup {
        let port = self.server.address.port();
        let list = self.server.list();
        if self.config.upstreams[0].transport == Transport::Https {
            let data = binding(1, SECRET, &[(1, b"\x02h2"), (5, &list)]);
            self.plain.publish(&format!("_{port}._https.{SECRET}"), TYPE_HTTPS, data);
        } else {
            let data = binding(1, SECRET, &[(1, b"\x03dot"), (3, &port.to_be_bytes()), (5, &list)]);
            self.plain.publish(&format!("_dns.{SECRET}"), TYPE_SVCB, data);
        }
        self
    }

    fn run(self) -> Running {
        let daemon = Server::start(self.config.clone()).expect("the server starts");
        Running { setup: self, daemon }
    }
}

impl Running {
    async fn ask(&self, name: &str) -> Result<(), String> {
        ask(self.daemon.listening()[0].address, name).await
    }

    fn row(&self) -> PoolStatus {
        self.daemon.pools().into_iter().find(|row| row.name == "hidden").expect("it has a row")
    }

    /// The error of a query that fails.
    async fn error(&self) -> String {
        let trace = self.daemon.query("a.example", 1).await.unwrap();
        assert!(trace.exchange.is_none(), "{trace:?}");
        trace.error.unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.setup.server.seen()
    }

    async fn stop(self) {
        self.daemon.stop(Duration::from_secs(2)).await;
        self.setup.lab.stop().await;
    }
}

fn hidden() -> Seen {
    Seen { outer: Some(PUBLIC.into()), offer: Offer::Name(SECRET.into()) }
}

fn shown(offer: Offer) -> Seen {
    Seen { outer: Some(SECRET.into()), offer }
}

#[tokio::test]
async fn the_name_is_encrypted_where_the_upstream_publishes_keys() {
    for ech in [Ech::Auto, Ech::Require] {
        let running = Setup::new(Kind::Accepts, Transport::Tls, ech).await.publish().run();
        let trace = running.daemon.query("a.example", 1).await.unwrap();
        let dial = trace.exchange.expect("it is answered").dial.expect("the connection is new");
        assert_eq!((dial.ech, running.row().ech), (Some("accepted"), Some("accepted")));
        assert_eq!(running.seen(), [hidden()]);
        running.stop().await;
    }
}

#[tokio::test]
async fn the_connection_goes_to_the_host_that_the_record_names() {
    let mut setup = Setup::new(Kind::Accepts, Transport::Tls, Ech::Require).await;
    let (port, list) = (setup.server.address.port().to_be_bytes(), setup.server.list());
    let data = binding(1, "elsewhere.lab", &[(1, b"\x03dot"), (3, &port), (5, &list)]);
    setup.plain.publish(&format!("_dns.{SECRET}"), TYPE_SVCB, data);
    setup.plain.publish(SECRET, TYPE_A, vec![127, 0, 0, 99]);
    setup.plain.publish("elsewhere.lab", TYPE_A, vec![127, 0, 0, 1]);
    setup.config.upstreams[0].addresses.clear();
    let running = setup.run();
    running.ask("a.example").await.unwrap();
    assert_eq!(running.seen(), [hidden()]);
    running.stop().await;
}

#[tokio::test]
async fn without_keys_the_name_is_shown_and_the_next_hello_looks_like_one_with_keys() {
    let running = Setup::new(Kind::Rejects, Transport::Tls, Ech::Auto).await.run();
    running.ask("a.example").await.unwrap();
    assert_eq!(running.row().ech, Some("unavailable"));
    running.setup.lab.close_all(CloseKind::Fin);
    until("the connection is gone", || running.row().open == 0).await;
    running.ask("b.example").await.unwrap();
    assert_eq!(running.seen(), [shown(Offer::None), shown(Offer::Opaque)]);
    assert_eq!(running.row().ech, Some("grease"));
    assert_eq!(running.row().handshakes_resumed, 1, "a session goes on under another kind of hello");
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_proves_that_it_has_no_keys_is_asked_without_under_auto() {
    for transport in [Transport::Tls, Transport::Https] {
        let running = Setup::new(Kind::Rejects, transport, Ech::Auto).await.publish().run();
        running.ask("a.example").await.unwrap();
        assert_eq!(running.seen(), [hidden(), shown(Offer::None)], "{transport:?}");
        assert_eq!((running.row().ech, running.row().failures), (Some("rejected"), 0));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_has_no_keys_is_never_shown_the_name_under_require() {
    for transport in [Transport::Tls, Transport::Https] {
        let running = Setup::new(Kind::Rejects, transport, Ech::Require).await.publish().run();
        let error = running.error().await;
        assert!(error.contains("encrypted client hello is required, and"), "{error}");
        assert!(running.seen().contains(&hidden()));
        assert!(running.seen().iter().all(|seen| *seen == hidden()), "{:?}", running.seen());
        assert_eq!(running.row().ech, Some("rejected"));
        running.stop().await;
    }
}

#[tokio::test]
async fn whoever_cannot_prove_the_public_name_is_never_shown_the_other_one() {
    for ech in [Ech::Auto, Ech::Require] {
        let running = Setup::new(Kind::Pretends, Transport::Tls, ech).await.publish().run();
        let error = running.error().await;
        assert!(error.contains("certificate is not for public.lab"), "{error}");
        assert!(running.seen().contains(&hidden()));
        assert!(running.seen().iter().all(|seen| *seen == hidden()), "{:?}", running.seen());
        running.stop().await;
    }
}

#[tokio::test]
async fn without_keys_nobody_is_connected_to_under_require() {
    let running = Setup::new(Kind::Accepts, Transport::Tls, Ech::Require).await.run();
    let error = running.error().await;
    assert!(
        error.ends_with("encrypted client hello is required, and its keys are missing: it publishes none"),
        "{error}"
    );
    assert_eq!(running.seen(), []);
    assert_eq!(running.row().ech, Some("unavailable"));
    running.stop().await;
}

#[tokio::test]
async fn when_it_is_off_nothing_is_asked_for_and_nothing_hidden() {
    let running = Setup::new(Kind::Rejects, Transport::Tls, Ech::Off).await.publish().run();
    running.ask("a.example").await.unwrap();
    assert_eq!((running.seen(), running.row().ech), (vec![shown(Offer::None)], Some("off")));
    assert_eq!(running.setup.plain.asked(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_server_without_tls_13_is_reached_when_it_publishes_no_keys() {
    let mut setup = Setup::new(Kind::Rejects, Transport::Tls, Ech::Auto).await;
    let ca = Ca::new();
    let spec = LabSpec { tls_versions: TlsVersions::Tls12, ..LabSpec::default() };
    let old = Lab::start_with_ca(spec, &ca).await.unwrap();
    setup.config.roots = keepwarm_transport::tls::TlsRoots::only([ca.root()]);
    setup.config.upstreams[0].port = old.tls_addr().port();
    let running = setup.run();
    for number in 0..3 {
        running.ask(&format!("n{number}.example")).await.unwrap();
        old.close_all(CloseKind::Fin);
        until("the connection is gone", || running.row().open == 0).await;
    }
    assert_eq!((running.row().ech, running.row().failures), (Some("unavailable"), 0));
    running.stop().await;
    old.stop().await;
}

#[tokio::test]
async fn keys_are_asked_for_through_the_other_upstreams_where_there_is_no_bootstrap_resolver() {
    let mut setup = Setup::new(Kind::Accepts, Transport::Tls, Ech::Require).await.publish();
    let other = setup.plain.address;
    setup.config.bootstrap.clear();
    setup.config.strategy = Strategy::Parallel;
    setup.config.upstreams.push(UpstreamConfig::new("other", Transport::Udp, "127.0.0.1", other.port()));
    let running = setup.run();
    until("the keys were asked for", || running.setup.plain.asked() > 0).await;
    for number in 0.. {
        // The other upstream knows no addresses, and says so faster than we can look.
        let _ = running.daemon.query(&format!("n{number}.example"), 1).await;
        if running.row().ech == Some("accepted") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(number < 500, "the keys never came: {:?}", running.row());
    }
    assert!(running.seen().iter().all(|seen| *seen == hidden()), "{:?}", running.seen());
    running.stop().await;
}

#[tokio::test]
async fn keys_that_only_an_upstream_that_waits_for_them_could_tell_are_called_circular() {
    let mut setup = Setup::new(Kind::Accepts, Transport::Tls, Ech::Require).await.publish();
    setup.config.bootstrap.clear();
    let running = setup.run();
    let error = running.error().await;
    assert!(error.ends_with("upstreams that wait for keys themselves: set dns.bootstrap"), "{error}");
    assert_eq!(running.seen(), []);
    running.stop().await;
}
