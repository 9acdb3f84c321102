//! Whether a server answers.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use super::{
    net::LOOPBACK,
    wire::{self, Name, Verdict},
};
use crate::process::Process;

/// Waits until the server answers rightly, three times.
pub(super) fn wait(process: &mut Process, server: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(LOOPBACK)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut right, mut number) = (0, 0);
    process.wait_until(|| {
        number += 1;
        match asked(&socket, server, number) {
            Some(Verdict::Right) => right += 1,
            // An error at once: the server is up and its upstream is not yet.
            Some(_) => thread::sleep(Duration::from_millis(50)),
            None => {}
        }
        Ok(right == 3)
    })
}

fn asked(socket: &UdpSocket, server: SocketAddr, number: u16) -> Option<Verdict> {
    let query =
        wire::query(number, Name { number: u64::from(number) + u64::from(std::process::id()), salt: READY_SALT });
    let mut answer = [0; 1500];
    socket.send_to(&query, server).ok()?;
    let pause = Duration::from_millis(50);
    match socket.recv(&mut answer) {
        Ok(len) => Some(wire::verify(&query, &answer[..len])),
        // Nobody listens yet.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            thread::sleep(pause);
            None
        }
        Err(_) => None,
    }
}

/// Names that no load asks for: loads count their salts from 0.
const READY_SALT: u32 = 0xf_ffff;
