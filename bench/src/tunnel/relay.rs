//! The least that a SOCKS5 proxy can cost: a relay of the shape that a program has that is written around one loop.
//!
//! `splice` and `copy` have two threads for each tunnel, which do nothing but move bytes; `tokio` is
//! `tokio::io::copy_bidirectional`, as many proxies in Rust have it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream as Blocking},
    thread,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::socks;

/// How, and where.
#[derive(Args)]
pub(crate) struct RelayArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    how: How,
    /// Wants user and password.
    #[arg(long)]
    user: bool,
}

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum How {
    /// splice(2) through a pipe of 1 MiB in each direction.
    Splice,
    /// A buffer of 256 KiB in each direction.
    Copy,
    /// `tokio::io::copy_bidirectional`.
    Tokio,
}

/// Relays until it is ended.
pub(crate) fn run(args: &RelayArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.context("listen")?;
        serve(&listener, args.how, args.user).await
    })
}

async fn serve(listener: &TcpListener, how: How, has_user: bool) -> anyhow::Result<()> {
    loop {
        let (client, _) = listener.accept().await.context("accept")?;
        // Both sides see that the tunnel ended; there is nobody else to tell.
        tokio::spawn(async move { tunnel(client, how, has_user).await.ok() });
    }
}

async fn tunnel(mut client: TcpStream, how: How, has_user: bool) -> io::Result<()> {
    let to = socks::accept(&mut client, has_user).await?;
    let mut there = TcpStream::connect(to).await?;
    for stream in [&client, &there] {
        stream.set_nodelay(true)?;
    }
    socks::grant(&mut client).await?;
    if how == How::Tokio {
        return copy_bidirectional(&mut client, &mut there).await.map(drop);
    }
    let [client, there] = [blocking(client)?, blocking(there)?];
    let (client_too, there_too) = (client.try_clone()?, there.try_clone()?);
    thread::spawn(move || direction(&client, &there, how));
    thread::spawn(move || direction(&there_too, &client_too, how));
    Ok(())
}

fn blocking(stream: TcpStream) -> io::Result<Blocking> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn direction(from: &Blocking, to: &Blocking, how: How) {
    let moved = if how == How::Splice { spliced(from, to) } else { copied(from, to) };
    let _ = to.shutdown(Shutdown::Write);
    if moved.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

fn spliced(from: &Blocking, to: &Blocking) -> io::Result<()> {
    let (outlet, inlet) = pipe()?;
    // A user's quota may be less than that.
    let size = fcntl_setpipe_size(&inlet, PIPE).unwrap_or(64 << 10);
    loop {
        let mut left = splice(from, None, &inlet, None, size, SpliceFlags::MOVE)?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            left -= splice(&outlet, None, to, None, left, SpliceFlags::MOVE)?;
        }
    }
}

fn copied(mut from: &Blocking, mut to: &Blocking) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len])?,
        }
    }
}

const PIPE: usize = 1 << 20;
const BUFFER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server that answers with what it got, backwards, when the client has ended.
    async fn backwards() -> SocketAddrV4 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut seen = Vec::new();
                stream.read_to_end(&mut seen).await.unwrap();
                seen.reverse();
                stream.write_all(&seen).await.unwrap();
            }
        });
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_byte_and_both_ends_go_through() {
        let to = backwards().await;
        for (how, has_user) in [(How::Splice, false), (How::Copy, true), (How::Tokio, true)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let proxy = listener.local_addr().unwrap();
            tokio::spawn(async move { serve(&listener, how, has_user).await });
            let mut stream = socks::open(proxy, has_user, to).await.unwrap();
            let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).await.unwrap();
            seen.reverse();
            assert!(seen == sent, "{how:?}: {} bytes of {}", seen.len(), sent.len());
        }
    }
}
