//! A profile from captures of a browser: what its connections have in common becomes the rule.

use std::{collections::BTreeSet, fmt};

use super::{
    ApplicationSettings, Http2Profile, Profile, TlsProfile,
    capture::Capture,
    code::{Code, compression_name},
    fields::CONDITIONAL,
    hello::{Content, Extension, Hello},
    preface::Preface,
};

/// Captures that make no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnError {
    /// All hellos resume a session; one that does not is needed.
    NoFullHello,
    /// The hellos differ in more than what browsers vary: they are of several clients.
    SeveralClients,
}

impl fmt::Display for LearnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LearnError::NoFullHello => "no hello without a session to resume was captured; start the browser anew",
            LearnError::SeveralClients => "the hellos are of several clients; capture one alone",
        })
    }
}

impl std::error::Error for LearnError {}

impl Profile {
    /// A profile that looks like what was captured. `name` and `version` are what the profile is to be called, such as `chrome` and
    /// `156`; `source` says what was captured.
    ///
    /// Headers are those of the first navigation, without what belongs to that one request. `differs` gets what cannot be sent
    /// ([`unsent`](Self::unsent)).
    ///
    /// # Errors
    /// When no capture has a full hello, or the full hellos are not of one client.
    pub fn from_captures(name: &str, version: &str, source: &str, captures: &[Capture]) -> Result<Profile, LearnError> {
        let full: Vec<&Capture> = captures.iter().filter(|capture| !capture.is_resuming()).collect();
        let first = full.first().ok_or(LearnError::NoFullHello)?;
        if full.iter().any(|capture| capture.hello.ja4() != first.hello.ja4()) {
            return Err(LearnError::SeveralClients);
        }
        let orders: BTreeSet<Vec<Code>> = captures.iter().map(|capture| order(&capture.hello)).collect();
        let is_resuming = captures.iter().any(Capture::is_resuming);
        let first_request = first_request(captures);
        let mut profile = Profile {
            name: name.to_owned(),
            version: version.to_owned(),
            source: source.to_owned(),
            tls: Some(tls(&first.hello, orders.len() > 1, is_resuming)),
            http2: first_request.map(http2),
            headers: first_request.map(headers).unwrap_or_default(),
            differs: Vec::new(),
        };
        profile.differs = profile.unsent();
        Ok(profile)
    }
}

/// The order of extensions, as far as it is the same with and without a session to resume.
fn order(hello: &Hello) -> Vec<Code> {
    let codes = hello.extensions.iter().map(|extension| extension.code);
    codes.filter(|code| !CONDITIONAL.contains(code)).collect()
}

fn tls(hello: &Hello, permute_extensions: bool, is_resuming: bool) -> TlsProfile {
    let texts = |codes: &[Code]| codes.iter().map(Code::to_string).collect::<Vec<String>>();
    let application_settings = [(Extension::ALPS, true), (Extension::ALPS_OLD, false)].into_iter();
    TlsProfile {
        ciphers: texts(&hello.ciphers),
        groups: texts(hello.groups()),
        key_shares: hello.key_shares().iter().map(|share| share.group.to_string()).collect(),
        signature_algorithms: texts(hello.signature_algorithms()),
        versions: texts(hello.versions()),
        extensions: texts(&order(hello)),
        permute_extensions,
        grease: hello.ciphers.iter().any(|code| code.is_grease()),
        alpn: hello.alpn().to_vec(),
        application_settings: application_settings
            .filter_map(|(code, new_codepoint)| match hello.extension(code)? {
                Content::ApplicationSettings(protocols) => {
                    Some(ApplicationSettings { protocols: protocols.clone(), new_codepoint })
                }
                _ => None,
            })
            .next(),
        certificate_compression: match hello.extension(Extension::COMPRESS_CERTIFICATE) {
            Some(Content::CompressCertificate(codes)) => codes.iter().copied().map(compression_name).collect(),
            _ => Vec::new(),
        },
        ech_grease: hello.extension(Extension::ENCRYPTED_CLIENT_HELLO).is_some(),
        trust_anchors: match hello.extension(Extension::TRUST_ANCHORS) {
            Some(Content::TrustAnchors(list)) => Some(list.clone()),
            _ => None,
        },
        delegated_credentials: match hello.extension(Extension::DELEGATED_CREDENTIAL) {
            Some(Content::DelegatedCredential(codes)) => Some(texts(codes)),
            _ => None,
        },
        record_size_limit: match hello.extension(Extension::RECORD_SIZE_LIMIT) {
            Some(Content::RecordSizeLimit(limit)) => Some(*limit),
            _ => None,
        },
        // RFC 8446 section 4.2.9: without its modes no session is resumed, whether one was seen or not.
        resumption: is_resuming || hello.extension(Extension::PSK_KEY_EXCHANGE_MODES).is_some(),
    }
}

/// The preface of the first navigation, or of the first request where none was one.
fn first_request(captures: &[Capture]) -> Option<&Preface> {
    let prefaces = || captures.iter().filter_map(|capture| capture.preface.as_ref());
    prefaces().find(|preface| preface.header("sec-fetch-mode") == Some("navigate")).or_else(|| prefaces().next())
}

fn http2(preface: &Preface) -> Http2Profile {
    Http2Profile {
        settings: preface.settings.clone(),
        window_update: preface.window_update.unwrap_or_default(),
        pseudo_order: preface.pseudo_order(),
        headers_priority: preface.headers_priority,
        priority_frames: preface.priority_frames.clone(),
        first_stream: preface.first_stream,
    }
}

fn headers(preface: &Preface) -> Vec<(String, String)> {
    let kept = |name: &str| !name.starts_with(':') && !OF_ONE_REQUEST.contains(&name);
    preface.headers.iter().filter(|(name, _)| kept(name)).cloned().collect()
}

/// Headers that say something of one request alone, or of its user.
const OF_ONE_REQUEST: [&str; 10] = [
    "authorization",
    "cache-control",
    "content-length",
    "content-type",
    "cookie",
    "if-modified-since",
    "if-none-match",
    "origin",
    "proxy-authorization",
    "referer",
];
