//! Whole configs: that each makes a config that is accepted, and that every option leaves a trace.

use keepwarm_dns::config::{DnsConfig, ListenTransport, Strategy, Transport, UpstreamConfig};
use proptest::prelude::*;

use super::*;

/// The folder with the configs of the command's own tests.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd/import.in")
}

fn import(program: Option<Program>, file: &str) -> Imported {
    from_text(program, file, &read_file(&folder().join(file)).unwrap(), &folder()).unwrap()
}

fn flags(program: Program, line: &str) -> Imported {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    from_flags(Some(program), &words).unwrap()
}

/// The typed config that an import comes to, which must be accepted without a warning.
fn dns(imported: &Imported) -> DnsConfig {
    match Config::parse("imported", &imported.config, &folder()) {
        Ok(loaded) => {
            assert_eq!(loaded.warnings.iter().count(), 0, "{}\n{}", imported.config, loaded.warnings);
            loaded.config.dns.expect("an import is of DNS")
        }
        Err(error) => panic!("{error}\n{}", imported.config),
    }
}

fn upstreams(dns: &DnsConfig, group: &str) -> Vec<String> {
    let shown = |upstream: &UpstreamConfig| {
        format!("{} {}:{}{}", upstream.transport.as_str(), upstream.host, upstream.port, upstream.path)
    };
    dns.upstreams.iter().filter(|upstream| &*upstream.group == group).map(shown).collect()
}

fn routes(dns: &DnsConfig) -> Vec<String> {
    dns.routes.iter().map(|route| format!("{} via {}", route.suffixes.join(" "), route.group)).collect()
}

fn listeners(dns: &DnsConfig) -> Vec<String> {
    dns.listen.iter().map(|listen| format!("{} {}", listen.transport.as_str(), listen.address)).collect()
}

#[test]
fn every_fixture_makes_a_config_that_is_accepted_and_is_told_apart() {
    for (file, program) in [
        ("cloudflared.yml", Program::Cloudflared),
        ("dnsproxy.yaml", Program::Dnsproxy),
        ("smartdns.conf", Program::Smartdns),
        ("unbound.conf", Program::Unbound),
    ] {
        let imported = import(None, file);
        assert_eq!(imported.program, program, "{file}");
        dns(&imported);
        assert!(!imported.report.contains("keepwarm check"), "{}", imported.report);
    }
}

#[test]
fn dnsproxy_domains_become_routes_and_its_fallback_a_group() {
    let dns = dns(&import(None, "dnsproxy.yaml"));
    assert_eq!(
        upstreams(&dns, "default"),
        ["tls dns.quad9.net:853", "h3 dns.google:443/dns-query", "https dns.quad9.net:443/dns-query"]
    );
    assert_eq!(dns.upstreams[2].addresses, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(upstreams(&dns, "corp.example"), ["udp 10.0.0.1:53", "udp 10.0.0.2:53"]);
    assert_eq!(
        (upstreams(&dns, "fallback"), dns.fallback.as_deref()),
        (vec!["udp 1.1.1.1:53".to_owned()], Some("fallback"))
    );
    let routes = routes(&dns);
    assert!(routes.contains(&"corp.example lan via corp.example".to_owned()), "{routes:?}");
    assert!(routes.contains(&"www.corp.example via default".to_owned()), "{routes:?}");
    assert!(routes.contains(&"wild.example via wild.example".to_owned()), "{routes:?}");
    let private = routes.iter().find(|route| route.contains("168.192.in-addr.arpa")).unwrap();
    assert!(private.ends_with(" via private-rdns"), "{private}");
    assert!(private.contains("31.172.in-addr.arpa") && private.contains("d.f.ip6.arpa"), "{private}");
    let transports: Vec<_> = dns.listen.iter().map(|listen| listen.transport).collect();
    use ListenTransport::{H3, Https, Plain, Quic, Tls};
    assert_eq!(transports, [Plain, Tls, Https, H3, Quic]);
    assert_eq!((dns.strategy, dns.clients.rate_limit, dns.cache.size), (Strategy::Parallel, 100, 4 << 20));
    assert!(dns.local.filter_aaaa && dns.tls.is_some());
    assert_eq!(dns.client_subnet, keepwarm_dns::config::ClientSubnet::Fixed("203.0.113.0/24".parse().unwrap()));
}

#[test]
fn smartdns_groups_become_groups_and_its_addresses_records() {
    let dns = dns(&import(None, "smartdns.conf"));
    assert_eq!(upstreams(&dns, "office"), ["udp 10.0.0.1:53", "tls dns.corp.example:853"]);
    assert_eq!(routes(&dns), ["corp.example lab.example via office", "www.corp.example via default"]);
    assert_eq!(dns.fallback.as_deref(), Some("fallback"));
    assert_eq!(dns.bootstrap, ["9.9.9.9:53".parse().unwrap()]);
    let verified = dns.upstreams.iter().find(|upstream| &*upstream.host == "9.9.9.9").unwrap();
    assert_eq!(
        verified.server_name.as_deref(),
        Some("dns.quad9.net"),
        "the name on the certificate, not the one that is sent"
    );
    assert_eq!(listeners(&dns), ["udp [::]:53", "plain 0.0.0.0:5353", "tls 192.168.1.1:853", "https 192.168.1.1:443"]);
    let records: Vec<&str> = dns.local.records.iter().map(|record| &**record).collect();
    assert!(
        records.contains(&"*.nas.example. 600 AAAA fd00::5")
            && !records.iter().any(|record| record.starts_with("apps.example.")),
        "{records:?}"
    );
}

#[test]
fn unbound_forward_zones_become_groups_and_the_root_the_default() {
    let dns = dns(&import(None, "unbound.conf"));
    assert_eq!(
        upstreams(&dns, "default"),
        ["tls 9.9.9.9:853", "tls 2620:fe::fe:853", "tls 1.1.1.1:853", "tls dns.google:853"]
    );
    assert_eq!(dns.upstreams[1].server_name.as_deref(), Some("dns.quad9.net"));
    assert_eq!(upstreams(&dns, "corp.example"), ["udp 10.0.0.1:53", "udp 10.0.0.2:5353"]);
    assert_eq!(routes(&dns), ["corp.example via corp.example", "10.in-addr.arpa via 10.in-addr.arpa"]);
    let allow: Vec<String> = dns.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "192.168.0.0/16"]);
    assert_eq!((dns.cache.size, dns.workers), (48 << 20, 2));
    assert!(dns.upstreams.iter().all(|upstream| upstream.case_randomization));
    let records: Vec<&str> = dns.local.records.iter().map(|record| &**record).collect();
    assert_eq!(
        records,
        [
            "nas.home.arpa. 300 IN A 192.168.1.5",
            "nas.home.arpa. TXT \"two words\"",
            "5.1.168.192.in-addr.arpa. PTR nas.home.arpa.",
            "*.apps.example. A 192.168.1.6",
            "apps.example. A 192.168.1.6"
        ]
    );
    assert_eq!(listeners(&dns), ["plain 0.0.0.0:53", "tls [::]:853", "https 192.168.1.1:443"]);
}

