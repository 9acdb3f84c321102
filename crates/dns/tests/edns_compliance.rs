//! The questions of ednscomp.isc.org and some more, put to a server of ours and, where it is installed, to unbound, both in
//! front of the same lab. The table says what we answer; where an RFC leaves no choice, unbound has to say the same.
//!
//! `cargo test -p keepwarm-dns --test edns_compliance -- --nocapture` prints both side by side. docs/dns/edns.md tells the
//! reasons of what differs.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Listen, Transport, UpstreamConfig},
    server::Server,
};
use keepwarm_lab::{Lab, LabSpec, build_query};
use tokio::net::UdpSocket;

/// One question of the list.
struct Case {
    what: &'static str,
    message: Vec<u8>,
    /// What we say to it.
    ours: Said,
    /// The RFC that leaves no choice: unbound says the same.
    fixed: Option<&'static str>,
}

/// An answer, as far as compliance goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// Rcode with the bits of OPT, TC, records in the answer section above 0, and what OPT says.
    Answer {
        rcode: u16,
        tc: bool,
        records: bool,
        opt: Opt,
    },
}

/// The OPT record of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opt {
    None,
    /// Version 0, with these 16 flags, and an option of those that must not come back.
    Zero {
        flags: u16,
        echo: bool,
    },
    /// Another version.
    Other,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said::Answer { rcode, tc, records, opt } = self else { return f.write_str("silence") };
        let known = [(0, "NOERROR"), (1, "FORMERR"), (2, "SERVFAIL"), (4, "NOTIMP"), (5, "REFUSED"), (16, "BADVERS")];
        match known.iter().find(|(code, _)| code == rcode) {
            Some((_, name)) => f.write_str(name)?,
            None => write!(f, "rcode {rcode}")?,
        }
        f.write_str(if *tc { ", truncated" } else { "" })?;
        f.write_str(if *records { ", records" } else { "" })?;
        match opt {
            Opt::None => Ok(()),
            Opt::Zero { flags, echo } => {
                f.write_str(", edns")?;
                f.write_str(if flags & 0x8000 != 0 { " do" } else { "" })?;
                f.write_str(if flags & 0x7fff != 0 { " z" } else { "" })?;
                f.write_str(if *echo { " echo" } else { "" })
            }
            Opt::Other => f.write_str(", edns of another version"),
        }
    }
}

// --- the list

/// NOERROR with records.
fn yes(opt: Opt) -> Said {
    Said::Answer { rcode: 0, tc: false, records: true, opt }
}

fn error(rcode: u16, opt: Opt) -> Said {
    Said::Answer { rcode, tc: false, records: false, opt }
}

const EDNS: Opt = Opt::Zero { flags: 0, echo: false };
const CUT: Said = Said::Answer { rcode: 0, tc: true, records: false, opt: EDNS };
const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const BADVERS: u16 = 16;

fn plain() -> Vec<u8> {
    build_query(rand_id(), NAME, 1, None)
}

fn edns(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    with_opt(plain(), size, ttl, options)
}

fn with_opt(mut query: Vec<u8>, size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&size.to_be_bytes());
    query.extend_from_slice(&ttl.to_be_bytes());
    query.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
    query.extend_from_slice(options);
    query
}

fn changed(mut query: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut query);
    query
}

fn big(size: u16) -> Vec<u8> {
    with_opt(build_query(rand_id(), "big.compliance.example.com", 16, None), size, 0, &[])
}

fn rand_id() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Where the question's type is.
fn qtype_at() -> usize {
    plain().len() - 4
}

