//! The fields by which clients are compared, each with all the values that samples of it had.
//!
//! What a browser varies by itself (the order of extensions, the length of an imitated ECH, the weight in HEADERS) has several
//! values; reserved values are all alike ([`Code`](super::code::Code)).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Profile,
    capture::{Capture, Captures},
    code::{Code, compression_name, extension_name, group_name},
    hello::{Content, Extension},
    preface::Preface,
};

/// What is known of a client, field by field.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// Connections that it is known from; 0 for a profile, which is not a sample but a rule.
    pub samples: usize,
    /// Whether the order of extensions is drawn anew for each connection; `None` where one sample cannot tell.
    pub permutes: Option<bool>,
    values: Vec<(&'static str, BTreeSet<String>)>,
}

impl Fields {
    /// The fields of connections, of which none or all should resume: resumption changes the hello.
    pub fn of_captures<'a>(captures: impl IntoIterator<Item = &'a Capture>) -> Fields {
        let mut fields = Fields { samples: 0, permutes: None, values: Vec::new() };
        for capture in captures {
            fields.samples += 1;
            for (name, value) in fields_of(capture) {
                fields.add(name, &value);
            }
        }
        fields.permutes = match (fields.samples, fields.values(EXTENSION_ORDER).len()) {
            (_, 2..) => Some(true),
            (2.., 1) => Some(false),
            _ => None,
        };
        fields
    }

    /// The fields that a profile decides; `None` for one that leaves the hello to rustls.
    pub fn of_profile(profile: &Profile) -> Option<Fields> {
        let expected = profile.expected()?;
        let mut fields = Fields::of_captures([&expected]);
        fields.samples = 0;
        fields.permutes = profile.tls.as_ref().map(|tls| tls.permute_extensions);
        let lacks_lengths = expected.hello.key_shares().iter().any(|share| share.length == 0);
        fields.values.retain(|(name, _)| match *name {
            "key_shares" => !lacks_lengths,
            name if name.starts_with("header_") => !profile.headers.is_empty(),
            name => !UNDECIDED.contains(&name),
        });
        Some(fields)
    }

    /// Names of the fields in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.iter().map(|(name, _)| *name)
    }

    /// The values that a field had, as JSON; none where no sample has the field.
    pub fn values(&self, name: &str) -> Vec<Value> {
        let texts = self.texts(name).into_iter().flatten();
        texts.filter_map(|text| serde_json::from_str(text).ok()).collect()
    }

    /// The values that a field had, as JSON text.
    pub(super) fn texts(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, values)| values)
    }

    fn add(&mut self, name: &'static str, value: &Value) {
        let value = value.to_string();
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => drop(values.insert(value)),
            None => self.values.push((name, BTreeSet::from([value]))),
        }
    }
}

/// The captures of a client, apart as full and resuming ones.
impl Captures {
    /// The fields of full hellos; `None` without any.
    pub fn fields(&self) -> Option<Fields> {
        Some(Fields::of_captures(self.full())).filter(|fields| fields.samples > 0)
    }

    /// The fields of hellos that resume; `None` without any.
    pub fn resuming_fields(&self) -> Option<Fields> {
        Some(Fields::of_captures(self.resuming())).filter(|fields| fields.samples > 0)
    }
}

/// The order of extensions, which is compared as [`diff`](super::diff) says.
pub(super) const EXTENSION_ORDER: &str = "extension_order";

/// Whether a field says something of the kind of request, not of the connection.
pub(super) fn is_of_request(name: &str) -> bool {
    name.starts_with("header_") || name == "h2_headers_priority"
}

/// What a profile leaves to the TLS library, which does it as the browsers do, and what is random.
const UNDECIDED: [&str; 6] =
    ["record_version", "records", "legacy_version", "session_id_length", "ech_grease", "ech_payload_length"];

fn fields_of(capture: &Capture) -> Vec<(&'static str, Value)> {
    let mut fields = tls_fields(capture);
    if capture.is_resuming() {
        fields.extend(resumption_fields(capture));
    }
    if let Some(preface) = &capture.preface {
        fields.extend(http2_fields(preface));
    }
    fields
}

fn tls_fields(capture: &Capture) -> Vec<(&'static str, Value)> {
    let hello = &capture.hello;
    let of = |code| hello.extension(code).map_or(Value::Null, content);
    let has = |code| hello.extension(code).is_some();
    let order: Vec<String> = hello.extensions.iter().map(|extension| extension_name(extension.code)).collect();
    let fixed = |extension: &&Extension| !CONDITIONAL.contains(&extension.code);
    let mut set: Vec<String> =
        hello.extensions.iter().filter(fixed).map(|extension| extension_name(extension.code)).collect();
    set.sort_unstable();
    let grease = hello.extensions.iter().filter(|extension| extension.code.is_grease());
    let (ech, ech_payload) = ech(hello.extension(Extension::ENCRYPTED_CLIENT_HELLO));
    vec![
        ("record_version", json!(capture.records.first().map(|record| record.version))),
        ("records", json!(capture.records.len())),
        ("legacy_version", json!(hello.legacy_version)),
        ("session_id_length", json!(hello.session_id_length)),
        ("ciphers", json!(hello.ciphers)),
        ("extensions", json!(set)),
        (EXTENSION_ORDER, json!(order)),
        ("padding", json!(has(Extension::PADDING))),
        ("groups", of(Extension::SUPPORTED_GROUPS)),
        ("key_shares", of(Extension::KEY_SHARE)),
        ("signature_algorithms", of(Extension::SIGNATURE_ALGORITHMS)),
        ("versions", of(Extension::SUPPORTED_VERSIONS)),
        ("alpn", of(Extension::ALPN)),
        ("alps", of(Extension::ALPS)),
        ("alps_old", of(Extension::ALPS_OLD)),
        ("certificate_compression", of(Extension::COMPRESS_CERTIFICATE)),
        ("psk_modes", of(Extension::PSK_KEY_EXCHANGE_MODES)),
        ("trust_anchors", of(Extension::TRUST_ANCHORS)),
        ("ech_grease", ech),
        ("ech_payload_length", ech_payload),
        ("delegated_credentials", of(Extension::DELEGATED_CREDENTIAL)),
        ("record_size_limit", of(Extension::RECORD_SIZE_LIMIT)),
        ("point_formats", of(Extension::EC_POINT_FORMATS)),
        ("status_request", of(Extension::STATUS_REQUEST)),
        ("grease_extensions", grease.map(|extension| content(&extension.content)).collect()),
        ("ja4", json!(hello.ja4())),
    ]
}

