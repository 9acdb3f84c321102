//! The keys of listeners, upstreams, routes and local names: what they come to, and how they are held against each other.

use keepwarm_dns::config::{
    ClientSubnet, Ddr, Ech, HedgeSettings, ListenTls, LocalSettings, QueryLogPrivacy, QueryLogSettings, RouteConfig,
};

use keepwarm_dns::strategy::groups::check_groups;
use keepwarm_lab::Ca;

use super::*;

/// A file with these lines in [dns] and after the first upstream's `address`.
fn file(dns: &str, upstream: &str) -> String {
    format!("version = 1\n[dns]\n{dns}\n[[dns.upstream]]\nname = \"a\"\naddress = \"tls://dns.example\"\n{upstream}\n")
}

/// The warnings of a file that is accepted.
fn warned(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(loaded) => loaded.warnings.iter().map(|fault| fault.title.clone()).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// The titles of a file that is refused, without their places.
fn titles(text: &str) -> Vec<String> {
    let cut = |place: String| place.splitn(3, ':').nth(2).unwrap_or_default().trim().to_owned();
    refused(text).into_iter().map(cut).collect()
}

/// `dns.crt` and `dns.key` in this folder.
fn certificate(folder: &Path) {
    let (certificate, key) = Ca::new().issue_pem(&["dns.example"]).unwrap();
    std::fs::write(folder.join("dns.crt"), certificate).unwrap();
    std::fs::write(folder.join("dns.key"), key).unwrap();
}

#[test]
fn every_key_of_listeners_and_clients_reaches_the_typed_config() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    std::fs::write(folder.path().join("hosts"), "").unwrap();
    let text = r#"
        version = 1
        [dns]
        listen = ["tls://127.0.0.1", "https://127.0.0.1/q", "quic://[::1]", "h3://[::1]"]
        strategy = "hedged"
        rate_limit = 50
        tls = { certificate = "dns.crt", key = "dns.key" }
        hedge = { budget = 0.1, burst = 3 }
        clients = { max_in_flight_per_client = 9, proxy_protocol = ["10.0.0.5", "fd00::/64"] }
        client_subnet = { policy = "set", v4_prefix = 20, v6_prefix = 48 }
        local = { hosts = ["hosts"], hosts_ttl = "5s", records = ["nas.home.arpa. A 192.168.1.5"], filter_aaaa = true, special_names = false }
        query_log = { privacy = "hashed", file = "log/queries.jsonl", max_size = "1MiB", queue = 7 }
        [[dns.upstream]]
        name = "a"
        address = "tls://dns.example"
    "#;
    let loaded = Config::parse("test.toml", text, folder.path()).unwrap();
    assert_eq!(loaded.warnings.iter().count(), 0);
    let dns = loaded.config.dns.unwrap();
    let transports: Vec<_> =
        dns.listen.iter().map(|listen| (listen.transport, listen.address.port(), &*listen.path)).collect();
    assert_eq!(
        transports,
        [
            (ListenTransport::Tls, 853, ""),
            (ListenTransport::Https, 443, "/q"),
            (ListenTransport::Quic, 853, ""),
            (ListenTransport::H3, 443, "/dns-query")
        ]
    );
    let path = |name: &str| folder.path().join(name);
    assert_eq!(dns.tls, Some(ListenTls { certificate: path("dns.crt"), key: path("dns.key") }));
    assert_eq!((dns.strategy, dns.hedge), (Strategy::Hedged, HedgeSettings { budget: 0.1, burst: 3 }));
    assert_eq!((dns.clients.rate_limit, dns.clients.max_in_flight_per_client), (50, 9));
    let proxies: Vec<_> = dns.clients.proxy_protocol.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.5/32", "fd00::/64"]);
    assert_eq!(dns.client_subnet, ClientSubnet::Set { v4: 20, v6: 48 });
    let local = LocalSettings {
        hosts: vec![path("hosts")],
        hosts_ttl: Duration::from_secs(5),
        records: vec!["nas.home.arpa. A 192.168.1.5".into()],
        filter_aaaa: true,
        special_names: false,
    };
    assert_eq!(dns.local, local);
    let log = QueryLogSettings {
        privacy: QueryLogPrivacy::Hashed,
        file: Some(path("log/queries.jsonl")),
        max_size: 1 << 20,
        queue: 7,
    };
    assert_eq!(dns.query_log, log);
}