fn well_formed() -> Vec<Case> {
    let case = |what, message, ours, fixed| Case { what, message, ours, fixed };
    let with = |ttl: u32, options: &[u8]| edns(1232, ttl, options);
    let unknown = [0xfd, 0xe9, 0, 2, 1, 2];
    vec![
        case("no edns", plain(), yes(Opt::None), Some("RFC 6891 section 6.1.1")),
        case("edns", with(0, &[]), yes(EDNS), Some("RFC 6891 section 6.1.1")),
        case("unknown option", with(0, &unknown), yes(EDNS), Some("RFC 6891 section 6.1.2")),
        case("unknown flag", with(0x4000, &[]), yes(EDNS), Some("RFC 6891 section 6.1.4")),
        case("unknown version", with(0x1_0000, &[]), error(BADVERS, EDNS), Some("RFC 6891 section 6.1.3")),
        case(
            "unknown version and option",
            with(0x1_0000, &unknown),
            error(BADVERS, EDNS),
            Some("RFC 6891 section 6.1.3"),
        ),
        case("unknown version and flag", with(0x1_4000, &[]), error(BADVERS, EDNS), Some("RFC 6891 section 6.1.3")),
        case("extended rcode in a query", with(0x0100_0000, &[]), yes(EDNS), None),
        case("do", with(0x8000, &[]), yes(Opt::Zero { flags: 0x8000, echo: false }), Some("RFC 3225 section 3")),
        case("payload size 65535, long answer", big(65_535), CUT, None),
        case("payload size 0, long answer", big(0), CUT, Some("RFC 6891 section 6.2.3")),
        case("payload size 0", edns(0, 0, &[]), yes(EDNS), Some("RFC 6891 section 6.2.3")),
        case("cookie", with(0, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]), yes(EDNS), None),
        case("cookie of a wrong length", with(0, &[0, 10, 0, 3, 1, 2, 3]), yes(EDNS), None),
        case("nsid", with(0, &[0, 3, 0, 0]), yes(EDNS), Some("RFC 6891 section 6.1.2")),
        case("client subnet", with(0, &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2]), yes(EDNS), None),
        case("expire", with(0, &[0, 9, 0, 0]), yes(EDNS), Some("RFC 6891 section 6.1.2")),
        case("keepalive over udp", with(0, &[0, 11, 0, 0]), yes(EDNS), Some("RFC 7828 section 3.3.1")),
        case("padding", with(0, &[0, 12, 0, 4, 0, 0, 0, 0]), yes(EDNS), None),
        case("ad", changed(with(0, &[]), |query| query[3] |= 0x20), yes(EDNS), None),
        case("cd", changed(with(0, &[]), |query| query[3] |= 0x10), yes(EDNS), Some("RFC 4035 section 3.2.2")),
        case("type any", changed(plain(), |query| query[qtype_at() + 1] = 255), yes(Opt::None), None),
        case(
            "unknown type",
            changed(plain(), |query| query[qtype_at()] = 0xff),
            yes(Opt::None),
            Some("RFC 3597 section 3"),
        ),
        case("class chaos", changed(plain(), |query| query[qtype_at() + 3] = 3), yes(Opt::None), None),
    ]
}

