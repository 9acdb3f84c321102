//! What a connection made from a profile is expected to look like, so that a profile can be compared as a capture is.

use super::{
    HeadersPriority, Http2Profile, Profile, TlsProfile,
    capture::Capture,
    code::{Code, CodeError, compression_code, key_share_length},
    hello::{Content, Extension, Hello, KeyShare, Record},
    preface::{Frame, Preface},
};

impl Profile {
    /// The capture that this profile should give, with a full hello to `localhost`; `None` where it leaves the hello to rustls, or
    /// a code point in it is none. Lengths of random bytes are those of today's browsers.
    pub(super) fn expected(&self) -> Option<Capture> {
        let hello = self.tls.as_ref()?.hello().ok()?;
        Some(Capture {
            records: vec![Record { version: Code::Value(0x0301), length: 0 }],
            hello,
            raw_hello: String::new(),
            negotiated: None,
            preface: self.http2.as_ref().map(|http2| http2.preface(&self.headers)),
        })
    }

    /// JA4 of a full hello from this profile; `None` where it leaves the hello to rustls.
    pub fn ja4(&self) -> Option<String> {
        self.expected().map(|capture| capture.hello.ja4())
    }

    /// JA4 of a full hello before its parts are hashed; `None` where it leaves the hello to rustls.
    pub fn ja4_r(&self) -> Option<String> {
        self.expected().map(|capture| capture.hello.ja4_r())
    }

    /// JA3 of a full hello, hashed; `None` where it leaves the hello to rustls, or each hello has another for its extensions are
    /// permuted.
    pub fn ja3_hash(&self) -> Option<String> {
        let is_fixed = self.tls.as_ref().is_some_and(|tls| !tls.permute_extensions);
        self.expected().filter(|_| is_fixed).map(|capture| capture.hello.ja3_hash())
    }

    /// JA3 with sorted extensions of a full hello, hashed; `None` where it leaves the hello to rustls.
    pub fn ja3n_hash(&self) -> Option<String> {
        self.expected().map(|capture| capture.hello.ja3n_hash())
    }

    /// Akamai's string of the preface; `None` where it leaves that to the HTTP/2 library.
    pub fn akamai(&self) -> Option<String> {
        self.expected()?.preface.map(|preface| preface.akamai())
    }
}

impl TlsProfile {
    /// The full hello that this describes.
    ///
    /// # Errors
    /// When a code point is none.
    fn hello(&self) -> Result<Hello, CodeError> {
        let mut greased = 0;
        let mut extensions = Vec::with_capacity(self.extensions.len());
        for code in codes(&self.extensions)? {
            let content = match code {
                Code::Grease => {
                    // BoringSSL sends an empty one first and one with a zero byte last.
                    greased += 1;
                    Content::Bytes(if greased == 1 { "" } else { "00" }.to_owned())
                }
                code => self.content(code)?,
            };
            extensions.push(Extension { code, length: 0, content });
        }
        Ok(Hello {
            legacy_version: Code::Value(0x0303),
            length: 0,
            session_id_length: 32,
            ciphers: codes(&self.ciphers)?,
            compression: vec![0],
            extensions,
        })
    }

    fn content(&self, code: Code) -> Result<Content, CodeError> {
        Ok(match code {
            Extension::SERVER_NAME => Content::ServerName("localhost".to_owned()),
            Extension::SUPPORTED_GROUPS => Content::SupportedGroups(codes(&self.groups)?),
            Extension::EC_POINT_FORMATS => Content::EcPointFormats(vec![0]),
            Extension::SIGNATURE_ALGORITHMS => Content::SignatureAlgorithms(codes(&self.signature_algorithms)?),
            Extension::DELEGATED_CREDENTIAL => {
                Content::DelegatedCredential(codes(self.delegated_credentials.as_deref().unwrap_or_default())?)
            }
            Extension::ALPN => Content::Alpn(self.alpn.clone()),
            Extension::ALPS | Extension::ALPS_OLD => {
                let settings = self.application_settings.as_ref();
                Content::ApplicationSettings(settings.map(|settings| settings.protocols.clone()).unwrap_or_default())
            }
            Extension::COMPRESS_CERTIFICATE => {
                let named = self.certificate_compression.iter().map(|name| compression_code(name));
                Content::CompressCertificate(named.collect::<Result<_, _>>()?)
            }
            Extension::RECORD_SIZE_LIMIT => Content::RecordSizeLimit(self.record_size_limit.unwrap_or_default()),
            Extension::SUPPORTED_VERSIONS => Content::SupportedVersions(codes(&self.versions)?),
            Extension::PSK_KEY_EXCHANGE_MODES => Content::PskKeyExchangeModes(vec![1]),
            Extension::KEY_SHARE => {
                let length = |group| usize::from(key_share_length(group).unwrap_or_default());
                let groups = codes(&self.key_shares)?.into_iter();
                Content::KeyShare(groups.map(|group| KeyShare { group, length: length(group) }).collect())
            }
            Extension::SESSION_TICKET => Content::SessionTicket(0),
            Extension::TRUST_ANCHORS => Content::TrustAnchors(self.trust_anchors.clone().unwrap_or_default()),
            // RFC 6066 section 8: OCSP, of any responder.
            Extension::STATUS_REQUEST => Content::Bytes("0100000000".to_owned()),
            Extension::RENEGOTIATION_INFO => Content::Bytes("00".to_owned()),
            _ => Content::Bytes(String::new()),
        })
    }
}

impl Http2Profile {
    fn preface(&self, headers: &[(String, String)]) -> Preface {
        let pseudo = self.pseudo_order.split(',').filter_map(|letter| {
            let name = PSEUDO.into_iter().find(|name| name[1..].starts_with(letter))?;
            Some((name.to_owned(), String::new()))
        });
        Preface {
            settings: self.settings.clone(),
            window_update: Some(self.window_update).filter(|increment| *increment > 0),
            priority_frames: self.priority_frames.clone(),
            first_stream: self.first_stream,
            headers_priority: self.headers_priority,
            frames: self.frames(),
            headers: pseudo.chain(headers.iter().cloned()).collect(),
        }
    }

    fn frames(&self) -> Vec<Frame> {
        let frame = |kind: &str, stream, flags| Frame { kind: kind.to_owned(), stream, flags, length: 0 };
        let mut frames = vec![frame("SETTINGS", 0, 0)];
        frames.extend((self.window_update > 0).then(|| frame("WINDOW_UPDATE", 0, 0)));
        frames.extend(self.priority_frames.iter().map(|priority| frame("PRIORITY", priority.stream, 0)));
        frames.push(frame("HEADERS", self.first_stream, headers_flags(self.headers_priority)));
        frames
    }
}

/// Flags of a request without a body: END_STREAM, END_HEADERS, and PRIORITY where it has one.
fn headers_flags(priority: Option<HeadersPriority>) -> u8 {
    0x05 | if priority.is_some() { 0x20 } else { 0 }
}

fn codes(texts: &[String]) -> Result<Vec<Code>, CodeError> {
    texts.iter().map(|text| text.parse()).collect()
}

/// The pseudo-headers of a request (RFC 9113 section 8.3.1).
pub(super) const PSEUDO: [&str; 4] = [":method", ":authority", ":scheme", ":path"];
