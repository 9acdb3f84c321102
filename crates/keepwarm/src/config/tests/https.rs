//! `[https]`: what it comes to, what is held against what, and that no message has a password.

use keepwarm_https::config::{AddressSource, HttpVersions, HttpsConfig, OriginConfig, PoolConfig, Validate, Verdict};
use keepwarm_transport::proxy::ProxyProtocol;

use super::*;

/// A file with these lines in [https] and after the origin's `host`.
fn file(https: &str, origin: &str) -> String {
    format!("version = 1\n[https]\n{https}\n[[https.origin]]\nhost = \"tiles.example\"\n{origin}\n")
}

fn accepted(text: &str) -> HttpsConfig {
    let Loaded { config, warnings, .. } = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(places(&warnings), [""; 0], "{text}");
    config.https.unwrap()
}

/// The titles of a file that is refused, without their places.
fn titles(text: &str) -> Vec<String> {
    let cut = |place: String| place.splitn(3, ':').nth(2).unwrap_or_default().trim().to_owned();
    refused(text).into_iter().map(cut).collect()
}

/// All that is said about a file that is refused.
fn rendered(text: &str, base: &Path) -> String {
    match Config::parse("test.toml", text, base) {
        Err(ConfigError::Faults(faults)) => format!("{}\n{faults}\n{faults:?}", faults.render(false)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn https_alone_is_a_config_without_dns() {
    let config = parse("version = 1\n[[https.origin]]\nhost = \"Tiles.Example\"\n").unwrap().config;
    assert!(config.dns.is_none());
    let https = config.https.unwrap();
    assert_eq!(https.pool, PoolConfig::default());
    assert!(https.gateway.is_none() && https.any_host.is_none());
    assert_eq!(https.any_host_max, HttpsConfig::default().any_host_max);
    let [origin] = &https.origins[..] else { panic!("{https:?}") };
    assert_eq!(format!("{origin:?}"), format!("{:?}", OriginConfig::new("tiles.example")));
}

#[test]
fn a_file_with_nothing_to_do_is_refused_with_every_remedy() {
    let text = rendered("version = 1\n[log]\n", Path::new(""));
    for part in
        ["neither [dns] nor [https] nor [tunnel]", "[[dns.upstream]]", "[[https.origin]]", "[[tunnel.upstream]]"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(titles("version = 1\n[https]\n"), ["there is no origin to connect to"]);
    assert_eq!(
        titles("version = 1\nhttps = { origin = [], any_host = false }\n"),
        ["there is no origin to connect to"]
    );
    assert_eq!(titles("version = 1\nhttps = 3\n"), ["`https` must be a section"]);
}

#[test]
fn every_key_of_https_reaches_the_typed_config() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("bob.password", "hunter3\r\n");
    write("ips.txt", "# ours\n192.0.2.7 # the seventh\n\n2001:db8::/64\n");
    write(
        "own.json",
        &serde_json::to_string(&*keepwarm_https::profile::Profile::plain()).unwrap().replace("plain", "own"),
    );
    let text = r#"
        version = 1
        [limits]
        max_connections = 60
        [https]
        gateway = ["127.0.0.1:8180", "0.0.0.0:8181"]
        users = { ann = "hunter2", bob = { password_file = "bob.password" } }
        upgrade = false
        max_clients = 7
        any_host = { profile = "plain", timeout = "5s", deny = ["10.0.0.0/8"], min_idle = 1 }
        any_host_max = 3
        [https.pool]
        max_total = 50
        max_per_host = 5
        max_idle = 30
        max_in_flight = 9
        max_waiters = 8
        idle_timeout = "7s"
        max_lifetime = "6m"
        connect_timeout = "5s"
        acquire_timeout = "4s"
        check_interval = "3s"
        cleanup_interval = "2s"
        [[https.origin]]
        host = "tiles.example:8443"
        profile = "@own.json"
        http = "http2"
        addresses = ["192.0.2.1", "2001:db8:1::/64", "@ips.txt", "dns"]
        refresh = "0s"
        addresses_max = 77
        warm = 5
        min_idle = 4
        validate = { method = "GET", path = "/health?x=1", statuses = "200,204", timeout = "3s" }
        allow = ["192.0.2.0/24"]
        deny = ["192.0.2.9"]
        quarantine = "1m"
        quarantine_max = "2m"
        failures = 2
        verdicts = [{ statuses = "403", rest = "30s", retry = true }, { statuses = "500-599" }]
        timeout = "20s"
        body_timeout = "21s"
        tries = 4
        retry_budget = 0.5
        proxy = "http://ann:hunter4@proxy.example:3128"
        profile_headers = false
        [[https.origin]]
        host = "api.example"
        port = 444
        http = "http1"
        validate = true
        verdicts = []
    "#;
    let loaded = Config::parse("test.toml", text, folder.path()).unwrap();
    assert_eq!(places(&loaded.warnings), [""; 0]);
    let https = loaded.config.https.unwrap();
    assert!(!format!("{https:?}").contains("hunter"));
    let seconds = Duration::from_secs;
    let gateway = https.gateway.unwrap();
    assert_eq!(gateway.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:8180", "0.0.0.0:8181"]);
    let users: Vec<_> = gateway.users.iter().map(|user| (&*user.name, &*user.password)).collect();
    assert_eq!(users, [("ann", "hunter2"), ("bob", "hunter3")]);
    assert_eq!((gateway.upgrade, gateway.max_clients), (false, 7));
    let any = https.any_host.unwrap();
    assert_eq!((any.timeout, any.min_idle, any.deny.len(), &*any.host), (seconds(5), 1, 1, ""));
    assert_eq!(https.any_host_max, 3);
    let pool = PoolConfig {
        max_total: 50,
        max_per_host: 5,
        max_idle: 30,
        max_in_flight: 9,
        max_waiters: 8,
        idle_timeout: seconds(7),
        max_lifetime: seconds(360),
        connect_timeout: seconds(5),
        acquire_timeout: seconds(4),
        check_interval: seconds(3),
        cleanup_interval: seconds(2),
    };
    assert_eq!(https.pool, pool);
    let [tiles, api] = &https.origins[..] else { panic!("{:?}", https.origins) };
    assert_eq!((&*tiles.host, tiles.port, &*tiles.profile.name), ("tiles.example", 8443, "own"));
    assert_eq!((tiles.http, tiles.refresh, tiles.addresses_max), (HttpVersions::Http2, None, 77));
    let net = |text: &str| AddressSource::Net(text.parse().unwrap());
    let ips = AddressSource::File(folder.path().join("ips.txt"));
    assert_eq!(tiles.addresses, [net("192.0.2.1/32"), net("2001:db8:1::/64"), ips, AddressSource::Dns]);
    assert_eq!((tiles.warm, tiles.min_idle, tiles.failures, tiles.tries), (5, 4, 2, 4));
    let validate = tiles.validate.clone().unwrap();
    assert_eq!((validate.method.as_str(), &*validate.path), ("GET", "/health?x=1"));
    assert_eq!((validate.statuses.to_string(), validate.timeout), ("200,204".to_owned(), seconds(3)));
    assert!(tiles.allows("192.0.2.8".parse().unwrap()) && !tiles.allows("192.0.2.9".parse().unwrap()));
    assert_eq!((tiles.quarantine, tiles.quarantine_max), (seconds(60), seconds(120)));
    let verdict =
        |statuses: &str, rest, retry| Verdict { statuses: statuses.parse().unwrap(), rest: seconds(rest), retry };
    assert_eq!(tiles.verdicts, [verdict("403", 30, true), verdict("500-599", 60, false)]);
    assert_eq!((tiles.timeout, tiles.body_timeout, tiles.retry_budget), (seconds(20), seconds(21), 0.5));
    let proxy = tiles.proxy.as_ref().unwrap();
    assert_eq!((proxy.protocol, &*proxy.host, proxy.port), (ProxyProtocol::Http, "proxy.example", 3128));
    assert_eq!(proxy.credential.as_ref().unwrap().password, "hunter4");
    assert!(!tiles.profile_headers);
    assert_eq!((api.port, api.http, &api.validate), (444, HttpVersions::Http1, &Some(Validate::default())));
    assert!(api.verdicts.is_empty());
}

#[test]
fn any_host_is_a_switch_or_the_keys_of_no_host_in_particular() {
    assert!(accepted("version = 1\n[https]\nany_host = true\n").any_host.is_some());
    assert!(accepted(&file("any_host = false", "")).any_host.is_none());
    let text = "version = 1\n[https.any_host]\nhost = \"a\"\nport = 1\naddresses = [\"dns\"]\nwarm = 1\n";
    for (title, key) in titles(text).iter().zip(["host", "port", "addresses", "warm"]) {
        assert_eq!(*title, format!("`https.any_host.{key}` belongs to one host, and this is for all others"));
    }
    assert_eq!(
        titles("version = 1\n[https]\nany_host = \"yes\"\n"),
        ["`https.any_host` must be true, false or a section"]
    );
    let unused = parse(&file("any_host_max = 3", "")).unwrap().warnings;
    assert_eq!(places(&unused), ["3:16: `https.any_host_max` is not used: `any_host` is false"]);
}

#[test]
fn the_gateway_goes_beyond_loopback_only_with_users() {
    for listen in ["127.0.0.1:8180", "[::1]:8180", "127.0.0.1:0"] {
        accepted(&file(&format!("gateway = \"{listen}\""), ""));
    }
    for listen in ["0.0.0.0:8180", "[::]:8180", "192.168.1.1:8180"] {
        let text = file(&format!("gateway = [\"127.0.0.1:8180\", \"{listen}\"]"), "");
        let title = format!("`https.gateway` is {listen}, which other machines can reach, and there are no users");
        assert_eq!(titles(&text), [title]);
        accepted(&text.replace("[https]", "[https]\nusers.ann = \"hunter2\""));
        assert_eq!(titles(&text.replace("[https]", "[https]\nusers = {}")).len(), 1);
    }
    // A user whose password is refused was meant to be one.
    let text = file("gateway = \"0.0.0.0:8180\"\nusers.ann = \"\"", "");
    assert_eq!(titles(&text), ["`https.users.ann` is empty"]);
}

#[test]
fn the_gateway_has_its_port_for_itself() {
    let listen = |listen: &str, more: &str| format!("{}{more}", file(&format!("gateway = {listen}"), ""));
    let control = "`https.gateway` is 127.0.0.1:9180, where `control.listen` takes TCP";
    assert_eq!(titles(&listen("\"127.0.0.1:9180\"", "")), [control]);
    accepted(&listen("\"127.0.0.1:9180\"", "[control]\nlisten = \"127.0.0.1:9181\"\n"));
    let upstream = "[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";
    let dns = "`https.gateway` is 127.0.0.1:5300, where `dns.listen` takes TCP";
    assert_eq!(titles(&listen("\"127.0.0.1:5300\"", upstream)), [dns]);
    accepted(&listen("\"127.0.0.1:5300\"", ""));
    accepted(&listen("\"127.0.0.1:5300\"", &format!("[dns]\nlisten = [\"udp://127.0.0.1:5300\"]\n{upstream}")));
    let twice = "`https.gateway` has 127.0.0.1:1 twice";
    assert_eq!(titles(&listen("[\"127.0.0.1:1\", \"127.0.0.1:1\"]", "")), [twice]);
    assert_eq!(titles(&listen("[]", "")), ["`https.gateway` is empty"]);
    let unused = parse(&file("users.ann = \"hunter2\"\nupgrade = false\nmax_clients = 3", "")).unwrap().warnings;
    let unused: Vec<_> = unused.iter().map(|fault| &*fault.title).collect();
    let words =
        ["users", "upgrade", "max_clients"].map(|key| format!("`https.{key}` is not used: there is no `gateway`"));
    assert_eq!(unused, words);
}

#[test]
fn limits_of_https_agree_with_each_other() {
    let pool = |keys: &str| format!("{}[https.pool]\n{keys}\n", file("", ""));
    let small = accepted(&pool("max_total = 5")).pool;
    assert_eq!((small.max_per_host, small.max_idle), (5, 5), "defaults give way");
    for key in ["max_per_host", "max_idle"] {
        let title = format!("`https.pool.{key}` is larger than `https.pool.max_total`");
        assert_eq!(titles(&pool(&format!("max_total = 5\n{key} = 6"))), [&*title]);
        assert_eq!(titles(&pool(&format!("{key} = 101"))), [title]);
    }
    let ready = |pool: &str, first: &str, second: &str| {
        format!("{}[[https.origin]]\nhost = \"b\"\n{second}\n[https.pool]\n{pool}\n", file("", first))
    };
    accepted(&ready("", "warm = 15", "warm = 5"));
    for key in ["warm", "min_idle"] {
        let words =
            |sum| format!("`{key}` wants {sum} connections ready, and `https.pool.max_idle` closes all beyond 20");
        assert_eq!(titles(&ready("", &format!("{key} = 15"), &format!("{key} = 6"))), [words(21)]);
        assert_eq!(titles(&ready("", &format!("{key} = 25"), "")), [words(25)]);
        accepted(&ready("max_idle = 25", &format!("{key} = 25"), ""));
    }
}

#[test]
fn the_daemons_limit_is_shared_between_https_and_dns() {
    let upstream = "[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";
    let with = |limit: usize, rest: &str| format!("{}[limits]\nmax_connections = {limit}\n{rest}", file("", ""));
    let both = parse(&with(300, upstream)).unwrap().config;
    assert_eq!(both.dns.unwrap().max_connections, 200);
    assert_eq!(parse(&with(110, upstream)).unwrap().config.dns.unwrap().max_connections, 10);
    let title = "`https.pool.max_total` leaves 9 of `limits.max_connections`, and `dns.pool.max_per_host` is 10";
    assert_eq!(titles(&with(109, upstream)), [title]);
    let larger = "`https.pool.max_total` is larger than `limits.max_connections`";
    assert_eq!(titles(&with(99, "")), [larger]);
    assert_eq!(titles(&with(99, upstream)), [larger]);
    accepted(&with(100, ""));
    assert_eq!(titles(&with(0, "")), ["`limits.max_connections` is out of range"]);
}

#[test]
fn an_origin_is_named_once() {
    let more = |host: &str| format!("{}[[https.origin]]\n{host}\n", file("", ""));
    for host in ["host = \"Tiles.example\"", "host = \"tiles.example.:443\"", "host = \"tiles.example\"\nport = 443"] {
        assert_eq!(titles(&more(host)), ["two origins are tiles.example port 443"], "{host}");
    }
    accepted(&more("host = \"tiles.example:8443\""));
    assert_eq!(titles(&more("profile = \"plain\"")), ["`https.origin.host` is missing"]);
    assert_eq!(titles(&more("host = \"b:1\"\nport = 1")), ["`https.origin.port` is beside a port in `host`"]);
    assert_eq!(
        titles(&more("host = \"192.0.2.1\"\naddresses = [\"192.0.2.1\"]")),
        ["`https.origin.addresses` has no meaning where `host` is an IP"]
    );
}

#[test]
fn times_and_shares_of_an_origin_have_ranges() {
    for line in [
        "refresh = \"9s\"",
        "refresh = \"8d\"",
        "quarantine = \"0s\"",
        "quarantine_max = \"8d\"",
        "timeout = \"0s\"",
        "timeout = \"61m\"",
        "body_timeout = \"0s\"",
        "retry_budget = 1.1",
        "retry_budget = -0.1",
        "tries = 0",
        "tries = 11",
        "failures = 0",
        "failures = 101",
        "addresses_max = 0",
        "addresses_max = 65537",
        "validate = { timeout = \"0s\" }",
        "validate = { timeout = \"6m\" }",
    ] {
        let titles = titles(&file("", line));
        assert!(titles.len() == 1 && titles[0].ends_with("is out of range"), "{line}: {titles:?}");
    }
    let longer = "`https.origin.quarantine` is larger than `https.origin.quarantine_max`";
    assert_eq!(titles(&file("", "quarantine = \"2m\"\nquarantine_max = \"1m\"")), [longer]);
    assert_eq!(titles(&file("", "quarantine = \"2h\"")), [longer]);
    let short = &accepted(&file("", "quarantine_max = \"30s\"")).origins[0];
    assert_eq!((short.quarantine, short.verdicts[0].rest), (Duration::from_secs(30), Duration::from_secs(30)));
    let rest = "`https.origin.verdicts.rest` is larger than `https.origin.quarantine_max`";
    assert_eq!(titles(&file("", "verdicts = [{ statuses = \"403\", rest = \"2h\" }]")), [rest]);
    assert_eq!(titles(&file("", "verdicts = [{ rest = \"1m\" }]")), ["`https.origin.verdicts.statuses` is missing"]);
}

#[test]
fn files_that_an_origin_names_are_read_when_the_file_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ips.txt", "192.0.2.1\n# fine\n192.0.2.300\n");
    write("none.txt", "# nothing yet\n");
    write("long.txt", &"192.0.2.1\n".repeat(65_537));
    write("bad.json", "{ \"name\": \"x\",\n \"colour\": 1 }");
    let said = |origin: &str| match Config::parse("test.toml", &file("", origin), folder.path()) {
        Err(ConfigError::Faults(faults)) => faults.iter().map(|fault| fault.title.clone()).collect(),
        Ok(loaded) => loaded.warnings.iter().map(|fault| format!("warning: {}", fault.title)).collect::<Vec<_>>(),
        Err(error) => panic!("{error}"),
    };
    for (origin, parts) in [
        (
            "addresses = [\"@missing.txt\"]",
            &["`https.origin.addresses`", "missing.txt cannot be read: no such file"][..],
        ),
        ("addresses = [\"@ips.txt\"]", &["ips.txt, line 3: ", "\"192.0.2.300\" is no address and no network"]),
        ("addresses = [\"@long.txt\"]", &["long.txt, line 65537: ", "more than 65536 lines"]),
        ("addresses = [\"@none.txt\"]", &["warning: ", "none.txt has no address"]),
        ("profile = \"@missing.json\"", &["`https.origin.profile`", "missing.json cannot be read"]),
        ("profile = \"@bad.json\"", &["bad.json is not a profile", "unknown field `colour`", "line 2"]),
        ("profile = \"crome\"", &["`https.origin.profile`: no profile \"crome\"", "chrome@156"]),
        ("profile = \"chrome@1\"", &["no version \"1\" of profile \"chrome\"", "156"]),
    ] {
        let said = said(origin);
        assert!(said.len() == 1 && parts.iter().all(|part| said[0].contains(part)), "{origin}: {said:?}");
    }
}

#[test]
fn a_proxy_has_a_protocol_a_host_a_port_and_perhaps_a_credential() {
    let proxy = |url: &str| accepted(&file("", &format!("proxy = \"{url}\""))).origins[0].proxy.clone().unwrap();
    let shown = |url: &str| proxy(url).to_string();
    let credential = proxy("socks5://ann:p%40ss%3aw@proxy.example.com:1080").credential.clone().unwrap();
    assert_eq!((&*credential.user, &*credential.password), ("ann", "p@ss:w"));
    assert_eq!(shown("http://[2001:db8::1]:3128"), "http://[2001:db8::1]:3128");
    assert_eq!(shown("socks5://proxy.example.com"), "socks5://proxy.example.com:1080");
    assert!(proxy("http://proxy:3128").credential.is_none());
    for url in [
        "proxy:1080",
        "ssh://proxy:1080",
        "https://proxy:1080",
        "http://proxy",
        "http://ann:hunter2@proxy",
        "socks5://:hunter2@proxy:1080",
        "socks5://ann:%zz@proxy:1080",
        "socks5://ann:%+1@proxy:1080",
        "socks5://ann:hunter2@:1080",
        "socks5://ann:hunter2@pro/xy:1080",
        "socks5://ann:hunter2@proxy:hunter2x",
        "hunter2://ann:hunter2@proxy:1",
        "ann:hunter2@proxy:1",
    ] {
        let text = rendered(&file("", &format!("proxy = \"{url}\"")), Path::new(""));
        assert!(text.contains("`https.origin.proxy` is not a proxy: "), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{url}: {text}");
    }
}

#[test]
fn passwords_are_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("two.password"), "hunter2\nhunter2\n").unwrap();
    let control = "a\u{1}hunter2";
    for text in [
        "[https.users]\nann = \"hunter2\"\nbob = 3\n".to_owned(),
        "[https.users]\nbob = 3 \nann = \"hunter2\"\n".to_owned(),
        format!("[https.users]\nann = \"{}\"\n", control.escape_default().to_string().replace("{1}", "0001")),
        "[https.users]\nann = { pasword = \"hunter2\" }\n".to_owned(),
        "[https.users]\nann = [\"hunter2\"]\n".to_owned(),
        "[https.users]\n\"a:b\" = \"hunter2\"\n".to_owned(),
        "[https]\nusers = \"ann:hunter2\"\n".to_owned(),
        "[https]\nuser = { ann = \"hunter2\" }\n".to_owned(),
        "[https]\nauth = { ann = \"hunter2\" }\n".to_owned(),
        "[https.users]\nann = { password_file = \"two.password\" }\n".to_owned(),
        "[https.users]\nann = \"hunter2\n".to_owned(),
        "[https.users]\nann = hunter2\n".to_owned(),
        "[https]\nusers = { ann = \"hunter2\", ann = \"hunter2\" }\n".to_owned(),
        "[[https.origin]]\nhost = \"a\"\nproxy = \"http://ann:hunter2@proxy\"\n".to_owned(),
        "[[https.origin]]\nhost = \"a\"\nproxy = \"ann:hunter2@proxy:1\"\n".to_owned(),
        "[[https.origin]]\nhost = \"a\"\nproxi = \"socks5://ann:hunter2@proxy:1\"\n".to_owned(),
        "[[https.origin]]\nhost = \"a\"\nproxy = \"socks5://ann:hunter2@proxy:1\"\nport = 0\n".to_owned(),
        "[https.any_host]\nhost = \"a\"\nproxy = \"socks5://ann:hunter2@proxy:1\"\n".to_owned(),
        "[[https.origin]]\nhost = \"a\"\nproxy = 'socks5://ann:hunter2@proxy:1\n".to_owned(),
        "[[dns.upstream]]\nname = \"a\"\naddress = \"https://ann:hunter2@dns.example\"\n".to_owned(),
    ] {
        let said = rendered(&format!("version = 1\n{text}"), folder.path());
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains("test.toml:"), "{said}");
    }
}

#[test]
fn parts_of_a_password_are_in_no_message_either() {
    for (text, told) in [
        ("[https.users]\nann = \"\"\"\nhunter2secret\\q\n\"\"\"\n", "not TOML"),
        ("[https]\nusers = {\nann = \"hunter2secret\\q\"\n}\n", "not TOML"),
        ("[https]\nprxy = \"http://ann:hunter2 secret@p:99999\"\n", "unknown key `https.prxy`"),
        ("[[https.origin]]\nhost = \"a\"\nprxy = \"http://ann:hunter2 secret@p:99999\"\n", "unknown key"),
        ("[[https.origin]]\nhost = \"a\"\nprxy = \"http://ann:hunter2 'secret@p:99999\"\n", "unknown key"),
        ("[https]\nprxy = \"http://ann:hunter2 secret@p:99999\n", "not TOML"),
        ("[[https.origin]]\nhost = \"ann:hunter2secret@a.test\"\n", "names a user, and an origin is a host"),
        ("[[https.origin]]\nhost = \"https://ann:hunter2/secret@a.test\"\n", "names a user, and an origin is a host"),
    ] {
        let said = rendered(&format!("version = 1\n{text}"), Path::new(""));
        assert!(!said.contains("hunter2") && !said.contains("secret"), "{said}");
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn a_profile_of_a_browser_needs_a_build_that_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut profile = (*keepwarm_https::profile::Profile::plain()).clone();
    profile.http2 = Some(keepwarm_https::profile::Http2Profile {
        settings: vec![(1, 65_536)],
        window_update: 0,
        pseudo_order: "m,a,s,p".into(),
        headers_priority: None,
        priority_frames: Vec::new(),
        first_stream: 1,
    });
    std::fs::write(folder.path().join("own.json"), serde_json::to_string(&profile).unwrap()).unwrap();
    let loaded = Config::parse("test.toml", &file("", "profile = \"@own.json\""), folder.path());
    match cfg!(feature = "browser") {
        true => assert_eq!(*loaded.unwrap().config.https.unwrap().origins[0].profile, profile),
        false => assert!(loaded.unwrap_err().to_string().contains("this build has no profiles of browsers")),
    }
}
