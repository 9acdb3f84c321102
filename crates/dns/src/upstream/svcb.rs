//! Service bindings (RFC 9460) read from an answer: where a service is to be had, over which protocols, with which keys.
//!
//! Pure: an answer goes in, records come out. What is asked, and which of the records are used, is the business of `ech` and
//! `ddr`. Bytes that break the rules make the whole set void, as section 2.2 demands; they never panic.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::Duration,
};

use crate::message::{
    Header, TYPE_CNAME, name_to_text,
    wire::{Malformed, NAME_MAX, Record, Records, plain_name_end, u16_at},
};

/// What an answer says about a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Binding {
    /// These ways to reach it, the preferred one first, for so long. Those that demand what is not known here are left out.
    Services(Vec<Service>, Duration),
    /// All about it stands at another name, which the answer does not tell of (AliasMode, section 2.4.2).
    Alias(String),
    /// Nothing.
    Nothing,
}

/// One way to reach a service (ServiceMode, section 2.4.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// Lower comes first; at least 1.
    pub(crate) priority: u16,
    /// The host that has it: lower case, no final dot. Where the record says `.`, the record's owner.
    pub(crate) target: String,
    /// The record says `.`: the service is at the name that was asked for, or that its aliases lead to.
    pub(crate) at_owner: bool,
    /// Protocols beside the scheme's default, most wanted first.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// The scheme's default protocol is not spoken.
    pub(crate) no_default_alpn: bool,
    /// `None`: the default of the protocol.
    pub(crate) port: Option<u16>,
    /// Addresses of `target`, those of IPv4 first; for the time before it is resolved (section 7.3).
    pub(crate) hints: Vec<IpAddr>,
    /// An `ECHConfigList` (RFC 9848).
    pub(crate) ech: Option<Vec<u8>>,
    /// URI template of DNS over HTTPS (RFC 9461 section 5).
    pub(crate) dohpath: Option<String>,
}

impl Service {
    /// Whether this protocol is named.
    pub(crate) fn speaks(&self, alpn: &[u8]) -> bool {
        self.alpn.iter().any(|spoken| spoken == alpn)
    }

    /// The path of `dohpath` for POST requests, which have no variables (RFC 8484 section 4.1). `None` when the template is
    /// missing, relative, without `dns`, or has other expressions.
    pub(crate) fn doh_path(&self) -> Option<String> {
        let template = self.dohpath.as_deref()?;
        let (path, variables) = template.split_once('{')?;
        let variables = variables.strip_suffix('}')?;
        let known = matches!(variables, "?dns" | "&dns");
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#');
        (known && plain && path.starts_with('/')).then(|| path.to_owned())
    }
}

/// Reads what `answer` says of `name` (any case, final dot or not) in records of type `rtype`, SVCB or HTTPS.
///
/// Aliases (CNAME and AliasMode) are followed as far as the answer tells of them, eight times at most.
///
/// # Errors
/// When the answer, or any of the records that count, is malformed.
pub(crate) fn read(answer: &[u8], name: &str, rtype: u16) -> Result<Binding, Malformed> {
    let header = Header::read(answer).ok_or(Malformed)?;
    let records = Records::of(answer)?.take(header.answers().into()).collect::<Result<Vec<_>, _>>()?;
    let records: Vec<(String, Record)> = records
        .into_iter()
        .filter(|record| record.class == 1 && (record.rtype == rtype || record.rtype == TYPE_CNAME))
        .map(|record| Ok((text(answer, record.start)?, record)))
        .collect::<Result<_, Malformed>>()?;
    let mut name = bare(name);
    let mut ttl = u32::MAX;
    let mut told = true;
    for _ in 0..ALIASES_MAX {
        let here = || records.iter().filter(|(owner, _)| *owner == name).map(|(_, record)| record);
        if let Some(alias) = here().find(|record| record.rtype == TYPE_CNAME) {
            ttl = ttl.min(alias.ttl);
            name = text(answer, alias.rdata.start)?;
            told = false;
            continue;
        }
        let mut services = Vec::new();
        let mut alias = None;
        for record in here() {
            told = true;
            ttl = ttl.min(record.ttl);
            match read_record(answer, record.rdata.clone(), &name)? {
                Form::Alias(target) => alias = alias.or(Some(target)),
                Form::Service(service) => services.push(service),
                Form::Incompatible => {}
            }
        }
        match alias {
            // Section 2.5.1: the service does not exist.
            Some(target) if target.is_empty() => return Ok(Binding::Nothing),
            Some(target) => (name, told) = (target, false),
            None if !told => return Ok(Binding::Alias(name)),
            None if services.is_empty() => return Ok(Binding::Nothing),
            None => {
                services.sort_by_key(|service| service.priority);
                return Ok(Binding::Services(services, Duration::from_secs(ttl.into())));
            }
        }
    }
    Ok(Binding::Nothing)
}

enum Form {
    /// Empty for `.`.
    Alias(String),
    Service(Service),
    /// It demands a parameter that is not known here (section 8).
    Incompatible,
}

