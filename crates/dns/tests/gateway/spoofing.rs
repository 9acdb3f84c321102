//! RFC 5452: what an off-path attacker has to guess, and what comes of wrong guesses. The upstream here is the test itself.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use keepwarm_dns::{config::Transport, server::Server};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::*;

/// An upstream that the test answers for, over UDP and TCP on one port, and a server in front of it.
pub struct Scripted {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    pub server: Server,
    pub address: SocketAddr,
}

impl Scripted {
    /// Without cookies, so that what goes out is what came in; tests about them say so.
    pub async fn start(change: impl FnOnce(&mut keepwarm_dns::config::DnsConfig)) -> Scripted {
        let (udp, tcp) = loop {
            let udp = client().await;
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (labs, ca) = labs([keepwarm_lab::Faults::default()]).await;
        let mut config = config(&labs, &ca, Transport::Udp);
        config.upstreams[0].port = udp.local_addr().unwrap().port();
        config.upstreams[0].cookies = false;
        config.workers = 1;
        change(&mut config);
        let server = Server::start(config).unwrap();
        let address = server.listening()[0].address;
        Scripted { udp, tcp, server, address }
    }

    pub async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 2048];
        let (length, from) = self.udp.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }
}

/// The query as its own answer: NOERROR without records.
pub fn echo(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

#[tokio::test]
async fn ids_are_random_the_clients_id_is_not_forwarded_and_ports_change() {
    let scripted = Scripted::start(|config| config.pool.udp_max_queries = 10).await;
    let socket = client().await;
    let (mut ids, mut ports) = (HashSet::new(), HashSet::new());
    let mut same = 0;
    for number in 0..100 {
        let mut query = query(&format!("n{number}.example"), 1);
        query[..2].copy_from_slice(&[0x12, 0x34]);
        socket.send_to(&query, scripted.address).await.unwrap();
        let (asked, from) = scripted.receive().await;
        same += usize::from(asked[..2] == query[..2]);
        ids.insert([asked[0], asked[1]]);
        ports.insert(from.port());
        scripted.udp.send_to(&echo(&asked), from).await.unwrap();
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[..2], [0x12, 0x34], "the client's own id");
        assert_eq!(
            &buffer[12..length.min(query.len() - 11)],
            &query[12..query.len() - 11],
            "the client's own question"
        );
    }
    // 100 of 65,536 ids: more than five equal pairs has a chance of less than one in a million.
    assert!(ids.len() >= 95, "{} different ids", ids.len());
    assert!(same <= 2, "the client's id went out {same} times");
    assert!(ports.len() >= 10, "{} ports for 100 queries at 10 a socket", ports.len());
    scripted.server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn wrong_answers_are_dropped_and_the_right_one_is_waited_for() {
    let scripted = Scripted::start(|_| {}).await;
    let socket = client().await;
    let query = query("victim.example", 1);
    socket.send_to(&query, scripted.address).await.unwrap();
    let (asked, from) = scripted.receive().await;
    let mut wrong_id = echo(&asked);
    wrong_id[0] ^= 0x40;
    let mut wrong_question = echo(&asked);
    wrong_question[13] ^= 0x01;
    let mut no_answer = asked.clone();
    no_answer[2] &= !0x80;
    // The right answer in every byte, from another port than the one that was asked.
    let stranger = client().await;
    stranger.send_to(&echo(&asked), from).await.unwrap();
    for wrong in [&wrong_id[..], &wrong_question, &no_answer, &[], &wrong_id[..1]] {
        scripted.udp.send_to(wrong, from).await.unwrap();
    }
    let mut right = echo(&asked);
    // A mark by which the test knows it: the answer is authoritative.
    right[2] |= 0x04;
    scripted.udp.send_to(&right, from).await.unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[2] & 0x04, 0x04, "only the right answer reached the client");
    assert_eq!(buffer[..2], query[..2]);
    assert!(length > 12);
    assert!(scripted.server.status().wrong_answers >= 3);
    scripted.server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn many_wrong_answers_move_the_query_to_tcp() {
    let scripted = Scripted::start(|_| {}).await;
    let socket = client().await;
    let query = query("guessed.example", 1);
    socket.send_to(&query, scripted.address).await.unwrap();
    let (asked, from) = scripted.receive().await;
    for guess in 0..64_u16 {
        let mut forged = echo(&asked);
        let id = u16::from_be_bytes([asked[0], asked[1]]).wrapping_add(1 + guess);
        forged[..2].copy_from_slice(&id.to_be_bytes());
        scripted.udp.send_to(&forged, from).await.unwrap();
    }
    let (stream, _) = scripted.tcp.accept().await.unwrap();
    let mut stream = TcpClient(stream);
    let again = stream.receive().await.unwrap();
    let question_end = asked.len() - 11;
    assert_eq!(again[12..question_end], asked[12..question_end], "the same question");
    stream.send(&echo(&again)).await;
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..2], query[..2]);
    scripted.server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn random_case_is_demanded_back_and_hidden_from_the_client() {
    let scripted = Scripted::start(|config| config.upstreams[0].case_randomization = true).await;
    let socket = client().await;
    let name = "a.rather.long.name.with.many.letters.example";
    let query = query(name, 1);
    let name_end = 12 + name.len() + 2;
    socket.send_to(&query, scripted.address).await.unwrap();
    let (asked, from) = scripted.receive().await;
    assert_ne!(asked[12..name_end], query[12..name_end], "37 letters keep their case with a chance of 2^-37");
    assert!(asked[12..name_end].eq_ignore_ascii_case(&query[12..name_end]));
    let mut lower = echo(&asked);
    lower[12..name_end].make_ascii_lowercase();
    scripted.udp.send_to(&lower, from).await.unwrap();
    // It may be forged: the query is asked again where nobody can do that.
    let (stream, _) = scripted.tcp.accept().await.unwrap();
    let mut stream = TcpClient(stream);
    let again = stream.receive().await.unwrap();
    let mut right = echo(&again);
    right[2] |= 0x04;
    stream.send(&right).await;
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[2] & 0x04, 0x04, "the answer in lower case was not taken");
    assert_eq!(buffer[12..name_end], query[12..name_end], "the client's own case");
    scripted.server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn hop_by_hop_options_and_the_clients_payload_size_stay_here() {
    let scripted = Scripted::start(|_| {}).await;
    let socket = client().await;
    let mut query = keepwarm_lab::build_query(9, "options.example", 1, Some(4096));
    // A client cookie (RFC 7873), which is between the client and us.
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let at = query.len() - 2;
    query[at..].copy_from_slice(&12_u16.to_be_bytes());
    query.extend_from_slice(&cookie);
    socket.send_to(&query, scripted.address).await.unwrap();
    let (asked, _) = scripted.receive().await;
    assert!(!asked.windows(8).any(|bytes| bytes == &cookie[4..]), "the cookie was forwarded");
    let opt = asked.len() - 11;
    assert_eq!(asked[opt + 3..opt + 5], 1232_u16.to_be_bytes(), "our own payload size");
    scripted.server.stop(Duration::from_millis(50)).await;
}
