//! A non-blocking stream, in the clear or as a TLS server. Output is gathered and leaves in one write and, where it fits, one
//! TLS record.

use std::{
    io::{self, ErrorKind, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rustls::{ServerConfig, ServerConnection};

/// A stream and what waits in it.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Read and not yet consumed.
    pub(crate) input: Vec<u8>,
    /// To be written.
    pub(crate) output: Vec<u8>,
    /// How much of `output` is written already.
    written: usize,
}

/// How a read or a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is left to do.
    Done,
    /// The socket takes no more for now.
    Blocked,
    /// The peer is gone.
    Closed,
}

impl Stream {
    /// A stream over a connected socket; with `tls` the peer is expected to start a handshake.
    pub(crate) fn new(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Stream> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose().map_err(io::Error::other)?;
        let tls = tls.map(|mut tls| {
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Ok(Stream { socket, tls, input: Vec::new(), output: Vec::new(), written: 0 })
    }

    /// Reads all there is into `input`.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Progress {
        match self.tls.as_deref_mut() {
            None => drain(&mut &self.socket, &mut self.input, scratch),
            Some(tls) => loop {
                match tls.read_tls(&mut &self.socket) {
                    Ok(0) => return Progress::Closed,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Done,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => return Progress::Closed,
                }
                if tls.process_new_packets().is_err() {
                    // The alert says why; that the peer hears it is not sure anyway.
                    let _ = tls.write_tls(&mut &self.socket);
                    return Progress::Closed;
                }
                if drain(&mut tls.reader(), &mut self.input, scratch) == Progress::Closed {
                    return Progress::Closed;
                }
            },
        }
    }

    /// Forgets the first octets of `input`.
    pub(crate) fn consume(&mut self, len: usize) {
        if len == self.input.len() { self.input.clear() } else { drop(self.input.drain(..len)) }
    }

    /// Writes as much of `output` as the socket takes.
    pub(crate) fn flush(&mut self) -> Progress {
        let Some(tls) = self.tls.as_deref_mut() else {
            while self.written < self.output.len() {
                match (&self.socket).write(&self.output[self.written..]) {
                    Ok(len) => self.written += len,
                    Err(error) => return ended(&error),
                }
            }
            self.output.clear();
            self.written = 0;
            return Progress::Done;
        };
        if tls.writer().write_all(&self.output).is_err() {
            return Progress::Closed;
        }
        self.output.clear();
        while tls.wants_write() {
            if let Err(error) = tls.write_tls(&mut &self.socket) {
                return ended(&error);
            }
        }
        Progress::Done
    }
}

fn drain(from: &mut impl io::Read, into: &mut Vec<u8>, scratch: &mut [u8]) -> Progress {
    loop {
        match from.read(scratch) {
            Ok(0) => return Progress::Closed,
            Ok(len) => {
                into.extend_from_slice(&scratch[..len]);
                // Less than there is room for is all there was: one system call saved.
                if len < scratch.len() {
                    return Progress::Done;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Done,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Progress::Closed,
        }
    }
}

fn ended(error: &io::Error) -> Progress {
    if error.kind() == ErrorKind::WouldBlock { Progress::Blocked } else { Progress::Closed }
}

/// Calls `message` with each whole length-prefixed message at the start of `input` (RFC 1035 section 4.2.2) and returns how
/// many octets they took.
pub(crate) fn messages(input: &[u8], mut message: impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some((prefix, rest)) = input[at..].split_first_chunk::<2>() {
        let Some(body) = rest.get(..usize::from(u16::from_be_bytes(*prefix))) else { break };
        message(body);
        at += 2 + body.len();
    }
    at
}

/// Appends a length-prefixed message.
pub(crate) fn push_message(out: &mut Vec<u8>, message: &[u8]) {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&message[..usize::from(len)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_a_part_stays() {
        let mut wire = Vec::new();
        push_message(&mut wire, b"one");
        push_message(&mut wire, b"");
        push_message(&mut wire, b"three");
        let whole = wire.len();
        wire.extend_from_slice(&[0, 9, 1, 2]);
        let mut seen = Vec::new();
        assert_eq!(messages(&wire, |message| seen.push(message.to_vec())), whole);
        assert_eq!(seen, [b"one".to_vec(), Vec::new(), b"three".to_vec()]);
    }
}