#[test]
fn upstreams_that_nothing_leads_to_are_left_out_and_named() {
    let text = "server 9.9.9.9\nserver 10.0.0.1 -e -group office\n";
    let imported = from_text(Some(Program::Smartdns), "s", text, Path::new("")).unwrap();
    assert_eq!(dns(&imported).upstreams.len(), 1);
    assert!(imported.report.contains("udp://10.0.0.1: no name leads to its group \"office\""), "{}", imported.report);
}

#[test]
fn cloudflared_without_upstreams_gets_its_own_default_and_says_so() {
    let imported = flags(Program::Cloudflared, "proxy-dns --port 5053");
    let dns = dns(&imported);
    assert_eq!(upstreams(&dns, "default"), ["https 1.1.1.1:443/dns-query", "https 1.0.0.1:443/dns-query"]);
    assert_eq!(listeners(&dns), ["plain 127.0.0.1:5053"]);
    assert!(imported.report.contains("cloudflared's own default"), "{}", imported.report);
}

#[test]
fn an_upstream_that_skips_verification_is_verified_and_named() {
    for (imported, place) in [
        (flags(Program::Dnsproxy, "-u tls://dns.quad9.net --insecure"), "`--insecure`"),
        (
            from_text(Some(Program::Smartdns), "s", "server-tls 9.9.9.9 -k\n", Path::new("")).unwrap(),
            "s:1 `server-tls 9.9.9.9 -k`",
        ),
    ] {
        let lost = imported.report.split("Carried over").next().unwrap();
        assert!(lost.contains(&format!("{place}: ")) && lost.contains("always verifies certificates"), "{lost}");
        assert_eq!(dns(&imported).upstreams[0].transport, Transport::Tls);
    }
}

#[test]
fn what_recursed_is_refused_until_it_has_an_upstream() {
    let imported = import(None, "recursive.conf");
    assert!(imported.report.contains("keepwarm does not recurse"), "{}", imported.report);
    assert!(imported.report.contains("no upstream is in the group \"default\""), "{}", imported.report);
}

#[test]
fn everybody_who_could_ask_before_and_cannot_now_is_spoken_of() {
    let open = flags(Program::Dnsproxy, "-u 9.9.9.9 --cache");
    assert!(open.report.contains("clients: dnsproxy answers whoever reaches it"), "{}", open.report);
    assert_eq!(dns(&open).allow.len(), 8);
    let local = flags(Program::Dnsproxy, "-l 127.0.0.1 -u 9.9.9.9 --cache");
    assert!(!local.report.contains("clients: "), "{}", local.report);
}

/// Every line of a fixture that is neither in the notes nor known to be carried over would be a guess.
#[test]
fn an_unknown_option_is_never_passed_over_in_silence() {
    for (program, text) in [
        (Program::Cloudflared, "proxy-dns: true\nwibble: 1\n"),
        (Program::Dnsproxy, "upstream: [9.9.9.9]\nwibble: 1\n"),
        (Program::Smartdns, "server 9.9.9.9\nwibble 1\n"),
        (Program::Unbound, "server:\n  wibble: 1\nforward-zone:\n  name: .\n  forward-addr: 9.9.9.9\n  wibble: 1\n"),
    ] {
        let report = from_text(Some(program), "f", text, Path::new("")).unwrap().report;
        assert_eq!(report.matches("wibble").count(), text.matches("wibble").count(), "{program:?}: {report}");
    }
    assert!(flags(Program::Dnsproxy, "-u 9.9.9.9 --wibble 3").report.contains("`--wibble 3`"));
}

proptest! {
    #[test]
    fn any_text_is_imported_or_refused_without_a_panic(text in "\\PC*", lines in proptest::collection::vec("(server|bind|address|nameserver|forward-zone:|name:|forward-addr:|local-data:|upstream:|interface:|cache-size) [-/#@:.a-z0-9\\[\\]\"]{0,12}", 0..8)) {
        for program in [Program::Cloudflared, Program::Dnsproxy, Program::Smartdns, Program::Unbound] {
            let _ = from_text(Some(program), "any", &text, Path::new("no-such-folder"));
            let _ = from_text(Some(program), "any", &lines.join("\n"), Path::new("no-such-folder"));
        }
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let _ = (from_flags(Some(Program::Dnsproxy), &words), from_flags(Some(Program::Cloudflared), &words));
    }
}
