use proptest::prelude::*;

use super::*;

#[test]
fn an_origin_is_a_host_with_an_optional_port() {
    for (text, host, port) in [
        ("tiles.example.com", "tiles.example.com", None),
        ("Tiles.Example.COM.", "tiles.example.com", None),
        ("tiles.example.com:8443", "tiles.example.com", Some(8443)),
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:8443", "192.0.2.1", Some(8443)),
        ("2001:DB8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
    ] {
        assert_eq!(parse_origin(text), Ok((host.to_owned(), port)), "{text}");
    }
}

#[test]
fn what_is_no_origin_is_refused_with_the_remedy() {
    for (text, problem, accepted) in [
        ("https://tiles.example.com/a", "is a URL", "write \"tiles.example.com\""),
        ("https://", "is a URL", "a host name"),
        ("*.example.com", "is a pattern", "any_host"),
        ("", "no host", "a host name"),
        ("tiles.example.com:0", "`0` as its port", "1 to 65535"),
        ("tiles.example.com:", "`` as its port", "1 to 65535"),
        ("192.0.2", "neither a name nor a complete IPv4", "a host name"),
        ("[2001:db8::1", "without `]`", "a host name"),
        ("[tiles]", "no IPv6 address", "a host name"),
        ("[::1]x", "other than a port", "a host name"),
        ("a b", "DNS cannot hold", "a host name"),
    ] {
        let error = parse_origin(text).unwrap_err();
        assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
    }
}

#[test]
fn sources_are_addresses_networks_files_and_dns() {
    let net = |text: &str| AddressSource::Net(text.parse().unwrap());
    for (text, source) in [
        ("192.0.2.1", net("192.0.2.1/32")),
        ("10.1.0.0/16", net("10.1.0.0/16")),
        ("2001:db8::/32", net("2001:db8::/32")),
        ("dns", AddressSource::Dns),
        ("@ips.txt", AddressSource::File("ips.txt".into())),
    ] {
        assert_eq!(parse_source(text), Ok(source), "{text}");
    }
    for (text, problem, accepted) in [
        ("10.0.0.0/15", "more than 65536", "/16"),
        ("192.0.2.1:443", "has a port", "write \"192.0.2.1\""),
        ("192.0.2.1/24", "beyond its prefix", "192.0.2.0/24"),
        ("ips.txt", "neither an address nor", "@ips.txt"),
        ("@", "names no file", "@ips.txt"),
        ("224.0.0.1", "a server can have", ""),
        ("0.0.0.0", "a server can have", ""),
        ("ff02::1", "a server can have", ""),
    ] {
        let error = parse_source(text).unwrap_err();
        assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
    }
}

#[test]
fn a_gateway_listens_on_an_ip_and_port() {
    assert_eq!(parse_gateway("127.0.0.1:8180").unwrap().to_string(), "127.0.0.1:8180");
    assert_eq!(parse_gateway("http://127.0.0.1:8180/").unwrap_err().accepted, "write \"127.0.0.1:8180\"");
    assert!(parse_gateway("localhost:8180").unwrap_err().problem.contains("names a host"));
    assert!(parse_gateway("127.0.0.1").unwrap_err().problem.contains("no port"));
}

#[test]
fn users_and_passwords_are_what_basic_authentication_can_tell() {
    assert!(check_user("ann").is_ok() && check_user("Ünal").is_ok());
    for name in ["", "a:b", "a\nb", &"a".repeat(USER_MAX + 1)] {
        assert!(check_user(name).is_err(), "{name:?}");
    }
    assert!(check_password("a:b ü").is_ok());
    for password in ["", "hunter2\n", "hunter2\0", &"hunter2".repeat(200)] {
        let error = check_password(password).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_path_begins_with_a_slash_and_has_no_fragment() {
    for path in ["/", "/a/b?c=d", "/%20"] {
        assert_eq!(parse_path(path), Ok(path.to_owned()));
    }
    for path in ["", "a", "/a#b", "/a b", "/ü", "https://a/", &format!("/{}", "a".repeat(PATH_MAX))] {
        assert!(parse_path(path).is_err(), "{path}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*", near in "[a-z0-9@:/.%\\[\\]-]{0,30}") {
        for text in [&*text, &*near] {
            let _ = (parse_origin(text), parse_source(text), parse_gateway(text), parse_path(text));
        }
    }
}
