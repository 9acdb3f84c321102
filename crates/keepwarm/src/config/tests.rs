//! Files as their authors write them: what they come to, and what is said about the faulty ones.

use std::{collections::BTreeSet, time::Duration};

use keepwarm_dns::config::{
    BreakerSettings, CacheSettings, ClientLimits, ListenTransport, PoolSettings, Strategy, Transport,
};
use proptest::prelude::*;
use serde_json::Value;

use super::{
    example::{every_key, is_free, is_only_an_example},
    *,
};

mod dns;
mod https;
mod tunnel;

const MINIMAL: &str = "version = 1\n[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    Config::parse("test.toml", text, Path::new(""))
}

/// `file:line:column: title` of each fault in `text`, which must be refused.
fn refused(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Faults(faults)) => places(&faults),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted:\n{text}"),
    }
}

fn places(faults: &Faults) -> Vec<String> {
    faults
        .iter()
        .map(|fault| {
            let (line, column) = faults.place(fault);
            format!("{line}:{column}: {}", fault.title)
        })
        .collect()
}

#[test]
fn a_minimal_file_gets_every_default() {
    let Loaded { config, warnings, .. } = parse(MINIMAL).unwrap();
    assert_eq!(warnings.iter().count(), 0);
    let dns = config.dns.as_ref().unwrap();
    assert_eq!(dns.cache, CacheSettings::default());
    assert_eq!(dns.pool, PoolSettings::default());
    assert_eq!(dns.breaker, BreakerSettings::default());
    assert_eq!(dns.clients, ClientLimits::default());
    assert_eq!(dns.strategy, Strategy::default());
    assert_eq!((dns.timeout, dns.racing_delay), (Duration::from_secs(4), Duration::from_millis(100)));
    assert_eq!((dns.workers, dns.max_connections), (0, 512));
    assert_eq!(dns.listen, [defaults::listen()]);
    assert_eq!(config.control, ControlConfig::default());
    assert_eq!(config.log, LogConfig::default());
    let upstream = &dns.upstreams[0];
    assert_eq!(
        (&*upstream.name, upstream.transport, &*upstream.host, upstream.port),
        ("a", Transport::Udp, "127.0.0.1", 53)
    );
    let default = keepwarm_dns::config::UpstreamConfig::new("a", Transport::Udp, "127.0.0.1", 53);
    assert_eq!(format!("{upstream:?}"), format!("{default:?}"));
    assert_eq!(dns.allow, DnsConfig::default().allow);
    assert_eq!((&dns.local, &dns.query_log), (&DnsConfig::default().local, &DnsConfig::default().query_log));
    assert_eq!((dns.client_subnet, dns.hedge), (DnsConfig::default().client_subnet, DnsConfig::default().hedge));
    assert!(dns.tls.is_none() && dns.routes.is_empty() && dns.fallback.is_none());
}

