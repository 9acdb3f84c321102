//! Whatever a client begins with is a hello or a preface, is unfinished, or is refused at a place in it.
#![no_main]

use keepwarm_https::profile::{
    Fields, Profile,
    capture::{Capture, Captures},
    hello::{Hello, RecordedHello},
    preface::Preface,
};
use libfuzzer_sys::fuzz_target;

// The stream of a client, below TLS or above it; or a hello without records.
fuzz_target!(|stream: &[u8]| {
    match Hello::parse(stream) {
        Ok(hello) => assert_eq!(hello.length, stream.len()),
        Err(error) => assert!(error.at() <= stream.len()),
    }
    match RecordedHello::read(stream) {
        Ok(Some(recorded)) => kept(Capture::new(recorded)),
        Ok(None) => {}
        Err(error) => assert!(error.at() <= stream.len()),
    }
    match Preface::read(stream) {
        Ok(Some(preface)) => {
            assert!(preface.headers.len() <= Preface::HEADERS_MAX && !preface.akamai().is_empty());
            assert!(Preface::SECRET.iter().all(|name| preface.header(name).is_none_or(str::is_empty)));
            let json = serde_json::to_string(&preface).expect("it is plain data");
            assert_eq!(serde_json::from_str::<Preface>(&json).expect("it was written so"), preface);
        }
        Ok(None) => {}
        Err(error) => assert!(error.at() <= stream.len()),
    }
});

/// What was read once is kept as it is, and can be shown.
fn kept(capture: Capture) {
    assert_eq!(capture.hello.ja4().split('_').count(), 3);
    let _ = (capture.hello.ja3(), capture.hello.ja3n_hash(), capture.hello.ja4_r());
    let fields = Fields::of_captures([&capture]);
    assert!(fields.names().all(|name| fields.values(name).len() == 1));
    if let Ok(profile) = Profile::from_captures("fuzz", "", "", std::slice::from_ref(&capture)) {
        assert!(Fields::of_profile(&profile).is_some());
    }
    let captures = Captures { label: String::new(), captures: vec![capture] };
    let json = captures.to_json().expect("it is plain data");
    assert_eq!(Captures::from_json(&json), Ok(captures));
}
