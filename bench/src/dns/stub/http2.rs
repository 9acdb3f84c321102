//! As much of HTTP/2 as a DoH server needs (RFC 9113, RFC 8484), as bytes in and bytes out.
//!
//! It is written out because a whole HTTP/2 library costs more per query than the servers that are measured. A client's
//! header blocks are read only when it asks with GET; with POST the query is all in the DATA frames.

use std::{collections::VecDeque, ops::Range};

use fluke_hpack::Decoder;

/// The state of one connection.
pub(super) struct Http2 {
    greeted: bool,
    /// What the client lets us send.
    window: i64,
    /// What the client sent since it was last given room.
    received: usize,
    /// Answers that wait for room.
    blocked: VecDeque<(u32, Vec<u8>)>,
    /// Bodies of which only a part is here.
    bodies: Vec<(u32, Vec<u8>)>,
    /// A header block that goes on.
    block: Vec<u8>,
    block_ends_stream: bool,
    /// Of a client that asks with GET.
    decoder: Option<Decoder<'static>>,
    first_block_seen: bool,
    compression: Compression,
    /// Whole queries, as parts of `arena`.
    queries: Vec<(u32, Range<usize>)>,
    arena: Vec<u8>,
}

/// How our header blocks are written.
enum Compression {
    /// The client's table takes the content type. -> `Indexed` with the first answer.
    Fresh,
    /// The content type is the first entry of the client's table.
    Indexed,
    /// The client's table is smaller than the default: it is to hear that we use none. -> `Literal` with the first answer.
    TableOff,
    /// Nothing is kept in the client's table.
    Literal,
}

impl Http2 {
    pub(super) fn new() -> Http2 {
        Http2 {
            greeted: false,
            window: 65_535,
            received: 0,
            blocked: VecDeque::new(),
            bodies: Vec::new(),
            block: Vec::new(),
            block_ends_stream: false,
            decoder: None,
            first_block_seen: false,
            compression: Compression::Fresh,
            queries: Vec::new(),
            arena: Vec::new(),
        }
    }

