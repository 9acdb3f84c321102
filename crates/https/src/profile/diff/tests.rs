use serde_json::json;

use super::*;
use crate::profile::{
    Profile,
    capture::Capture,
    code::Code,
    hello::{Content, Extension},
    preface::Preface,
};

fn reference(name: &str) -> Captures {
    Captures::reference(name).unwrap().unwrap()
}

fn of(captures: Vec<Capture>) -> Captures {
    Captures { label: String::new(), captures }
}

fn differing(reference: &Captures, candidate: &Captures) -> Vec<String> {
    diff(reference, candidate).into_iter().filter(|diff| !diff.equal).map(|diff| diff.field).collect()
}

/// The reference with a change in every capture.
fn changed(name: &str, change: impl Fn(&mut Capture)) -> Captures {
    let mut captures = reference(name);
    captures.captures.iter_mut().for_each(change);
    captures
}

#[test]
fn a_browser_does_not_differ_from_itself_by_what_it_varies() {
    let chrome = reference("chrome@156");
    let full: Vec<Capture> = chrome.full().cloned().collect();
    let (some, others) = full.split_at(8);
    assert_eq!(differing(&chrome, &of(others.to_vec())), [""; 0]);
    assert_ne!(some[0].hello.extensions, some[1].hello.extensions, "it permutes them");
    assert_eq!(differing(&chrome, &of(vec![some[0].clone()])), [""; 0], "one sample is enough");
    let fields: Vec<FieldDiff> = diff(&chrome, &chrome);
    assert!(fields.len() > 60, "full and resumed: {}", fields.len());
    assert!(fields.iter().any(|diff| diff.field == "resumed:psk_binders" && diff.equal));
}

#[test]
fn two_browsers_differ_in_what_they_are_told_apart_by() {
    let differing = differing(&reference("chrome@156"), &reference("firefox@153"));
    for field in ["ciphers", "extensions", "groups", "key_shares", "ja4", "h2_settings", "h2_akamai", "header_order"] {
        assert!(differing.iter().any(|known| known == field), "{field} in {differing:?}");
    }
    assert!(!differing.iter().any(|field| field == "alpn" || field == "record_version"), "{differing:?}");
}

#[test]
fn each_change_is_seen_in_the_field_that_it_is_in() {
    let chrome = reference("chrome@156");
    let of_full = |candidate: &Captures| -> Vec<String> {
        differing(&chrome, candidate).into_iter().filter(|field| !field.starts_with("resumed:")).collect()
    };
    let candidate = changed("chrome@156", |capture| capture.hello.ciphers.swap(1, 2));
    assert_eq!(of_full(&candidate), ["ciphers"], "JA4 sorts them");
    let candidate = changed("chrome@156", |capture| capture.hello.ciphers[0] = Code::Value(0x1304));
    assert_eq!(of_full(&candidate), ["ciphers", "ja4"]);
    let candidate = changed("chrome@156", |capture| {
        let shares = capture.hello.extensions.iter_mut().find(|extension| extension.code == Extension::KEY_SHARE);
        if let Content::KeyShare(shares) = &mut shares.unwrap().content {
            shares.truncate(2);
        }
    });
    assert_eq!(of_full(&candidate), ["key_shares"]);
    let candidate = changed("chrome@156", |capture| capture.hello.session_id_length = 0);
    assert_eq!(of_full(&candidate), ["session_id_length"]);
    let candidate = changed("chrome@156", |capture| {
        if let Some(preface) = &mut capture.preface {
            preface.settings.swap(0, 1);
            preface.headers.swap(5, 6);
        }
    });
    assert_eq!(of_full(&candidate), ["h2_settings", "h2_akamai", "header_order"]);
    let candidate = changed("chrome@156", |capture| capture.preface = None);
    let missing = diff(&chrome, &candidate).into_iter().find(|diff| diff.field == "h2_settings").unwrap();
    assert_eq!((missing.candidate, missing.equal), (Vec::new(), false), "what is not there differs");
}

#[test]
fn an_order_that_does_not_change_is_told_from_one_that_does() {
    let chrome = reference("chrome@156");
    let first = chrome.full().next().unwrap().clone();
    assert_eq!(differing(&chrome, &of(vec![first.clone(), first.clone()])), ["extension_order"]);
    let firefox = reference("firefox@153");
    let swapped = changed("firefox@153", |capture| capture.hello.extensions.swap(0, 1));
    assert_eq!(differing(&firefox, &swapped), ["extension_order"]);
    let one = firefox.full().next().unwrap().clone();
    assert_eq!(differing(&firefox, &of(vec![one])), [""; 0]);
}

