//! Short names of a hello and a preface, as others compute them: JA3, JA4 and Akamai's HTTP/2 string.
//!
//! They are for comparing with the world's databases. Between two captures [`diff`](super::diff) says more: a fingerprint leaves
//! out key shares, GREASE, compression and the order of half of what there is.

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};

use super::{
    code::Code,
    hello::{Extension, Hello},
    hex,
    preface::Preface,
};

impl Hello {
    /// JA3 before it is hashed: version, ciphers, extensions, groups and formats of points, in decimal and in order, without
    /// reserved values (github.com/salesforce/ja3).
    pub fn ja3(&self) -> String {
        self.ja3_of(&self.extension_values())
    }

    /// MD5 of [`ja3`](Self::ja3) as hexadecimal. It differs from connection to connection where extensions are permuted.
    pub fn ja3_hash(&self) -> String {
        hex(&Md5::digest(self.ja3()))
    }

    /// MD5 of JA3 with the extensions sorted, as hexadecimal: the same for all connections of a browser that permutes them.
    pub fn ja3n_hash(&self) -> String {
        let mut extensions = self.extension_values();
        extensions.sort_unstable();
        hex(&Md5::digest(self.ja3_of(&extensions)))
    }

    /// JA4 over TCP (github.com/FoxIO-LLC/ja4, technical_details/JA4.md), such as `t13d1517h2_8daaf6152771_cb7bf5808d99`.
    pub fn ja4(&self) -> String {
        let extensions = self.ja4_extensions();
        format!("{}_{}_{}", self.ja4_counts(), ja4_hash(&self.ja4_ciphers()), ja4_hash(&extensions))
    }

    /// JA4 before its parts are hashed.
    pub fn ja4_r(&self) -> String {
        format!("{}_{}_{}", self.ja4_counts(), self.ja4_ciphers(), self.ja4_extensions())
    }

    fn ja3_of(&self, extensions: &[u16]) -> String {
        let version = self.legacy_version.value().unwrap_or_default();
        let formats = self.point_formats().iter().map(u8::to_string).collect::<Vec<String>>().join("-");
        let [ciphers, groups] = [&self.ciphers, self.groups()].map(|codes| decimal(&values(codes)));
        format!("{version},{ciphers},{},{groups},{formats}", decimal(extensions))
    }

    /// The part that can be read: `t13d1517h2`.
    fn ja4_counts(&self) -> String {
        let version = values(self.versions()).into_iter().max().or(self.legacy_version.value());
        let version = match version.unwrap_or_default() {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let name = if self.extension(Extension::SERVER_NAME).is_some() { 'd' } else { 'i' };
        let ciphers = values(&self.ciphers).len().min(COUNT_MAX);
        let extensions = self.extension_values().len().min(COUNT_MAX);
        format!("t{version}{name}{ciphers:02}{extensions:02}{}", ja4_alpn(self.alpn()))
    }

    fn ja4_ciphers(&self) -> String {
        let mut ciphers = values(&self.ciphers);
        ciphers.sort_unstable();
        hexadecimal(&ciphers)
    }

    /// Extensions sorted, without those whose presence depends on the site, then signature algorithms in order.
    fn ja4_extensions(&self) -> String {
        let mut extensions = self.extension_values();
        extensions.retain(|value| ![Extension::SERVER_NAME, Extension::ALPN].contains(&Code::Value(*value)));
        extensions.sort_unstable();
        let algorithms = values(self.signature_algorithms());
        let extensions = hexadecimal(&extensions);
        if algorithms.is_empty() { extensions } else { format!("{extensions}_{}", hexadecimal(&algorithms)) }
    }

    fn extension_values(&self) -> Vec<u16> {
        self.extensions.iter().filter_map(|extension| extension.code.value()).collect()
    }
}

impl Preface {
    /// Akamai's string of an HTTP/2 client: settings, window, PRIORITY frames and order of pseudo-headers, such as
    /// `1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p` (Shuster et al., Passive Fingerprinting of HTTP/2 Clients, 2017).
    pub fn akamai(&self) -> String {
        let settings = self.settings.iter().map(|(id, value)| format!("{id}:{value}"));
        let settings = settings.collect::<Vec<String>>().join(";");
        let window = self.window_update.map_or_else(|| "00".to_owned(), |increment| increment.to_string());
        let priorities = self.priority_frames.iter().map(|frame| {
            let priority = frame.priority;
            format!("{}:{}:{}:{}", frame.stream, u8::from(priority.exclusive), priority.depends_on, priority.weight)
        });
        let priorities = Some(priorities.collect::<Vec<String>>().join(",")).filter(|text| !text.is_empty());
        format!("{settings}|{window}|{}|{}", priorities.as_deref().unwrap_or("0"), self.pseudo_order())
    }

    /// MD5 of [`akamai`](Self::akamai) as hexadecimal.
    pub fn akamai_hash(&self) -> String {
        hex(&Md5::digest(self.akamai()))
    }
}

/// First and last character of the first protocol; of its hexadecimal form where one of them is neither letter nor digit.
fn ja4_alpn(protocols: &[String]) -> String {
    let Some(protocol) = protocols.first() else { return "00".to_owned() };
    let ends = |text: &str| text.chars().next().zip(text.chars().last());
    match ends(protocol) {
        None => "00".to_owned(),
        Some((first, last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            format!("{first}{last}")
        }
        Some(_) => {
            let bytes: String = protocol.chars().map(|byte| format!("{:02x}", u32::from(byte))).collect();
            ends(&bytes).map(|(first, last)| format!("{first}{last}")).unwrap_or_default()
        }
    }
}

/// The first twelve digits of SHA-256.
fn ja4_hash(text: &str) -> String {
    match text {
        "" => "0".repeat(JA4_DIGITS),
        text => hex(&digest(&SHA256, text.as_bytes()).as_ref()[..JA4_DIGITS / 2]),
    }
}

/// Code points without reserved ones.
fn values(codes: &[Code]) -> Vec<u16> {
    codes.iter().filter_map(|code| code.value()).collect()
}

fn decimal(values: &[u16]) -> String {
    values.iter().map(u16::to_string).collect::<Vec<String>>().join("-")
}

fn hexadecimal(values: &[u16]) -> String {
    values.iter().map(|value| format!("{value:04x}")).collect::<Vec<String>>().join(",")
}

/// JA4 has two digits for a count.
const COUNT_MAX: usize = 99;

/// Digits of a hash in JA4.
const JA4_DIGITS: usize = 12;
