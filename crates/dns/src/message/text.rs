//! Answers as text in zone-file form, for people. Types without a form of their own here are shown as RFC 3597 bytes.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    AnswerError, Header, TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_NS, TYPE_OPT, TYPE_SOA, TYPE_TXT,
    name::{class_name, name_to_text, push_escaped, rcode_name, type_name},
    verify_answer,
    wire::{Record, Records, u16_at, u32_at},
};

/// An answer in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Such as `NOERROR`.
    pub rcode: String,
    /// The records of the answer section: owner, TTL in seconds, class, type, data.
    pub answers: Vec<String>,
    /// The records of the authority section.
    pub authority: Vec<String>,
    /// The records of the additional section, without OPT.
    pub additional: Vec<String>,
}

/// Puts an answer into words. A truncated answer that ends inside a record is shown up to there.
///
/// # Errors
/// When the message is malformed.
pub fn render(answer: &[u8]) -> Result<Rendered, AnswerError> {
    let info = verify_answer(answer)?;
    let header = Header::read(answer).ok_or(AnswerError)?;
    let mut rendered =
        Rendered { rcode: rcode_name(info.rcode), answers: Vec::new(), authority: Vec::new(), additional: Vec::new() };
    let (answers, authorities) = (usize::from(header.answers()), usize::from(header.authorities()));
    for (number, record) in Records::of(answer)?.enumerate() {
        let Ok(record) = record else { break };
        if record.rtype == TYPE_OPT {
            continue;
        }
        let line = line(answer, &record).ok_or(AnswerError)?;
        match number {
            _ if number < answers => rendered.answers.push(line),
            _ if number < answers + authorities => rendered.authority.push(line),
            _ => rendered.additional.push(line),
        }
    }
    Ok(rendered)
}

fn line(message: &[u8], record: &Record) -> Option<String> {
    let mut out = String::new();
    name_to_text(message, record.start, &mut out)?;
    let (class, rtype) = (class_name(record.class), type_name(record.rtype));
    let _ = write!(out, "\t{}\t{class}\t{rtype}\t", record.ttl);
    let before = out.len();
    if rdata(message, record, &mut out).is_none() {
        out.truncate(before);
        unknown(&message[record.rdata.clone()], &mut out);
    }
    Some(out)
}

/// RFC 3597 section 5.
fn unknown(data: &[u8], out: &mut String) {
    let _ = write!(out, "\\# {}", data.len());
    if !data.is_empty() {
        out.push(' ');
    }
    push_hex(data, out);
}

fn push_hex(data: &[u8], out: &mut String) {
    for byte in data {
        let _ = write!(out, "{byte:02X}");
    }
}

/// `None` when the type has no form here or the data does not fit it.
fn rdata(message: &[u8], record: &Record, out: &mut String) -> Option<()> {
    let (start, end) = (record.rdata.start, record.rdata.end);
    let data = &message[start..end];
    // Names must end where the data ends.
    let message = &message[..end];
    match record.rtype {
        TYPE_A => write!(out, "{}", Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)).ok(),
        TYPE_AAAA => write!(out, "{}", Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)).ok(),
        TYPE_NS | TYPE_CNAME | TYPE_PTR | TYPE_DNAME => whole(name_to_text(message, start, out)?, end),
        TYPE_MX => {
            let _ = write!(out, "{} ", u16_at(data, 0)?);
            whole(name_to_text(message, start + 2, out)?, end)
        }
        TYPE_SRV => {
            let _ = write!(out, "{} {} {} ", u16_at(data, 0)?, u16_at(data, 2)?, u16_at(data, 4)?);
            whole(name_to_text(message, start + 6, out)?, end)
        }
        TYPE_SOA => {
            let at = name_to_text(message, start, out)?;
            out.push(' ');
            let at = name_to_text(message, at, out)?;
            for field in 0..5 {
                let _ = write!(out, " {}", u32_at(message, at + 4 * field)?);
            }
            whole(at + 20, end)
        }
        TYPE_TXT => strings(data, out),
        TYPE_CAA => {
            let (tag, value) = data.get(2..)?.split_at_checked(usize::from(data[1]))?;
            if !tag.iter().all(u8::is_ascii_alphanumeric) {
                return None;
            }
            let _ = write!(out, "{} {} ", data[0], str::from_utf8(tag).ok()?);
            quoted(value, out);
            Some(())
        }
        TYPE_SVCB | TYPE_HTTPS => {
            let _ = write!(out, "{} ", u16_at(data, 0)?);
            let at = name_to_text(message, start + 2, out)?;
            service_params(message.get(at..)?, out)
        }
        _ => None,
    }
}

fn whole(at: usize, end: usize) -> Option<()> {
    (at == end).then_some(())
}

fn strings(mut data: &[u8], out: &mut String) -> Option<()> {
    let mut first = true;
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length))?;
        if !first {
            out.push(' ');
        }
        first = false;
        quoted(string, out);
        data = rest;
    }
    (!first).then_some(())
}

fn quoted(string: &[u8], out: &mut String) {
    out.push('"');
    for &byte in string {
        push_escaped(out, byte, b"\"\\");
    }
    out.push('"');
}

/// RFC 9460 section 2.1, with the keys of section 14.3.2 that have a simple form.
fn service_params(mut data: &[u8], out: &mut String) -> Option<()> {
    while !data.is_empty() {
        let (key, length) = (u16_at(data, 0)?, usize::from(u16_at(data, 2)?));
        let value = data.get(4..4 + length)?;
        data = &data[4 + length..];
        out.push(' ');
        match key {
            1 => {
                out.push_str("alpn=");
                let mut protocols = String::new();
                strings(value, &mut protocols)?;
                out.push_str(&protocols.replace("\" \"", ",").replace('"', ""));
            }
            2 if value.is_empty() => out.push_str("no-default-alpn"),
            3 => {
                let _ = write!(out, "port={}", u16::from_be_bytes(value.try_into().ok()?));
            }
            4 => list("ipv4hint=", value.as_chunks::<4>(), |&ip| Ipv4Addr::from(ip).to_string(), out)?,
            6 => list("ipv6hint=", value.as_chunks::<16>(), |&ip| Ipv6Addr::from(ip).to_string(), out)?,
            _ => {
                // Any key may be written by number, its value escaped.
                let _ = write!(out, "key{key}=");
                quoted(value, out);
            }
        }
    }
    Some(())
}

fn list<const N: usize>(
    name: &str,
    (chunks, rest): (&[[u8; N]], &[u8]),
    show: impl Fn(&[u8; N]) -> String,
    out: &mut String,
) -> Option<()> {
    let shown: Vec<String> = chunks.iter().map(show).collect();
    out.push_str(name);
    out.push_str(&shown.join(","));
    rest.is_empty().then_some(())
}

const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_SRV: u16 = 33;
const TYPE_DNAME: u16 = 39;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
const TYPE_CAA: u16 = 257;
