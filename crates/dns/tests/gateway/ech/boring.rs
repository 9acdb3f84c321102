//! Our client against BoringSSL's encrypted client hello. The server is a program of its own, `tests/peers/ech_server.cc`, which
//! needs a C++ compiler and cmake: where `KEEPWARM_ECH_SERVER` does not name it, these tests say that they were skipped.

use std::{
    env, io,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use keepwarm_dns::{
    config::{DnsConfig, Ech, Transport, UpstreamConfig},
    message::TYPE_SVCB,
    server::{PoolStatus, Server},
};
use keepwarm_lab::{Ca, Lab, LabSpec};
use rustls::pki_types::PrivateKeyDer;

use crate::{
    plain::{Plain, binding, until},
    support::config,
};

/// The server, a lab behind it, and a daemon before it.
struct Setup {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    lab: Lab,
    _plain: Plain,
    daemon: Server,
}

impl Setup {
    /// `None` when there is no server to test with.
    async fn start(mode: &str, ech: Ech) -> Option<Setup> {
        let Some(program) = env::var_os("KEEPWARM_ECH_SERVER") else {
            println!("SKIPPED: KEEPWARM_ECH_SERVER does not name the program made of tests/peers/ech_server.cc");
            return None;
        };
        let ca = Ca::new();
        let lab = Lab::start_with_ca(LabSpec::default(), &ca).await.expect("loopback");
        let (chain, PrivateKeyDer::Pkcs8(key)) = ca.issue(&["upstream.lab", "public.lab"]).unwrap() else {
            panic!("the lab's keys are PKCS #8");
        };
        let mut child = Command::new(program)
            .args([hex(&chain[0]), hex(key.secret_pkcs8_der()), "public.lab".into()])
            .args([lab.tcp_addr().port().to_string(), mode.into()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the named program starts");
        let mut out = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        let port: u16 = out.next().unwrap().unwrap().parse().unwrap();
        let list = from_hex(&out.next().unwrap().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = lines.clone();
        std::thread::spawn(move || out.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        let plain = Plain::start("127.0.0.1", None).await;
        let params: [(u16, &[u8]); 3] = [(1, b"\x03dot"), (3, &port.to_be_bytes()), (5, &list)];
        plain.publish("_dns.upstream.lab", TYPE_SVCB, binding(1, "upstream.lab", &params));
        let upstream = UpstreamConfig {
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ech,
            ..UpstreamConfig::new("hidden", Transport::Tls, "upstream.lab", port)
        };
        let mut config = config(&[], &ca, Transport::Tls);
        config.pool.min_idle = 0;
        let config = DnsConfig { upstreams: vec![upstream], bootstrap: vec![plain.address], ..config };
        let daemon = Server::start(config).expect("the server starts");
        Some(Setup { child, lines, lab, _plain: plain, daemon })
    }

    fn row(&self) -> PoolStatus {
        self.daemon.pools().remove(0)
    }

    /// Waits for this line of the server about a handshake.
    async fn told(&self, line: &str) {
        until(line, || self.lines.lock().unwrap().iter().any(|told| told == line)).await;
    }

    async fn stop(mut self) {
        self.daemon.stop(std::time::Duration::from_secs(2)).await;
        self.lab.stop().await;
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn boringssl_decrypts_our_hello() {
    for ech in [Ech::Auto, Ech::Require] {
        let Some(setup) = Setup::start("accept", ech).await else { return };
        let trace = setup.daemon.query("a.example", 1).await.unwrap();
        assert!(trace.exchange.is_some(), "{trace:?}");
        setup.told("connected decrypted upstream.lab").await;
        assert_eq!(setup.row().ech, Some("accepted"));
        setup.stop().await;
    }
}

#[tokio::test]
async fn keys_that_boringssl_sends_in_place_of_ours_are_used_at_once() {
    for ech in [Ech::Auto, Ech::Require] {
        let Some(setup) = Setup::start("rotate", ech).await else { return };
        let trace = setup.daemon.query("a.example", 1).await.unwrap();
        assert!(trace.exchange.is_some(), "{trace:?}");
        setup.told("connected decrypted upstream.lab").await;
        assert!(!setup.lines.lock().unwrap().iter().any(|line| line.ends_with("plain upstream.lab")));
        let row = setup.row();
        assert_eq!((row.ech, row.failures, row.handshakes_full), (Some("accepted"), 0, 1));
        setup.stop().await;
    }
}

#[tokio::test]
async fn boringssl_without_keys_is_asked_without_under_auto_and_not_at_all_under_require() {
    let Some(setup) = Setup::start("none", Ech::Auto).await else { return };
    assert!(setup.daemon.query("a.example", 1).await.unwrap().exchange.is_some());
    setup.told("connected plain upstream.lab").await;
    assert_eq!(setup.row().ech, Some("rejected"));
    setup.stop().await;
    let setup = Setup::start("none", Ech::Require).await.expect("it was there before");
    assert!(setup.daemon.query("a.example", 1).await.unwrap().exchange.is_none());
    assert!(!setup.lines.lock().unwrap().iter().any(|line| line.ends_with("plain upstream.lab")));
    setup.stop().await;
}