fn read_record(message: &[u8], rdata: Range<usize>, owner: &str) -> Result<Form, Malformed> {
    let priority = u16_at(message, rdata.start).filter(|_| rdata.len() > 2).ok_or(Malformed)?;
    // Section 2.2: never compressed.
    let params = plain_name_end(message, rdata.start + 2).filter(|end| *end <= rdata.end).ok_or(Malformed)?;
    let target = text(message, rdata.start + 2)?;
    if priority == 0 {
        return Ok(Form::Alias(target));
    }
    let at_owner = target.is_empty();
    let target = if at_owner { owner.to_owned() } else { target };
    let mut service = Service { priority, target, at_owner, ..Service::default() };
    let (mut seen, mut mandatory) = (Vec::new(), &[][..]);
    let mut at = params;
    while at < rdata.end {
        let (key, length) = u16_at(message, at).zip(u16_at(message, at + 2)).ok_or(Malformed)?;
        let end = at + 4 + usize::from(length);
        let value = message.get(at + 4..end).filter(|_| end <= rdata.end).ok_or(Malformed)?;
        // Keys come in strictly rising order, so none comes twice.
        if seen.last().is_some_and(|last| *last >= key) {
            return Err(Malformed);
        }
        seen.push(key);
        match key {
            KEY_MANDATORY => mandatory = value,
            _ => service.take(key, value)?,
        }
        at = end;
    }
    if seen.contains(&KEY_MANDATORY) && !demands_known(mandatory, &seen)? {
        return Ok(Form::Incompatible);
    }
    Ok(Form::Service(service))
}

/// Section 8: the list is not empty, in strictly rising order, and names keys that are there; `mandatory` is none of them.
fn demands_known(mandatory: &[u8], seen: &[u16]) -> Result<bool, Malformed> {
    let keys: Vec<u16> = words(mandatory)?;
    let rising = keys.is_sorted_by(|a, b| a < b);
    if !rising || keys.iter().any(|key| *key == KEY_MANDATORY || !seen.contains(key)) {
        return Err(Malformed);
    }
    Ok(keys.iter().all(|key| *key <= KEY_DOHPATH))
}

impl Service {
    fn take(&mut self, key: u16, value: &[u8]) -> Result<(), Malformed> {
        match key {
            KEY_ALPN => self.alpn = strings(value)?,
            KEY_NO_DEFAULT_ALPN if value.is_empty() => self.no_default_alpn = true,
            KEY_NO_DEFAULT_ALPN => return Err(Malformed),
            KEY_PORT => self.port = Some(u16::from_be_bytes(value.try_into().map_err(|_| Malformed)?)),
            KEY_IPV4HINT => self.hints.extend(chunks(value)?.into_iter().map(|ip| IpAddr::from(Ipv4Addr::from(ip)))),
            KEY_IPV6HINT => self.hints.extend(chunks(value)?.into_iter().map(|ip| IpAddr::from(Ipv6Addr::from(ip)))),
            KEY_ECH => self.ech = Some(value.to_vec()),
            KEY_DOHPATH => self.dohpath = Some(String::from_utf8(value.to_vec()).map_err(|_| Malformed)?),
            _ => {}
        }
        Ok(())
    }
}

/// A value of 16-bit words, at least one.
fn words(value: &[u8]) -> Result<Vec<u16>, Malformed> {
    Ok(chunks(value)?.into_iter().map(u16::from_be_bytes).collect())
}

/// A value of parts of one size, at least one.
fn chunks<const SIZE: usize>(value: &[u8]) -> Result<Vec<[u8; SIZE]>, Malformed> {
    let (chunks, rest) = value.as_chunks();
    if chunks.is_empty() || !rest.is_empty() { Err(Malformed) } else { Ok(chunks.to_vec()) }
}

/// A value of strings with a length before each, none of them empty, at least one.
fn strings(mut value: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut strings = Vec::new();
    while let Some((length, rest)) = value.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Malformed)?;
        if string.is_empty() {
            return Err(Malformed);
        }
        strings.push(string.to_vec());
        value = rest;
    }
    if strings.is_empty() { Err(Malformed) } else { Ok(strings) }
}

fn text(message: &[u8], start: usize) -> Result<String, Malformed> {
    let mut text = String::with_capacity(NAME_MAX);
    name_to_text(message, start, &mut text).ok_or(Malformed)?;
    Ok(bare(&text))
}

/// Lower case and without the final dot; empty for the root.
fn bare(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Aliases in one answer that are followed.
const ALIASES_MAX: usize = 8;

// Section 14.3.2, and RFC 9461 section 5 for the last.
const KEY_MANDATORY: u16 = 0;
const KEY_ALPN: u16 = 1;
const KEY_NO_DEFAULT_ALPN: u16 = 2;
const KEY_PORT: u16 = 3;
const KEY_IPV4HINT: u16 = 4;
const KEY_ECH: u16 = 5;
const KEY_IPV6HINT: u16 = 6;
const KEY_DOHPATH: u16 = 7;

#[cfg(test)]
mod tests;
