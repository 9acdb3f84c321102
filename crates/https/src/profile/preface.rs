//! A client's HTTP/2 preface taken apart: what it sends before its first request, and how that request's headers stand.
//!
//! Everything after the first HEADERS is left. What is deliberately not here: answering (`capture`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{HeadersPriority, PriorityFrame};

mod frame;
mod hpack;

pub use frame::Frame;

use frame::{Frames, RawFrame};

/// What a client sends first (RFC 9113 section 3.4), up to its first HEADERS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preface {
    /// The first SETTINGS in order: identifier and value.
    pub settings: Vec<(u16, u32)>,
    /// Increment of the connection's window; `None` where none was sent.
    pub window_update: Option<u32>,
    /// PRIORITY frames in order.
    pub priority_frames: Vec<PriorityFrame>,
    /// Stream of the first HEADERS.
    pub first_stream: u32,
    /// Priority in the first HEADERS.
    pub headers_priority: Option<HeadersPriority>,
    /// Frames in order, the first HEADERS being the last.
    pub frames: Vec<Frame>,
    /// Headers of the first request in order, pseudo-headers too. The values of [`SECRET`](Preface::SECRET) ones are left out.
    pub headers: Vec<(String, String)>,
}

/// Bytes that are no HTTP/2 preface: `WINDOW_UPDATE at byte 61: has another length than its type has`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefaceError {
    at: usize,
    what: &'static str,
    problem: &'static str,
}

impl PrefaceError {
    /// How many bytes in, from the first byte of the connection.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for PrefaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.what, self.at, self.problem)
    }
}

impl std::error::Error for PrefaceError {}

impl Preface {
    /// The most frames that are read before the first HEADERS has come.
    pub const FRAMES_MAX: usize = 256;

    /// The most headers that are read.
    pub const HEADERS_MAX: usize = 256;

    /// Bytes of the longest block of headers that is read.
    pub const BLOCK_MAX: usize = 64 * 1024;

    /// Headers whose values are never kept: they let others act as the user.
    pub const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

    /// Takes apart what a client sends, from the first byte of the connection; `None` while its first HEADERS has not come whole.
    ///
    /// # Errors
    /// When it is no HTTP/2 preface, or longer than the limits above.
    pub fn read(stream: &[u8]) -> Result<Option<Preface>, PrefaceError> {
        let mut frames = Frames::new(stream);
        let mut parts = Parts::default();
        loop {
            let Some(frame) = frames.next()? else { return Ok(None) };
            if parts.frames.len() == Preface::FRAMES_MAX {
                return Err(frame.error("is one too many before a request"));
            }
            parts.take(&frame)?;
            if parts.is_whole {
                return parts.finish(&frame).map(Some);
            }
        }
    }

    /// The first letters of the pseudo-headers in order, such as `m,a,s,p`.
    pub fn pseudo_order(&self) -> String {
        let letters = self.headers.iter().filter_map(|(name, _)| name.strip_prefix(':')?.chars().next());
        letters.map(String::from).collect::<Vec<String>>().join(",")
    }

    /// The value of a header of the first request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What was seen so far.
#[derive(Default)]
struct Parts {
    settings: Option<Vec<(u16, u32)>>,
    window_update: Option<u32>,
    priority_frames: Vec<PriorityFrame>,
    first_stream: u32,
    headers_priority: Option<HeadersPriority>,
    frames: Vec<Frame>,
    block: Vec<u8>,
    is_whole: bool,
}

impl Parts {
    fn take(&mut self, frame: &RawFrame<'_>) -> Result<(), PrefaceError> {
        // RFC 9113 section 6.10: nothing comes between HEADERS and its CONTINUATION frames.
        let is_continued = self.first_stream > 0;
        if is_continued != (frame.kind == frame::CONTINUATION) || is_continued && frame.stream != self.first_stream {
            return Err(frame.error("is not the frame that has to come here"));
        }
        if !is_continued {
            self.frames.push(frame.header());
        }
        match frame.kind {
            frame::SETTINGS if !frame.has(frame::ACK) => {
                let settings = frame.settings()?;
                self.settings.get_or_insert(settings);
            }
            // RFC 9113 section 3.4: SETTINGS come first.
            _ if self.settings.is_none() => return Err(frame.error("comes before SETTINGS")),
            frame::WINDOW_UPDATE if frame.stream == 0 => {
                let increment = frame.increment()?;
                self.window_update.get_or_insert(increment);
            }
            frame::PRIORITY => {
                self.priority_frames.push(PriorityFrame { stream: frame.stream, priority: frame.priority()? });
            }
            frame::HEADERS => {
                let (priority, block) = frame.headers()?;
                (self.first_stream, self.headers_priority) = (frame.stream, priority);
                self.push(frame, block)?;
            }
            frame::CONTINUATION => self.push(frame, frame.payload)?,
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, frame: &RawFrame<'_>, block: &[u8]) -> Result<(), PrefaceError> {
        // Continued without end it would grow without end.
        if frame.stream == 0 || self.block.len() + block.len() > Preface::BLOCK_MAX || block.is_empty() {
            return Err(frame.error("is on no stream, or its headers are none or too many"));
        }
        self.block.extend_from_slice(block);
        self.is_whole = frame.has(frame::END_HEADERS);
        Ok(())
    }

    fn finish(self, last: &RawFrame<'_>) -> Result<Preface, PrefaceError> {
        Ok(Preface {
            headers: hpack::decode(&self.block).map_err(|problem| last.error(problem))?,
            settings: self.settings.unwrap_or_default(),
            window_update: self.window_update,
            priority_frames: self.priority_frames,
            first_stream: self.first_stream,
            headers_priority: self.headers_priority,
            frames: self.frames,
        })
    }
}

#[cfg(test)]
mod tests;
