//! What destinations do on a TCP connection, and with datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::EchoMode;
use super::destination::{Destination, Presence};
use super::tagged::{Answer, NONCE, banner, datagram_answers, datagram_requests, digest, number, requests};
use crate::socket::{Shared, discard};

/// A connection after its nonce was read.
struct Peer<'a> {
    destination: &'a Destination,
    stream: Shared,
    nonce: [u8; NONCE],
    buffer: Vec<u8>,
}

/// Serves a connection to its end.
pub(super) async fn tcp(destination: Arc<Destination>, tcp: TcpStream) {
    let tcp = Arc::new(tcp);
    let mut resets = destination.resets.subscribe();
    resets.mark_unchanged();
    let presence = destination.join(&tcp);
    let mode = destination.mode();
    let result = tokio::select! {
        result = talk(&destination, mode, &tcp) => result,
        () = changed(&mut resets) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    leave(presence, &tcp, result.is_err() || mode == EchoMode::Reset);
}

fn leave(presence: Presence<'_>, tcp: &TcpStream, reset: bool) {
    drop(presence);
    if reset {
        // Closing a socket with SO_LINGER 0 sends RST.
        let _ = tcp.set_zero_linger();
    }
}

async fn changed(resets: &mut watch::Receiver<u64>) {
    // The sender lives as long as the destination.
    let _ = resets.changed().await;
}

async fn talk(destination: &Destination, mode: EchoMode, tcp: &Arc<TcpStream>) -> io::Result<()> {
    let mut stream = Shared(Arc::clone(tcp));
    if mode == EchoMode::Silent {
        discard(tcp).await;
        return Ok(());
    }
    if mode == EchoMode::Banner {
        destination.count(|counters| counters.sent += NONCE as u64);
        stream.write_all(&banner(destination.address)).await?;
    }
    let mut nonce = [0; NONCE];
    match stream.read_exact(&mut nonce).await {
        // A client that changed its mind.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        result => result?,
    };
    destination.count(|counters| counters.greeted += 1);
    let peer = Peer { destination, stream, nonce, buffer: vec![0; BUFFER] };
    match mode {
        EchoMode::Echo | EchoMode::Banner => peer.echo().await,
        EchoMode::Digest => peer.digest().await,
        EchoMode::Sink => peer.sink().await,
        EchoMode::Source => peer.source().await,
        EchoMode::Reset | EchoMode::Silent => Ok(()),
    }
}

impl Peer<'_> {
    async fn read(&mut self) -> io::Result<usize> {
        let count = self.stream.read(&mut self.buffer).await?;
        self.destination.count(|counters| counters.received += count as u64);
        Ok(count)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Counted first: whoever has the bytes finds them counted.
        self.destination.count(|counters| counters.sent += bytes.len() as u64);
        self.stream.write_all(bytes).await
    }

    async fn echo(mut self) -> io::Result<()> {
        let mut requests = requests(self.destination.address, &self.nonce);
        let mut answer = Answer::new(self.destination.address, &self.nonce);
        loop {
            let count = self.read().await?;
            if count == 0 {
                return self.stream.shutdown().await;
            }
            let mut bytes = self.buffer[..count].to_vec();
            let foreign = requests.foreign(&bytes);
            self.destination.count(|counters| counters.foreign += foreign);
            answer.apply(&mut bytes);
            self.write(&bytes).await?;
        }
    }

    async fn digest(mut self) -> io::Result<()> {
        let mut requests = requests(self.destination.address, &self.nonce);
        let (mut hash, mut length) = (Context::new(&SHA256), 0);
        loop {
            let count = self.read().await?;
            if count == 0 {
                break;
            }
            let foreign = requests.foreign(&self.buffer[..count]);
            self.destination.count(|counters| counters.foreign += foreign);
            hash.update(&self.buffer[..count]);
            length += count as u64;
        }
        let answer = digest(self.destination.address, &self.nonce, length, hash);
        self.write(&answer).await?;
        self.stream.shutdown().await
    }

    async fn sink(mut self) -> io::Result<()> {
        let mut length = 0_u64;
        loop {
            match self.read().await? {
                0 => break,
                count => length += count as u64,
            }
        }
        self.write(&length.to_be_bytes()).await?;
        self.stream.shutdown().await
    }

    async fn source(mut self) -> io::Result<()> {
        let mut head = [0; 8];
        self.stream.read_exact(&mut head).await?;
        self.destination.count(|counters| counters.received += 8);
        let mut left = number(&head);
        let mut answer = Answer::new(self.destination.address, &self.nonce);
        while left > 0 {
            let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER)];
            answer.apply(&mut bytes);
            self.write(&bytes).await?;
            left -= bytes.len() as u64;
        }
        self.stream.shutdown().await
    }
}

/// Answers datagrams, without end.
pub(super) async fn udp(destination: Arc<Destination>, socket: UdpSocket) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An ICMP error about an earlier answer: that client has gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let answered = answer(&destination, destination.address, &mut buffer[..length]);
        if answered && destination.mode() != EchoMode::Silent {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

/// Turns a datagram into its answer. Whether it is one of ours.
fn answer(destination: &Destination, address: SocketAddr, datagram: &mut [u8]) -> bool {
    let Some((nonce, rest)) = datagram.split_first_chunk_mut::<NONCE>() else {
        destination.count(|counters| counters.foreign += datagram.len() as u64);
        return false;
    };
    let Some((head, payload)) = rest.split_first_chunk_mut::<8>() else {
        destination.count(|counters| counters.foreign += datagram.len() as u64);
        return false;
    };
    let sequence = u64::from_be_bytes(*head);
    let foreign = datagram_requests(address, nonce, sequence).foreign(payload);
    destination.count(|counters| {
        counters.datagrams += 1;
        counters.foreign += foreign;
    });
    datagram_answers(address, nonce, sequence).apply(payload);
    true
}

const BUFFER: usize = 32 * 1024;
