//! The references say what the browsers that they are of are known by elsewhere.

use keepwarm_https::profile::capture::Captures;

fn reference(name: &str) -> Captures {
    Captures::reference(name).expect("there is one").expect("it can be read")
}

#[test]
fn chromium_156_is_known_by_its_fingerprints_full_and_resumed() {
    let captures = reference("chrome@156");
    assert!(captures.full().count() >= 8 && captures.resuming().count() >= 4);
    for capture in captures.full() {
        assert_eq!(capture.hello.ja4(), "t13d1517h2_8daaf6152771_cb7bf5808d99");
        assert_eq!(
            capture.hello.ja4_r(),
            "t13d1517h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,000d,\
             0012,0017,001b,0023,002b,002d,0033,44cd,ca34,fe0d,ff01_0904,0905,0906,0403,0804,0401,0503,0805,0501,0806,0601"
        );
        assert_eq!(capture.hello.ja3n_hash(), "bd4930bd9b000ee684830e44bab76fdf");
    }
    for capture in captures.resuming() {
        assert_eq!(capture.hello.ja4(), "t13d1518h2_8daaf6152771_e2d80978ab2e");
        assert!(capture.negotiated.as_ref().is_some_and(|negotiated| negotiated.resumed));
    }
    for preface in captures.captures.iter().filter_map(|capture| capture.preface.as_ref()) {
        assert_eq!(preface.akamai(), "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p");
        assert_eq!(preface.akamai_hash(), "52d84b11737d980aef856699f885ca86");
    }
}

#[test]
fn firefox_153_is_known_by_its_fingerprints() {
    for capture in reference("firefox@153").full() {
        assert_eq!(capture.hello.ja4(), "t13d1617h2_86a278354501_3cbfd9057e0d");
        assert_eq!(capture.hello.ja3n_hash(), "8099457c290ccfe8c6d958826c26b023");
        let preface = capture.preface.as_ref().expect("it has one");
        assert_eq!(preface.akamai(), "1:65536;2:0;4:131072;5:16384|12517377|0|m,p,a,s");
        assert_eq!(preface.akamai_hash(), "6ea73faa8fc5aac76bded7bd238f6433");
    }
}

#[test]
fn ja3_lists_what_is_sent_in_its_order() {
    let captures = reference("firefox@153");
    let ja3 = captures.captures[0].hello.ja3();
    assert_eq!(
        ja3,
        "771,4865-4867-4866-49195-49199-52393-52392-49196-49200-49162-49171-49172-156-157-47-53,\
         0-23-65281-10-11-35-16-5-34-18-51-43-13-45-28-27-65037,4588-29-23-24-25-256-257,0"
    );
    assert_eq!(captures.captures[0].hello.ja3_hash().len(), 32);
}

#[test]
fn all_references_can_be_read_and_are_written_as_they_are() {
    let names: Vec<&str> = Captures::references().map(|(name, _)| name).collect();
    assert_eq!(names, ["chrome@156", "firefox@153"]);
    for (name, captures) in Captures::references() {
        let json = captures.to_json().expect("it can be written");
        assert_eq!(Captures::from_json(&json).as_ref(), Ok(&captures), "{name}");
    }
}

#[test]
fn captures_whose_bytes_say_something_else_than_their_fields_are_refused() {
    let mut captures = reference("chrome@156");
    captures.captures[0].hello.ciphers.swap(1, 2);
    let refused = |captures: &Captures| {
        let json = captures.to_json().expect("it can be written");
        Captures::from_json(&json).expect_err("it says two things").to_string()
    };
    assert_eq!(refused(&captures), "capture 0: raw_hello says something else than hello");
    captures.captures[0].raw_hello.truncate(100);
    assert_eq!(refused(&captures), "capture 0: raw_hello: hello at byte 4: ends early");
    captures.captures[0].raw_hello = "0g".into();
    assert_eq!(refused(&captures), "capture 0: raw_hello is not hexadecimal");
    captures.captures.clear();
    assert_eq!(refused(&captures), "there are no captures in it");
}