    /// Reads the whole frames in `input` and returns their length; `None` when the client breaks the protocol.
    pub(super) fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut at = 0;
        if !self.greeted {
            let Some(preface) = input.get(..PREFACE.len()) else { return Some(0) };
            if preface != PREFACE {
                return None;
            }
            self.greeted = true;
            at = PREFACE.len();
            frame(out, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, STREAMS_MAX, 0, 4, 0, 1, 0, 0]);
            frame(out, WINDOW_UPDATE, 0, 0, &ROOM.to_be_bytes());
        }
        while let Some(head) = input.get(at..at + 9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = input.get(at + 9..at + 9 + len) else { break };
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            self.frame(head[3], head[4], stream, payload, out)?;
            at += 9 + len;
        }
        Some(at)
    }

    /// Hands over the queries that were read, each with its stream.
    pub(super) fn requests(&mut self, mut each: impl FnMut(&mut Http2, u32, &[u8])) {
        let (queries, arena) = (std::mem::take(&mut self.queries), std::mem::take(&mut self.arena));
        for (stream, query) in &queries {
            each(self, *stream, &arena[query.clone()]);
        }
        // The buffers are used again.
        (self.queries, self.arena) = (queries, arena);
        self.queries.clear();
        self.arena.clear();
    }

    /// Appends an answer.
    pub(super) fn put(&mut self, stream: u32, answer: &[u8], out: &mut Vec<u8>) {
        let len = i64::try_from(answer.len()).unwrap_or(i64::MAX);
        if self.window < len {
            return self.blocked.push_back((stream, answer.to_vec()));
        }
        self.window -= len;
        // RFC 7541: `:status: 200` is entry 8 of the static table, content-type 31, content-length 28.
        let mut block = Vec::with_capacity(40);
        if matches!(self.compression, Compression::TableOff) {
            block.push(0x20);
            self.compression = Compression::Literal;
        }
        block.push(0x88);
        match self.compression {
            Compression::Indexed => block.push(0xbe),
            Compression::Fresh => {
                block.extend_from_slice(&[0x40 | 31, 23]);
                block.extend_from_slice(CONTENT_TYPE);
                self.compression = Compression::Indexed;
            }
            Compression::TableOff | Compression::Literal => {
                block.extend_from_slice(&[0x0f, 31 - 15, 23]);
                block.extend_from_slice(CONTENT_TYPE);
            }
        }
        let digits = answer.len().to_string();
        block.extend_from_slice(&[0x0f, 28 - 15]);
        block.push(u8::try_from(digits.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(digits.as_bytes());
        frame(out, HEADERS, END_HEADERS, stream, &block);
        frame(out, DATA, END_STREAM, stream, answer);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match kind {
            DATA => {
                self.received += payload.len();
                if self.received > ROOM as usize / 4 {
                    frame(out, WINDOW_UPDATE, 0, 0, &u32::try_from(self.received).ok()?.to_be_bytes());
                    self.received = 0;
                }
                self.data(flags, stream, unpadded(payload, flags)?);
            }
            HEADERS => {
                let mut block = unpadded(payload, flags)?;
                if flags & PRIORITY != 0 {
                    block = block.get(5..)?;
                }
                self.block.clear();
                self.block_ends_stream = flags & END_STREAM != 0;
                self.block.extend_from_slice(block);
                if flags & END_HEADERS != 0 {
                    self.header_block(stream)?;
                }
            }
            CONTINUATION => {
                self.block.extend_from_slice(payload);
                if flags & END_HEADERS != 0 {
                    self.header_block(stream)?;
                }
            }
            SETTINGS if flags & ACK == 0 => {
                let table = payload.chunks_exact(6).find_map(|pair| pair.strip_prefix(&[0, 1]));
                if table.is_some_and(|size| size < &[0, 0, 0x10, 0][..]) {
                    self.compression = Compression::TableOff;
                }
                frame(out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                self.window += i64::from(u32::from_be_bytes(*payload.first_chunk()?));
                for (stream, answer) in std::mem::take(&mut self.blocked) {
                    self.put(stream, &answer, out);
                }
            }
            // A reset stream's answer goes nowhere; a goodbye is followed by the end of the connection.
            _ => {}
        }
        Some(())
    }

    fn data(&mut self, flags: u8, stream: u32, payload: &[u8]) {
        let begun = self.bodies.iter().position(|(of, _)| *of == stream);
        match (begun, flags & END_STREAM != 0) {
            (None, true) => self.query(stream, payload),
            (None, false) => self.bodies.push((stream, payload.to_vec())),
            (Some(index), false) => self.bodies[index].1.extend_from_slice(payload),
            (Some(index), true) => {
                let (_, mut body) = self.bodies.swap_remove(index);
                body.extend_from_slice(payload);
                self.query(stream, &body);
            }
        }
    }

    /// A client asks either with GET or with POST, as its first request shows.
    fn header_block(&mut self, stream: u32) -> Option<()> {
        if !std::mem::replace(&mut self.first_block_seen, true) && self.block_ends_stream {
            self.decoder = Some(Decoder::new());
        }
        let Some(decoder) = &mut self.decoder else { return (!self.block_ends_stream).then_some(()) };
        let headers = decoder.decode(&self.block).ok()?;
        let path = headers.iter().find_map(|(name, value)| (name == b":path").then_some(value))?;
        let at = path.windows(4).position(|window| window == b"dns=")?;
        let query = base64url(&path[at + 4..]);
        self.query(stream, &query);
        Some(())
    }

    fn query(&mut self, stream: u32, query: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(query);
        self.queries.push((stream, start..self.arena.len()));
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn unpadded(payload: &[u8], flags: u8) -> Option<&[u8]> {
    if flags & PADDED == 0 {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// RFC 4648 section 5, without padding; ends at the first other octet.
fn base64url(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for octet in text {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => break,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let [.., octet] = (bits >> held).to_be_bytes();
            out.push(octet);
        }
    }
    out
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x01;
const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Streams at once, as real DoH servers allow about.
const STREAMS_MAX: u8 = 250;
/// How much a client may send before it is given room again.
const ROOM: u32 = 1 << 30;
const CONTENT_TYPE: &[u8] = b"application/dns-message";

#[cfg(test)]
mod tests {
    use super::*;

    fn client(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut wire = PREFACE.to_vec();
        frame(&mut wire, SETTINGS, 0, 0, &[]);
        for (kind, flags, stream, payload) in frames {
            frame(&mut wire, *kind, *flags, *stream, payload);
        }
        wire
    }

    fn asked(http2: &mut Http2) -> Vec<(u32, Vec<u8>)> {
        let mut seen = Vec::new();
        http2.requests(|_, stream, query| seen.push((stream, query.to_vec())));
        seen
    }

    #[test]
    fn posted_queries_are_read_octet_by_octet_and_in_parts() {
        let wire = client(&[
            (HEADERS, END_HEADERS, 1, &[0x83]),
            (DATA, END_STREAM, 1, b"first"),
            (HEADERS, END_HEADERS, 3, &[0x83]),
            (DATA, PADDED, 3, b"\x02sec\0\0"),
            (DATA, END_STREAM, 3, b"ond"),
        ]);
        let (mut http2, mut input, mut out, mut seen) = (Http2::new(), Vec::new(), Vec::new(), Vec::new());
        for octet in wire {
            input.push(octet);
            let used = http2.read(&input, &mut out).unwrap();
            input.drain(..used);
            seen.extend(asked(&mut http2));
        }
        assert_eq!(seen, [(1, b"first".to_vec()), (3, b"second".to_vec())]);
        assert!(input.is_empty());
    }

    #[test]
    fn a_query_in_the_path_is_read() {
        let mut block = vec![0x82, 0x04, 19];
        block.extend_from_slice(b"/dns-query?dns=AAEC-_8");
        block[2] = 22;
        let wire = client(&[(HEADERS, END_HEADERS | END_STREAM, 1, &block)]);
        let mut http2 = Http2::new();
        assert_eq!(http2.read(&wire, &mut Vec::new()), Some(wire.len()));
        assert_eq!(asked(&mut http2), [(1, vec![0, 1, 2, 0xfb, 0xff])]);
    }

    #[test]
    fn answers_decode_whatever_table_the_client_has() {
        for settings in [&[][..], &[0, 1, 0, 0, 0, 0]] {
            let mut http2 = Http2::new();
            let mut wire = PREFACE.to_vec();
            frame(&mut wire, SETTINGS, 0, 0, settings);
            http2.read(&wire, &mut Vec::new()).unwrap();
            let mut decoder = Decoder::new();
            for stream in [1, 3, 5] {
                let mut out = Vec::new();
                http2.put(stream, b"answer", &mut out);
                let len = usize::from(out[2]);
                let headers = decoder.decode(&out[9..9 + len]).unwrap();
                let expected =
                    [(":status", "200"), ("content-type", "application/dns-message"), ("content-length", "6")];
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                    .collect();
                assert_eq!(headers, expected);
                assert!(out.ends_with(b"answer") && out[9 + len + 4] == END_STREAM);
            }
        }
    }

    #[test]
    fn an_answer_waits_for_room() {
        let (mut http2, mut out) = (Http2::new(), Vec::new());
        http2.window = 3;
        http2.put(1, b"answer", &mut out);
        assert!(out.is_empty());
        let wire = client(&[(WINDOW_UPDATE, 0, 0, &3_u32.to_be_bytes())]);
        http2.read(&wire, &mut out).unwrap();
        assert!(out.ends_with(b"answer"));
    }

    #[test]
    fn what_is_no_http2_is_refused() {
        assert_eq!(Http2::new().read(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n", &mut Vec::new()), None);
    }
}
