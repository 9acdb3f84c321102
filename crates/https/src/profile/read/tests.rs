//! Each field that can be wrong is named.

use serde_json::{Value, json};

use super::*;

/// Chrome's profile with the value at `pointer` replaced.
fn with(pointer: &str, value: Value) -> Result<Profile, ProfileError> {
    let chrome = Profile::builtin("chrome").unwrap();
    let mut tree = serde_json::to_value(&*chrome).unwrap();
    *tree.pointer_mut(pointer).unwrap() = value;
    Profile::from_json(&tree.to_string())
}

#[test]
fn a_profile_survives_being_written() {
    for profile in Profile::builtins() {
        let text = serde_json::to_string(&**profile).unwrap();
        assert_eq!(&Profile::from_json(&text).unwrap(), &**profile);
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_field() {
    let cases = [
        ("/name", json!("a@b"), "name"),
        ("/tls/ciphers/2", json!("13021"), "tls.ciphers[2]"),
        ("/tls/groups/1", json!("11EC"), "tls.groups[1]"),
        ("/tls/versions", json!(["0302"]), "tls.versions"),
        ("/tls/key_shares", json!(["001d", "11ec"]), "tls.key_shares[1]"),
        ("/tls/alpn", json!([]), "tls.alpn"),
        ("/tls/alpn/0", json!("h3"), "tls.alpn[0]"),
        ("/tls/alpn", json!(["http/1.1"]), "tls.application_settings.protocols"),
        ("/tls/certificate_compression/0", json!("lzma"), "tls.certificate_compression[0]"),
        ("/tls/trust_anchors", json!("0582"), "tls.trust_anchors"),
        ("/tls/trust_anchors", json!("é0"), "tls.trust_anchors"),
        ("/tls/delegated_credentials", json!(["403"]), "tls.delegated_credentials[0]"),
        ("/http2/settings/0", json!([16, 1]), "http2.settings[0]"),
        ("/http2/settings/0", json!([2, 0]), "http2.settings[1]"),
        ("/http2/settings/1", json!([2, 1]), "http2.settings[1]"),
        ("/http2/settings/2", json!([4, 2_147_483_648_u32]), "http2.settings[2]"),
        ("/http2/window_update", json!(2_147_483_647), "http2.window_update"),
        ("/http2/pseudo_order", json!("m,a,s"), "http2.pseudo_order"),
        ("/http2/first_stream", json!(2), "http2.first_stream"),
        ("/http2/headers_priority/weight", json!(0), "http2.headers_priority"),
        (
            "/http2/priority_frames",
            json!([{"stream": 0, "priority": {"exclusive": false, "depends_on": 0, "weight": 1}}]),
            "http2.priority_frames[0]",
        ),
        ("/headers/0", json!(["Accept", "x"]), "headers[0]"),
        ("/headers/1", json!(["accept", "a\nb"]), "headers[1]"),
    ];
    for (pointer, value, field) in cases {
        let error = with(pointer, value).expect_err(pointer);
        assert_eq!(error.field(), field, "{error}");
        assert!(error.to_string().starts_with(&format!("profile: {field}: ")), "{error}");
    }
}

#[test]
fn what_is_no_profile_is_told_by_line_and_column() {
    let error = Profile::from_json("{\n  \"nmae\": 1\n}").unwrap_err();
    assert!(error.to_string().starts_with("profile: unknown field `nmae`"), "{error}");
    assert!(error.to_string().contains("line 2 column"), "{error}");
}

#[test]
fn a_file_is_named_in_its_errors_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.json");
    let missing = Profile::from_file(&path).unwrap_err();
    assert_eq!(missing.path(), Some(&*path));
    let chrome = Profile::builtin("chrome").unwrap();
    std::fs::write(&path, serde_json::to_string(&*chrome).unwrap()).unwrap();
    assert_eq!(&Profile::from_file(&path).unwrap(), &*chrome);
    std::fs::write(&path, " ".repeat(2 << 20)).unwrap();
    let large = Profile::from_file(&path).unwrap_err();
    assert!(large.to_string().ends_with("own.json: larger than 1 mib"), "{large}");
}
