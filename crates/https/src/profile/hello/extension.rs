//! What the extensions of a hello say (RFC 8446 section 4.2 and the RFCs and drafts named below).

use serde::{Deserialize, Serialize};

use super::{HelloError, cursor::Cursor};
use crate::profile::{
    code::{Code, known_name},
    hex,
};

/// One extension of a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its code point.
    pub code: Code,
    /// Bytes of its body.
    pub length: usize,
    /// What it says.
    #[serde(flatten)]
    pub content: Content,
}

/// What an extension says; those that are not known here keep their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The host (RFC 6066 section 3).
    ServerName(String),
    /// Named groups in order.
    SupportedGroups(Vec<Code>),
    /// Formats of points (RFC 8422 section 5.1.2).
    EcPointFormats(Vec<u8>),
    /// Signature algorithms in order.
    SignatureAlgorithms(Vec<Code>),
    /// Signature algorithms of certificates in order.
    SignatureAlgorithmsCert(Vec<Code>),
    /// Signature algorithms of delegated credentials in order (RFC 9345 section 4.1.1).
    DelegatedCredential(Vec<Code>),
    /// Application protocols in order (RFC 7301 section 3.1).
    Alpn(Vec<String>),
    /// Protocols with application-layer settings (draft-vvv-tls-alps), at either of its code points.
    ApplicationSettings(Vec<String>),
    /// Certificate compression algorithms in order (RFC 8879 section 3).
    CompressCertificate(Vec<Code>),
    /// The largest record taken (RFC 8449 section 4).
    RecordSizeLimit(u16),
    /// Versions in order.
    SupportedVersions(Vec<Code>),
    /// Key exchange modes of pre-shared keys.
    PskKeyExchangeModes(Vec<u8>),
    /// Key shares in order.
    KeyShare(Vec<KeyShare>),
    /// A session ticket of TLS 1.2 and before (RFC 5077 section 3.2): its length. Empty where the client has none.
    SessionTicket(usize),
    /// Pre-shared keys: lengths of identities and of binders.
    PreSharedKey {
        /// Bytes of each identity.
        identities: Vec<usize>,
        /// Bytes of each binder.
        binders: Vec<usize>,
    },
    /// So many bytes of padding (RFC 7685).
    Padding(usize),
    /// An encrypted client hello in its outer form, real or imitated (RFC 9849 section 5).
    EncryptedClientHello {
        /// The key derivation function.
        kdf: Code,
        /// The cipher.
        aead: Code,
        /// Bytes of the encapsulated key.
        enc_length: usize,
        /// Bytes of the payload.
        payload_length: usize,
    },
    /// Trust anchors that are asked for (draft-ietf-tls-trust-anchor-ids section 3), the list without its length, as hexadecimal.
    TrustAnchors(String),
    /// Any other body, as hexadecimal.
    Bytes(String),
}

/// A key share (RFC 8446 section 4.2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyShare {
    /// Its group.
    pub group: Code,
    /// Bytes of the share.
    pub length: usize,
}

impl Extension {
    /// Code point of `server_name`.
    pub const SERVER_NAME: Code = Code::Value(0);
    /// Code point of `status_request`.
    pub const STATUS_REQUEST: Code = Code::Value(5);
    /// Code point of `supported_groups`.
    pub const SUPPORTED_GROUPS: Code = Code::Value(10);
    /// Code point of `ec_point_formats`.
    pub const EC_POINT_FORMATS: Code = Code::Value(11);
    /// Code point of `signature_algorithms`.
    pub const SIGNATURE_ALGORITHMS: Code = Code::Value(13);
    /// Code point of `application_layer_protocol_negotiation`.
    pub const ALPN: Code = Code::Value(16);
    /// Code point of `padding`.
    pub const PADDING: Code = Code::Value(21);
    /// Code point of `compress_certificate`.
    pub const COMPRESS_CERTIFICATE: Code = Code::Value(27);
    /// Code point of `record_size_limit`.
    pub const RECORD_SIZE_LIMIT: Code = Code::Value(28);
    /// Code point of `delegated_credential`.
    pub const DELEGATED_CREDENTIAL: Code = Code::Value(34);
    /// Code point of `session_ticket`.
    pub const SESSION_TICKET: Code = Code::Value(35);
    /// Code point of `pre_shared_key`.
    pub const PRE_SHARED_KEY: Code = Code::Value(41);
    /// Code point of `early_data`.
    pub const EARLY_DATA: Code = Code::Value(42);
    /// Code point of `supported_versions`.
    pub const SUPPORTED_VERSIONS: Code = Code::Value(43);
    /// Code point of `psk_key_exchange_modes`.
    pub const PSK_KEY_EXCHANGE_MODES: Code = Code::Value(45);
    /// Code point of `signature_algorithms_cert`.
    pub const SIGNATURE_ALGORITHMS_CERT: Code = Code::Value(50);
    /// Code point of `key_share`.
    pub const KEY_SHARE: Code = Code::Value(51);
    /// Older code point of application-layer settings.
    pub const ALPS_OLD: Code = Code::Value(17513);
    /// Newer code point of application-layer settings.
    pub const ALPS: Code = Code::Value(17613);
    /// Code point of `trust_anchors`.
    pub const TRUST_ANCHORS: Code = Code::Value(0xca34);
    /// Code point of `encrypted_client_hello`.
    pub const ENCRYPTED_CLIENT_HELLO: Code = Code::Value(0xfe0d);
    /// Code point of `renegotiation_info`.
    pub const RENEGOTIATION_INFO: Code = Code::Value(0xff01);