#[test]
fn every_key_reaches_the_typed_config() {
    let text = r#"
        version = 1
        log = { level = "debug,h2=warn", format = "json" }
        limits = { max_connections = 99, workers = 3 }
        control = { listen = "[::1]:9999" }
        [dns]
        listen = ["udp://0.0.0.0:53", "tcp://[::]:5353"]
        strategy = "round-robin"
        timeout = "1s500ms"
        racing_delay = "50ms"
        allow = ["10.0.0.0/8", "192.168.1.1"]
        bootstrap = ["9.9.9.9", "[2620:fe::fe]:5353"]
        clients = { tcp_max = 7, tcp_max_per_client = 6, tcp_idle_timeout = "5s", tcp_max_in_flight = 4, max_in_flight = 3, udp_payload_size = 1400 }
        breaker = { failures = 9, failure_ratio = 0.25, window = "20s", open = "2s", open_max = "2m", successes = 5 }
        cache = { size = "1MiB", min_ttl = "2s", max_ttl = "1h", negative_ttl = "3s", stale = "4s", prefetch = false }
        [dns.pool]
        max_per_host = 4
        min_idle = 2
        max_in_flight = 8
        max_waiters = 16
        idle_timeout = "10s"
        max_lifetime = "1h"
        connect_timeout = "3s"
        acquire_timeout = "1s"
        check_interval = "15s"
        cleanup_interval = "1s"
        udp_max_queries = 32
        udp_max_age = "2s"
        reuse = false
        [[dns.upstream]]
        name = "doh"
        address = "https://dns.example:8443/q"
        addresses = ["127.0.0.2", "::1"]
        server_name = "other.example"
        case_randomization = true
    "#;
    let Config { log, control, dns, https, tunnel, workers } = parse(text).unwrap().config;
    let dns = dns.unwrap();
    assert!(https.is_none() && tunnel.is_none());
    assert_eq!((log.filter.as_str(), log.format), ("debug,h2=warn", crate::logging::LogFormat::Json));
    assert_eq!(control.listen.to_string(), "[::1]:9999");
    assert_eq!((dns.max_connections, dns.workers, workers), (99, 3, 3));
    let listen: Vec<_> = dns.listen.iter().map(|listen| (listen.address.to_string(), listen.transport)).collect();
    assert_eq!(
        listen,
        [("0.0.0.0:53".to_owned(), ListenTransport::Udp), ("[::]:5353".to_owned(), ListenTransport::Tcp)]
    );
    assert_eq!(dns.strategy, Strategy::RoundRobin);
    assert_eq!((dns.timeout, dns.racing_delay), (Duration::from_millis(1500), Duration::from_millis(50)));
    assert_eq!(dns.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.168.1.1/32"]);
    assert_eq!(dns.bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>(), ["9.9.9.9:53", "[2620:fe::fe]:5353"]);
    let seconds = Duration::from_secs;
    let clients = ClientLimits {
        tcp_max: 7,
        tcp_max_per_client: 6,
        tcp_idle_timeout: seconds(5),
        tcp_max_in_flight: 4,
        max_in_flight: 3,
        udp_payload_size: 1400,
        ..ClientLimits::default()
    };
    assert_eq!(dns.clients, clients);
    let breaker = BreakerSettings {
        failures: 9,
        failure_ratio: 0.25,
        window: seconds(20),
        open: seconds(2),
        open_max: seconds(120),
        successes: 5,
    };
    assert_eq!(dns.breaker, breaker);
    let cache = CacheSettings {
        size: 1 << 20,
        min_ttl: seconds(2),
        max_ttl: seconds(3600),
        negative_ttl: seconds(3),
        stale: seconds(4),
        prefetch: false,
    };
    assert_eq!(dns.cache, cache);
    let pool = PoolSettings {
        max_per_host: 4,
        min_idle: 2,
        max_in_flight: 8,
        max_waiters: 16,
        idle_timeout: seconds(10),
        max_lifetime: seconds(3600),
        connect_timeout: seconds(3),
        acquire_timeout: seconds(1),
        check_interval: seconds(15),
        cleanup_interval: seconds(1),
        udp_max_queries: 32,
        udp_max_age: seconds(2),
        reuse: false,
    };
    assert_eq!(dns.pool, pool);
    let upstream = &dns.upstreams[0];
    assert_eq!((&*upstream.host, upstream.port, &*upstream.path), ("dns.example", 8443, "/q"));
    assert_eq!(upstream.addresses, ["127.0.0.2".parse::<std::net::IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert_eq!((upstream.server_name.as_deref(), upstream.case_randomization), (Some("other.example"), true));
}

#[test]
fn the_built_in_default_is_accepted_and_needs_no_resolver() {
    let Loaded { config, warnings, .. } = Config::parse("built-in default", DEFAULT, Path::new("")).unwrap();
    assert_eq!(warnings.iter().count(), 0);
    let dns = config.dns.unwrap();
    assert_eq!(dns.listen[0].address.to_string(), "127.0.0.1:5300");
    assert_eq!(config.control.listen.to_string(), "127.0.0.1:9180");
    assert_eq!(dns.upstreams.len(), 3);
    for upstream in &dns.upstreams {
        assert!(matches!(upstream.transport, Transport::Tls | Transport::Https), "{}", upstream.name);
        assert!(upstream.addresses.iter().any(std::net::IpAddr::is_ipv4), "{}", upstream.name);
        assert!(upstream.addresses.iter().any(std::net::IpAddr::is_ipv6), "{}", upstream.name);
    }
}

/// The example is the documentation of the defaults: it must say what the program does.
#[test]
fn the_example_shows_the_typed_defaults() {
    let Loaded { config: example, warnings, .. } = Config::parse("example", EXAMPLE, Path::new("")).unwrap();
    assert_eq!(warnings.iter().count(), 0);
    let gateway = "[https]\ngateway = \"127.0.0.1:8180\"\n[[https.origin]]\nhost = \"tiles.example.com\"\n";
    let tunnel = "[[tunnel.upstream]]\nname = \"exit-a\"\naddress = \"socks5://proxy.example.com:1080\"\n";
    let minimal = parse(&format!("{MINIMAL}{gateway}{tunnel}")).unwrap().config;
    let upstream = |config: &Config| config.dns.as_ref().unwrap().upstreams[0].clone();
    let (shown, default) = (&upstream(&example), &upstream(&minimal));
    assert_eq!((&shown.group, shown.weight), (&default.group, default.weight));
    assert_eq!((shown.ech, shown.ddr), (default.ech, default.ddr));
    assert_eq!(
        (shown.cookies, shown.padding, shown.case_randomization),
        (default.cookies, default.padding, default.case_randomization)
    );
    let keys = every_key();
    let subnet = &keys["dns"]["client_subnet"];
    assert_eq!(
        (&subnet["v4_prefix"], &subnet["v6_prefix"]),
        (&defaults::SUBNET_V4.into(), &defaults::SUBNET_V6.into())
    );
    let comparable = |config: Config| {
        let mut config = config;
        config.dns.as_mut().unwrap().upstreams.clear();
        format!("{config:#?}")
    };
    assert_eq!(comparable(example), comparable(minimal));
}

#[test]
fn the_example_has_every_key() {
    let example = every_key();
    let mut shown = BTreeSet::new();
    keys_of(&example, "", &mut shown);
    let mut known = BTreeSet::new();
    for (section, keys) in spec::SECTIONS {
        known.extend(
            keys.iter().map(|key| if section.is_empty() { (*key).to_owned() } else { format!("{section}.{key}") }),
        );
    }
    assert_eq!(shown, known);
}

#[test]
fn the_schema_describes_every_key_and_its_default() {
    let schema = schema();
    let example = every_key();
    let mut keys = BTreeSet::new();
    keys_of(&example, "", &mut keys);
    for path in &keys {
        let mut at = &schema;
        let mut value = &example;
        for part in path.split('.') {
            at = if at["type"] == "array" { &at["items"] } else { at };
            value = if value.is_array() { &value[0] } else { value };
            at = &at["properties"][part];
            value = &value[part];
        }
        assert!(at["type"].is_string() || at["type"].as_array().is_some_and(|kinds| kinds.len() == 2), "{path}: {at}");
        assert!(at["description"].as_str().is_some_and(|text| text.len() > 10), "{path}: {at}");
        let is_section = (value.is_object() || value[0].is_object()) && !is_free(path);
        let default = if is_section || is_only_an_example(path) { &Value::Null } else { value };
        assert_eq!(&at["default"], default, "{path}");
        if is_section {
            let section = if at["type"] == "array" { &at["items"] } else { at };
            assert_eq!(section["additionalProperties"], Value::Bool(false), "{path}");
        }
    }
}

#[test]
fn the_schema_has_no_trace_of_rust() {
    let text = schema().to_string();
    assert!(!text.contains("null") && !text.contains("\\n"), "{text}");
}

/// The words are for people, the bounds for editors; both come from one declaration each, a line apart.
#[test]
fn bounds_in_the_schema_are_those_of_the_words() {
    let mut bounded = 0;
    let mut sections = vec![schema()];
    while let Some(section) = sections.pop() {
        let Some(keys) = section["properties"].as_object() else { continue };
        for (key, property) in keys {
            sections.push(if property["type"] == "array" { property["items"].clone() } else { property.clone() });
            let (Some(min), Some(max)) = (property["minimum"].as_u64(), property["maximum"].as_u64()) else { continue };
            let words = property["description"].as_str().unwrap().replace(',', "");
            let limit_is_a_key = words.contains(&format!("{min} to `"));
            assert!(words.contains(&format!("{min} to {max}")) || limit_is_a_key, "{key}: {words}");
            bounded += 1;
        }
    }
    assert_eq!(bounded, 51);
}

fn keys_of(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let Some(table) = value.as_object() else {
        return;
    };
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if !is_free(&path) {
            keys_of(if value.is_array() { &value[0] } else { value }, &path, keys);
        }
        keys.insert(path);
    }
}

#[test]
fn the_pages_of_the_keys_name_every_one() {
    let pages = [("https", "https/config.md"), ("tunnel", "tunnel/config.md"), ("control", "control/config.md")];
    for (job, page) in pages {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
        let page = std::fs::read_to_string(file).unwrap();
        // `pool.spares` names a key as well as `spares` does, and `breaker` as [tunnel.breaker] does.
        let named = |key: &str| {
            let ends = [format!("{key}`"), format!(".{key}]"), format!("{key} = ")];
            ends.iter().any(|end| page.contains(end.as_str()))
        };
        let sections = spec::SECTIONS.iter().filter(|(section, _)| section.split('.').next() == Some(job));
        // The keys of a breaker are those of [dns.breaker].
        for (section, keys) in sections.filter(|(section, _)| *section != "tunnel.breaker") {
            let missing: Vec<_> = keys.iter().filter(|key| !named(key)).collect();
            assert!(missing.is_empty(), "{section}: {missing:?}");
        }
    }
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_file() {
    let text = "version = 2\n[dns]\ntimeuot = \"1s\"\ntimeout = 4\nstrategy = \"quickest\"\n[dns.pool]\nmin_idle = 11\n[[dns.upstream]]\nname = \"a\"\naddress = \"1.1.1.1\"\n[[dns.upstream]]\nname = \"a\"\n[control]\nwatch = 1\n";
    assert_eq!(
        refused(text),
        [
            "1:11: `version` 2 is not known",
            "3:1: unknown key `dns.timeuot`",
            "4:11: `dns.timeout` needs a unit",
            "5:12: `dns.strategy` has the unknown strategy \"quickest\"",
            "7:12: `dns.pool.min_idle` is larger than `dns.pool.max_per_host`",
            "10:11: `dns.upstream.address` does not say which protocol to speak",
            "11:1: `dns.upstream.address` is missing",
            "12:8: two upstreams are named \"a\"",
            "14:9: `control.watch` must be true or false",
        ]
    );
}

#[test]
fn syntax_faults_come_alone_but_all_of_them() {
    let faults = refused("version = \n[dns\nlisten = [\"a\" \"b\"]\n");
    assert!(faults.len() >= 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("not TOML: ")), "{faults:?}");
}

#[test]
fn the_nearest_key_and_the_right_section_are_named() {
    let label = |text: &str| match parse(&format!("version = 1\n{text}\n")) {
        Err(ConfigError::Faults(faults)) => {
            faults.iter().find(|fault| fault.title.starts_with("unknown key")).unwrap().label.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(label("[dns]\ntimout = \"1s\""), "did you mean `timeout`?");
    assert_eq!(label("[dns]\nracing-delay = \"1s\""), "did you mean `racing_delay`?");
    assert_eq!(label("[dns]\nmax_per_host = 1"), "belongs in [dns.pool]");
    assert_eq!(label("[dsn]"), "did you mean `dns`?");
    assert_eq!(label("[dns]\nzzz = 1"), "");
}

/// What is said about a file with these keys in [dns.cache], and the settings where it is accepted.
fn with_cache(keys: &str) -> Result<(CacheSettings, Vec<String>), Vec<String>> {
    match parse(&format!("{MINIMAL}[dns.cache]\n{keys}\n")) {
        Ok(loaded) => Ok((loaded.config.dns.unwrap().cache, places(&loaded.warnings))),
        Err(ConfigError::Faults(faults)) => Err(places(&faults)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_cache_has_a_size_within_bounds_or_none() {
    for (size, bytes) in [("0", 0), ("0B", 0), ("64KiB", 64 << 10), ("1GiB", 1 << 30)] {
        let settings = CacheSettings { size: bytes, ..CacheSettings::default() };
        assert_eq!(with_cache(&format!("size = \"{size}\"")), Ok((settings, vec![])), "{size}");
    }
    assert_eq!(with_cache("size = \"64GiB\"").is_ok(), usize::BITS == 64);
    for size in ["1B", "63KiB1023B", "64GiB1B"] {
        let words = "6:8: `dns.cache.size` is out of range".to_owned();
        assert_eq!(with_cache(&format!("size = \"{size}\"")), Err(vec![words]), "{size}");
    }
}

#[test]
fn ttls_of_the_cache_are_held_against_the_longest() {
    let larger =
        |place: &str, key: &str| Err(vec![format!("{place}: `dns.cache.{key}` is larger than `dns.cache.max_ttl`")]);
    assert_eq!(with_cache("max_ttl = \"1m\"\nmin_ttl = \"2m\""), larger("7:11", "min_ttl"));
    assert_eq!(with_cache("negative_ttl = \"2d\""), larger("6:16", "negative_ttl"));
    assert_eq!(with_cache("min_ttl = \"30d\""), larger("6:11", "min_ttl"));
    // Whoever shortens the longest TTL does not have to think of the ceiling for negative answers.
    let (settings, _) = with_cache("max_ttl = \"1m\"").unwrap();
    assert_eq!((settings.max_ttl, settings.negative_ttl), (Duration::from_secs(60), Duration::from_secs(60)));
    // A limit that is refused itself says nothing about the others.
    for refused in ["max_ttl = \"8d\"", "max_ttl = 9"] {
        assert_eq!(with_cache(&format!("{refused}\nmin_ttl = \"2d\"")).unwrap_err().len(), 1, "{refused}");
    }
}

#[test]
fn a_ttl_raised_far_is_accepted_with_a_warning() {
    let words = "6:11: `dns.cache.min_ttl` keeps answers up to 1h longer than their owner allows".to_owned();
    assert_eq!(with_cache("min_ttl = \"1h\"").unwrap().1, [words]);
    assert_eq!(with_cache("min_ttl = \"5m\"").unwrap().1, [""; 0]);
    assert_eq!(with_cache("min_ttl = \"2d\"").unwrap_err().len(), 1, "what is refused needs no warning");
}

#[test]
fn limits_that_contradict_each_other_are_refused_wherever_they_are_written() {
    let more = |text: &str| refused(&format!("{MINIMAL}{text}\n"));
    let total = "`dns.pool.max_per_host` is larger than `limits.max_connections`";
    assert_eq!(more("[dns.pool]\nmax_per_host = 513"), [format!("6:16: {total}")]);
    assert_eq!(more("[limits]\nmax_connections = 9"), [format!("6:19: {total}")]);
    let clients = "`dns.clients.tcp_max_per_client` is larger than `dns.clients.tcp_max`";
    assert_eq!(more("[dns.clients]\ntcp_max = 9\ntcp_max_per_client = 10"), [format!("7:22: {clients}")]);
    let idle = "`dns.pool.min_idle` is larger than `dns.pool.max_per_host`";
    assert_eq!(more("[dns.pool]\nmin_idle = 11"), [format!("6:12: {idle}")]);
    assert_eq!(more("[dns.pool]\nmin_idle = 2\nmax_per_host = 1"), [format!("6:12: {idle}")]);
    assert!(parse(&format!("{MINIMAL}[limits]\nmax_connections = 10\n[dns.pool]\nmin_idle = 10\n")).is_ok());
    // A limit that is refused itself is nothing to be larger than.
    assert_eq!(more("[dns.pool]\nmax_per_host = 0\nmin_idle = 11"), ["6:16: `dns.pool.max_per_host` is out of range"]);
}

/// What is said about a file with these keys in [control], in a folder with a token of each kind; and the settings where it is accepted.
fn with_control(keys: &str) -> Result<(ControlConfig, Vec<String>), Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in
        [("good", "0123456789abcdef\n"), ("short", "0123456789\n"), ("two", "0123456789abcdef\n0123456789abcdef\n")]
    {
        std::fs::write(folder.path().join(file), text).unwrap();
        only_for_us(&folder.path().join(file), file != "two");
    }
    std::fs::write(folder.path().join("open"), "0123456789abcdef").unwrap();
    only_for_us(&folder.path().join("open"), false);
    let text = format!("{MINIMAL}[control]\n{keys}\n");
    let tidy = |faults: &Faults| -> Vec<String> {
        let start = format!("{}/", folder.path().display());
        places(faults).iter().map(|fault| fault.replace(&start, "")).collect()
    };
    match Config::parse("test.toml", &text, folder.path()) {
        Ok(loaded) => Ok((loaded.config.control, tidy(&loaded.warnings))),
        Err(ConfigError::Faults(faults)) => {
            assert!(!faults.render(false).contains("0123456789"), "a token is shown");
            Err(tidy(&faults))
        }
        Err(error) => panic!("{error}"),
    }
}

fn only_for_us(file: &Path, is_private: bool) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if is_private { 0o600 } else { 0o644 };
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = (file, is_private);
}

#[test]
fn the_control_listener_leaves_loopback_with_a_token_only() {
    for accepted in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1"] {
        assert!(with_control(&format!("listen = \"{accepted}\"")).is_ok(), "{accepted}");
    }
    for outside in ["0.0.0.0:1", "[::]:1", "192.168.1.1:1"] {
        let without = with_control(&format!("listen = \"{outside}\"\ntoken_file = \"\"")).unwrap_err();
        assert_eq!(without.len(), 1);
        assert!(without[0].contains("other machines can reach, and there is no token"), "{without:?}");
        let (with, warnings) = with_control(&format!("listen = \"{outside}\"\ntoken_file = \"good\"")).unwrap();
        assert_eq!((with.listen.to_string(), with.token.is_some(), warnings.len()), (outside.to_owned(), true, 0));
        assert!(with.token_file.unwrap().is_absolute());
        // One fault is told once: the token was meant.
        assert_eq!(with_control(&format!("listen = \"{outside}\"\ntoken_file = \"none\"")).unwrap_err().len(), 1);
        assert_eq!(with_control(&format!("listen = \"{outside}\"\ntoken_file = 1")).unwrap_err().len(), 1);
    }
}

#[test]
fn a_token_is_long_enough_and_in_a_file_of_its_own() {
    for (file, problem) in [
        ("none", "none cannot be read: no such file"),
        ("short", "the token in short has fewer than 16 characters"),
        ("two", "the token in two has a character that is not visible ASCII"),
    ] {
        let faults = with_control(&format!("token_file = \"{file}\"")).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.starts_with("6:14: `control.token_file`: ") && fault.contains(problem)),
            "{faults:?}"
        );
    }
    #[cfg(unix)]
    assert_eq!(
        with_control("token_file = \"open\"").unwrap().1,
        ["6:14: `control.token_file`: everybody on this machine may read open"]
    );
}

#[test]
fn history_is_kept_for_a_minute_to_a_day() {
    for (text, seconds) in [("1m", 60), ("1h30m", 5400), ("1d", 86_400)] {
        let (control, _) = with_control(&format!("history = \"{text}\"\nwatch = true")).unwrap();
        assert_eq!((control.history, control.watch), (Duration::from_secs(seconds), true), "{text}");
    }
    for text in ["59s", "2d", "0s"] {
        let faults = with_control(&format!("history = \"{text}\"")).unwrap_err();
        assert_eq!(faults, ["6:11: `control.history` is out of range"], "{text}");
    }
}

/// The schema is kept in the repository, for editors and for whoever reads along.
#[test]
fn the_schema_in_the_repository_is_the_one_of_the_types() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/keepwarm.schema.json");
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(kept == format!("{:#}\n", schema()), "write it anew: keepwarm config schema > schema/keepwarm.schema.json");
    assert_eq!(EXAMPLE.lines().next(), Some("#:schema ./keepwarm.schema.json"));
}

#[test]
fn extra_roots_are_read_when_the_file_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "nothing here\n").unwrap();
    let text = format!("{MINIMAL}[tls]\nextra_roots = [\"none.pem\", \"empty.pem\"]\n");
    let Err(ConfigError::Faults(faults)) = Config::parse("test.toml", &text, folder.path()) else {
        panic!("accepted");
    };
    let titles: Vec<_> = faults.iter().map(|fault| fault.title.as_str()).collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    assert!(titles[0].contains("none.pem") && titles[0].contains("no such file"), "{titles:?}");
    assert!(titles[1].contains("empty.pem") && titles[1].contains("certificate"), "{titles:?}");
}

