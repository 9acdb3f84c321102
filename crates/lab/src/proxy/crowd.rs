//! Counts connections that are there at the same time, so exactly that a test may compare the maximum with `==`.
//!
//! Who closes one connection and then opens another one has never had two, but the task of the first may learn of its end after
//! the task of the second has begun. So each new maximum is checked against the sockets: a connection whose peer has sent FIN or RST
//! is no longer counted, whether its task knows or not.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use serde::Serialize;
use tokio::net::TcpStream;

/// How many there are, were at once, and have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Now: those whose peer has not sent FIN or RST.
    pub now: u64,
    /// The most at one time.
    pub max: u64,
    /// In all.
    pub total: u64,
}

/// Connections of one kind.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: HashMap<u64, Weak<TcpStream>>,
    max: u64,
    total: u64,
}

impl Crowd {
    /// Counts one more, and gives the number under which it leaves.
    pub(super) fn join(&mut self, tcp: &Arc<TcpStream>) -> u64 {
        self.total += 1;
        self.members.insert(self.total, Arc::downgrade(tcp));
        if self.members.len() as u64 > self.max {
            self.max = self.max.max(self.now());
        }
        self.total
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.members.remove(&number);
    }

    pub(super) fn live(&self) -> Live {
        Live { now: self.now(), max: self.max, total: self.total }
    }

    fn now(&self) -> u64 {
        let sockets: Vec<_> = self.members.values().filter_map(Weak::upgrade).collect();
        (sockets.len() - hung_up(&sockets)) as u64
    }
}

/// How many of the peers have sent FIN or RST. The system knows it before anything was read, also behind unread bytes.
#[cfg(target_os = "linux")]
fn hung_up(sockets: &[Arc<TcpStream>]) -> usize {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut polled: Vec<_> = sockets.iter().map(|socket| PollFd::new(&**socket, PollFlags::RDHUP)).collect();
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => polled.iter().filter(|socket| !socket.revents().is_empty()).count(),
        Err(_) => 0,
    }
}

/// Elsewhere it is found out by reading alone.
#[cfg(not(target_os = "linux"))]
fn hung_up(_: &[Arc<TcpStream>]) -> usize {
    0
}
