//! Drives a client's handshake over its socket: reads, answers, and hands on what came behind it.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{HandshakeFailure, Shared, Terms};
use crate::socks::{Answer, Handshake, MESSAGE_MAX, Refusal, Request, Step, Version};

/// What a client turned out to want.
pub(super) enum Begin {
    /// SOCKS, with its request. `payload`: what came behind it, for the destination.
    Socks { version: Version, request: Request, payload: Bytes },
    /// Something else than SOCKS, with what it began with.
    Other(Bytes),
}

/// Why it comes to nothing.
pub(super) enum Failure {
    /// The client has to be told.
    Refused(Refusal),
    /// The connection ended. `true`: in the middle of something.
    Gone(bool),
}

/// Reads up to the request, or for `may_be_other` up to the first byte that is not of SOCKS. The deadline is the caller's.
///
/// Answers are collected while there is something to go on with, so that a client that sends everything at once costs one write.
///
/// # Cancel safety
/// None: what was read is lost, and the connection with it.
pub(super) async fn handshake(
    stream: &mut TcpStream,
    shared: &Shared,
    terms: &Terms,
    may_be_other: bool,
) -> Result<Begin, Failure> {
    let users = shared.users(terms);
    let mut handshake = Handshake::new(!users.is_empty());
    let mut buffer = [0; BUFFER];
    let (mut start, mut end) = (0, 0);
    let mut answers = Answer::new();
    let mut has_begun = false;
    loop {
        let (used, step) = handshake.step(&buffer[start..end], |name, password| users.check(name, password));
        start += used;
        match step {
            Step::Answer(answer) => answers.extend_from_slice(&answer),
            Step::Refused(Refusal { answer, reason }) => {
                answers.extend_from_slice(&answer);
                return Err(Failure::Refused(Refusal { answer: answers, reason }));
            }
            Step::Request(version, request) => {
                // Not kept for the reply: until then much time may pass, and the client may wait for its greeting's answer.
                send(stream, &mut answers).await?;
                return Ok(Begin::Socks { version, request, payload: Bytes::copy_from_slice(&buffer[start..end]) });
            }
            Step::More => {
                send(stream, &mut answers).await?;
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                match stream.read(&mut buffer[end..]).await {
                    Ok(0) | Err(_) => return Err(Failure::Gone(has_begun)),
                    Ok(read) => end += read,
                }
                if !has_begun && may_be_other && !crate::socks::is_socks(buffer[0]) {
                    return Ok(Begin::Other(Bytes::copy_from_slice(&buffer[..end])));
                }
                has_begun = true;
            }
        }
    }
}

async fn send(stream: &mut TcpStream, answers: &mut Answer) -> Result<(), Failure> {
    if !answers.is_empty() {
        stream.write_all(answers).await.map_err(|_| Failure::Gone(true))?;
        answers.clear();
    }
    Ok(())
}

impl Failure {
    /// What is counted; a client that came and left without a word is nothing to be counted.
    pub(super) fn reason(&self) -> Option<HandshakeFailure> {
        match self {
            Failure::Refused(refusal) => Some(refusal.reason),
            Failure::Gone(true) => Some(HandshakeFailure::Gone),
            Failure::Gone(false) => None,
        }
    }
}

/// Bytes that are read at a time. Room for the longest message and some payload behind it.
const BUFFER: usize = 1024;

const _: () = assert!(BUFFER > MESSAGE_MAX);
