//! Files as their authors write them: what they come to, and what is said about the faulty ones.

use std::time::Duration;

use keepwarm_dns::config::{
    BreakerSettings, CacheSettings, ClientLimits, ListenTransport, PoolSettings, Strategy, Transport,
};
use proptest::prelude::*;

use super::*;

mod cache;
mod control;
mod dns;
mod https;
mod schema;
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