    pub(super) fn parse(code: Code, body: Cursor<'_>) -> Result<Extension, HelloError> {
        let length = body.rest().len();
        let mut rest = body;
        let content = content(code, &mut rest)?;
        rest.end()?;
        Ok(Extension { code, length, content })
    }
}

fn content(code: Code, body: &mut Cursor<'_>) -> Result<Content, HelloError> {
    *body = body.named(known_name(code).unwrap_or("extension"));
    Ok(match code {
        Extension::SERVER_NAME => Content::ServerName(server_name(body)?),
        Extension::SUPPORTED_GROUPS => Content::SupportedGroups(codes(body.vector16()?)?),
        Extension::EC_POINT_FORMATS => Content::EcPointFormats(body.vector8()?.rest().to_vec()),
        Extension::SIGNATURE_ALGORITHMS => Content::SignatureAlgorithms(codes(body.vector16()?)?),
        Extension::SIGNATURE_ALGORITHMS_CERT => Content::SignatureAlgorithmsCert(codes(body.vector16()?)?),
        Extension::DELEGATED_CREDENTIAL => Content::DelegatedCredential(codes(body.vector16()?)?),
        Extension::ALPN => Content::Alpn(protocols(body.vector16()?)?),
        Extension::ALPS | Extension::ALPS_OLD => Content::ApplicationSettings(protocols(body.vector16()?)?),
        Extension::COMPRESS_CERTIFICATE => Content::CompressCertificate(codes(body.vector8()?)?),
        Extension::RECORD_SIZE_LIMIT => Content::RecordSizeLimit(body.u16()?),
        Extension::SUPPORTED_VERSIONS => Content::SupportedVersions(codes(body.vector8()?)?),
        Extension::PSK_KEY_EXCHANGE_MODES => Content::PskKeyExchangeModes(body.vector8()?.rest().to_vec()),
        Extension::KEY_SHARE => Content::KeyShare(key_shares(body.vector16()?)?),
        Extension::SESSION_TICKET => Content::SessionTicket(body.all().len()),
        Extension::PADDING => Content::Padding(body.all().len()),
        Extension::PRE_SHARED_KEY => pre_shared_key(body)?,
        Extension::ENCRYPTED_CLIENT_HELLO => encrypted_client_hello(body)?,
        Extension::TRUST_ANCHORS => Content::TrustAnchors(hex(body.vector16()?.rest())),
        _ => Content::Bytes(hex(body.all())),
    })
}

/// Two-byte code points to the end.
pub(super) fn codes(mut list: Cursor<'_>) -> Result<Vec<Code>, HelloError> {
    let mut codes = Vec::with_capacity(list.rest().len() / 2);
    while !list.is_empty() {
        codes.push(Code::from(list.u16()?));
    }
    Ok(codes)
}

fn server_name(body: &mut Cursor<'_>) -> Result<String, HelloError> {
    let mut list = body.vector16()?;
    // RFC 6066 section 3: there is one type of name, and at most one name of it.
    if list.u8()? != HOST_NAME {
        return Err(list.error("is no host name"));
    }
    let name = list.vector16()?;
    list.end()?;
    text(name)
}

fn protocols(mut list: Cursor<'_>) -> Result<Vec<String>, HelloError> {
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(text(list.vector8()?)?);
    }
    Ok(protocols)
}

/// Text of one character a byte: names of protocols are bytes (RFC 7301 section 3.1), of which reserved ones are no UTF-8.
fn text(bytes: Cursor<'_>) -> Result<String, HelloError> {
    if bytes.is_empty() {
        return Err(bytes.error("is empty"));
    }
    Ok(bytes.rest().iter().map(|byte| char::from(*byte)).collect())
}

fn key_shares(mut list: Cursor<'_>) -> Result<Vec<KeyShare>, HelloError> {
    let mut shares = Vec::new();
    while !list.is_empty() {
        let group = Code::from(list.u16()?);
        shares.push(KeyShare { group, length: list.vector16()?.rest().len() });
    }
    Ok(shares)
}

fn pre_shared_key(body: &mut Cursor<'_>) -> Result<Content, HelloError> {
    let (mut identities, mut binders) = (Vec::new(), Vec::new());
    let mut list = body.vector16()?;
    while !list.is_empty() {
        identities.push(list.vector16()?.rest().len());
        list.take(OBFUSCATED_AGE)?;
    }
    let mut list = body.vector16()?;
    while !list.is_empty() {
        binders.push(list.vector8()?.rest().len());
    }
    Ok(Content::PreSharedKey { identities, binders })
}

fn encrypted_client_hello(body: &mut Cursor<'_>) -> Result<Content, HelloError> {
    let whole = *body;
    if body.u8()? != OUTER {
        // The inner form is only ever inside of an encrypted one; whatever else this is keeps its bytes.
        body.all();
        return Ok(Content::Bytes(hex(whole.rest())));
    }
    let (kdf, aead) = (Code::from(body.u16()?), Code::from(body.u16()?));
    let _config_id = body.u8()?;
    let enc_length = body.vector16()?.rest().len();
    let payload_length = body.vector16()?.rest().len();
    Ok(Content::EncryptedClientHello { kdf, aead, enc_length, payload_length })
}

/// The only type of `server_name` there is.
const HOST_NAME: u8 = 0;

/// Type of an outer encrypted client hello (RFC 9849 section 5).
const OUTER: u8 = 0;

/// Bytes of a ticket's obfuscated age (RFC 8446 section 4.2.11).
const OBFUSCATED_AGE: usize = 4;
