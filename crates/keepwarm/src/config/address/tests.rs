//! What addresses are read as, and how near misses are refused.

use proptest::prelude::*;

use super::*;

#[test]
fn upstreams_are_read_with_their_defaults() {
    for (text, transport, host, port, path) in [
        ("udp://1.1.1.1", Transport::Udp, "1.1.1.1", 53, ""),
        ("udp://[2606:4700::1]:5353", Transport::Udp, "2606:4700::1", 5353, ""),
        ("tcp://9.9.9.9:54", Transport::Tcp, "9.9.9.9", 54, ""),
        ("tls://dns.quad9.net", Transport::Tls, "dns.quad9.net", 853, ""),
        ("tls://dns.quad9.net:853", Transport::Tls, "dns.quad9.net", 853, ""),
        ("https://dns.quad9.net", Transport::Https, "dns.quad9.net", 443, "/dns-query"),
        ("https://dns.quad9.net:8443/q?a=b", Transport::Https, "dns.quad9.net", 8443, "/q?a=b"),
        ("h3://dns.google", Transport::H3, "dns.google", 443, "/dns-query"),
        ("h3://dns.google:444/q", Transport::H3, "dns.google", 444, "/q"),
        ("quic://dns.adguard-dns.com", Transport::Quic, "dns.adguard-dns.com", 853, ""),
        ("https://[::1]/dns-query", Transport::Https, "::1", 443, "/dns-query"),
    ] {
        let expected = UpstreamAddress { transport, host: host.into(), port, path: path.into() };
        assert_eq!(parse_upstream(text), Ok(expected), "{text}");
    }
}

#[test]
fn upstreams_are_refused_with_the_remedy() {
    for (text, problem, accepted) in [
        ("1.1.1.1", "which protocol", "write \"udp://1.1.1.1\""),
        ("2606:4700::1", "which protocol", "write \"udp://[2606:4700::1]\""),
        ("dns.quad9.net:853", "which protocol", "\"tls://dns.quad9.net:853\""),
        ("", "which protocol", "udp://"),
        ("quic://dns.quad9.net/dns-query", "has a path", "h3://"),
        ("dot://dns.quad9.net", "unknown scheme `dot://`", "tls://"),
        ("http://dns.quad9.net", "not encrypted", "https://"),
        ("tls://", "no host", "tls://"),
        ("tls://dns.quad9.net:0", "`0` as its port", "1 to 65535"),
        ("tls://dns.quad9.net:99999", "`99999` as its port", "1 to 65535"),
        ("tls://dns.quad9.net:+53", "`+53` as its port", "1 to 65535"),
        ("tls://dns.quad9.net:", "`` as its port", "1 to 65535"),
        ("tls://2606:4700::1", "without brackets", "[2606:4700::1]"),
        ("tls://[::1", "without `]`", "tls://"),
        ("tls://[::1]x", "other than a port", "tls://"),
        ("tls://[dns]", "no IPv6 address", "tls://"),
        ("tls://dns.quad9.net/dns-query", "has a path", "https://"),
        ("https://dns.quad9.net/a#b", "a URL cannot hold", "/dns-query"),
        ("https://u:p@dns.quad9.net/", "user name", "https://"),
        ("udp://1.1.1", "neither a name nor", "udp://"),
        ("udp://a..b", "DNS cannot hold", "udp://"),
        ("udp://-a.b", "DNS cannot hold", "udp://"),
    ] {
        let error = parse_upstream(text).expect_err(text);
        assert!(error.problem.contains(problem), "{text}: {error:?}");
        assert!(error.accepted.contains(accepted), "{text}: {error:?}");
    }
}

