//! The listeners: each address bound once a worker.

use keepwarm_transport::{
    error::ErrorKind as TransportKind, quic::server::listen_group as listen_quic, tcp::listen_group as listen_tcp,
    udp::listen_group as listen_udp,
};
use tokio::runtime::Runtime;

use super::StartError;
use crate::config::{Listen, ListenTransport};

/// One address's sockets for one worker.
pub(super) struct Sockets {
    /// What is spoken there, with the port that the system chose.
    pub(super) listen: Listen,
    pub(super) udp: Option<std::net::UdpSocket>,
    pub(super) tcp: Option<std::net::TcpListener>,
}

/// Binds each address once a worker; the sockets belong to no runtime yet.
pub(super) fn bind(listen: &[Listen], runtimes: &[Runtime]) -> Result<(Vec<Vec<Sockets>>, Vec<Listen>), StartError> {
    let _guard = runtimes[0].enter();
    let mut sockets: Vec<Vec<Sockets>> = runtimes.iter().map(|_| Vec::new()).collect();
    let mut listening = Vec::new();
    for listen in listen {
        let mut tries = 0;
        let bound = loop {
            match bind_one(listen, runtimes.len()) {
                // The port that the system chose for UDP may be taken over TCP: let it choose again.
                Err(StartError::Listen(error))
                    if listen.address.port() == 0
                        && error.kind() == TransportKind::AddressInUse
                        && tries < PORT_TRIES =>
                {
                    tries += 1;
                }
                other => break other?,
            }
        };
        listening.push(bound[0].listen.clone());
        sockets.iter_mut().zip(bound).for_each(|(own, bound)| own.push(bound));
    }
    Ok((sockets, listening))
}

fn bind_one(listen: &Listen, workers: usize) -> Result<Vec<Sockets>, StartError> {
    let mut address = listen.address;
    let mut bound: Vec<Sockets> =
        (0..workers).map(|_| Sockets { listen: listen.clone(), udp: None, tcp: None }).collect();
    if listen.transport.over_udp() {
        let is_quic = matches!(listen.transport, ListenTransport::H3 | ListenTransport::Quic);
        let listen_group = if is_quic { listen_quic } else { listen_udp };
        let group = listen_group(address, workers, Some(LISTEN_BUFFER)).map_err(StartError::Listen)?;
        for (sockets, socket) in bound.iter_mut().zip(group) {
            address = socket.local_addr().map_err(StartError::Runtime)?;
            sockets.udp = Some(socket.into_std().map_err(StartError::Runtime)?);
        }
    }
    if listen.transport.over_tcp() {
        let group = listen_tcp(address, workers, LISTEN_BACKLOG).map_err(StartError::Listen)?;
        for (sockets, listener) in bound.iter_mut().zip(group) {
            address = listener.local_addr().map_err(StartError::Runtime)?;
            sockets.tcp = Some(listener.into_std().map_err(StartError::Runtime)?);
        }
    }
    bound.iter_mut().for_each(|sockets| sockets.listen.address = address);
    Ok(bound)
}

/// Receive buffer of a listener: bursts of a thousand clients are not lost (the system may give less).
const LISTEN_BUFFER: usize = 4 * 1024 * 1024;

const LISTEN_BACKLOG: u32 = 1024;

/// How often the system is asked for another port.
const PORT_TRIES: usize = 16;
