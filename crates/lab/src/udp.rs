//! DNS over UDP: one task reads all datagrams of the socket, and no task is made for any of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::answer::header_only;
use crate::core::{Core, Fate, Target, Transport, stopped, would_block};
use crate::wire::{Bad, Query};

/// Binds a socket with room for a burst of several thousand queries.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less (net.core.rmem_max); the lab works then too, with smaller bursts.
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers datagrams until the lab stops.
pub(crate) async fn serve(core: Arc<Core>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut control = core.watch();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        tokio::select! {
            () = stopped(&mut control) => return,
            _ = socket.readable() => {}
        }
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, peer)) => handle(&core, &socket, peer, &buffer[..length]),
                Err(error) if would_block(&error) => break,
                // An ICMP error about an earlier answer: that client has gone.
                Err(_) => {}
            }
        }
    }
}

fn handle(core: &Core, socket: &Arc<UdpSocket>, peer: SocketAddr, datagram: &[u8]) {
    let tally = core.tally(Transport::Udp);
    match Query::parse(datagram) {
        Ok(query) => {
            tally.datagram(peer);
            let target = Target::Udp { socket: Arc::clone(socket), peer };
            if core.submit(Transport::Udp, query, target) == Fate::Lost {
                tally.answered(0, 1);
            }
        }
        Err(bad) => {
            tally.bad();
            if let Bad::Answer { id, rcode } = bad {
                let _ = socket.try_send_to(&header_only(id, rcode), peer);
            }
        }
    }
}

const BUFFER: usize = 4 << 20;
/// Datagrams read before the task looks up.
const BATCH: usize = 256;
