//! A ClientHello taken apart: every field of it that tells one client from another.
//!
//! It is read as a recorder reads it, not as a server does: what cannot be a hello is refused with its place, and nothing is
//! negotiated. Random bytes (random, session id, keys) are kept as lengths only.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::code::Code;

mod cursor;
mod extension;
mod records;

pub use extension::{Content, Extension, KeyShare};
pub use records::{Record, RecordedHello};

use cursor::Cursor;

/// A ClientHello (RFC 8446 section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The version that was one before TLS 1.3: `0303` today.
    pub legacy_version: Code,
    /// Bytes of the whole message, its header included.
    pub length: usize,
    /// Bytes of the session id, 0 to 32.
    pub session_id_length: usize,
    /// Cipher suites in order.
    pub ciphers: Vec<Code>,
    /// Compression methods: 0 alone today.
    pub compression: Vec<u8>,
    /// Extensions in order.
    pub extensions: Vec<Extension>,
}

/// Bytes that are no ClientHello: `key_share at byte 211: ends early`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloError {
    at: usize,
    what: &'static str,
    problem: &'static str,
}

impl HelloError {
    /// How many bytes in, from the first byte given.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.what, self.at, self.problem)
    }
}

impl std::error::Error for HelloError {}

impl Hello {
    /// Bytes of the longest hello that is read. Browsers send 2 KiB, and some more for each session that they resume.
    pub const LENGTH_MAX: usize = 64 * 1024;

    /// The most extensions that are read. Browsers send about 20.
    pub const EXTENSIONS_MAX: usize = 256;

    /// Takes a hello apart: the handshake message with its header, and nothing after it.
    ///
    /// # Errors
    /// When it is no ClientHello, is longer than [`LENGTH_MAX`](Self::LENGTH_MAX), or a field in it is not as its RFC has it.
    pub fn parse(message: &[u8]) -> Result<Hello, HelloError> {
        let mut message = Cursor::new(message, "hello");
        let length = message.rest().len();
        if message.u8()? != CLIENT_HELLO {
            return Err(HelloError { at: 0, what: "hello", problem: "is another message" });
        }
        let body_length = message.u24()?;
        if body_length + HEADER > Hello::LENGTH_MAX {
            return Err(message.error("is longer than 64 KiB"));
        }
        let mut body = message.take(body_length)?;
        message.end()?;
        let legacy_version = Code::from(body.u16()?);
        body.take(RANDOM)?;
        body = body.named("session id");
        let session_id_length = body.vector8()?.rest().len();
        if session_id_length > SESSION_ID_MAX {
            return Err(body.error("is longer than 32 bytes"));
        }
        body = body.named("cipher suites");
        let ciphers = extension::codes(body.vector16()?)?;
        body = body.named("compression methods");
        let compression = body.vector8()?.rest().to_vec();
        let extensions = extensions(body.named("extensions"))?;
        Ok(Hello { legacy_version, length, session_id_length, ciphers, compression, extensions })
    }

    /// Finds an extension by its code point.
    pub fn extension(&self, code: Code) -> Option<&Content> {
        self.extensions.iter().find(|extension| extension.code == code).map(|extension| &extension.content)
    }

    /// Whether the client wants to resume a session of TLS 1.3.
    pub fn is_resuming(&self) -> bool {
        self.extension(Extension::PRE_SHARED_KEY).is_some()
    }

    /// The host asked for (`server_name`).
    pub fn server_name(&self) -> Option<&str> {
        match self.extension(Extension::SERVER_NAME)? {
            Content::ServerName(name) => Some(name),
            _ => None,
        }
    }

    /// Named groups in order; none without the extension.
    pub fn groups(&self) -> &[Code] {
        match self.extension(Extension::SUPPORTED_GROUPS) {
            Some(Content::SupportedGroups(groups)) => groups,
            _ => &[],
        }
    }

    /// Formats of points in order; none without the extension.
    pub fn point_formats(&self) -> &[u8] {
        match self.extension(Extension::EC_POINT_FORMATS) {
            Some(Content::EcPointFormats(formats)) => formats,
            _ => &[],
        }
    }

    /// Signature algorithms in order; none without the extension.
    pub fn signature_algorithms(&self) -> &[Code] {
        match self.extension(Extension::SIGNATURE_ALGORITHMS) {
            Some(Content::SignatureAlgorithms(algorithms)) => algorithms,
            _ => &[],
        }
    }

    /// Versions in order; none without the extension, which TLS 1.2 does not know.
    pub fn versions(&self) -> &[Code] {
        match self.extension(Extension::SUPPORTED_VERSIONS) {
            Some(Content::SupportedVersions(versions)) => versions,
            _ => &[],
        }
    }

    /// Application protocols in order; none without the extension.
    pub fn alpn(&self) -> &[String] {
        match self.extension(Extension::ALPN) {
            Some(Content::Alpn(protocols)) => protocols,
            _ => &[],
        }
    }

    /// Key shares in order; none without the extension.
    pub fn key_shares(&self) -> &[KeyShare] {
        match self.extension(Extension::KEY_SHARE) {
            Some(Content::KeyShare(shares)) => shares,
            _ => &[],
        }
    }
}

fn extensions(mut body: Cursor<'_>) -> Result<Vec<Extension>, HelloError> {
    // RFC 8446 section 4.1.2: a hello may end before its extensions, for servers of before TLS 1.3.
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = body.vector16()?;
    body.end()?;
    let (mut extensions, mut seen) = (Vec::new(), BTreeSet::new());
    while !list.is_empty() {
        if extensions.len() == Hello::EXTENSIONS_MAX {
            return Err(list.error("are more than 256"));
        }
        let before = list;
        let value = list.u16()?;
        // RFC 8446 section 4.2: at most one extension of each type.
        if !seen.insert(value) {
            return Err(before.error("have one twice"));
        }
        let content = list.vector16()?;
        extensions.push(Extension::parse(Code::from(value), content)?);
    }
    Ok(extensions)
}

/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Bytes of a handshake message's header: type and length.
const HEADER: usize = 4;

/// Bytes of the client's random.
const RANDOM: usize = 32;

/// Bytes of the longest session id.
const SESSION_ID_MAX: usize = 32;

#[cfg(test)]
mod tests;
