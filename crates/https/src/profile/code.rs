//! Code points of TLS as profiles and captures write them: four hexadecimal digits, or `GREASE`.
//!
//! What is deliberately not here: which reserved value a browser drew. It is random, so nothing may depend on it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A 16-bit code point (cipher suite, group, version, extension, algorithm); reserved values (RFC 8701) are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A reserved value.
    Grease,
    /// A value that means something.
    Value(u16),
}

impl Code {
    /// The value; `None` for reserved ones.
    pub fn value(self) -> Option<u16> {
        match self {
            Code::Grease => None,
            Code::Value(value) => Some(value),
        }
    }

    /// Whether it is a reserved value.
    pub fn is_grease(self) -> bool {
        self == Code::Grease
    }
}

impl From<u16> for Code {
    fn from(value: u16) -> Code {
        // RFC 8701 section 2: 0x0A0A, 0x1A1A, .. 0xFAFA.
        let [high, low] = value.to_be_bytes();
        if high == low && low & 0x0f == 0x0a { Code::Grease } else { Code::Value(value) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Grease => f.write_str(GREASE),
            Code::Value(value) => write!(f, "{value:04x}"),
        }
    }
}

/// The text is neither four hexadecimal digits nor `GREASE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeError(String);

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no code point; accepted: four hexadecimal digits such as \"1301\", or \"GREASE\"", self.0)
    }
}

impl std::error::Error for CodeError {}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Code, CodeError> {
        let is_hex = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text {
            GREASE => Ok(Code::Grease),
            _ if is_hex => u16::from_str_radix(text, 16).map(Code::from).map_err(|_| CodeError(text.to_owned())),
            _ => Err(CodeError(text.chars().take(MAX_SHOWN).collect())),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The name of an extension (IANA's, or that of the draft), such as `server_name`; code points without one as [`Code`] writes them.
pub fn extension_name(code: Code) -> String {
    known_name(code).map_or_else(|| code.to_string(), str::to_owned)
}

/// The name of an extension that has one here.
pub(super) fn known_name(code: Code) -> Option<&'static str> {
    let value = code.value()?;
    EXTENSIONS.iter().find(|(known, _)| *known == value).map(|(_, name)| *name)
}

/// The name of a group, such as `x25519`; code points without one as [`Code`] writes them.
pub fn group_name(code: Code) -> String {
    let known = code.value().and_then(|value| GROUPS.iter().find(|(known, ..)| *known == value));
    known.map_or_else(|| code.to_string(), |(_, name, _)| (*name).to_owned())
}

/// The length of a client's key share of a group, in bytes; `None` where it is not known here. A reserved group has one byte in
/// browsers.
pub fn key_share_length(code: Code) -> Option<u16> {
    match code {
        Code::Grease => Some(1),
        Code::Value(value) => GROUPS.iter().find(|(known, ..)| *known == value).map(|(.., length)| *length),
    }
}

/// The name of a certificate compression algorithm (RFC 8879 section 7.3).
pub fn compression_name(code: Code) -> String {
    match code {
        Code::Value(1) => "zlib".to_owned(),
        Code::Value(2) => "brotli".to_owned(),
        Code::Value(3) => "zstd".to_owned(),
        other => other.to_string(),
    }
}

/// The certificate compression algorithm of that name, or code point.
pub fn compression_code(name: &str) -> Result<Code, CodeError> {
    match name {
        "zlib" => Ok(Code::Value(1)),
        "brotli" => Ok(Code::Value(2)),
        "zstd" => Ok(Code::Value(3)),
        other => other.parse(),
    }
}

const GREASE: &str = "GREASE";

/// How much of a wrong text an error shows.
const MAX_SHOWN: usize = 32;

const EXTENSIONS: [(u16, &str); 29] = [
    (0, "server_name"),
    (1, "max_fragment_length"),
    (5, "status_request"),
    (10, "supported_groups"),
    (11, "ec_point_formats"),
    (13, "signature_algorithms"),
    (16, "alpn"),
    (17, "status_request_v2"),
    (18, "sct"),
    (21, "padding"),
    (22, "encrypt_then_mac"),
    (23, "extended_master_secret"),
    (27, "compress_certificate"),
    (28, "record_size_limit"),
    (34, "delegated_credential"),
    (35, "session_ticket"),
    (41, "pre_shared_key"),
    (42, "early_data"),
    (43, "supported_versions"),
    (44, "cookie"),
    (45, "psk_key_exchange_modes"),
    (49, "post_handshake_auth"),
    (50, "signature_algorithms_cert"),
    (51, "key_share"),
    (17513, "alps_old"),
    (17613, "alps"),
    (0xca34, "trust_anchors"),
    (0xfe0d, "encrypted_client_hello"),
    (0xff01, "renegotiation_info"),
];

/// Code point, name, bytes of a client's share.
const GROUPS: [(u16, &str, u16); 14] = [
    (0x0017, "p256", 65),
    (0x0018, "p384", 97),
    (0x0019, "p521", 133),
    (0x001d, "x25519", 32),
    (0x001e, "x448", 56),
    (0x0100, "ffdhe2048", 256),
    (0x0101, "ffdhe3072", 384),
    (0x0102, "ffdhe4096", 512),
    (0x0200, "MLKEM512", 800),
    (0x0201, "MLKEM768", 1184),
    (0x0202, "MLKEM1024", 1568),
    (0x11eb, "SecP256r1MLKEM768", 1249),
    (0x11ec, "X25519MLKEM768", 1216),
    (0x6399, "X25519Kyber768Draft00", 1216),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixteen_reserved_values_are_alike_and_no_other_is_one_of_them() {
        let reserved: Vec<u16> = (0..=u16::MAX).filter(|value| Code::from(*value).is_grease()).collect();
        assert_eq!(reserved, (0..16).map(|nibble| 0x0a0a + nibble * 0x1010).collect::<Vec<u16>>());
    }

    #[test]
    fn a_code_point_is_written_as_it_is_read() {
        for text in ["1301", "GREASE", "00ff"] {
            assert_eq!(text.parse::<Code>().unwrap().to_string(), text);
        }
        assert_eq!("4A4A".parse::<Code>(), Ok(Code::Grease), "a reserved value is none that one could ask for");
        for text in ["", "13", "13011", "+130", "grease", "130g"] {
            assert!(text.parse::<Code>().is_err(), "{text:?}");
        }
    }
}
