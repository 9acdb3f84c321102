//! TLS and HTTP/2 profiles as data: what a browser's hello and preface look like, field by field.
//!
//! The data are JSON files under `profiles/`; here are their types. What is deliberately not here: how a hello is made (`tls`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod builtin;
pub mod capture;
pub mod code;
pub mod diff;
mod expected;
mod fields;
mod fingerprint;
pub mod hello;
mod learn;
pub(crate) mod limits;
pub mod preface;
pub(crate) mod read;
mod reference;

pub use builtin::UnknownProfile;
pub use fields::Fields;
pub use learn::LearnError;
pub use read::ProfileError;

/// How connections look to the server: TLS hello, HTTP/2 preface and default headers.
///
/// Code points are written as four hexadecimal digits in lower case (`"1301"`), or as `"GREASE"` (RFC 8701) where the browser puts a
/// reserved value of its choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `chrome`, `firefox`, `safari`, `plain`, or a name of one's own.
    pub name: String,
    /// The browser's major version, such as `156`; empty for `plain`.
    pub version: String,
    /// What it was captured from.
    pub source: String,
    /// The hello; `None` leaves it to rustls.
    pub tls: Option<TlsProfile>,
    /// The preface; `None` leaves it to the HTTP/2 library.
    pub http2: Option<Http2Profile>,
    /// Headers that a request gets where it lacks them, in the browser's order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// What a connection made from this profile is known to differ in from the browser; empty: nothing.
    #[serde(default)]
    pub differs: Vec<String>,
}

/// A ClientHello (RFC 8446 section 4.1.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsProfile {
    /// Cipher suites in order.
    pub ciphers: Vec<String>,
    /// Named groups in order (RFC 8446 section 4.2.7).
    pub groups: Vec<String>,
    /// Groups that key shares are sent for, in order; a subset of `groups`.
    pub key_shares: Vec<String>,
    /// Signature algorithms in order (section 4.2.3).
    pub signature_algorithms: Vec<String>,
    /// Versions in order (section 4.2.1), such as `"0304"`.
    pub versions: Vec<String>,
    /// Extensions in the order sent; with `permute_extensions` only the set counts. Code points.
    pub extensions: Vec<String>,
    /// Whether the order of extensions is drawn anew for each connection, as Chromium does.
    pub permute_extensions: bool,
    /// Whether reserved values are sent among ciphers, groups, versions and extensions (RFC 8701).
    pub grease: bool,
    /// Application protocols in order.
    pub alpn: Vec<String>,
    /// Protocols with application-layer settings (ALPS, draft-vvv-tls-alps), and whether at the newer code point 17613.
    pub application_settings: Option<ApplicationSettings>,
    /// Certificate compression algorithms in order (RFC 8879): `brotli`, `zlib`, `zstd`.
    pub certificate_compression: Vec<String>,
    /// Whether an encrypted client hello is imitated with random bytes (RFC 9849 section 6.2).
    pub ech_grease: bool,
    /// Trust anchor identifiers that are asked for (draft-ietf-tls-trust-anchor-ids), the extension's inner list as hexadecimal; `None`
    /// sends no such extension.
    pub trust_anchors: Option<String>,
    /// Algorithms for delegated credentials (RFC 9345).
    #[serde(default)]
    pub delegated_credentials: Option<Vec<String>>,
    /// Record size limit (RFC 8449).
    #[serde(default)]
    pub record_size_limit: Option<u16>,
    /// Whether sessions are resumed (tickets).
    pub resumption: bool,
}

/// Application-layer settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSettings {
    /// Protocols, such as `h2`.
    pub protocols: Vec<String>,
    /// Whether code point 17613 is used instead of 17513.
    pub new_codepoint: bool,
}

/// The HTTP/2 preface and what shapes the requests after it (RFC 9113 sections 3.4, 6.5, 8.3.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Profile {
    /// SETTINGS in order: identifier and value.
    pub settings: Vec<(u16, u32)>,
    /// Increment of the connection's window after them; 0 sends none.
    pub window_update: u32,
    /// Order of pseudo-headers, such as `m,a,s,p`.
    pub pseudo_order: String,
    /// Priority sent with the first HEADERS, none where the browser sends none.
    pub headers_priority: Option<HeadersPriority>,
    /// PRIORITY frames sent before the first request.
    #[serde(default)]
    pub priority_frames: Vec<PriorityFrame>,
    /// The first stream's identifier; odd.
    pub first_stream: u32,
}

/// Priority in a HEADERS frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadersPriority {
    /// Whether the dependency is exclusive.
    pub exclusive: bool,
    /// The stream it depends on.
    pub depends_on: u32,
    /// Weight, 1 to 256.
    pub weight: u16,
}

/// A PRIORITY frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorityFrame {
    /// The stream it is about.
    pub stream: u32,
    /// The rest of it.
    pub priority: HeadersPriority,
}

impl Profile {
    /// rustls with its own hello and the HTTP/2 library with its own preface: no browser, and needs no BoringSSL.
    pub fn plain() -> Arc<Profile> {
        Arc::new(Profile {
            name: "plain".to_owned(),
            version: String::new(),
            source: "rustls".to_owned(),
            tls: None,
            http2: None,
            headers: Vec::new(),
            differs: Vec::new(),
        })
    }

    /// `chrome@156`, or `plain`.
    pub fn label(&self) -> String {
        match self.version.as_str() {
            "" => self.name.clone(),
            version => format!("{}@{version}", self.name),
        }
    }
}

/// Bytes as hexadecimal, lower case.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
