//! What this hop says to its upstreams and hears from them in EDNS, and what of it reaches clients. The upstream is the
//! test itself.

mod cookies;
mod flags;
mod streams;
mod subnet;

use std::net::SocketAddr;

use keepwarm_dns::config::DnsConfig;
use tokio::task::JoinHandle;

use crate::{spoofing::Scripted, support::*};

type Options = Vec<(u16, Vec<u8>)>;

const SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;

/// A client's query with these options.
fn with_options(name: &str, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut query = query(name, 1);
    push_options(&mut query, options);
    query
}

/// A client's query without EDNS.
fn without_edns(name: &str) -> Vec<u8> {
    let mut query = query(name, 1);
    query.truncate(query.len() - 11);
    query[11] = 0;
    query
}

/// Adds options to the empty OPT record that ends a message.
fn push_options(message: &mut Vec<u8>, options: &[(u16, &[u8])]) {
    let start = message.len();
    for (code, data) in options {
        message.extend_from_slice(&code.to_be_bytes());
        message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend_from_slice(data);
    }
    let length = u16::try_from(message.len() - start).unwrap();
    message[start - 2..start].copy_from_slice(&length.to_be_bytes());
}

/// Where the question ends.
fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// The options of a message whose only record is OPT; `None` without one.
fn options(message: &[u8]) -> Option<Options> {
    let at = question_end(message);
    assert!(message[6..10] == [0; 4] && message[10..12] <= [0, 1][..], "no other records");
    if message[11] == 0 {
        assert_eq!(message.len(), at);
        return None;
    }
    assert_eq!(message[at..at + 3], [0, 0, 41]);
    let mut rest = &message[at + 11..];
    assert_eq!(usize::from(u16::from_be_bytes([message[at + 9], message[at + 10]])), rest.len());
    let mut found = Vec::new();
    while let [a, b, c, d, data @ ..] = rest {
        let (data, others) = data.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        found.push((u16::from_be_bytes([*a, *b]), data.to_vec()));
        rest = others;
    }
    Some(found)
}

/// The data of the option, if it is there.
fn option(message: &[u8], code: u16) -> Option<Vec<u8>> {
    options(message)?.into_iter().find_map(|(other, data)| (other == code).then_some(data))
}

/// An answer without records. With `options` it has OPT.
fn reply(asked: &[u8], rcode: u16, options: Option<&[(u16, &[u8])]>) -> Vec<u8> {
    let mut answer = asked[..question_end(asked)].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | asked[3] & 0x10 | u8::try_from(rcode & 0x0f).unwrap();
    answer[11] = 0;
    if let Some(options) = options {
        answer[11] = 1;
        answer.extend_from_slice(&[0, 0, 41, 4, 208, u8::try_from(rcode >> 4).unwrap(), 0, 0, 0, 0, 0]);
        push_options(&mut answer, options);
    }
    answer
}

impl Scripted {
    async fn with_cookies() -> Scripted {
        Scripted::start(|config: &mut DnsConfig| config.upstreams[0].cookies = true).await
    }

    /// A client asks in the background.
    fn ask(&self, query: Vec<u8>) -> JoinHandle<Result<Vec<u8>, String>> {
        let server = self.address;
        tokio::spawn(async move { exchange_udp(server, &query).await })
    }

    async fn answer(&self, answer: &[u8], to: SocketAddr) {
        self.udp.send_to(answer, to).await.unwrap();
    }

    async fn accept(&self) -> TcpClient {
        TcpClient(self.tcp.accept().await.unwrap().0)
    }

    async fn end(self) {
        self.server.stop(std::time::Duration::from_secs(1)).await;
    }
}
