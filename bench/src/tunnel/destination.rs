//! Where tunnels lead: echoes, sends as many bytes as it is asked for, or takes them and says how many they were.
//!
//! One thread, so that it costs its core little. The first byte of a connection says what is wanted.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use anyhow::Context as _;
use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpListener, TcpStream},
};

/// What a client wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Everything back, this byte first.
    Echo,
    /// So many bytes, and then the end.
    Send(u64),
    /// To get rid of so many bytes, and to hear when all have come. The end is not waited for: not every proxy passes it on.
    Take(u64),
}

impl Wish {
    /// What a client says first.
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Wish::Echo => vec![ECHO],
            Wish::Send(count) => [&[SEND][..], &count.to_be_bytes()].concat(),
            Wish::Take(count) => [&[TAKE][..], &count.to_be_bytes()].concat(),
        }
    }
}

/// Says on which port of every loopback address it listens, on a line, and serves until it is ended.
#[expect(clippy::print_stdout, reason = "its parent reads it")]
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("listen")?;
        println!("{}", listener.local_addr()?.port());
        serve(&listener).await
    })
}

async fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        // The client sees that its connection ended; there is nobody else to tell.
        tokio::spawn(async move { connection(stream).await.ok() });
    }
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ECHO => echo(&mut stream).await,
        SEND => {
            let count = stream.read_u64().await?;
            send(&mut stream, count).await
        }
        TAKE => {
            let count = stream.read_u64().await?;
            let taken = take(&stream, count).await?;
            stream.write_u64(taken).await
        }
        _ => Err(io::Error::other("nothing that is offered here")),
    }
}

async fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[ECHO]).await?;
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}

/// Sends so many bytes.
pub(super) async fn send(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let piece = vec![b'k'; PIECE];
    let mut left = count;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        stream.write_all(&piece[..len]).await?;
        left -= len as u64;
    }
    Ok(())
}

/// Counts bytes until there were so many, or the end. They are not copied out of the kernel, so that the proxy is what is measured
/// and not this.
pub(super) async fn take(stream: &TcpStream, most: u64) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    while count < most {
        let len = usize::try_from(most - count).unwrap_or(usize::MAX).min(PIECE);
        let piece = &mut buffer[..len];
        let read = || Ok(recv(stream.as_raw_fd(), piece, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT)?);
        match stream.async_io(Interest::READABLE, read).await? {
            0 => break,
            len => count += len as u64,
        }
    }
    Ok(count)
}

/// One of the loopback addresses, in turn: an address for every tunnel keeps the kernel from running out of ports for one.
pub(super) fn spread(number: u64, port: u16) -> SocketAddrV4 {
    let [.., high, low] = (number % SPREAD).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, 1, high, low.max(1)), port)
}

const ECHO: u8 = b'e';
const SEND: u8 = b's';
const TAKE: u8 = b't';
const PIECE: usize = 1 << 20;
/// How many addresses there are.
const SPREAD: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected() -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { serve(&listener).await });
        TcpStream::connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn wishes_are_granted() {
        let mut echo = connected().await;
        echo.write_all(&[&Wish::Echo.bytes()[..], b"x"].concat()).await.unwrap();
        let mut seen = [0; 2];
        echo.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"ex");

        let mut source = connected().await;
        source.write_all(&Wish::Send(3_000_001).bytes()).await.unwrap();
        assert_eq!(take(&source, u64::MAX).await.unwrap(), 3_000_001);

        let mut sink = connected().await;
        sink.write_all(&Wish::Take(3_000_001).bytes()).await.unwrap();
        send(&mut sink, 3_000_001).await.unwrap();
        assert_eq!(sink.read_u64().await.unwrap(), 3_000_001);
    }

    #[test]
    fn destinations_are_loopback_and_differ() {
        let all: std::collections::HashSet<_> = (0..SPREAD).map(|number| spread(number, 80)).collect();
        assert!(all.len() > 990 && all.iter().all(|address| address.ip().is_loopback()), "{}", all.len());
    }
}
