//! DNS over QUIC (RFC 9250): a query a stream, and each breach of its rules the end of the connection.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use quinn::{Connection, RecvStream, SendStream, VarInt, WriteError};

use super::quic::{Held, Session};
use crate::message::{
    Header, Query,
    wire::{OPTION_KEEPALIVE, Options},
};

/// One client's connection until its end.
pub(super) async fn serve(session: &Session, connection: Connection) {
    let fault = serve_streams(session, &connection).await.err();
    let (code, reason) = fault.map_or((NO_ERROR, ""), Fault::close);
    connection.close(code, reason.as_bytes());
}

async fn serve_streams(session: &Session, connection: &Connection) -> Result<(), Fault> {
    let mut streams = FuturesUnordered::new();
    let mut idle = pin!(session.idle());
    let mut stopping = pin!(session.stopping().fuse());
    loop {
        let (room, stops) = (session.has_room(), session.is_stopping());
        if stops && session.is_quiet() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(ended) = streams.next() => ended?,
            accepted = connection.accept_bi(), if room && !stops => match accepted {
                Ok((send, receive)) => streams.push(exchange(session, send, receive)),
                // The client has left.
                Err(_) => return Ok(()),
            },
            () = session.changed(), if !room => {}
            () = &mut stopping => {}
            () = &mut idle => return Ok(()),
        }
    }
}

/// One query and its answer.
async fn exchange(session: &Session, mut send: SendStream, mut receive: RecvStream) -> Result<(), Fault> {
    let Some(query) = read(session, &mut receive).await? else {
        // RFC 9250 section 4.3.1: the client gave the query up before it was whole.
        let _ = send.reset(REQUEST_CANCELLED);
        return Ok(());
    };
    check(&query)?;
    let _busy = session.busy();
    let mut stopped = pin!(send.stopped());
    let answer = tokio::select! {
        answer = session.ask(&query) => answer,
        // RFC 9250 section 4.3.1: the client does not want the answer any more.
        _ = &mut stopped => return Ok(()),
    };
    match answer {
        Some(answer) => {
            // A client that stops the stream or leaves loses the answer.
            if write(&mut send, answer).await.is_ok() && send.finish().is_ok() {
                let _ = stopped.await;
            }
        }
        None => drop(send.reset(INTERNAL_ERROR)),
    }
    Ok(())
}

/// Reads a stream to its end; `None` when the client or the connection gave it up.
async fn read(session: &Session, receive: &mut RecvStream) -> Result<Option<Bytes>, Fault> {
    let mut message = Message::default();
    // What a stream keeps while it waits for the rest.
    let mut held: Option<Held<'_>> = None;
    loop {
        match receive.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => message.push(&chunk.bytes)?,
            Ok(None) => return message.finish().map(Some),
            Err(_) => return Ok(None),
        }
        drop(held.take());
        held = Some(session.unfinished(message.0.len()).ok_or(Fault::ExcessiveLoad)?);
    }
}

async fn write(send: &mut SendStream, answer: Bytes) -> Result<(), WriteError> {
    let length = u16::try_from(answer.len()).expect("an answer is a dns message");
    send.write_all(&length.to_be_bytes()).await?;
    send.write_chunk(answer).await
}

/// What was read of a stream's one message, its length included.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.0.extend_from_slice(bytes);
        match self.announced() {
            Some(length) if self.0.len() > length => Err(Fault::Protocol("more than one message on a stream")),
            _ => Ok(()),
        }
    }

    /// The stream ended.
    fn finish(self) -> Result<Bytes, Fault> {
        if self.announced() != Some(self.0.len()) {
            return Err(Fault::Protocol("the stream ended within a message"));
        }
        Ok(Bytes::from(self.0).slice(2..))
    }

    /// Bytes that the stream has to have.
    fn announced(&self) -> Option<usize> {
        let length = u16::from_be_bytes(*self.0.first_chunk()?);
        Some(2 + usize::from(length))
    }
}

