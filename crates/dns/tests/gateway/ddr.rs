//! Discovery of designated resolvers (RFC 9462): a plain upstream whose queries go to its encrypted face.

use std::{net::SocketAddr, time::Duration};

use keepwarm_dns::{
    config::{Ddr, DnsConfig, Transport},
    message::{TYPE_A, TYPE_SVCB},
    server::{DdrStatus, Server},
};
use keepwarm_lab::{CloseKind, Faults, Lab};

use crate::{
    plain::{Plain, binding, until},
    support::{ask, config, exchange_udp, labs, query, rcode},
};

const NAME: &str = "_dns.resolver.arpa";
const HINT: (u16, &[u8]) = (4, &[127, 0, 0, 1]);

/// A server before a plain resolver at `ip`, whose queries end at the first lab and whose face is the second one.
struct Setup {
    labs: Vec<Lab>,
    plain: Plain,
    server: Server,
}

impl Setup {
    async fn start(
        ip: &str,
        ddr: Ddr,
        prepare: impl FnOnce(&Plain, &Lab),
        change: impl FnOnce(&mut DnsConfig),
    ) -> Setup {
        let (labs, ca) = labs([Faults::default(), Faults::default()]).await;
        let plain = Plain::start(ip, Some(labs[0].udp_addr())).await;
        prepare(&plain, &labs[1]);
        let mut config = config(&labs[..1], &ca, Transport::Udp);
        let upstream = &mut config.upstreams[0];
        upstream.host = plain.address.ip().to_string().into();
        upstream.port = plain.address.port();
        upstream.ddr = ddr;
        change(&mut config);
        let server = Server::start(config).expect("the server starts");
        Setup { labs, plain, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.listening()[0].address
    }

    async fn ask(&self, name: &str) {
        ask(self.address(), name).await.unwrap();
    }

    fn status(&self) -> DdrStatus {
        self.server.pools()[0].ddr.clone().expect("ddr is on")
    }

    async fn designated(&self) {
        until("a designated resolver", || self.status().state == "designated").await;
    }

    async fn stop(self) {
        self.server.stop(Duration::from_secs(2)).await;
        for lab in self.labs {
            lab.stop().await;
        }
    }
}

/// The record of a lab's DoT listener.
fn dot(lab: &Lab) -> Vec<u8> {
    let port = lab.tls_addr().port().to_be_bytes();
    binding(1, "upstream.lab", &[(1, b"\x03dot"), (3, &port), HINT])
}

fn designate_dot(plain: &Plain, lab: &Lab) {
    plain.publish(NAME, TYPE_SVCB, dot(lab));
}

#[tokio::test]
async fn queries_of_a_plain_upstream_go_to_the_dot_face_that_it_designates() {
    let setup = Setup::start("127.0.0.1", Ddr::Auto, designate_dot, |_| {}).await;
    setup.designated().await;
    let plain = setup.plain.passed();
    for number in 0..20 {
        setup.ask(&format!("n{number}.example")).await;
    }
    assert_eq!(setup.labs[1].counters().tls.queries, 20);
    assert_eq!(setup.plain.passed(), plain);
    let status = setup.status();
    let url = format!("tls://upstream.lab:{}", setup.labs[1].tls_addr().port());
    assert_eq!((status.address.as_deref(), status.transport, status.reason), (Some(&*url), Some("tls"), None));
    assert!(status.age.is_some());
    let rows = setup.server.pools();
    let face = rows.iter().find(|row| row.address == url).expect("the face has a row");
    assert_eq!((face.name.as_str(), face.queries), ("lab0", 20));
    setup.stop().await;
}

#[tokio::test]
async fn queries_of_a_plain_upstream_go_to_the_doh_face_that_it_designates() {
    let designate = |plain: &Plain, lab: &Lab| {
        let port = lab.https_addr().port().to_be_bytes();
        let params: [(u16, &[u8]); 4] = [(1, b"\x02h2"), (3, &port), HINT, (7, b"/dns-query{?dns}")];
        plain.publish(NAME, TYPE_SVCB, binding(1, "upstream.lab", &params));
    };
    let setup = Setup::start("127.0.0.1", Ddr::Auto, designate, |_| {}).await;
    setup.designated().await;
    setup.ask("a.example").await;
    assert_eq!(setup.labs[1].counters().https.queries, 1);
    assert_eq!(setup.status().transport, Some("https"));
    setup.stop().await;
}

#[tokio::test]
async fn a_face_without_an_address_in_its_record_is_looked_up_at_the_plain_upstream() {
    let designate = |plain: &Plain, lab: &Lab| {
        let port = lab.tls_addr().port().to_be_bytes();
        plain.publish(NAME, TYPE_SVCB, binding(1, "upstream.lab", &[(1, b"\x03dot"), (3, &port)]));
        plain.publish("upstream.lab", TYPE_A, vec![127, 0, 0, 1]);
    };
    let setup = Setup::start("127.0.0.1", Ddr::Require, designate, |_| {}).await;
    setup.ask("a.example").await;
    assert_eq!(setup.labs[1].counters().tls.queries, 1);
    setup.stop().await;
}

#[tokio::test]
async fn a_face_whose_certificate_does_not_name_the_plain_upstream_is_never_used() {
    // The lab's certificate is for upstream.lab and 127.0.0.1.
    let setup = Setup::start("127.0.0.2", Ddr::Auto, designate_dot, |_| {}).await;
    until("a verdict", || setup.status().state == "absent").await;
    let reason = setup.status().reason.unwrap();
    assert!(reason.contains("certificate is not for 127.0.0.2"), "{reason}");
    setup.ask("a.example").await;
    assert_eq!((setup.labs[1].counters().tls.queries, setup.labs[0].counters().udp.queries), (0, 1));
    setup.stop().await;
}

#[tokio::test]
async fn queries_that_must_be_encrypted_wait_until_the_face_is_known() {
    let designate = |plain: &Plain, lab: &Lab| {
        designate_dot(plain, lab);
        plain.hold();
    };
    let setup = Setup::start("127.0.0.1", Ddr::Require, designate, |_| {}).await;
    let address = setup.address();
    let waiting = tokio::spawn(async move { ask(address, "a.example").await });
    until("a query in flight", || setup.server.status().queries == 1 && setup.plain.asked() > 0).await;
    assert_eq!(setup.status().state, "pending");
    setup.plain.release();
    waiting.await.unwrap().unwrap();
    assert_eq!((setup.plain.passed(), setup.labs[1].counters().tls.queries), (0, 1));
    setup.stop().await;
}

#[tokio::test]
async fn queries_that_must_be_encrypted_fail_at_their_deadline_when_nobody_says_where_to() {
    let hold = |plain: &Plain, _: &Lab| plain.hold();
    let setup =
        Setup::start("127.0.0.1", Ddr::Require, hold, |config| config.timeout = Duration::from_millis(500)).await;
    let trace = setup.server.query("a.example", 1).await.unwrap();
    let error = trace.error.unwrap();
    assert!(error.ends_with("its encrypted face (ddr) is required, and not known yet"), "{error}");
    assert_eq!(setup.plain.passed(), 0);
    setup.stop().await;
}

#[tokio::test]
async fn queries_that_must_be_encrypted_fail_with_the_reason_when_there_is_no_face() {
    let setup = Setup::start("127.0.0.1", Ddr::Require, |_, _| {}, |_| {}).await;
    until("a verdict", || setup.status().state == "absent").await;
    assert_eq!(rcode(&exchange_udp(setup.address(), &query("a.example", 1)).await.unwrap()), 2);
    let error = setup.server.query("a.example", 1).await.unwrap().error.unwrap();
    assert!(error.ends_with("is required, and there is none: the upstream designates no resolver"), "{error}");
    assert_eq!((setup.plain.passed(), setup.labs[0].counters().udp.queries), (0, 0));
    setup.stop().await;
}

fn quick_breaker(config: &mut DnsConfig) {
    config.breaker.open = Duration::from_millis(50);
    config.breaker.open_max = Duration::from_millis(100);
}

fn refuse(lab: &Lab, refuse: bool) {
    lab.update_faults(|faults| faults.refuse = refuse);
    if refuse {
        lab.close_all(CloseKind::Reset);
    }
}

#[tokio::test]
async fn queries_go_out_in_plain_while_the_face_fails_and_return_to_it() {
    let setup = Setup::start("127.0.0.1", Ddr::Auto, designate_dot, quick_breaker).await;
    setup.designated().await;
    setup.ask("a.example").await;
    refuse(&setup.labs[1], true);
    for number in 0..20 {
        setup.ask(&format!("failing{number}.example")).await;
    }
    assert_eq!(setup.labs[0].counters().udp.queries, 20);
    refuse(&setup.labs[1], false);
    setup.labs[1].reset_counters();
    for number in 0.. {
        setup.ask(&format!("back{number}.example")).await;
        if setup.labs[1].counters().tls.queries > 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(number < 1000, "no query returned to the face");
    }
    setup.stop().await;
}

#[tokio::test]
async fn queries_that_must_be_encrypted_do_not_go_out_in_plain_while_the_face_fails() {
    let setup = Setup::start("127.0.0.1", Ddr::Require, designate_dot, |config| {
        quick_breaker(config);
        config.timeout = Duration::from_secs(1);
    })
    .await;
    setup.designated().await;
    refuse(&setup.labs[1], true);
    for number in 0..5 {
        let query = query(&format!("failing{number}.example"), 1);
        assert_eq!(rcode(&exchange_udp(setup.address(), &query).await.unwrap()), 2);
    }
    assert_eq!((setup.plain.passed(), setup.labs[0].counters().udp.queries), (0, 0));
    setup.stop().await;
}

#[tokio::test]
async fn a_face_that_falls_silent_costs_a_query_a_second_and_not_its_answer() {
    let setup = Setup::start("127.0.0.1", Ddr::Auto, designate_dot, |_| {}).await;
    setup.designated().await;
    setup.ask("a.example").await;
    setup.labs[1].update_faults(|faults| faults.silent = true);
    setup.ask("b.example").await;
    assert_eq!(setup.labs[0].counters().udp.queries, 1);
    setup.stop().await;
}