#[test]
fn listeners_are_read_and_refused() {
    let address = "127.0.0.1:5300".parse().unwrap();
    assert_eq!(parse_listen("127.0.0.1:5300"), Ok(Listen::plain(address)));
    assert_eq!(parse_listen("udp://127.0.0.1:5300"), Ok(Listen::new(address, ListenTransport::Udp)));
    assert_eq!(parse_listen("tcp://127.0.0.1:5300"), Ok(Listen::new(address, ListenTransport::Tcp)));
    assert!(parse_listen("[::1]:0").is_ok());
    for (text, address, transport, path) in [
        ("tls://127.0.0.1", "127.0.0.1:853", ListenTransport::Tls, ""),
        ("tls://[::]:8853", "[::]:8853", ListenTransport::Tls, ""),
        ("quic://[::1]", "[::1]:853", ListenTransport::Quic, ""),
        ("https://127.0.0.1", "127.0.0.1:443", ListenTransport::Https, "/dns-query"),
        ("https://[::]:8443/q", "[::]:8443", ListenTransport::Https, "/q"),
        ("h3://0.0.0.0/q", "0.0.0.0:443", ListenTransport::H3, "/q"),
    ] {
        let expected = Listen { address: address.parse().unwrap(), transport, path: path.into() };
        assert_eq!(parse_listen(text), Ok(expected), "{text}");
    }
    for (text, problem) in [
        ("127.0.0.1", "has no port"),
        ("::1", "has no port"),
        ("127.0.0.1:70000", "`70000` as its port"),
        ("localhost:53", "only IP addresses"),
        ("tls://127.0.0.1:853/dns-query", "has a path"),
        ("https://127.0.0.1/a b", "a URL cannot hold"),
        ("https://127.0.0.1/dns-query{?dns}", "has a query"),
        ("https://127.0.0.1/dns-query?dns=", "has a query"),
        ("http://127.0.0.1:80", "not encrypted"),
        ("udp://127.0.0.1", "has no port"),
        ("tls://dns.lan", "is not an IP address"),
        ("dns://127.0.0.1:53", "unknown scheme"),
        ("", "is not an IP address"),
    ] {
        assert!(parse_listen(text).expect_err(text).problem.contains(problem), "{text}");
    }
}

#[test]
fn networks_bootstrap_and_hosts_are_read_and_refused() {
    assert_eq!(parse_network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    assert_eq!(parse_network("fd00::/8").unwrap().to_string(), "fd00::/8");
    let error = parse_network("192.168.1.5/24").unwrap_err();
    assert!(error.accepted.contains("\"192.168.1.0/24\"") && error.accepted.contains("\"192.168.1.5\""), "{error:?}");
    assert!(parse_network("10.0.0.0/33").is_err());
    assert_eq!(parse_bootstrap("9.9.9.9"), Ok("9.9.9.9:53".parse().unwrap()));
    assert_eq!(parse_bootstrap("2620:fe::fe"), Ok("[2620:fe::fe]:53".parse().unwrap()));
    assert!(parse_bootstrap("9.9.9.9:0").is_err());
    assert!(parse_ip("9.9.9.9:53").unwrap_err().problem.contains("has a port"));
    assert!(parse_host("dns.quad9.net").is_ok() && parse_host("9.9.9.9").is_ok() && parse_host("*.net").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*", rest in "[\\[\\]:/?#@.%0-9a-f-]{0,24}") {
        for text in [text.clone(), format!("tls://{rest}"), format!("https://{rest}"), rest.clone(), format!("udp://{text}")] {
            let _ = parse_upstream(&text);
            let _ = parse_listen(&text);
            let _ = parse_bootstrap(&text);
            let _ = parse_plain_socket(&text);
            let _ = parse_network(&text);
            let _ = parse_ip(&text);
            let _ = parse_host(&text);
        }
    }

    #[test]
    fn an_upstream_is_read_back_from_what_it_says(host in "[a-z]{1,8}(\\.[a-z]{2,5}){1,2}", port in 1u16..) {
        let read = parse_upstream(&format!("https://{host}:{port}/dns-query")).unwrap();
        prop_assert_eq!((&*read.host, read.port, &*read.path), (host.as_str(), port, "/dns-query"));
    }
}
