//! Client hellos as a server that decrypts them reads them (RFC 8446 section 4.1.2, RFC 9849 sections 5 and 7.1). Written
//! apart from the client's code; sound input is expected, for only our own client is read.

use std::ops::Range;

use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey},
};

/// A server's key and what it publishes of it.
pub struct Key {
    private: Vec<u8>,
    config: Vec<u8>,
}

impl Key {
    /// A new key for a server with this public name.
    pub fn new(public_name: &str) -> Key {
        let (public, private) = DH_KEM_X25519_HKDF_SHA256_AES_128.generate_key_pair().unwrap();
        let mut contents = vec![ID];
        contents.extend([0, 0x20]);
        push_16(&mut contents, &public.0);
        // HKDF-SHA256 with AES-128-GCM.
        push_16(&mut contents, &[0, 1, 0, 1]);
        // Names are padded to this length.
        contents.push(32);
        contents.push(u8::try_from(public_name.len()).unwrap());
        contents.extend(public_name.as_bytes());
        contents.extend([0, 0]);
        let mut config = vec![0xfe, 0x0d];
        push_16(&mut config, &contents);
        Key { private: private.secret_bytes().to_vec(), config }
    }

    /// The `ECHConfigList` for the record.
    pub fn list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        push_16(&mut list, &self.config);
        list
    }
}

/// A client hello, without the four bytes of the handshake header.
pub struct Hello {
    pub body: Vec<u8>,
    session_id: Range<usize>,
    /// Type and data.
    extensions: Vec<(u16, Range<usize>)>,
}

impl Hello {
    pub fn read(body: &[u8]) -> Hello {
        let session_id = 35..35 + usize::from(body[34]);
        let suites = session_id.end;
        let compression = suites + 2 + usize::from(u16_at(body, suites));
        let mut at = compression + 1 + usize::from(body[compression]);
        let end = at + 2 + usize::from(u16_at(body, at));
        at += 2;
        let mut extensions = Vec::new();
        while at < end {
            let data = at + 4..at + 4 + usize::from(u16_at(body, at + 2));
            extensions.push((u16_at(body, at), data.clone()));
            at = data.end;
        }
        Hello { body: body.to_vec(), session_id, extensions }
    }

    fn extension(&self, wanted: u16) -> Option<Range<usize>> {
        self.extensions.iter().find(|(kind, _)| *kind == wanted).map(|(_, data)| data.clone())
    }

    /// The name that everybody on the way can read.
    pub fn server_name(&self) -> Option<String> {
        // The length of the list, the type of the name, its length.
        let data = self.extension(SERVER_NAME)?;
        Some(String::from_utf8(self.body[data.start + 5..data.end].to_vec()).unwrap())
    }

    pub fn random(&self) -> &[u8] {
        &self.body[2..34]
    }

    /// Whether there is something that looks like an encrypted client hello.
    pub fn has_ech(&self) -> bool {
        self.extension(ECH).is_some()
    }

    /// The hello that is encrypted in this one; `None` when it is not, or not for this key.
    pub fn decrypt(&self, key: &Key) -> Option<Hello> {
        let data = self.extension(ECH)?;
        // The type (outer), two suites, the id, the key, the ciphertext.
        let enc = data.start + 8..data.start + 8 + usize::from(u16_at(&self.body, data.start + 6));
        let payload = enc.end + 2..data.end;
        if self.body[data.start + 5] != ID {
            return None;
        }
        let mut info = b"tls ech\0".to_vec();
        info.extend(&key.config);
        let mut aad = self.body.clone();
        aad[payload.clone()].fill(0);
        let enc = EncapsulatedSecret(self.body[enc].to_vec());
        let private = HpkePrivateKey::from(key.private.clone());
        let mut opener = DH_KEM_X25519_HKDF_SHA256_AES_128.setup_opener(&enc, &info, &private).ok()?;
        Some(self.expand(&opener.open(&aad, &self.body[payload]).ok()?))
    }

    /// Puts back what the encrypted hello refers to in this one (RFC 9849 section 5.1).
    fn expand(&self, encoded: &[u8]) -> Hello {
        let inner = Hello::read(encoded);
        let mut body = encoded[..34].to_vec();
        body.extend(&self.body[self.session_id.start - 1..self.session_id.end]);
        let head = inner.extensions.first().expect("it has some").1.start - 4;
        body.extend(&encoded[inner.session_id.end..head - 2]);
        let mut extensions = Vec::new();
        let mut push = |kind: u16, data: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            push_16(&mut extensions, data);
        };
        for (kind, data) in &inner.extensions {
            if *kind != OUTER_EXTENSIONS {
                push(*kind, &encoded[data.clone()]);
                continue;
            }
            for referred in encoded[data.start + 1..data.end].chunks(2).map(|kind| u16_at(kind, 0)) {
                push(referred, &self.body[self.extension(referred).expect("it refers to what is there")]);
            }
        }
        push_16(&mut body, &extensions);
        Hello::read(&body)
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn push_16(into: &mut Vec<u8>, data: &[u8]) {
    into.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    into.extend(data);
}

/// The id of every key; one server has one.
const ID: u8 = 7;

const SERVER_NAME: u16 = 0;
const ECH: u16 = 0xfe0d;
const OUTER_EXTENSIONS: u16 = 0xfd00;
