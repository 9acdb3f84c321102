//! What the clients of a run do: ask in windows of unique names, and check every answer.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::path::{Client, Path};

/// Asks so many queries, each for a name of its own or for the hot names in turn: one alone, which makes the daemon connect, and the others in windows
/// of [`WINDOW`]. A window starts when all of the one before are answered.
///
/// # Errors
/// When a query is not answered within [`PATIENCE`], or not as it has to be.
pub(super) fn ask(path: &Path, daemon: SocketAddr, queries: u32) -> anyhow::Result<()> {
    let mut link = Link::open(path.client, daemon)?;
    window(&mut link, path, 0..1)?;
    let mut first = 1;
    while first < queries {
        let end = queries.min(first + WINDOW);
        window(&mut link, path, first..end)?;
        first = end;
    }
    Ok(())
}

fn window(link: &mut Link, path: &Path, numbers: Range<u32>) -> anyhow::Result<()> {
    let mut waiting =
        numbers.map(|number| query(number, number % path.names(u32::MAX))).collect::<anyhow::Result<Vec<_>>>()?;
    link.send(&waiting)?;
    let mut answer = Vec::new();
    while !waiting.is_empty() {
        link.receive(&mut answer)?;
        let asked = waiting.iter().position(|query| answer.get(..2) == query.get(..2));
        check(&waiting.swap_remove(asked.context("an answer has an id that nobody waits for")?), &answer)?;
    }
    Ok(())
}

/// A query as stub resolvers send it: one question for an address, recursion desired, EDNS with 1232 bytes (RFC 6891).
fn query(number: u32, name: u32) -> anyhow::Result<Vec<u8>> {
    let id = u16::try_from(number).context("more queries than ids")?;
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in [format!("n{name:05}").as_str(), "instructions", "example"] {
        message.push(u8::try_from(label.len()).context("a label is too long")?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message.extend_from_slice(&OPT);
    Ok(message)
}

/// NOERROR, the question as it was asked, and one record.
fn check(query: &[u8], answer: &[u8]) -> anyhow::Result<()> {
    ensure!(answer.len() > query.len(), "an answer has {} bytes", answer.len());
    let (is_response, rcode) = (answer[2] & 0x80 != 0, answer[3] & 0x0f);
    ensure!(is_response && rcode == 0, "an answer has the response code {rcode}");
    ensure!(answer[4..8] == [0, 1, 0, 1], "an answer has other than one question and one record");
    let question = HEADER..query.len() - OPT.len();
    ensure!(answer[question.clone()] == query[question], "an answer is to another question");
    Ok(())
}

/// A client's way to the daemon.
enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Link {
    fn open(client: Client, daemon: SocketAddr) -> anyhow::Result<Link> {
        Ok(match client {
            Client::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("open a socket")?;
                socket.connect(daemon)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Link::Udp(socket)
            }
            Client::Tcp => {
                let stream = TcpStream::connect_timeout(&daemon, PATIENCE).context("connect to the daemon")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Link::Tcp(stream)
            }
        })
    }

    /// Sends all of them at once, as far as the transport allows.
    fn send(&mut self, queries: &[Vec<u8>]) -> anyhow::Result<()> {
        match self {
            Link::Udp(socket) => {
                for query in queries {
                    socket.send(query).context("send a query")?;
                }
            }
            Link::Tcp(stream) => {
                let mut bytes = Vec::new();
                for query in queries {
                    bytes.extend_from_slice(&u16::try_from(query.len())?.to_be_bytes());
                    bytes.extend_from_slice(query);
                }
                stream.write_all(&bytes).context("send queries")?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, answer: &mut Vec<u8>) -> anyhow::Result<()> {
        let wait = "wait for an answer";
        match self {
            Link::Udp(socket) => {
                answer.resize(usize::from(u16::MAX), 0);
                let length = socket.recv(answer).context(wait)?;
                answer.truncate(length);
            }
            Link::Tcp(stream) => {
                let mut length = [0; 2];
                stream.read_exact(&mut length).context(wait)?;
                answer.resize(usize::from(u16::from_be_bytes(length)), 0);
                stream.read_exact(answer).context(wait)?;
            }
        }
        if answer.len() < HEADER {
            bail!("an answer has {} bytes", answer.len());
        }
        Ok(())
    }
}

/// Queries outstanding at a time, so that what is sent in batches shows.
const WINDOW: u32 = 16;

/// For how long an answer may be awaited.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a message's header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// An empty OPT record: root, type 41, 1232 bytes, no flags, no options.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a query as a server sends it, with one record behind the question.
    fn answer(query: &[u8]) -> Vec<u8> {
        let mut answer = query[..query.len() - OPT.len()].to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        answer
    }

    #[test]
    fn an_answer_to_the_query_is_taken() {
        let query = query(7, 7).unwrap();
        check(&query, &answer(&query)).unwrap();
    }

    #[test]
    fn an_answer_with_an_error_without_records_or_to_another_question_is_not() {
        let asked = query(7, 7).unwrap();
        let mut refused = answer(&asked);
        refused[3] |= 5;
        let mut empty = answer(&asked);
        empty[7] = 0;
        let mut echo = answer(&asked);
        echo[2] &= 0x7f;
        for wrong in [refused, empty, echo, answer(&query(7, 8).unwrap()), vec![0; HEADER]] {
            assert!(check(&asked, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn queries_of_all_numbers_differ_in_id_and_name_alone() {
        let (first, second) = (query(0, 0).unwrap(), query(59_999, 59_999).unwrap());
        assert_eq!(first.len(), second.len());
        assert_eq!((first[0], first[1]), (0, 0));
        assert_eq!((second[0], second[1]), (0xea, 0x5f));
        assert_eq!(first[2..14], second[2..14]);
        assert_eq!(&second[12..19], b"\x06n59999");
    }
}
