//! Clients that we did not write: kdig (ngtcp2 and GnuTLS), and dnspython with aioquic.

use std::process::Command;

use keepwarm_dns::config::ListenTransport;
use keepwarm_lab::expected_a;

use super::client::*;

/// What a program printed, and whether it was content.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), shown)
}

/// Whether kdig is there and can do this; says so where it cannot.
fn kdig_has(option: &str) -> bool {
    let help = Command::new("kdig").arg("--help").output();
    let found = help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(option));
    if !found {
        println!("SKIPPED: no kdig with +{option} (Debian: knot-dnsutils)");
    }
    found
}

/// Whether Python has dnspython and aioquic; says so where it has not.
fn python_has_quic() -> bool {
    let found = Command::new("python3").args(["-c", "import aioquic, dns.query, dns.quic"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: python3 has no dnspython with aioquic (PyPI: dnspython[doq,doh])");
    }
    found
}

impl QuicBench {
    /// The certificate authority as a file.
    fn ca_file(&self) -> String {
        let path = self.folder.path().join("ca.pem");
        std::fs::write(&path, self.ca.pem()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a script with address, port and authority as its arguments.
    fn python(&self, script: &str, names: &[String]) -> (bool, String) {
        let mut command = Command::new("python3");
        command.args(["-c", script, &self.address.port().to_string(), &self.ca_file()]).args(names);
        run(&mut command)
    }
}

/// Names, and what a client that prints address for address shows of them.
fn names(prefix: &str, count: usize) -> (Vec<String>, String) {
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}{number}.example")).collect();
    let shown = names.iter().map(|name| format!("{}\n", expected_a(name))).collect();
    (names, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kdig_gets_its_answers_over_quic() {
    if !kdig_has("quic") {
        return;
    }
    let bench = QuicBench::doq().await;
    let names: Vec<String> = (0..5).map(|number| format!("kdig{number}.example")).collect();
    let (port, ca) = (bench.address.port().to_string(), format!("+tls-ca={}", bench.ca_file()));
    let kdig = |server_name: &str, rest: &[&str]| {
        let mut kdig = Command::new("kdig");
        // An option about TLS turns TLS over TCP on, so that of QUIC comes behind them.
        kdig.args(["@127.0.0.1", "-p", &port, &ca, &format!("+tls-hostname={server_name}"), "+quic", "+retry=0"]);
        run(kdig.args(rest))
    };
    for name in &names {
        assert_eq!(
            kdig("dns.lab", &["+short", "+dnssec", "+padding", name, "A"]).1.trim(),
            expected_a(name).to_string()
        );
    }
    let (content, shown) = kdig("dns.lab", &["big.example", "TXT"]);
    assert!(content && shown.len() > 3000 && shown.contains("NOERROR"), "{shown}");
    let (content, shown) = kdig("other.lab", &["other.example", "A"]);
    assert!(!content && !shown.contains("NOERROR"), "the certificate is for another name: {shown}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnspython_with_aioquic_asks_many_queries_on_one_doq_connection() {
    if !python_has_quic() {
        return;
    }
    let bench = QuicBench::doq().await;
    let (names, expected) = names("doq", 30);
    let script = r"
import sys, dns.edns, dns.message, dns.query, dns.quic
port, ca, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
with dns.quic.SyncQuicManager(verify_mode=ca, server_name='dns.lab') as manager:
    connection = manager.connect('127.0.0.1', port)
    for name in names:
        query = dns.message.make_query(name, 'A', use_edns=0, pad=128)
        answer = dns.query.quic(query, '127.0.0.1', timeout=10, port=port, connection=connection)
        assert any(option.otype == dns.edns.PADDING for option in answer.options), answer
        print(answer.answer[0][0])
";
    assert_eq!(bench.python(script, &names), (true, expected));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnspython_with_aioquic_asks_over_http3_with_get_and_post() {
    if !python_has_quic() {
        return;
    }
    let bench = QuicBench::start(ListenTransport::H3, |_| {}).await;
    let (names, once) = names("h3-", 5);
    let script = r"
import sys, dns.message, dns.query
port, ca, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
for post in (False, True):
    for name in names:
        query = dns.message.make_query(name, 'A')
        answer = dns.query.https(query, f'https://dns.lab:{port}/dns-query', timeout=10, verify=ca, post=post,
                                 bootstrap_address='127.0.0.1', http_version=dns.query.HTTPVersion.H3)
        print(answer.answer[0][0])
";
    assert_eq!(bench.python(script, &names), (true, [once.clone(), once].concat()));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aioquic_learns_by_its_error_which_rule_it_broke() {
    if !python_has_quic() {
        return;
    }
    let bench = QuicBench::doq().await;
    let script = r"
import asyncio, ssl, sys
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

class Client(QuicConnectionProtocol):
    ended = None
    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and self.ended and not self.ended.done():
            self.ended.set_result(event.error_code)

async def breaks(data):
    configuration = QuicConfiguration(alpn_protocols=['doq'], is_client=True, cafile=sys.argv[2], server_name='dns.lab')
    async with connect('127.0.0.1', int(sys.argv[1]), configuration=configuration, create_protocol=Client) as client:
        client.ended = asyncio.get_running_loop().create_future()
        client._quic.send_stream_data(client._quic.get_next_available_stream_id(), data, end_stream=True)
        client.transmit()
        return await asyncio.wait_for(client.ended, 10)

query = bytes.fromhex('00000100000100000000000001610765' '78616d706c650000010001')
framed = lambda message: len(message).to_bytes(2, 'big') + message
for data in (framed(b'\0\1' + query[2:]), framed(query) * 2, framed(query)[:9], b''):
    print(asyncio.run(breaks(data)))
";
    assert_eq!(bench.python(script, &[]), (true, "2\n2\n2\n2\n".into()));
    bench.stop().await;
}
