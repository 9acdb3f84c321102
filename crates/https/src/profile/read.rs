//! Profiles from JSON, checked field by field.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use http::{HeaderName, HeaderValue};

use super::{Http2Profile, PriorityFrame, Profile, TlsProfile, limits::GREASE};

impl Profile {
    /// Reads a profile of one's own.
    ///
    /// # Errors
    /// When the text is not JSON of this shape (with line and column), or a field has a value that cannot be sent.
    pub fn from_json(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile = serde_json::from_str(text).map_err(|error| ProfileError::new("", error.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    /// Reads a profile from a file of up to 1 MiB.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json) has them, and when the file cannot be read; they name the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Profile, ProfileError> {
        let path = path.as_ref();
        let at = |error: ProfileError| ProfileError { path: Some(path.to_owned()), ..error };
        let text = read_file(path).map_err(|error| at(ProfileError::new("", error.to_string().to_lowercase())))?;
        Profile::from_json(&text).map_err(at)
    }

    fn check(&self) -> Result<(), ProfileError> {
        if self.name.is_empty() || self.name.contains(['@', ' ']) {
            return Err(ProfileError::new("name", "expected a name without '@' and spaces"));
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        if let Some(http2) = &self.http2 {
            http2.check()?;
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            let lower = name.bytes().all(|byte| !byte.is_ascii_uppercase());
            if !lower || HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                let text = format!("{name:?} is not a header that can be sent, with its name in lower case");
                return Err(ProfileError::new(format!("headers[{index}]"), text));
            }
        }
        Ok(())
    }
}

impl TlsProfile {
    fn check(&self) -> Result<(), ProfileError> {
        let lists = [
            ("ciphers", &self.ciphers),
            ("groups", &self.groups),
            ("key_shares", &self.key_shares),
            ("signature_algorithms", &self.signature_algorithms),
            ("versions", &self.versions),
            ("extensions", &self.extensions),
        ];
        for (field, codes) in lists {
            check_codes(field, codes)?;
        }
        check_codes("delegated_credentials", self.delegated_credentials.as_deref().unwrap_or_default())?;
        self.check_versions()?;
        self.check_key_shares()?;
        self.check_protocols()?;
        self.check_names()
    }

    fn check_versions(&self) -> Result<(), ProfileError> {
        if self.versions.iter().any(|version| version == "0304" || version == "0303") {
            return Ok(());
        }
        Err(ProfileError::new("tls.versions", "expected \"0304\" (TLS 1.3), \"0303\" (TLS 1.2) or both"))
    }

    fn check_key_shares(&self) -> Result<(), ProfileError> {
        let mut groups = self.groups.iter();
        for (index, share) in self.key_shares.iter().enumerate() {
            if !groups.any(|group| group == share) {
                let text = format!("\"{share}\" is not among tls.groups, or not in their order");
                return Err(ProfileError::new(format!("tls.key_shares[{index}]"), text));
            }
        }
        Ok(())
    }

    fn check_protocols(&self) -> Result<(), ProfileError> {
        for (index, protocol) in self.alpn.iter().enumerate() {
            if !["h2", "http/1.1"].contains(&protocol.as_str()) {
                let text = format!("\"{protocol}\" is not spoken here: expected \"h2\" or \"http/1.1\"");
                return Err(ProfileError::new(format!("tls.alpn[{index}]"), text));
            }
        }
        if self.alpn.is_empty() {
            return Err(ProfileError::new("tls.alpn", "expected \"h2\", \"http/1.1\" or both"));
        }
        for protocol in self.application_settings.iter().flat_map(|settings| &settings.protocols) {
            if !self.alpn.contains(protocol) {
                let text = format!("\"{protocol}\" is not among tls.alpn");
                return Err(ProfileError::new("tls.application_settings.protocols", text));
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ProfileError> {
        for (index, name) in self.certificate_compression.iter().enumerate() {
            if !["brotli", "zlib", "zstd"].contains(&name.as_str()) {
                let text = format!("\"{name}\" is not known: expected \"brotli\", \"zlib\" or \"zstd\"");
                return Err(ProfileError::new(format!("tls.certificate_compression[{index}]"), text));
            }
        }
        match &self.trust_anchors {
            Some(hex) if !decode_hex(hex).is_some_and(|bytes| is_identifiers(&bytes)) => {
                let text = "expected hexadecimal digits: identifiers, each after a byte of length";
                Err(ProfileError::new("tls.trust_anchors", text))
            }
            _ => Ok(()),
        }
    }
}

impl Http2Profile {
    fn check(&self) -> Result<(), ProfileError> {
        self.check_settings()?;
        if self.window_update > WINDOW_MAX - WINDOW_DEFAULT {
            return Err(ProfileError::new("http2.window_update", "the window is above 2147483647 bytes with it"));
        }
        let mut pseudo: Vec<&str> = self.pseudo_order.split(',').collect();
        pseudo.sort_unstable();
        if pseudo != ["a", "m", "p", "s"] {
            return Err(ProfileError::new(
                "http2.pseudo_order",
                "expected m, a, s and p in some order, such as \"m,a,s,p\"",
            ));
        }
        if self.first_stream.is_multiple_of(2) || self.first_stream > 1 << 16 {
            return Err(ProfileError::new("http2.first_stream", "expected an odd number up to 65535"));
        }
        let headers =
            self.headers_priority.iter().map(|priority| ("http2.headers_priority".to_owned(), None, priority));
        let frames = self.priority_frames.iter().enumerate();
        let frames = frames.map(|(index, PriorityFrame { stream, priority })| {
            (format!("http2.priority_frames[{index}]"), Some(*stream), priority)
        });
        for (field, stream, priority) in headers.chain(frames) {
            if !(1..=256).contains(&priority.weight) {
                return Err(ProfileError::new(field, "expected a weight of 1 to 256"));
            }
            let streams = [stream.unwrap_or(1), priority.depends_on.max(1)];
            if streams.iter().any(|stream| !(1..=WINDOW_MAX).contains(stream)) {
                return Err(ProfileError::new(field, "expected streams of 1 to 2147483647"));
            }
        }
        Ok(())
    }

    /// RFC 9113 section 6.5.2, and what the HTTP/2 library can send.
    fn check_settings(&self) -> Result<(), ProfileError> {
        for (index, (id, value)) in self.settings.iter().enumerate() {
            let accepted = match id {
                1 => 0..=HEADER_TABLE_MAX,
                2 => 0..=0,
                4 => 0..=WINDOW_MAX,
                5 => 16_384..=16_777_215,
                8 | 9 => 0..=1,
                3 | 6 | 7 | 10..=15 => 0..=u32::MAX,
                _ => {
                    let text = format!("setting {id} cannot be sent: expected 1 to 15");
                    return Err(ProfileError::new(format!("http2.settings[{index}]"), text));
                }
            };
            if !accepted.contains(value) {
                let text = format!("setting {id} is {value}: expected {} to {}", accepted.start(), accepted.end());
                return Err(ProfileError::new(format!("http2.settings[{index}]"), text));
            }
            if self.settings[..index].iter().any(|(earlier, _)| earlier == id) {
                let text = format!("setting {id} is there twice");
                return Err(ProfileError::new(format!("http2.settings[{index}]"), text));
            }
        }
        Ok(())
    }
}

/// Why a profile could not be read: the file where there is one, the field, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    path: Option<PathBuf>,
    field: String,
    text: String,
}

impl ProfileError {
    fn new(field: impl Into<String>, text: impl Into<String>) -> ProfileError {
        ProfileError { path: None, field: field.into(), text: text.into() }
    }

    /// The field at fault, such as `tls.ciphers[2]`; empty when the text as a whole could not be read.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The file at fault, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("profile")?;
        if let Some(path) = &self.path {
            write!(f, " from {}", path.display())?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for ProfileError {}

/// The value of four hexadecimal digits in lower case; none for `GREASE` and all else.
pub(crate) fn code_point(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == 4 && digits { u16::from_str_radix(text, 16).ok() } else { None }
}

/// Bytes from hexadecimal digits.
pub(crate) fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

fn check_codes(field: &str, codes: &[String]) -> Result<(), ProfileError> {
    let wrong = |code: &&String| *code != GREASE && code_point(code).is_none();
    let Some((index, code)) = codes.iter().enumerate().find(|(_, code)| wrong(code)) else { return Ok(()) };
    let text = format!(
        "{code:?} is not a code point: expected four hexadecimal digits in lower case, such as \"1301\", or \"GREASE\""
    );
    Err(ProfileError::new(format!("tls.{field}[{index}]"), text))
}

/// Whether `bytes` are identifiers that are not empty, each after a byte of length.
fn is_identifiers(mut bytes: &[u8]) -> bool {
    while let Some((length, rest)) = bytes.split_first() {
        let length = usize::from(*length);
        if length == 0 || length > rest.len() {
            return false;
        }
        bytes = &rest[length..];
    }
    true
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

const FILE_MAX: u64 = 1 << 20;

/// RFC 9113 section 6.9.1.
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;

/// RFC 9113 section 6.9.2.
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;

/// A table of our own for what the peer sends, so a limit of ours: browsers have 64 KiB.
const HEADER_TABLE_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests;