fn malformed() -> Vec<Case> {
    let case = |what, message, ours, fixed| Case { what, message, ours, fixed };
    let opcode = |code: u8| changed(edns(1232, 0, &[]), |query| query[2] = code << 3);
    let twice = changed(plain(), |query| {
        let question = query[12..].to_vec();
        query.extend_from_slice(&question);
        query[5] = 2;
    });
    vec![
        case("opcode status", opcode(2), error(NOTIMP, EDNS), None),
        case("opcode 15", opcode(15), error(NOTIMP, EDNS), Some("RFC 1035 section 4.1.1")),
        case("an answer", changed(plain(), |query| query[2] |= 0x80), Said::Nothing, Some("RFC 5452 section 9.1")),
        case(
            "two opt records",
            with_opt(edns(1232, 0, &[]), 1232, 0, &[]),
            error(FORMERR, EDNS),
            Some("RFC 6891 section 6.1.1"),
        ),
        case("opt whose owner is not the root", owned_opt(), error(FORMERR, Opt::None), None),
        case("options longer than opt", edns(1232, 0, &[0xfd, 0xe9, 0, 9, 1]), error(FORMERR, EDNS), None),
        case(
            "opt longer than the message",
            changed(edns(1232, 0, &[]), |query| *query.last_mut().unwrap() = 9),
            error(FORMERR, Opt::None),
            None,
        ),
        case(
            "trailing garbage",
            changed(edns(1232, 0, &[]), |query| query.extend_from_slice(b"garbage")),
            error(FORMERR, EDNS),
            None,
        ),
        case("two questions", twice, error(FORMERR, Opt::None), Some("RFC 9619 section 4")),
        case(
            "no question",
            changed(plain(), |query| {
                query.truncate(12);
                query[5] = 0;
            }),
            error(FORMERR, Opt::None),
            None,
        ),
        case(
            "no question, edns",
            changed(plain(), |query| {
                query.truncate(12);
                query[5] = 0;
                *query = with_opt(query.clone(), 1232, 0, &[]);
            }),
            error(FORMERR, EDNS),
            None,
        ),
        case(
            "compressed question",
            changed(plain(), |query| {
                query.truncate(12);
                query.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            }),
            error(FORMERR, Opt::None),
            Some("RFC 1035 section 4.1.4"),
        ),
        case("label of 64 bytes", changed(plain(), |query| query[12] = 64), error(FORMERR, Opt::None), None),
        case("question cut short", changed(plain(), |query| query.truncate(16)), error(FORMERR, Opt::None), None),
        case("header alone", changed(plain(), |query| query.truncate(12)), error(FORMERR, Opt::None), None),
        case("half a header", changed(plain(), |query| query.truncate(6)), Said::Nothing, None),
        case("answers in a query", changed(plain(), |query| query[7] = 1), error(FORMERR, Opt::None), None),
    ]
}

