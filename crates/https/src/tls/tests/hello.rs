//! Reads a ClientHello into fields that can be compared, with what changes from one to the next taken out.

use std::collections::BTreeMap;

/// A ClientHello; reserved values (RFC 8701) are `GREASE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) legacy_version: String,
    pub(super) session_id_len: usize,
    pub(super) ciphers: Vec<String>,
    pub(super) compression: Vec<u8>,
    /// In the order sent.
    pub(super) order: Vec<String>,
    /// What is in them, as words.
    pub(super) extensions: BTreeMap<String, String>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, count: usize) -> usize {
        self.take(count).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    fn list(&mut self, count: usize) -> Reader<'a> {
        let length = self.number(count);
        Reader(self.take(length))
    }

    fn codes(mut self) -> Vec<String> {
        let mut codes = Vec::new();
        while !self.0.is_empty() {
            codes.push(code(self.number(2)));
        }
        codes
    }
}

fn code(value: usize) -> String {
    if value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff { "GREASE".to_owned() } else { format!("{value:04x}") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hello {
    /// Reads the first record of a connection; its version (RFC 8446 section 5.1) comes first.
    pub(super) fn of_stream(raw: &[u8]) -> (String, Hello) {
        let mut record = Reader(raw);
        assert_eq!(record.number(1), 22, "a handshake record");
        let version = hex(record.take(2));
        (version, Hello::read(record.list(2).0))
    }

    pub(super) fn read(message: &[u8]) -> Hello {
        let mut message = Reader(message);
        assert_eq!(message.number(1), 1, "a ClientHello");
        let mut body = message.list(3);
        let legacy_version = hex(body.take(2));
        body.take(32);
        let session_id_len = body.list(1).0.len();
        let ciphers = body.list(2).codes();
        let compression = body.list(1).0.to_vec();
        let (mut order, mut extensions) = (Vec::new(), BTreeMap::new());
        let mut list = body.list(2);
        while !list.0.is_empty() {
            let name = code(list.number(2));
            let content = content(&name, list.list(2));
            // Two reserved ones differ in what is in them.
            let entry: &mut String = extensions.entry(name.clone()).or_default();
            entry.push_str(&format!("[{content}]"));
            order.push(name);
        }
        Hello { legacy_version, session_id_len, ciphers, compression, order, extensions }
    }

    /// The extensions without their order.
    pub(super) fn set(&self) -> Vec<String> {
        let mut set = self.order.clone();
        set.sort();
        set
    }

    /// JA4 (FoxIO), by its own description.
    pub(super) fn ja4(&self) -> String {
        let plain = |codes: &[String]| codes.iter().filter(|code| *code != "GREASE").cloned().collect::<Vec<_>>();
        let (mut ciphers, mut extensions) = (plain(&self.ciphers), plain(&self.order));
        let head = format!("t13d{:02}{:02}h2", ciphers.len(), extensions.len());
        ciphers.sort();
        extensions.sort();
        extensions.retain(|code| code != "0000" && code != "0010");
        let algorithms = self.extensions["000d"].trim_matches(['[', ']']).replace("GREASE,", "");
        let tail = format!("{}_{algorithms}", extensions.join(","));
        let hash = |text: &str| hex(&boring::sha::sha256(text.as_bytes()))[..12].to_owned();
        format!("{head}_{}_{}", hash(&ciphers.join(",")), hash(&tail))
    }
}

/// What is in an extension; random bytes are told by their length.
fn content(name: &str, mut body: Reader<'_>) -> String {
    match name {
        "0000" => "name".to_owned(),
        "000a" | "000d" => body.list(2).codes().join(","),
        "002b" => body.list(1).codes().join(","),
        "0033" => {
            let mut shares = body.list(2);
            let mut words = Vec::new();
            while !shares.0.is_empty() {
                let group = code(shares.number(2));
                words.push(format!("{group}:{}", shares.list(2).0.len()));
            }
            words.join(",")
        }
        "fe0d" => {
            let fixed = hex(body.take(5));
            body.take(1);
            let key = body.list(2).0.len();
            let payload = body.list(2).0.len();
            // Chromium varies it likewise, from one process to the next.
            assert!([144, 176, 208, 240].contains(&payload), "{payload}");
            format!("{fixed} key {key}")
        }
        "0023" => format!("{} bytes", body.0.len()),
        "0029" => "pre-shared key".to_owned(),
        _ => hex(body.0),
    }
}
