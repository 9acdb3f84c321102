//! An HTTP/2 server that says what the test tells it to, frame by frame (RFC 9113 section 4.1).

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// One frame as the client sent it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The server's end of the connection, past the preface.
pub(super) struct Script {
    stream: DuplexStream,
    skipped: VecDeque<Frame>,
}

impl Script {
    /// Reads the client's preface and sends SETTINGS with this limit on streams.
    pub(super) async fn start(mut stream: DuplexStream, max_streams: u32) -> Script {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut script = Script { stream, skipped: VecDeque::new() };
        script.max_streams(max_streams).await;
        script
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame of this kind; others are passed over.
    pub(super) async fn expect(&mut self, kind: u8) -> Frame {
        if let Some(position) = self.skipped.iter().position(|frame| frame.kind == kind) {
            return self.skipped.remove(position).unwrap();
        }
        loop {
            let frame = self.read().await;
            if frame.kind == kind {
                return frame;
            }
            self.skipped.push_back(frame);
        }
    }

    /// Whether a frame of this kind was passed over and not expected since.
    pub(super) fn passed_over(&self, kind: u8) -> bool {
        self.skipped.iter().any(|frame| frame.kind == kind)
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        Frame { kind: head[3], stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload }
    }

    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(super) async fn max_streams(&mut self, limit: u32) {
        let mut payload = vec![0, 3];
        payload.extend(limit.to_be_bytes());
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    /// `:status: 200` and nothing else; `extra` is more of the header block.
    pub(super) async fn answer_head(&mut self, stream: u32, extra: &[u8]) {
        let mut block = vec![0x88];
        block.extend(extra);
        self.write(HEADERS, END_HEADERS, stream, &block).await;
    }

    pub(super) async fn answer_body(&mut self, stream: u32, body: &[u8], last: bool) {
        self.write(DATA, if last { END_STREAM } else { 0 }, stream, body).await;
    }

    pub(super) async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.answer_head(stream, &[]).await;
        self.answer_body(stream, body, true).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(super) async fn goaway(&mut self, last: u32, code: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(code.to_be_bytes());
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) {
        self.write(PING, ACK, 0, payload).await;
    }

    /// Reads what still comes until the client closes.
    pub(super) async fn ends(mut self) -> bool {
        let mut rest = Vec::new();
        super::within(self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}
