//! The floors: a relay of datagrams and a server that answers from nothing, each with the least work that can be done. What
//! a real server costs above them is its own.

use std::net::{SocketAddr, SocketAddrV4};

use clap::Args;
use nix::sys::socket::SockaddrIn;

use super::{
    net::{LOOPBACK, Poller, Receiver, Sender, udp_socket},
    wire,
};

/// How the relay is started.
#[derive(Args)]
pub(super) struct RelayArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
}

/// How the echo is started.
#[derive(Args)]
pub(super) struct EchoArgs {
    #[arg(long)]
    listen: SocketAddr,
}

/// Forwards datagrams under an id of its own, without looking at them.
pub(super) fn relay(args: &RelayArgs) -> anyhow::Result<()> {
    let (clients, upstream) = (udp_socket(args.listen)?, udp_socket(LOOPBACK)?);
    upstream.connect(args.upstream)?;
    let mut poller = Poller::new()?;
    poller.add(&clients, 0)?;
    poller.add(&upstream, 0)?;
    let (mut receiver, mut sender, mut ready) = (Receiver::new(), Sender::new(), Vec::new());
    // Who asked under which id.
    let nobody = SockaddrIn::from(SocketAddrV4::new([0; 4].into(), 0));
    let mut asked: Vec<(SockaddrIn, [u8; 2])> = vec![(nobody, [0; 2]); 1 << 16];
    let mut id = 0_u16;
    loop {
        ready.clear();
        poller.wait(None, &mut ready)?;
        for index in 0..receiver.receive(&clients) {
            let (query, Some(from)) = receiver.datagram(index) else { continue };
            let Some(theirs) = query.first_chunk() else { continue };
            id = id.wrapping_add(1);
            asked[usize::from(id)] = (from, *theirs);
            sender.push(None, |out| Some(renamed(query, id.to_be_bytes(), out)));
        }
        sender.flush(&upstream);
        for index in 0..receiver.receive(&upstream) {
            let (answer, _) = receiver.datagram(index);
            let Some(ours) = answer.first_chunk() else { continue };
            let (to, theirs) = asked[usize::from(u16::from_be_bytes(*ours))];
            sender.push(Some(to), |out| Some(renamed(answer, theirs, out)));
        }
        sender.flush(&clients);
    }
}

fn renamed(message: &[u8], id: [u8; 2], out: &mut [u8]) -> usize {
    out[..message.len()].copy_from_slice(message);
    out[..2].copy_from_slice(&id);
    message.len()
}

/// Answers as the stub does.
pub(super) fn echo(args: &EchoArgs) -> anyhow::Result<()> {
    let socket = udp_socket(args.listen)?;
    let mut poller = Poller::new()?;
    poller.add(&socket, 0)?;
    let (mut receiver, mut sender, mut ready) = (Receiver::new(), Sender::new(), Vec::new());
    loop {
        let count = receiver.receive(&socket);
        if count == 0 {
            ready.clear();
            poller.wait(None, &mut ready)?;
        }
        for index in 0..count {
            let (query, from) = receiver.datagram(index);
            sender.push(from, |out| wire::answer(query, out));
        }
        sender.flush(&socket);
    }
}
