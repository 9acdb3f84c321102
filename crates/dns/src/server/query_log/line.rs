//! One line of the query log.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::Serialize;

use super::{Entry, Source};
use crate::{config::QueryLogPrivacy, message};

/// Makes lines, with as much of clients and names as may be told.
pub(super) struct Lines {
    privacy: QueryLogPrivacy,
    /// The key of the day's hashes, and the day it is of.
    key: hmac::Key,
    day: i64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: String,
    transport: &'static str,
    name: String,
    #[serde(rename = "type")]
    qtype: String,
    rcode: String,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// In seconds.
    duration: f64,
}

#[derive(Serialize)]
struct Gap {
    time: String,
    dropped: u64,
}

impl Lines {
    pub(super) fn new(privacy: QueryLogPrivacy) -> Lines {
        Lines { privacy, key: key(), day: i64::MIN }
    }

    /// Appends the line of an entry.
    pub(super) fn push(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let time = Timestamp::try_from(entry.at).unwrap_or(Timestamp::UNIX_EPOCH);
        self.turn(time);
        let (upstream, error) = match &entry.source {
            Source::Upstream(name) => (Some(&**name), None),
            Source::Error(kind) => (None, Some(*kind)),
            Source::Cache | Source::Stale | Source::Local => (None, None),
        };
        let line = Line {
            time: format!("{time:.6}"),
            client: self.client(entry.client),
            transport: entry.transport.as_str(),
            name: self.name(&entry.name),
            qtype: message::type_name(entry.qtype),
            rcode: message::rcode_name(entry.rcode),
            source: entry.source.as_str(),
            upstream,
            error,
            duration: entry.took.as_secs_f64(),
        };
        write(&line, out);
    }

    /// Appends a line that says how many entries are missing before it.
    pub(super) fn push_gap(time: Timestamp, dropped: u64, out: &mut Vec<u8>) {
        write(&Gap { time: format!("{time:.6}"), dropped }, out);
    }

    /// Each day (UTC) has a key of its own: what was hashed yesterday is nothing that is hashed today.
    fn turn(&mut self, time: Timestamp) {
        let day = time.as_second().div_euclid(DAY);
        if day != self.day {
            (self.key, self.day) = (key(), day);
        }
    }

    fn client(&self, client: IpAddr) -> String {
        match (self.privacy, client) {
            (QueryLogPrivacy::Full, client) => client.to_string(),
            (_, IpAddr::V4(client)) => self.hashed(b'c', &client.octets()),
            (_, IpAddr::V6(client)) => self.hashed(b'c', &client.octets()),
        }
    }

    fn name(&self, name: &[u8]) -> String {
        if self.privacy == QueryLogPrivacy::Full {
            let mut text = String::new();
            let _ = message::name_to_text(name, 0, &mut text);
            return text;
        }
        // The same name has the same hash whatever its case (0x20).
        self.hashed(b'n', &name.to_ascii_lowercase())
    }

    /// The first half of HMAC-SHA-256; clients and names never share a hash.
    fn hashed(&self, kind: u8, bytes: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[kind]);
        context.update(bytes);
        let tag = context.sign();
        tag.as_ref().iter().take(HASH).fold(String::with_capacity(2 * HASH), |mut text, byte| {
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
            text
        })
    }
}

impl Source {
    fn as_str(&self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Stale => "stale",
            Source::Local => "local",
            Source::Upstream(_) => "upstream",
            Source::Error(_) => "error",
        }
    }
}

fn write(line: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    match serde_json::to_writer(&mut *out, line) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(before),
    }
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>())
}

/// Bytes of a hash.
const HASH: usize = 16;

const DAY: i64 = 86_400;