#[test]
fn every_key_of_upstreams_and_routes_reaches_the_typed_config() {
    let text = r#"
        version = 1
        [dns]
        strategy = "random"
        fallback = "backup"
        [[dns.upstream]]
        name = "a"
        address = "h3://dns.example/q"
        weight = 5
        ech = "off"
        cookies = false
        padding = false
        [[dns.upstream]]
        name = "b"
        address = "udp://10.0.0.1"
        group = "corp"
        ddr = "auto"
        [[dns.upstream]]
        name = "c"
        address = "quic://dns.example"
        group = "backup"
        [[dns.route]]
        match = ["Corp.Example.", "10.in-addr.arpa"]
        via = "corp"
    "#;
    let Loaded { config: Config { dns: Some(dns), .. }, warnings, .. } = parse(text).unwrap() else { panic!("no dns") };
    assert_eq!(places(&warnings), [""; 0]);
    let [a, b, c] = &dns.upstreams[..] else { panic!("{:?}", dns.upstreams) };
    assert_eq!((a.transport, &*a.path, a.weight, a.ech), (Transport::H3, "/q", 5, Ech::Off));
    assert_eq!((a.cookies, a.padding, &*a.group), (false, false, "default"));
    assert_eq!((&*b.group, b.ddr, &*c.group, c.transport), ("corp", Ddr::Auto, "backup", Transport::Quic));
    assert_eq!(dns.fallback.as_deref(), Some("backup"));
    let route = RouteConfig { suffixes: vec!["corp.example".into(), "10.in-addr.arpa".into()], group: "corp".into() };
    assert_eq!(dns.routes, [route]);
}

#[test]
fn every_strategy_is_known_by_its_name() {
    for strategy in ["sequential", "parallel", "racing", "round-robin", "random", "least-loaded", "fastest", "hedged"] {
        let dns = parse(&file(&format!("strategy = \"{strategy}\""), "")).unwrap().config.dns.unwrap();
        assert_eq!(dns.strategy.as_str(), strategy);
    }
}

#[test]
fn an_encrypted_listener_needs_a_certificate_that_can_be_read() {
    let listen = "listen = [\"127.0.0.1:5300\", \"tls://127.0.0.1:8853\"]";
    assert_eq!(titles(&file(listen, "")), ["`dns.listen` has a tls:// listener, and there is no [dns.tls]"]);
    let half = format!("{listen}\ntls = {{ certificate = \"dns.crt\" }}");
    let faults = titles(&file(&half, ""));
    assert!(
        faults[0].starts_with("`dns.tls.key` is missing") && faults[1].contains("dns.crt cannot be read"),
        "{faults:?}"
    );
    let missing = format!("{listen}\ntls = {{ certificate = \"none.crt\", key = \"none.key\" }}");
    let faults = titles(&file(&missing, ""));
    assert!(faults.iter().all(|fault| fault.contains("cannot be read")) && faults.len() == 2, "{faults:?}");
    // Nothing shows the certificate yet, so its files may come later.
    assert!(parse(&file("tls = { certificate = \"none.crt\", key = \"none.key\" }", "")).is_ok());
}

