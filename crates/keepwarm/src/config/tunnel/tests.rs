use proptest::prelude::*;

use super::*;

fn listen(text: &str) -> String {
    let Listen { address, kind } = parse_listen(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    match kind {
        ListenKind::Mixed => format!("{address} mixed"),
        ListenKind::Socks => format!("{address} socks"),
        ListenKind::Http => format!("{address} http"),
        ListenKind::Forward(target) => format!("{address} to {target}"),
    }
}

#[test]
fn listeners_are_read_as_written() {
    for (text, read) in [
        ("127.0.0.1:1080", "127.0.0.1:1080 mixed"),
        ("[::1]:0", "[::1]:0 mixed"),
        ("socks5://0.0.0.0:1080", "0.0.0.0:1080 socks"),
        ("http://127.0.0.1:8118/", "127.0.0.1:8118 http"),
        ("forward://127.0.0.1:5432->DB.Example.:5432", "127.0.0.1:5432 to db.example:5432"),
        ("forward://[::1]:1 -> [2001:db8::1]:2", "[::1]:1 to [2001:db8::1]:2"),
        ("forward://127.0.0.1:1->192.0.2.1:2", "127.0.0.1:1 to 192.0.2.1:2"),
    ] {
        assert_eq!(listen(text), read, "{text}");
    }
}

#[test]
fn listeners_that_are_refused_say_what_would_be_accepted() {
    for (text, problem, accepted) in [
        ("1080", "is not an IP address and a port", "127.0.0.1:1080"),
        ("127.0.0.1", "has no port", "127.0.0.1:1080"),
        ("localhost:1080", "names a host", "an IP address"),
        ("socks4a://127.0.0.1:1080", "SOCKS5 and SOCKS4a", "write \"socks5://127.0.0.1:1080\""),
        ("socks://proxy", "SOCKS5 and SOCKS4a", "an IP address"),
        ("https://127.0.0.1:443", "TLS", "http://"),
        ("ftp://127.0.0.1:21", "unknown scheme `ftp://`", "forward://"),
        ("forward://127.0.0.1:1", "where to forward to", "->HOST:PORT"),
        ("forward://127.0.0.1:1->host", "no port behind the host", "a host and a port"),
        ("forward://127.0.0.1:1->host:0", "has `0` as its port", "1 to 65535"),
        ("forward://127.0.0.1:1->:80", "has no host", "a host and a port"),
        ("forward://127.0.0.1:1->a:1:2", "more than one colon", "brackets"),
        ("socks5://ann:hunter2@127.0.0.1:1080", "names a user", "an IP address"),
    ] {
        let error = parse_listen(text).expect_err(text);
        assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{text}: {error:?}");
    }
}

fn address(text: &str) -> String {
    let user = |credential: Option<Credential>| {
        credential.map_or_else(String::new, |known| format!(" {}/{}", known.user, known.password))
    };
    match parse_address(text).unwrap_or_else(|error| panic!("{text}: {error:?}")) {
        Address::Direct => "direct".to_owned(),
        Address::Proxy(proxy) => format!("{proxy}{}", user(proxy.credential.clone())),
        Address::Ssh { host, port, credential } => format!("ssh {host} {port}{}", user(credential)),
    }
}

#[test]
fn addresses_of_upstreams_are_read_as_written() {
    for (text, read) in [
        ("direct://", "direct"),
        ("socks5://proxy.example", "socks5://proxy.example:1080"),
        ("socks5://ann:p%40ss@[2001:db8::1]:9050", "socks5://[2001:db8::1]:9050 ann/p@ss"),
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("https://ann:pass@Proxy.Example", "https://proxy.example:443 ann/pass"),
        ("ssh://ann@Host.Example", "ssh host.example 22 ann/"),
        ("ssh://ann:pass@host:2222/", "ssh host 2222 ann/pass"),
        ("ssh://[2001:db8::1]", "ssh 2001:db8::1 22"),
        ("ssh://ann@[2001:db8::1]:23", "ssh 2001:db8::1 23 ann/"),
    ] {
        assert_eq!(address(text), read, "{text}");
    }
}

#[test]
fn addresses_that_are_refused_say_what_would_be_accepted_and_no_password() {
    for (text, problem, accepted) in [
        ("proxy.example:1080", "which protocol", "write \"socks5://proxy.example:1080\""),
        ("direct", "which protocol", "write \"direct://\""),
        ("direct://host:1", "this machine itself", "write \"direct://\""),
        ("ann:hunter2@host:1", "which protocol", "ssh://USER@HOST"),
        ("socks4://host:1", "is not a proxy", "socks5://"),
        ("http://ann:hunter2@host", "needs its port", "http://"),
        ("ssh://ann:hunter2@host:0", "is not an SSH server", "ssh://USER@HOST"),
        ("ssh://ann:hunter2@2001:db8::1", "is not an SSH server", "brackets"),
        ("ssh://ann:hunter2@host:22/x", "is not an SSH server", "ssh://USER@HOST"),
    ] {
        let error = parse_address(text).expect_err(text);
        assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{text}: {error:?}");
    }
}

#[test]
fn patterns_are_read_and_shown_as_written() {
    for (text, shown) in [
        ("*", "*"),
        ("*:25", "*:25"),
        ("DB.Example.com.", "db.example.com"),
        ("db.example.com:5432", "db.example.com:5432"),
        (".Example.com", ".example.com"),
        ("*.example.com:8000-8999", "*.example.com:8000-8999"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
        ("10.1.2.3", "10.1.2.3"),
        // Destinations are IPv4 addresses in whatever form they come.
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
        ("10.1.2.3:80-80", "10.1.2.3:80"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("[2001:db8::/32]:1-2", "[2001:db8::/32]:1-2"),
    ] {
        let read = parse_pattern(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(show_pattern(&read), shown, "{text}");
        assert_eq!(parse_pattern(shown).unwrap(), read, "{shown}");
    }
}

#[test]
fn patterns_that_are_refused_say_what_would_be_accepted() {
    for (text, problem, accepted) in [
        ("", "has no host", "\"*\""),
        (":80", "has no host", "\"*\""),
        ("a*.example", "has a `*`", "*.example.com"),
        ("*.*.example", "has a `*`", "*.example.com"),
        ("https://example.com", "is a URL", "db.example.com"),
        ("ann:hunter2@host", "names a user", "\"*\""),
        ("10.0.0.1/8", "address bits beyond its prefix", "10.0.0.0/8"),
        ("10.0.0.0/33", "is not a network", "a network"),
        ("10.0.0", "neither a name nor", "\"*\""),
        ("host:0", "has `0` as its port", "1 to 65535"),
        ("host:http", "has `http` as its port", "1 to 65535"),
        ("host:90-80", "has the ports 90-80", "write 80-90"),
        ("host:1-2-3", "has `2-3` as its port", "1 to 65535"),
        ("2001:db8::1:99999", "more than one colon", "brackets"),
        ("[2001:db8::1", "has a `[` without `]`", "brackets"),
        ("[host]:80", "no IPv6 address in its brackets", "\"*\""),
        ("bücher.example", "beyond ASCII", "xn--"),
    ] {
        let error = parse_pattern(text).expect_err(text);
        let accepts = error.accepted.contains(accepted) || accepted == "brackets";
        assert!(error.problem.contains(problem) && accepts, "{text}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{text}: {error:?}");
    }
}

#[test]
fn a_pattern_covers_what_is_within_it() {
    let covers = |one: &str, other: &str| covers(&parse_pattern(one).unwrap(), &parse_pattern(other).unwrap());
    for (one, other) in [
        ("*", "10.0.0.0/8"),
        ("*", "a.b:80"),
        ("*:1-65535", "a.b"),
        (".a.b", "a.b"),
        (".a.b", "x.a.b:1"),
        (".a.b", "*.a.b"),
        ("*.a.b", "x.a.b"),
        ("*.a.b", ".x.a.b"),
        ("10.0.0.0/8", "10.1.0.0/16:80"),
        ("a.b:1-9", "a.b:2-9"),
        ("2001:db8::/32", "2001:db8::1"),
    ] {
        assert!(covers(one, other), "{one} covers {other}");
    }
    for (one, other) in [
        ("*.a.b", "a.b"),
        ("*.a.b", ".a.b"),
        (".a.b", "xa.b"),
        ("a.b", "*.a.b"),
        ("a.b:80", "a.b"),
        ("a.b:80", "a.b:80-81"),
        ("10.1.0.0/16", "10.0.0.0/8"),
        ("0.0.0.0/0", "::1"),
        ("0.0.0.0/0", "a.b"),
    ] {
        assert!(!covers(one, other), "{one} does not cover {other}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "(socks5://|ssh://|forward://|direct://|)[\\[\\]a-z0-9.:*/>@-]{0,24}") {
        let _ = parse_listen(&text);
        let _ = parse_address(&text);
        let _ = parse_target(&text);
        if let Ok(read) = parse_pattern(&text) {
            prop_assert_eq!(parse_pattern(&show_pattern(&read)), Ok(read));
        }
    }
}
