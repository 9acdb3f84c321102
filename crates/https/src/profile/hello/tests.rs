use super::*;
use crate::profile::capture::Captures;

/// The raw hello of a reference's first capture.
fn raw(reference: &str) -> Vec<u8> {
    let captures = Captures::reference(reference).unwrap().unwrap();
    let hex = &captures.captures[0].raw_hello;
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A message in records of no more than `size` bytes.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for part in message.chunks(size) {
        stream.extend([22, 3, 1]);
        stream.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        stream.extend(part);
    }
    stream
}

/// A hello without extensions but those given, as bytes.
fn with_extensions(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (code, body) in extensions {
        list.extend(code.to_be_bytes());
        list.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        list.extend(*body);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
    body.extend(list);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    message
}

#[test]
fn chromiums_hello_is_taken_apart() {
    let raw = raw("chrome@156");
    let hello = Hello::parse(&raw).unwrap();
    assert_eq!((hello.legacy_version, hello.length, hello.session_id_length), (Code::Value(0x0303), raw.len(), 32));
    assert_eq!(hello.ciphers[..3], [Code::Grease, Code::Value(0x1301), Code::Value(0x1302)]);
    assert_eq!(hello.ciphers.len(), 16);
    assert_eq!(hello.server_name(), Some("localhost"));
    assert_eq!(hello.alpn(), ["h2", "http/1.1"]);
    let shares: Vec<(Code, usize)> = hello.key_shares().iter().map(|share| (share.group, share.length)).collect();
    assert_eq!(shares, [(Code::Grease, 1), (Code::Value(0x11ec), 1216), (Code::Value(0x1d), 32)]);
    assert_eq!(hello.versions(), [Code::Grease, Code::Value(0x0304), Code::Value(0x0303)]);
    assert_eq!(
        hello.extension(Extension::ALPS),
        Some(&Content::ApplicationSettings(vec!["h2".into()])),
        "at the newer code point"
    );
    assert_eq!(
        hello.extension(Extension::COMPRESS_CERTIFICATE),
        Some(&Content::CompressCertificate(vec![Code::Value(2)]))
    );
    let Some(Content::EncryptedClientHello { kdf, aead, enc_length, .. }) =
        hello.extension(Extension::ENCRYPTED_CLIENT_HELLO)
    else {
        panic!("{hello:?}")
    };
    assert_eq!((*kdf, *aead, *enc_length), (Code::Value(1), Code::Value(1), 32));
    let Some(Content::TrustAnchors(list)) = hello.extension(Extension::TRUST_ANCHORS) else { panic!("{hello:?}") };
    assert!(list.starts_with("0582df1302") && list.len() == 2 * 184, "{list}");
    let greased: Vec<usize> =
        (0..hello.extensions.len()).filter(|index| hello.extensions[*index].code.is_grease()).collect();
    assert_eq!(greased, [0, hello.extensions.len() - 1], "the first and the last extension");
    assert!(!hello.is_resuming());
}

#[test]
fn firefoxs_hello_is_taken_apart() {
    let hello = Hello::parse(&raw("firefox@153")).unwrap();
    assert_eq!(hello.extension(Extension::RECORD_SIZE_LIMIT), Some(&Content::RecordSizeLimit(16385)));
    let algorithms = [0x0403, 0x0503, 0x0603, 0x0203].map(Code::Value).to_vec();
    assert_eq!(
        hello.extension(Extension::DELEGATED_CREDENTIAL),
        Some(&Content::DelegatedCredential(algorithms)),
        "of other algorithms than its own"
    );
    assert!(hello.extensions.iter().all(|extension| !extension.code.is_grease()));
}

#[test]
fn a_hello_that_is_cut_off_anywhere_is_refused_and_says_where() {
    let whole = raw("chrome@156");
    for end in 0..whole.len() {
        let error = Hello::parse(&whole[..end]).unwrap_err();
        assert!(error.at() <= end, "{end}: {error}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(
        Hello::parse(&longer).unwrap_err().to_string(),
        "hello at byte 1902: has bytes after its end".replace("1902", &whole.len().to_string())
    );
}

#[test]
fn a_hello_with_any_one_byte_changed_is_read_or_refused() {
    for reference in ["chrome@156", "firefox@153"] {
        let mut hello = raw(reference);
        let mut refused = 0;
        for at in 0..hello.len() {
            let before = hello[at];
            for flipped in [before ^ 1, before ^ 0x80, 0, 0xff] {
                hello[at] = flipped;
                refused += usize::from(Hello::parse(&hello).is_err());
            }
            hello[at] = before;
        }
        assert!(refused > 100, "lengths are checked: {refused}");
    }
}

#[test]
fn records_may_cut_a_hello_anywhere() {
    let message = raw("firefox@153");
    for size in [1, 2, 3, 4, 5, 517, message.len()] {
        let stream = in_records(&message, size);
        let whole = [&stream[..], &[23, 3, 3, 0, 1, 9]].concat();
        let recorded = RecordedHello::read(&whole).unwrap().unwrap();
        assert_eq!(recorded.message, message);
        assert_eq!(recorded.records.len(), message.len().div_ceil(size));
        assert_eq!(usize::from(recorded.records[0].length), size);
        for end in (0..stream.len()).step_by(7) {
            assert_eq!(RecordedHello::read(&stream[..end]), Ok(None), "{end} of {} in {size}", stream.len());
        }
    }
}

#[test]
fn what_is_no_hello_is_refused_at_its_first_bytes() {
    for (stream, text) in [
        (&b"GET / HTTP/1.1\r\n"[..], "record at byte 0: is no TLS handshake"),
        (&[22, 3, 1, 0, 0], "record at byte 0: has a length that no record has"),
        (&[22, 3, 1, 0x40, 1], "record at byte 0: has a length that no record has"),
        (&[22, 3, 1, 0, 4, 2, 0, 0, 0], "hello at byte 0: is another message"),
        (&[22, 3, 1, 0, 4, 1, 1, 0, 0], "hello at byte 1: is longer than 64 KiB"),
        (&[22, 3, 1, 0, 2, 1, 0, 23, 3, 3, 0, 1, 0], "record at byte 7: is no TLS handshake"),
    ] {
        assert_eq!(RecordedHello::read(stream).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_hello_of_before_extensions_is_read() {
    let mut message = with_extensions(&[]);
    message.truncate(message.len() - 2);
    message[3] -= 2;
    let hello = Hello::parse(&message).unwrap();
    assert!(hello.extensions.is_empty() && hello.groups().is_empty());
    assert_eq!(hello.ja4(), "t12i010000_0f2cb44170f4_000000000000");
}

#[test]
fn each_extension_comes_once_and_says_no_more_than_it_holds() {
    let refused = |extensions: &[(u16, &[u8])]| Hello::parse(&with_extensions(extensions)).unwrap_err().to_string();
    assert_eq!(refused(&[(23, b""), (18, b""), (23, b"")]), "extensions at byte 55: have one twice");
    assert_eq!(refused(&[(10, &[0, 3, 0, 1, 2])]), "supported_groups at byte 55: ends early");
    assert_eq!(refused(&[(10, &[0, 2, 0, 1, 2])]), "supported_groups at byte 55: has bytes after its end");
    assert_eq!(refused(&[(0, &[0, 4, 1, 0, 1, b'a'])]), "server_name at byte 54: is no host name");
    assert_eq!(refused(&[(16, &[0, 1, 0])]), "alpn at byte 54: is empty");
    let many: Vec<(u16, &[u8])> = (1000..1257).map(|code| (code, &b""[..])).collect();
    assert!(refused(&many).ends_with("are more than 256"));
    assert!(Hello::parse(&with_extensions(&many[1..])).is_ok());
}

#[test]
fn what_a_session_brings_is_read_as_lengths() {
    let psk: &[u8] = &[0, 9, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 6, 5, 1, 2, 3, 4, 5];
    let hello = Hello::parse(&with_extensions(&[(42, b""), (21, &[0; 9]), (35, &[1; 5]), (41, psk)])).unwrap();
    assert!(hello.is_resuming());
    assert_eq!(
        hello.extensions.iter().map(|extension| extension.content.clone()).collect::<Vec<_>>(),
        [
            Content::Bytes(String::new()),
            Content::Padding(9),
            Content::SessionTicket(5),
            Content::PreSharedKey { identities: vec![3], binders: vec![5] },
        ]
    );
}

#[test]
fn fields_are_kept_in_json_as_they_are() {
    for reference in ["chrome@156", "firefox@153"] {
        let hello = Hello::parse(&raw(reference)).unwrap();
        let json = serde_json::to_string(&hello).unwrap();
        assert_eq!(serde_json::from_str::<Hello>(&json).unwrap(), hello, "{json}");
    }
}
