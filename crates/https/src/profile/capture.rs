//! What was recorded of a client's connections: hello, preface, and what came of the handshake. A JSON file of them is a reference.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    code::Code,
    hello::{Hello, HelloError, Record, RecordedHello},
    hex,
    preface::Preface,
};

mod answer;
mod recorder;
mod tee;

pub use recorder::Recorder;

/// One recorded connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// The records that carried the hello.
    pub records: Vec<Record>,
    /// The first hello; the second of a connection that was asked for one (HelloRetryRequest) is not recorded.
    pub hello: Hello,
    /// The hello's bytes as hexadecimal, from the handshake header on; empty where only the fields are kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raw_hello: String,
    /// What the handshake agreed on; `None` where it failed.
    #[serde(default)]
    pub negotiated: Option<Negotiated>,
    /// The preface and the first request; `None` where the client did not speak HTTP/2 or asked nothing.
    #[serde(default)]
    pub preface: Option<Preface>,
}

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Negotiated {
    /// The version, such as `0304`.
    pub version: Code,
    /// The cipher suite.
    pub cipher: Code,
    /// The application protocol.
    pub alpn: Option<String>,
    /// Whether a session was resumed.
    pub resumed: bool,
}

/// Captures of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captures {
    /// What was recorded, such as `Chromium 156.0.8078.79, Debian 12, headless`.
    pub label: String,
    /// In the order of the connections.
    pub captures: Vec<Capture>,
}

impl Capture {
    /// A capture of a hello whose handshake has not been yet.
    pub fn new(recorded: RecordedHello) -> Capture {
        let RecordedHello { hello, message, records } = recorded;
        Capture { records, hello, raw_hello: hex(&message), negotiated: None, preface: None }
    }

    /// Whether the client wanted to resume a session.
    pub fn is_resuming(&self) -> bool {
        self.hello.is_resuming()
    }
}

impl Captures {
    /// The most captures of a file.
    pub const MAX: usize = 1024;

    /// Reads captures from JSON, and checks that fields and raw bytes say the same.
    ///
    /// # Errors
    /// When it is no JSON of captures, has none or more than [`MAX`](Self::MAX), or raw bytes are not those of the fields beside
    /// them.
    pub fn from_json(json: &str) -> Result<Captures, CapturesError> {
        let captures: Captures = serde_json::from_str(json).map_err(|error| CapturesError(error.to_string()))?;
        match captures.captures.len() {
            0 => return Err(CapturesError("there are no captures in it".to_owned())),
            1..=Captures::MAX => {}
            count => return Err(CapturesError(format!("{count} captures are more than {}", Captures::MAX))),
        }
        for (index, capture) in captures.captures.iter().enumerate() {
            check(capture).map_err(|problem| CapturesError(format!("capture {index}: {problem}")))?;
        }
        Ok(captures)
    }

    /// These captures as JSON, one a line.
    ///
    /// # Errors
    /// When the JSON library fails, which it does for none of these types.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let captures = self.captures.iter().map(serde_json::to_string).collect::<Result<Vec<String>, _>>()?;
        let label = serde_json::to_string(&self.label)?;
        Ok(format!("{{\n\"label\": {label},\n\"captures\": [\n{}\n]\n}}\n", captures.join(",\n")))
    }

    /// Captures without resumption.
    pub fn full(&self) -> impl Iterator<Item = &Capture> {
        self.captures.iter().filter(|capture| !capture.is_resuming())
    }

    /// Captures that resume a session.
    pub fn resuming(&self) -> impl Iterator<Item = &Capture> {
        self.captures.iter().filter(|capture| capture.is_resuming())
    }
}

fn check(capture: &Capture) -> Result<(), String> {
    if capture.raw_hello.is_empty() {
        return Ok(());
    }
    let raw = unhex(&capture.raw_hello).ok_or("raw_hello is not hexadecimal")?;
    let hello = Hello::parse(&raw).map_err(|error: HelloError| format!("raw_hello: {error}"))?;
    if hello == capture.hello { Ok(()) } else { Err("raw_hello says something else than hello".to_owned()) }
}

/// The bytes of hexadecimal text; `None` where it is none.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if odd.is_empty() { bytes } else { None }
}

/// Text that is no captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturesError(String);

impl fmt::Display for CapturesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CapturesError {}