#[test]
fn a_length_that_was_never_seen_differs_and_one_that_was_does_not() {
    let chrome = reference("chrome@156");
    let lengths = chrome.fields().unwrap().values("ech_payload_length");
    assert_eq!(lengths, [json!(144), json!(176), json!(208), json!(240)]);
    let candidate = changed("chrome@156", |capture| {
        for extension in &mut capture.hello.extensions {
            if let Content::EncryptedClientHello { payload_length, .. } = &mut extension.content {
                *payload_length = 145;
            }
        }
    });
    assert_eq!(differing(&chrome, &candidate), ["ech_payload_length", "resumed:ech_payload_length"]);
}

#[test]
fn a_profile_made_of_captures_looks_like_them() {
    for (name, permutes) in [("chrome@156", true), ("firefox@153", false)] {
        let captures = reference(name);
        let profile = Profile::from_captures("mine", "1", &captures.label, &captures.captures).unwrap();
        assert_eq!(profile.tls.as_ref().map(|tls| tls.permute_extensions), Some(permutes), "{name}");
        let diffs = diff_fields(&captures.fields().unwrap(), &Fields::of_profile(&profile).unwrap());
        let differing: Vec<&FieldDiff> = diffs.iter().filter(|diff| !diff.equal).collect();
        assert!(differing.is_empty(), "{name}: {differing:#?}");
        assert!(diffs.len() > 30, "{name}: {}", diffs.len());
        assert_eq!(profile.ja4(), Some(captures.captures[0].hello.ja4()));
        assert_eq!(profile.ja3n_hash(), Some(captures.captures[0].hello.ja3n_hash()));
        assert_eq!(profile.akamai(), captures.captures[0].preface.as_ref().map(Preface::akamai));
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(Profile::from_json(&json).unwrap(), profile, "it is accepted as any other");
        assert_eq!(profile.differs.is_empty(), name == "chrome@156", "{:?}", profile.differs);
    }
    assert_eq!(Fields::of_profile(&Profile::plain()), None);
}

#[test]
fn built_in_profiles_say_what_their_browsers_were_seen_to_send() {
    for name in ["chrome@156", "firefox@153"] {
        let rule = Fields::of_profile(&Profile::named(name).unwrap()).unwrap();
        let diffs = diff_fields(&reference(name).fields().unwrap(), &rule);
        let differing: Vec<&FieldDiff> = diffs.iter().filter(|diff| !diff.equal).collect();
        assert!(differing.is_empty(), "{name}: {differing:#?}");
        assert!(diffs.len() > 30, "{name}: {}", diffs.len());
    }
}

#[test]
fn safaris_profile_has_the_fingerprints_that_are_published_of_it() {
    let safari = Profile::named("safari@26").unwrap();
    assert_eq!(safari.ja3_hash().as_deref(), Some("ecdf4f49dd59effc439639da29186671"));
    assert_eq!(safari.ja4().as_deref(), Some("t13d2013h2_a09f3c656075_7f0f34a4126d"));
    assert_eq!(safari.akamai().as_deref(), Some("2:0;3:100;4:2097152;9:1|10420225|0|m,s,a,p"));
    assert_eq!(Profile::named("chrome").unwrap().ja3_hash(), None, "each of its connections has another");
}

#[test]
fn a_profile_keeps_nothing_of_one_request() {
    let captures = changed("firefox@153", |capture| {
        let headers = &mut capture.preface.as_mut().unwrap().headers;
        headers.extend(["cookie", "referer", "if-none-match"].map(|name| (name.to_owned(), "x".to_owned())));
    });
    let profile = Profile::from_captures("mine", "", "", &captures.captures).unwrap();
    let names: Vec<&str> = profile.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.first(), Some(&"user-agent"));
    assert_eq!(names.last(), Some(&"te"));
}

#[test]
fn captures_of_two_clients_or_of_resumptions_alone_make_no_profile() {
    use crate::profile::LearnError;
    let (chrome, firefox) = (reference("chrome@156"), reference("firefox@153"));
    let resuming: Vec<Capture> = chrome.resuming().cloned().collect();
    let learn = |captures: &[Capture]| Profile::from_captures("", "", "", captures).unwrap_err();
    assert_eq!(learn(&resuming), LearnError::NoFullHello);
    assert_eq!(learn(&[chrome.captures[0].clone(), firefox.captures[0].clone()]), LearnError::SeveralClients);
}