#[test]
fn a_certificate_is_read_as_the_listeners_will_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (own, key) = Ca::new().issue_pem(&["dns.example"]).unwrap();
    let (other, _) = Ca::new().issue_pem(&["dns.example"]).unwrap();
    for (name, text) in
        [("own.crt", &own), ("own.key", &key), ("other.crt", &other), ("both.pem", &(own.clone() + &key))]
    {
        write(name, text);
    }
    write("note.txt", "nothing here\n");
    let faults = |certificate: &str, key: &str| {
        let listen = "listen = [\"127.0.0.1:5300\", \"quic://127.0.0.1:8853\"]";
        let text = file(&format!("{listen}\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}"), "");
        match Config::parse("test.toml", &text, folder.path()) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Faults(faults)) => places(&faults),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(faults("own.crt", "own.key"), [""; 0]);
    assert_eq!(faults("both.pem", "both.pem"), [""; 0]);
    for (certificate, key, place, words) in [
        ("other.crt", "own.key", "4:42: `dns.tls.key`", "is not that of the first certificate in"),
        ("note.txt", "own.key", "4:23: `dns.tls.certificate`", "has no certificate"),
        ("own.crt", "note.txt", "4:40: `dns.tls.key`", "has no private key"),
        ("own.crt", "own.crt", "4:40: `dns.tls.key`", "has no private key"),
    ] {
        let found = faults(certificate, key);
        assert!(found.len() == 1 && found[0].starts_with(place) && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_record_that_the_server_would_refuse_is_refused_in_its_place() {
    let records = |list: &str| titles(&file(&format!("local = {{ records = [{list}] }}"), ""));
    let bad = records("\"a.test. A 192.0.2.1\", \"b.test. A 192.0.2\"");
    assert!(bad.len() == 1 && bad[0].starts_with("`dns.local.records` has a line that is no record:"), "{bad:?}");
    let clash = records("\"a.test. CNAME b.test.\", \"c.test. A 192.0.2.1\", \"A.test. A 192.0.2.2\"");
    assert_eq!(clash, ["`dns.local.records` contradict each other: a name with a CNAME record has no other"]);
    // The same record twice, and several of one name, are no contradiction.
    let fine = "\"a.test. CNAME b.test.\", \"a.test. CNAME b.test.\", \"c.test. A 192.0.2.1\", \"c.test. AAAA ::1\"";
    assert!(parse(&file(&format!("local = {{ records = [{fine}] }}"), "")).is_ok());
}

/// What the server says of groups, the file's checks say too: nobody learns it at the start only.
#[test]
fn the_checks_of_groups_agree_with_those_of_the_server() {
    let up = |group: &str| {
        format!("[[dns.upstream]]\nname = \"{group}\"\naddress = \"udp://127.0.0.1\"\ngroup = \"{group}\"\n")
    };
    let route = |suffix: &str, group: &str| format!("[[dns.route]]\nmatch = [\"{suffix}\"]\nvia = \"{group}\"\n");
    let (default, corp) = (up("default"), up("corp"));
    for (dns, rest, fine) in [
        ("", default.clone(), true),
        ("", default.clone() + &corp + &route("corp.example", "corp"), true),
        ("fallback = \"corp\"", default.clone() + &corp, true),
        ("fallback = \"corp\"", corp.clone(), true),
        ("", default.clone() + &route("corp.example", "corp"), false),
        ("fallback = \"none\"", default.clone(), false),
        ("", corp.clone() + &route("corp.example", "corp"), false),
        ("", default.clone() + &corp + &route("a.test", "corp") + &route("A.test", "default"), false),
        ("", default.clone() + &corp + &route("a.test", "corp") + &route("a.test.", "corp"), false),
    ] {
        let text = format!("version = 1\n[dns]\n{dns}\n{rest}");
        let (spec, faults) = unchecked(&text);
        assert_eq!(faults, usize::from(!fine), "{text}");
        assert_eq!(check_groups(&spec).len(), faults, "{text}");
    }
}

/// What a file comes to, be it refused, and the number of its errors.
fn unchecked(text: &str) -> (DnsConfig, usize) {
    let mut faults = Faults::new("test.toml", text);
    let (tree, _) = DeTable::parse_recoverable(text);
    let spec = spec::FileSpec::from_table(&mut faults, "", tree.get_ref());
    let config = meaning::config(spec, &mut faults, Path::new(""));
    (config.dns.unwrap(), faults.count(fault::Severity::Error))
}

#[test]
fn listeners_on_one_address_need_different_protocols() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let pair = |one: &str, two: &str| {
        let tls = "tls = { certificate = \"dns.crt\", key = \"dns.key\" }";
        let text = file(&format!("listen = [\"{one}\", \"{two}\"]\n{tls}"), "");
        Config::parse("test.toml", &text, folder.path()).map_err(|error| error.to_string())
    };
    for (one, two) in [
        ("udp://127.0.0.1:53", "tcp://127.0.0.1:53"),
        ("tls://127.0.0.1:853", "quic://127.0.0.1:853"),
        ("https://127.0.0.1:443", "h3://127.0.0.1:443"),
        ("127.0.0.1:53", "127.0.0.2:53"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        pair(one, two).unwrap();
    }
    for (one, two) in [
        ("127.0.0.1:53", "tcp://127.0.0.1:53"),
        ("127.0.0.1:53", "quic://127.0.0.1:53"),
        ("tls://127.0.0.1:853", "https://127.0.0.1:853"),
        ("h3://127.0.0.1:443", "quic://127.0.0.1:443"),
        ("https://127.0.0.1:443/a", "https://127.0.0.1:443/b"),
    ] {
        assert!(pair(one, two).unwrap_err().contains("twice"), "{one} {two}");
    }
    let control = format!("{}[control]\nlisten = \"127.0.0.1:5300\"\n", file("", ""));
    assert!(parse(&control).is_ok(), "only what the file says itself is held against each other");
    let both = format!("{}[control]\nlisten = \"127.0.0.1:5300\"\n", file("listen = [\"127.0.0.1:5300\"]", ""));
    assert_eq!(titles(&both), ["`control.listen` is 127.0.0.1:5300, where `dns.listen` takes TCP"]);
}

#[test]
fn keys_of_an_upstream_are_refused_where_they_mean_nothing() {
    let with = |address: &str, keys: &str| file("", keys).replace("tls://dns.example", address);
    for (address, keys) in [
        ("udp://10.0.0.1", "padding = false\nech = \"off\"\nddr = \"off\"\ncookies = true"),
        ("udp://10.0.0.1", "padding = true\nech = \"auto\"\nddr = \"auto\""),
        ("tcp://10.0.0.1", "ddr = \"require\""),
        ("tls://dns.example", "ech = \"require\"\naddresses = [\"10.0.0.1\"]\nserver_name = \"a.example\""),
        ("tls://10.0.0.1", "ech = \"auto\""),
        ("quic://dns.example", "ech = \"off\"\npadding = true\nserver_name = \"a.example\""),
    ] {
        assert_eq!(warned(&with(address, keys)), [""; 0], "{address} {keys}");
    }
    for (address, keys, title) in [
        ("udp://10.0.0.1", "padding = true", "`dns.upstream.padding` has no meaning with udp://"),
        ("tcp://10.0.0.1", "ech = \"auto\"", "`dns.upstream.ech` has no meaning with tcp://"),
        ("h3://dns.example", "ech = \"auto\"", "`dns.upstream.ech` has no meaning with h3://"),
        ("udp://10.0.0.1", "server_name = \"a.example\"", "`dns.upstream.server_name` has no meaning with udp://"),
        (
            "tls://10.0.0.1",
            "ech = \"require\"",
            "`dns.upstream.ech` is required and cannot be had: no connection would be made",
        ),
        (
            "quic://dns.example",
            "ech = \"require\"",
            "`dns.upstream.ech` is required and cannot be had: no connection would be made",
        ),
        (
            "tls://dns.example",
            "ddr = \"auto\"",
            "`dns.upstream.ddr` has a meaning for udp:// and tcp:// with an IP only",
        ),
        (
            "udp://dns.example",
            "ddr = \"auto\"",
            "`dns.upstream.ddr` has a meaning for udp:// and tcp:// with an IP only",
        ),
    ] {
        assert_eq!(titles(&with(address, keys)), [title], "{address} {keys}");
    }
}

#[test]
fn keys_that_a_strategy_does_not_use_get_a_warning() {
    let weight = "`dns.upstream.weight` is not used by the strategy \"racing\"";
    assert_eq!(warned(&file("", "weight = 2")), [weight]);
    assert_eq!(warned(&file("", "weight = 1")), [""; 0]);
    assert_eq!(warned(&file("strategy = \"random\"", "weight = 2")), [""; 0]);
    let budget = "`dns.hedge.budget` is not used by the strategy \"fastest\"";
    assert_eq!(warned(&file("strategy = \"fastest\"\nhedge = { budget = 0.5, burst = 10 }", "")), [budget]);
    assert_eq!(warned(&file("strategy = \"hedged\"\nhedge = { budget = 0.5, burst = 3 }", "")), [""; 0]);
    assert_eq!(
        titles(&file("strategy = \"hedged\"\nhedge = { budget = 1.5 }", "")),
        ["`dns.hedge.budget` is out of range"]
    );
}

#[test]
fn a_route_or_fallback_to_a_group_without_upstreams_is_refused_with_the_nearest() {
    let corp = "[[dns.upstream]]\nname = \"b\"\naddress = \"udp://10.0.0.1\"\ngroup = \"corp\"\n";
    let route = |via: &str| format!("{corp}[[dns.route]]\nmatch = [\"corp.example\"]\nvia = \"{via}\"");
    assert_eq!(warned(&file("", &route("corp"))), [""; 0]);
    assert_eq!(warned(&file("fallback = \"corp\"", corp)), [""; 0]);
    let text = file("", &route("crop"));
    let Err(ConfigError::Faults(faults)) = parse(&text) else { panic!("accepted") };
    let fault = faults.iter().find(|fault| fault.title.contains("names the group")).unwrap();
    assert_eq!(fault.title, "`dns.route.via` names the group \"crop\", in which there is no upstream");
    assert_eq!(fault.label, "did you mean \"corp\"?");
    assert_eq!(
        titles(&file("fallback = \"other\"", "")),
        ["`dns.fallback` names the group \"other\", in which there is no upstream"]
    );
    assert_eq!(warned(&file("", corp)), ["nothing leads to the group \"corp\""]);
    assert_eq!(titles(&file("", "group = \"corp\"")).first().unwrap(), "no upstream is in the group \"default\"");
    // Names without a route then go to the fallback at once.
    assert_eq!(warned(&file("fallback = \"corp\"", "group = \"corp\"")), [""; 0]);
    let warning = "`dns.fallback` is the group that every query goes to already";
    assert_eq!(warned(&file("fallback = \"default\"", "")), [warning]);
    assert_eq!(warned(&file("fallback = \"default\"", &route("corp"))), [""; 0]);
}

#[test]
fn a_suffix_belongs_to_one_route() {
    let routes = "[[dns.route]]\nmatch = [\"a.example\", \"A.example.\"]\nvia = \"default\"\n[[dns.route]]\nmatch = [\"*.b.example\", \"a.EXAMPLE\"]\nvia = \"default\"";
    assert_eq!(
        titles(&file("", routes)),
        [
            "`dns.route` has \"a.example\" twice",
            "`dns.route.match` is a pattern",
            "`dns.route` has \"a.example\" twice"
        ]
    );
    let incomplete = "[[dns.route]]\nmatch = []\n[[dns.route]]\nvia = \"default\"";
    assert_eq!(
        titles(&file("", incomplete)),
        ["`dns.route.via` is missing", "`dns.route.match` is empty", "`dns.route.match` is missing"]
    );
}

#[test]
fn a_subnet_is_told_with_the_policy_set_only() {
    let with = |keys: &str| file(&format!("client_subnet = {{ {keys} }}"), "");
    let subnet = |keys: &str| parse(&with(keys)).unwrap().config.dns.unwrap().client_subnet;
    assert_eq!(subnet("policy = \"strip\""), ClientSubnet::Strip);
    assert_eq!(subnet("policy = \"set\""), ClientSubnet::Set { v4: 24, v6: 56 });
    assert_eq!(
        subnet("policy = \"set\", address = \"192.0.2.0/24\""),
        ClientSubnet::Fixed("192.0.2.0/24".parse().unwrap())
    );
    let title = |key: &str| format!("`dns.client_subnet.{key}` has no meaning without `policy = \"set\"`");
    assert_eq!(titles(&with("policy = \"strip\", v4_prefix = 24")), [title("v4_prefix")]);
    assert_eq!(titles(&with("v6_prefix = 56, address = \"192.0.2.0/24\"")), [title("v6_prefix"), title("address")]);
    assert_eq!(
        titles(&with("policy = \"set\", v4_prefix = 24, address = \"192.0.2.0/24\"")),
        ["`dns.client_subnet.v4_prefix` has no meaning beside `address`"]
    );
    assert_eq!(
        titles(&with("policy = \"sett\", v4_prefix = 24")),
        ["`dns.client_subnet.policy` has the unknown policy \"sett\""]
    );
}

#[test]
fn a_query_log_needs_a_file_and_a_file_a_level() {
    let with = |keys: &str| file(&format!("query_log = {{ {keys} }}"), "");
    assert_eq!(
        titles(&with("privacy = \"full\"")),
        ["`dns.query_log.privacy` asks for a log, and `dns.query_log.file` is missing"]
    );
    assert_eq!(warned(&with("file = \"q.jsonl\"")), ["`dns.query_log.file` is not written: `privacy` is off"]);
    assert_eq!(titles(&with("max_size = \"1KiB\"")), ["`dns.query_log.max_size` is out of range"]);
}

#[test]
fn hosts_files_are_looked_for_when_the_file_is_checked() {
    let faults = titles(&file("local = { hosts = [\"none\", \"src\"] }", ""));
    assert!(faults[0].contains("none cannot be read") && faults[1].contains("src is a directory"), "{faults:?}");
}

#[test]
fn a_proxy_list_of_everybody_is_refused() {
    assert_eq!(
        titles(&file("clients = { proxy_protocol = [\"0.0.0.0/0\"] }", "")),
        ["`dns.clients.proxy_protocol` believes everybody"]
    );
}