#[test]
fn roots_are_the_same_as_long_as_their_files_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (keepwarm_lab::Ca::new().pem(), keepwarm_lab::Ca::new().pem());
    let roots = |files: &[(&str, &str)]| {
        files.iter().for_each(|(name, pem)| std::fs::write(folder.path().join(name), pem).unwrap());
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let text = format!("version = 1\n[https]\nany_host = true\n[tls]\nextra_roots = {names:?}\n");
        let loaded = Config::parse("test.toml", &text, folder.path()).unwrap_or_else(|error| panic!("{error}"));
        loaded.config.https.unwrap().roots
    };
    let none = roots(&[]);
    assert_eq!(none, roots(&[]));
    let first = roots(&[("a", &one)]);
    assert_eq!(first, roots(&[("b", &one)]));
    let others = [none, roots(&[("a", &other)]), roots(&[("a", &one), ("b", &other)])];
    assert!(!others.contains(&first));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(&folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("none.toml"), "{missing}");
    let large = folder.path().join("large.toml");
    std::fs::write(&large, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(Config::load(&large).unwrap_err().to_string().ends_with("larger than 1 MiB"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(Config::load(&binary).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn the_largest_counts_fit_the_typed_config() {
    let config = parse(&format!(
        "{MINIMAL}[limits]\nmax_connections = 1000000\nworkers = 1024\n\
         [dns.clients]\ntcp_max = 1000000\ntcp_max_per_client = 1000000\ntcp_max_in_flight = 65535\n\
         max_in_flight = 1000000\nudp_payload_size = 4096\n\
         [dns.pool]\nmax_per_host = 65535\nmin_idle = 65535\nmax_in_flight = 65535\nmax_waiters = 1000000\n\
         udp_max_queries = 0xF4240\n[dns.breaker]\nfailures = 1_000_000\nsuccesses = 1000\n"
    ));
    let dns = config.unwrap().config.dns.unwrap();
    assert_eq!((dns.clients.udp_payload_size, dns.pool.udp_max_queries), (4096, 1_000_000));
    assert_eq!((dns.breaker.failures, dns.breaker.successes), (1_000_000, 1000));
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (section, line) in [
        ("limits", "max_connections = 0"),
        ("limits", "workers = 9999"),
        ("dns", "timeout = \"0s\""),
        ("dns", "timeout = \"1h\""),
        ("dns.cache", "size = \"1KiB\""),
        ("dns.cache", "max_ttl = \"0s\""),
        ("dns.cache", "stale = \"8d\""),
        ("dns.pool", "max_per_host = 0"),
        ("dns.pool", "max_lifetime = \"1ms\""),
        ("dns.pool", "udp_max_queries = 99999999999"),
        ("dns.breaker", "failure_ratio = 1.5"),
        ("dns.breaker", "failure_ratio = 0"),
        ("dns.clients", "udp_payload_size = 100"),
        ("dns.clients", "udp_payload_size = -1"),
    ] {
        let text = match section {
            "dns" => MINIMAL.replace("[[dns", &format!("[dns]\n{line}\n[[dns")),
            _ => format!("{MINIMAL}[{section}]\n{line}\n"),
        };
        let faults = refused(&text);
        assert_eq!(faults.len(), 1, "{line}: {faults:?}");
        assert!(faults[0].ends_with("is out of range"), "{line}: {faults:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_file_is_read_or_refused_without_a_panic(text in "\\PC*") {
        show(&text);
    }

    #[test]
    fn a_damaged_example_does_not_panic(cut in 0usize..EXAMPLE.len(), length in 0usize..40, put in "[\\]\\[\"=.#a0{},\n ]{0,6}") {
        let from = EXAMPLE.floor_char_boundary(cut);
        let to = EXAMPLE.ceil_char_boundary((from + length).min(EXAMPLE.len()));
        show(&format!("{}{put}{}", &EXAMPLE[..from], &EXAMPLE[to..]));
    }
}

/// Reads a text and renders what is said about it.
fn show(text: &str) {
    match parse(text) {
        Err(ConfigError::Faults(faults)) => {
            assert!(faults.has_errors());
            assert!(!faults.render(false).is_empty() && !faults.to_string().is_empty());
        }
        Err(error) => panic!("{error}"),
        Ok(loaded) => assert!(!loaded.warnings.has_errors()),
    }
}