fn owned_opt() -> Vec<u8> {
    changed(plain(), |query| {
        query[11] = 1;
        query.extend_from_slice(&[1, b'a', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    })
}

// --- asking

/// Asks, and understands the answer.
async fn ask(server: SocketAddr, case: &Case) -> Said {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&case.message, server).await.unwrap();
    let mut buffer = [0; 4096];
    // All cases wait at once, so that those of silence cost no more than one.
    let Ok(received) = tokio::time::timeout(SILENCE, socket.recv(&mut buffer)).await else { return Said::Nothing };
    let answer = &buffer[..received.unwrap()];
    assert_eq!(answer[..2], case.message[..2], "{}: the id", case.what);
    assert!(answer[2] & 0x80 != 0, "{}: QR", case.what);
    let (mut rcode, mut opt) = (u16::from(answer[3] & 0x0f), Opt::None);
    if let Some(at) = find_opt(answer) {
        rcode |= u16::from(answer[at + 5]) << 4;
        let flags = u16::from_be_bytes([answer[at + 7], answer[at + 8]]);
        let zero = Opt::Zero { flags, echo: echoes(&answer[at + 11..]) };
        opt = if answer[at + 6] == 0 { zero } else { Opt::Other };
    }
    Said::Answer { rcode, tc: answer[2] & 2 != 0, records: answer[7] > 0, opt }
}

/// Where the OPT record begins. Neither server names anything by `\0\0\x29` but its OPT at the end.
fn find_opt(answer: &[u8]) -> Option<usize> {
    let found = answer.windows(3).rposition(|bytes| bytes == [0, 0, 41]);
    found.filter(|at| answer[11] > 0 && at + 11 <= answer.len())
}

/// Whether there is an option among these that only asks or is unknown.
fn echoes(mut options: &[u8]) -> bool {
    while let [a, b, c, d, rest @ ..] = options {
        if matches!(u16::from_be_bytes([*a, *b]), 9 | 11 | 65_001) {
            return true;
        }
        options = rest.get(usize::from(u16::from_be_bytes([*c, *d]))..).unwrap_or_default();
    }
    false
}

async fn ask_all(server: SocketAddr, cases: &[Case]) -> Vec<Said> {
    futures_util::future::join_all(cases.iter().map(|case| ask(server, case))).await
}

// --- servers

async fn ours(lab: &Lab) -> Server {
    let address = lab.udp_addr();
    let config = DnsConfig {
        listen: vec![Listen::plain((Ipv4Addr::LOCALHOST, 0).into())],
        cache: CacheSettings { size: 0, ..CacheSettings::default() },
        upstreams: vec![UpstreamConfig::new("lab", Transport::Udp, &address.ip().to_string(), address.port())],
        workers: 1,
        ..DnsConfig::default()
    };
    Server::start(config).unwrap()
}

/// unbound as a forwarder, until dropped.
struct Unbound {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Unbound {
    /// `None` where it is not installed.
    async fn start(upstream: SocketAddr) -> Option<Unbound> {
        let program =
            ["/usr/sbin/unbound", "/usr/local/sbin/unbound"].into_iter().find(|path| std::fs::exists(path).unwrap())?;
        let folder = tempfile::tempdir().unwrap();
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let config = format!(
            "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n \
             use-syslog: no\n num-threads: 1\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
             access-control: 127.0.0.0/8 allow\nremote-control:\n control-enable: no\nforward-zone:\n name: \".\"\n \
             forward-addr: {}@{}\n",
            upstream.ip(),
            upstream.port(),
        );
        let path = folder.path().join("unbound.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(program).arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let unbound =
            Unbound { process: process.unwrap(), address: (Ipv4Addr::LOCALHOST, port).into(), _folder: folder };
        unbound.answers().await.then_some(unbound)
    }

    /// Waits for its first answer.
    async fn answers(&self) -> bool {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        for _ in 0..100 {
            let mut buffer = [0; 512];
            // Refused at once, and for a moment, while nobody listens there.
            let _ = socket.send(&plain()).await;
            match tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await {
                Ok(Ok(_)) => return true,
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(_) => {}
            }
        }
        false
    }
}

#[tokio::test]
async fn odd_and_malformed_queries_are_answered_as_the_rfcs_want() {
    let lab = Lab::start(LabSpec::default()).await.unwrap();
    let server = ours(&lab).await;
    let unbound = Unbound::start(lab.udp_addr()).await;
    let cases: Vec<Case> = well_formed().into_iter().chain(malformed()).collect();
    let said = ask_all(server.listening()[0].address, &cases).await;
    let theirs = match &unbound {
        Some(unbound) => ask_all(unbound.address, &cases).await.into_iter().map(Some).collect(),
        None => {
            println!("unbound is not installed here: its column is empty");
            vec![None; cases.len()]
        }
    };
    println!("{:<34} {:<28} {:<28} fixed by", "query", "keepwarm", "unbound");
    for ((case, said), theirs) in cases.iter().zip(&said).zip(&theirs) {
        let theirs = theirs.map(|said| said.to_string()).unwrap_or_default();
        println!("{:<34} {:<28} {theirs:<28} {}", case.what, said.to_string(), case.fixed.unwrap_or_default());
    }
    for ((case, said), theirs) in cases.iter().zip(said).zip(theirs) {
        assert_eq!(said, case.ours, "{}", case.what);
        if let (Some(rfc), Some(theirs)) = (case.fixed, theirs) {
            assert!(agree(said, theirs), "{}, {rfc}: {said} and {theirs}", case.what);
        }
    }
    drop(unbound);
    server.stop(Duration::from_secs(1)).await;
    lab.stop().await;
}

/// An error without OPT and one with it are one, for the RFC that fixes the error says nothing of OPT.
fn agree(ours: Said, theirs: Said) -> bool {
    match (ours, theirs) {
        (Said::Answer { rcode: a @ 1.., .. }, Said::Answer { rcode: b, .. }) => a == b,
        _ => ours == theirs,
    }
}

const NAME: &str = "a.compliance.example.com";

/// Who has not answered by then does not.
const SILENCE: Duration = Duration::from_secs(3);