fn resumption_fields(capture: &Capture) -> Vec<(&'static str, Value)> {
    let hello = &capture.hello;
    let last = hello.extensions.last().map(|extension| extension_name(extension.code));
    let (identities, binders) = match hello.extension(Extension::PRE_SHARED_KEY) {
        Some(Content::PreSharedKey { identities, binders }) => (identities.len(), binders.clone()),
        _ => (0, Vec::new()),
    };
    vec![
        ("early_data", json!(hello.extension(Extension::EARLY_DATA).is_some())),
        ("psk_identities", json!(identities)),
        ("psk_binders", json!(binders)),
        ("last_extension", json!(last)),
    ]
}

fn http2_fields(preface: &Preface) -> Vec<(&'static str, Value)> {
    let frames =
        preface.frames.iter().map(|frame| format!("{}({}, flags {:02x})", frame.kind, frame.stream, frame.flags));
    let mut frames: Vec<String> = frames.collect();
    // Whether the server's SETTINGS come in time to be taken before the first request is no trait of the client.
    if frames.len() > 2 && frames[frames.len() - 2] == SETTINGS_ACK {
        frames.remove(frames.len() - 2);
    }
    let order: Vec<&str> = preface.headers.iter().map(|(name, _)| name.as_str()).collect();
    let header = |name| json!(preface.header(name));
    vec![
        ("h2_settings", json!(preface.settings)),
        ("h2_window_update", json!(preface.window_update)),
        ("h2_priority_frames", json!(preface.priority_frames)),
        ("h2_pseudo_order", json!(preface.pseudo_order())),
        ("h2_headers_priority", json!(preface.headers_priority)),
        ("h2_first_stream", json!(preface.first_stream)),
        ("h2_frames", json!(frames)),
        ("h2_akamai", json!(preface.akamai())),
        ("header_order", json!(order)),
        ("header_accept", header("accept")),
        ("header_accept_encoding", header("accept-encoding")),
        ("header_accept_language", header("accept-language")),
        ("header_sec_ch_ua", header("sec-ch-ua")),
        ("header_priority", header("priority")),
    ]
}

/// A SETTINGS frame that takes the other side's.
const SETTINGS_ACK: &str = "SETTINGS(0, flags 01)";

/// Extensions that are there or not by the circumstances of a connection.
pub(super) const CONDITIONAL: [Code; 3] = [Extension::PRE_SHARED_KEY, Extension::EARLY_DATA, Extension::PADDING];

/// What an imitated ECH shows, and the length of its payload.
fn ech(found: Option<&Content>) -> (Value, Value) {
    match found {
        Some(Content::EncryptedClientHello { kdf, aead, enc_length, payload_length }) => {
            (json!({ "kdf": kdf, "aead": aead, "enc_length": enc_length }), json!(payload_length))
        }
        Some(other) => (content(other), Value::Null),
        None => (Value::Null, Value::Null),
    }
}

/// What an extension says, in words where there are some.
fn content(said: &Content) -> Value {
    match said {
        Content::ServerName(name) => json!(name),
        Content::SupportedGroups(groups) => groups.iter().copied().map(group_name).collect(),
        Content::EcPointFormats(bytes) | Content::PskKeyExchangeModes(bytes) => json!(bytes),
        Content::SignatureAlgorithms(codes)
        | Content::SignatureAlgorithmsCert(codes)
        | Content::DelegatedCredential(codes)
        | Content::SupportedVersions(codes) => json!(codes),
        Content::Alpn(protocols) | Content::ApplicationSettings(protocols) => json!(protocols),
        Content::CompressCertificate(codes) => codes.iter().copied().map(compression_name).collect(),
        Content::RecordSizeLimit(limit) => json!(limit),
        Content::KeyShare(shares) => {
            shares.iter().map(|share| format!("{} ({})", group_name(share.group), share.length)).collect()
        }
        Content::SessionTicket(length) | Content::Padding(length) => json!(length),
        Content::PreSharedKey { identities, binders } => json!({ "identities": identities, "binders": binders }),
        Content::EncryptedClientHello { .. } => ech(Some(said)).0,
        Content::TrustAnchors(hex) | Content::Bytes(hex) => json!(hex),
    }
}
