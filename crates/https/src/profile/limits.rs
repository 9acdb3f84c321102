//! What of a profile BoringSSL and the HTTP/2 library cannot send.

use super::{Profile, TlsProfile, read::code_point};

impl Profile {
    /// What of this profile connections do not show since the TLS stack lacks it, a line each that begins with the field. Empty for
    /// a profile that is sent whole.
    ///
    /// Differences that no field tells of are not here; see [`differs`](Self::differs).
    pub fn unsent(&self) -> Vec<String> {
        self.tls.as_ref().map(TlsProfile::unsent).unwrap_or_default()
    }
}

impl TlsProfile {
    fn unsent(&self) -> Vec<String> {
        let lists = [
            ("tls.ciphers", "suites", &self.ciphers, CIPHERS),
            ("tls.groups", "groups", &self.groups, GROUPS),
            ("tls.signature_algorithms", "algorithms", &self.signature_algorithms, SIGNATURE_ALGORITHMS),
            ("tls.extensions", "extensions", &self.extensions, EXTENSIONS),
        ];
        let mut lines = Vec::new();
        for (field, what, codes, known) in lists {
            let lacking: Vec<&str> = codes.iter().filter(|code| !sent(code, known)).map(String::as_str).collect();
            if !lacking.is_empty() {
                lines.push(format!("{field}: {what} {} are left out", lacking.join(", ")));
            }
        }
        lines.extend(self.unsent_shapes());
        lines
    }

    fn unsent_shapes(&self) -> impl Iterator<Item = String> {
        let doubled = has_doubles(&self.signature_algorithms);
        let grease_algorithm = self.grease && !self.signature_algorithms.iter().any(|code| code == GREASE);
        let order = !self.permute_extensions && !is_in_order(&self.extensions);
        let zstd = self.certificate_compression.iter().any(|name| name == "zstd");
        [
            (doubled, "tls.signature_algorithms: an algorithm that is there twice is sent once"),
            (
                grease_algorithm,
                "tls.signature_algorithms: a reserved value comes first, which the browser does not send",
            ),
            (order, "tls.extensions: BoringSSL has an order of its own"),
            (zstd, "tls.certificate_compression: zstd is left out"),
            (self.delegated_credentials.is_some(), "tls.delegated_credentials: left out"),
            (self.record_size_limit.is_some(), "tls.record_size_limit: left out"),
        ]
        .into_iter()
        .filter(|(lacking, _)| *lacking)
        .map(|(_, line)| line.to_owned())
    }
}

/// The code points of `codes` that `known` has, each once, in order; reserved values are left to the stack.
pub(crate) fn sendable(codes: &[String], known: &[u16]) -> Vec<u16> {
    let mut sent = Vec::with_capacity(codes.len());
    for code in codes.iter().filter_map(|code| code_point(code)) {
        if known.contains(&code) && !sent.contains(&code) {
            sent.push(code);
        }
    }
    sent
}

fn sent(code: &str, known: &[u16]) -> bool {
    code == GREASE || code_point(code).is_some_and(|code| known.contains(&code))
}

fn has_doubles(codes: &[String]) -> bool {
    codes.iter().enumerate().any(|(index, code)| code != GREASE && codes[..index].contains(code))
}

fn is_in_order(extensions: &[String]) -> bool {
    let places =
        sendable(extensions, EXTENSIONS).into_iter().map(|code| EXTENSIONS.iter().position(|known| *known == code));
    places.is_sorted()
}

pub(crate) const GREASE: &str = "GREASE";

/// Suites of TLS 1.3 and 1.2 that need no shared key; `SSL_CIPHER_*` in ssl.h.
pub(crate) const CIPHERS: &[u16] = &[
    0x1301, 0x1302, 0x1303, 0x000a, 0x002f, 0x0035, 0x009c, 0x009d, 0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc027,
    0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9,
];

/// `SSL_GROUP_*` in ssl.h.
pub(crate) const GROUPS: &[u16] = &[0x0017, 0x0018, 0x0019, 0x001d, 0x11ec, 0x0202];

/// `SSL_SIGN_*` in ssl.h, but for those that only signing knows.
pub(crate) const SIGNATURE_ALGORITHMS: &[u16] = &[
    0x0201, 0x0203, 0x0401, 0x0403, 0x0501, 0x0503, 0x0601, 0x0603, 0x0804, 0x0805, 0x0806, 0x0807, 0x0904, 0x0905,
    0x0906,
];

/// What a client sends of `kExtensions`, in its order, which is the order on the wire when none is drawn.
pub(crate) const EXTENSIONS: &[u16] = &[
    0x0000, 0xfe0d, 0x0017, 0xff01, 0x000a, 0x000b, 0x0023, 0x0010, 0x0005, 0x000d, 0x0012, 0x0033, 0x002d, 0x002b,
    0x001b, 0x44cd, 0x4469, 0xca34,
];