/// The query of a stream that comes in these pieces and ends, or the rule that it breaks.
#[cfg(feature = "fuzzing")]
pub(crate) fn query<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, &'static str> {
    let read = || {
        let mut message = Message::default();
        pieces.into_iter().try_for_each(|piece| message.push(piece))?;
        let query = message.finish()?;
        check(&query)?;
        Ok(query.into())
    };
    read().map_err(|fault: Fault| fault.close().1)
}

/// What RFC 9250 forbids a client besides what DNS does (sections 4.2.1 and 5.5.2).
fn check(query: &[u8]) -> Result<(), Fault> {
    let Some(header) = Header::read(query).filter(|header| !header.is_answer()) else {
        return Err(Fault::Protocol("no dns query"));
    };
    if header.id() != 0 {
        return Err(Fault::Protocol("the message id is not 0"));
    }
    let edns = Query::parse(query).ok().and_then(|parsed| parsed.edns);
    let mut options = edns.into_iter().flat_map(|edns| Options::new(query, edns.rdata)).flatten();
    if options.any(|(code, _)| code == OPTION_KEEPALIVE) {
        return Err(Fault::Protocol("edns-tcp-keepalive"));
    }
    Ok(())
}

/// Why a client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The client broke this rule.
    Protocol(&'static str),
    /// The client has begun more than is kept for it.
    ExcessiveLoad,
}

impl Fault {
    /// What the client is told.
    fn close(self) -> (VarInt, &'static str) {
        match self {
            Fault::Protocol(reason) => (PROTOCOL_ERROR, reason),
            Fault::ExcessiveLoad => (EXCESSIVE_LOAD, "too many unfinished queries"),
        }
    }
}

// RFC 9250 section 4.3.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const INTERNAL_ERROR: VarInt = VarInt::from_u32(1);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::build_query;

    /// What comes of a stream that arrives in pieces of each size.
    fn read_all(bytes: &[u8]) -> Result<Bytes, Fault> {
        let mut results = (1..=bytes.len().max(1)).map(|size| {
            let mut message = Message::default();
            bytes.chunks(size).try_for_each(|piece| message.push(piece))?;
            message.finish()
        });
        let first = results.next().expect("there is a size");
        assert!(results.all(|result| result == first), "the size of the pieces does not matter");
        first
    }

    #[test]
    fn a_stream_holds_one_message_and_nothing_else() {
        let whole = [0, 3, 1, 2, 3];
        assert_eq!(read_all(&whole), Ok(Bytes::from_static(&[1, 2, 3])));
        assert_eq!(read_all(&[0, 0]), Ok(Bytes::new()));
        let ended = Err(Fault::Protocol("the stream ended within a message"));
        for length in 0..whole.len() {
            assert_eq!(read_all(&whole[..length]), ended, "{length}");
        }
        let more = Err(Fault::Protocol("more than one message on a stream"));
        assert_eq!(read_all(&[&whole[..], &whole].concat()), more);
        assert_eq!(read_all(&[&whole[..], &[0]].concat()), more);
    }

    #[test]
    fn a_query_has_id_0_and_no_keepalive() {
        let good = build_query("www.example", 1).unwrap();
        assert_eq!(check(&good), Ok(()));
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut query = good.clone();
            change(&mut query);
            check(&query)
        };
        assert_eq!(changed(|query| query[1] = 1), Err(Fault::Protocol("the message id is not 0")));
        assert_eq!(changed(|query| query[2] |= 0x80), Err(Fault::Protocol("no dns query")));
        assert_eq!(changed(|query| query.truncate(11)), Err(Fault::Protocol("no dns query")));
        let with_option = |code: u8| {
            let mut query = good.clone();
            let length = query.len();
            query[length - 1] = 4;
            query.extend_from_slice(&[0, code, 0, 0]);
            check(&query)
        };
        assert_eq!(with_option(11), Err(Fault::Protocol("edns-tcp-keepalive")));
        assert_eq!(with_option(12), Ok(()));
        // What is malformed otherwise is answered by DNS itself.
        assert_eq!(changed(|query| query.truncate(14)), Ok(()));
    }
}
