//! `[tunnel]`: what it comes to, its listeners and limits.

use keepwarm_transport::proxy::ProxyProtocol;
use keepwarm_tunnel::config::{
    HostKey, ListenKind, PoolConfig, Strategy as Sharing, TunnelConfig, UdpConfig, UpstreamConfig, UpstreamKind, Via,
};

use super::*;

mod rules;
mod upstream;

/// A SOCKS5 proxy in the group `default`.
const EXIT: &str = "[[tunnel.upstream]]\nname = \"exit\"\naddress = \"socks5://proxy.example\"\n";

/// A file with these lines in [tunnel], and more sections.
fn file(tunnel: &str, more: &str) -> String {
    format!("version = 1\n[tunnel]\n{tunnel}\n{more}\n")
}

/// A file with one upstream, which has these lines after its name.
fn upstream(lines: &str) -> String {
    file("", &format!("[[tunnel.upstream]]\nname = \"exit\"\n{lines}"))
}

/// A file with the upstream `exit` and a rule with these lines.
fn rule(lines: &str) -> String {
    file("", &format!("{EXIT}[[tunnel.rule]]\n{lines}"))
}

fn accepted(text: &str) -> TunnelConfig {
    let Loaded { config, warnings, .. } = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(places(&warnings), [""; 0], "{text}");
    config.tunnel.unwrap()
}

/// What is warned of in a file that is accepted, without the places.
fn warned(text: &str) -> Vec<String> {
    let loaded = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    loaded.warnings.iter().map(|fault| fault.title.clone()).collect()
}

/// The titles of a file that is refused, without their places.
fn titles(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Faults(faults)) => faults.iter().map(|fault| fault.title.clone()).collect(),
        other => panic!("{other:?}\n{text}"),
    }
}

/// All that is said about a file, refused or not.
fn rendered(text: &str, base: &Path) -> String {
    let faults = match Config::parse("test.toml", text, base) {
        Err(ConfigError::Faults(faults)) => *faults,
        Err(error) => panic!("{error}"),
        Ok(loaded) => loaded.warnings,
    };
    format!("{}\n{faults}\n{faults:?}", faults.render(false))
}

#[test]
fn an_empty_section_is_a_local_proxy_that_connects_itself() {
    let tunnel = accepted("version = 1\n[tunnel]\n");
    assert_eq!(tunnel.listen, [defaults::tunnel_listen()]);
    assert_eq!(tunnel.default, Via::Direct);
    assert_eq!((tunnel.max_tunnels, tunnel.max_per_destination), (512, 10));
    // What only the file has, and what the daemon's limit leaves, is as in the typed default.
    let listen = Vec::new();
    let same = TunnelConfig { listen, max_tunnels: TunnelConfig::default().max_tunnels, ..tunnel };
    assert_eq!(format!("{same:?}"), format!("{:?}", TunnelConfig::default()));
}

#[test]
fn an_upstream_alone_is_where_everything_goes() {
    let tunnel = accepted(&format!("version = 1\n{EXIT}"));
    assert_eq!(tunnel.default, Via::Group("default".into()));
    let proxy = keepwarm_transport::proxy::Proxy::parse("socks5://proxy.example").unwrap();
    let default = UpstreamConfig::new("exit", UpstreamKind::Proxy(proxy.into()));
    assert_eq!(format!("{:?}", tunnel.upstreams), format!("{:?}", [default]));
    assert_eq!(tunnel.pool, PoolConfig::default());
}

#[test]
fn every_key_of_tunnel_reaches_the_typed_config() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "bob.password", "hunter3\r\n");
    write(folder.path(), "exit.password", "hunter4\n");
    let text = r#"
        version = 1
        [limits]
        max_connections = 900
        [tunnel]
        listen = ["127.0.0.1:1080", "socks5://0.0.0.0:1081", "http://[::1]:8118", "forward://127.0.0.1:5432->db.example:5433"]
        users = { ann = "hunter2", bob = { password_file = "bob.password" } }
        max_clients = 11
        max_tunnels = 120
        max_per_destination = 13
        max_waiters = 14
        acquire_timeout = "15s"
        timeout = "16s"
        handshake_timeout = "17s"
        idle_timeout = "18m"
        half_open_timeout = "19s"
        strategy = "least-loaded"
        switch_back = "never"
        default = "reject"
        [tunnel.pool]
        spares = 5
        spares_min = 4
        spares_max = 6
        idle_timeout = "20s"
        connect_timeout = "21s"
        check_interval = "22s"
        [tunnel.breaker]
        failures = 9
        failure_ratio = 0.25
        window = "20s"
        open = "2s"
        open_max = "2m"
        successes = 5
        [tunnel.udp]
        enabled = false
        max_associations = 23
        idle_timeout = "24s"
        [[tunnel.upstream]]
        name = "a"
        address = "socks5://proxy.example:1081"
        username = "ann:x"
        password = "hunter2"
        through = "b"
        group = "exits"
        priority = 7
        check = "www.example:8080"
        pipeline = false
        [[tunnel.upstream]]
        name = "b"
        address = "http://bob@proxy.example:3128"
        password_file = "exit.password"
        [[tunnel.upstream]]
        name = "here"
        address = "direct://"
        [[tunnel.rule]]
        match = ["*.internal.example", "10.0.0.0/8:443"]
        via = "direct"
        [[tunnel.rule]]
        match = ["*:443", "*:8000-8080"]
        via = "exits"
        speculate = 2
        [[tunnel.rule]]
        match = ["*"]
        via = "default"
    "#;
    let loaded = Config::parse("test.toml", text, folder.path()).unwrap();
    assert_eq!(places(&loaded.warnings), [""; 0]);
    let tunnel = loaded.config.tunnel.unwrap();
    assert!(!format!("{tunnel:?}").contains("hunter"));
    let listen: Vec<_> = tunnel.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:1080", "0.0.0.0:1081", "[::1]:8118", "127.0.0.1:5432"]);
    assert_eq!((&tunnel.listen[1].kind, &tunnel.listen[2].kind), (&ListenKind::Socks, &ListenKind::Http));
    assert!(matches!(&tunnel.listen[3].kind, ListenKind::Forward(to) if to.to_string() == "db.example:5433"));
    let users: Vec<_> = tunnel.users.iter().map(|user| (&*user.name, &*user.password)).collect();
    assert_eq!(users, [("ann", "hunter2"), ("bob", "hunter3")]);
    assert_eq!((tunnel.max_clients, tunnel.max_tunnels), (11, 120));
    assert_eq!((tunnel.max_per_destination, tunnel.max_waiters), (13, 14));
    let seconds = Duration::from_secs;
    assert_eq!((tunnel.acquire_timeout, tunnel.timeout), (seconds(15), seconds(16)));
    assert_eq!((tunnel.handshake_timeout, tunnel.idle_timeout), (seconds(17), seconds(18 * 60)));
    assert_eq!((tunnel.half_open_timeout, tunnel.switch_back), (seconds(19), None));
    assert_eq!((tunnel.strategy, &tunnel.default), (Sharing::LeastLoaded, &Via::Reject));
    let pool = PoolConfig {
        spares: 5,
        spares_min: 4,
        spares_max: 6,
        idle_timeout: seconds(20),
        connect_timeout: seconds(21),
        check_interval: seconds(22),
    };
    assert_eq!(tunnel.pool, pool);
    let breaker = BreakerSettings {
        failures: 9,
        failure_ratio: 0.25,
        window: seconds(20),
        open: seconds(2),
        open_max: seconds(120),
        successes: 5,
    };
    assert_eq!(tunnel.breaker, breaker);
    assert_eq!(tunnel.udp, UdpConfig { enabled: false, max_associations: 23, idle_timeout: seconds(24) });
    upstreams_are_as_written(&tunnel.upstreams);
    let rules: Vec<_> = tunnel
        .rules
        .iter()
        .map(|rule| {
            let matches: Vec<_> = rule.matches.iter().map(show_pattern).collect();
            (matches.join(" "), rule.via.clone(), rule.speculate)
        })
        .collect();
    let group = |name: &str| Via::Group(name.into());
    assert_eq!(
        rules,
        [
            ("*.internal.example 10.0.0.0/8:443".to_owned(), Via::Direct, 0),
            ("*:443 *:8000-8080".to_owned(), group("exits"), 2),
            ("*".to_owned(), group("default"), 0),
        ]
    );
}

/// A file that nobody else may read.
fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn login(proxy: &keepwarm_transport::proxy::Proxy) -> Option<(&str, &str)> {
    proxy.credential.as_ref().map(|known| (&*known.user, &*known.password))
}

fn upstreams_are_as_written(upstreams: &[UpstreamConfig]) {
    let [a, b, here] = upstreams else { panic!("{upstreams:?}") };
    let proxy = |upstream: &UpstreamConfig| match &upstream.kind {
        UpstreamKind::Proxy(proxy) => (**proxy).clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (proxy(a).to_string(), proxy(a).protocol),
        ("socks5://proxy.example:1081".into(), ProxyProtocol::Socks5)
    );
    assert_eq!(login(&proxy(a)), Some(("ann:x", "hunter2")));
    assert_eq!((&*a.group, a.priority, a.pipeline), ("exits", 7, false));
    assert_eq!(a.check.as_ref().map(ToString::to_string).as_deref(), Some("www.example:8080"));
    // What leads to the first leads through the second with the second's credential.
    assert_eq!(a.through.as_deref(), Some(&proxy(b)));
    assert_eq!(login(&proxy(b)), Some(("bob", "hunter4")));
    assert!(matches!(here.kind, UpstreamKind::Direct));
}

#[test]
fn listeners_go_beyond_loopback_only_with_users() {
    for listen in ["127.0.0.1:1080", "socks5://[::1]:1080", "http://127.0.0.1:0", "forward://127.0.0.1:1->a:1"] {
        accepted(&file(&format!("listen = \"{listen}\""), ""));
    }
    for (listen, address) in [("0.0.0.0:1080", "0.0.0.0:1080"), ("http://192.168.1.1:8118", "192.168.1.1:8118")] {
        let text = file(&format!("listen = [\"127.0.0.1:1\", \"{listen}\"]"), "");
        let title = format!("`tunnel.listen` is {address}, which other machines can reach, and there are no users");
        assert_eq!(titles(&text), [title]);
        accepted(&text.replace("[tunnel]", "[tunnel]\nusers.ann = \"hunter2\""));
        assert_eq!(titles(&text.replace("[tunnel]", "[tunnel]\nusers = {}")).len(), 1);
    }
    // A user whose password is refused was meant to be one.
    assert_eq!(titles(&file("listen = \"0.0.0.0:1\"\nusers.ann = \"\"", "")), ["`tunnel.users.ann` is empty"]);
    let long = "x".repeat(256);
    assert_eq!(titles(&file(&format!("users.ann = \"{long}\""), "")), ["`tunnel.users.ann` is too long"]);
    accepted(&file(&format!("users.ann = \"{}\"", &long[1..]), ""));
    // Users or not: nobody could say there who he is.
    for users in ["", "users.ann = \"hunter2\""] {
        assert_eq!(
            titles(&file(&format!("listen = \"forward://0.0.0.0:1->a.b:2\"\n{users}"), "")),
            ["`tunnel.listen` leads everybody who reaches 0.0.0.0:1 to a.b:2"]
        );
    }
}

#[test]
fn listeners_have_their_port_for_themselves() {
    let listen = |listen: &str, more: &str| file(&format!("listen = {listen}"), more);
    let takes = |address: &str, key: &str| format!("`tunnel.listen` is {address}, where `{key}` takes TCP");
    assert_eq!(titles(&listen("\"127.0.0.1:9180\"", "")), [takes("127.0.0.1:9180", "control.listen")]);
    let dns = "[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";
    assert_eq!(titles(&listen("\"127.0.0.1:5300\"", dns)), [takes("127.0.0.1:5300", "dns.listen")]);
    let https = "[https]\nany_host = true\ngateway = \"127.0.0.1:1080\"\n";
    assert_eq!(titles(&listen("\"127.0.0.1:1080\"", https)), [takes("127.0.0.1:1080", "https.gateway")]);
    assert_eq!(
        titles(&file("", https)),
        ["`https.gateway` is 127.0.0.1:1080, which is the default of `tunnel.listen`"]
    );
    let twice = "`tunnel.listen` has 127.0.0.1:1 twice";
    assert_eq!(titles(&listen("[\"127.0.0.1:1\", \"http://127.0.0.1:1\"]", "")), [twice]);
    accepted(&listen("[\"127.0.0.1:0\", \"http://127.0.0.1:0\"]", ""));
    assert_eq!(
        warned(&file("listen = []\nusers.ann = \"hunter2\"", "")),
        ["`tunnel.listen` is empty: nobody can use the tunnels", "`tunnel.users` is not used: there is no listener"]
    );
    // A listener that is refused does not stand for none, nor for the default.
    assert_eq!(titles(&listen("[\"1080\"]", https)), ["`tunnel.listen` is not an IP address and a port"]);
}

#[test]
fn limits_of_tunnels_agree_with_each_other() {
    let pool = |lines: &str| file("", &format!("{EXIT}[tunnel.pool]\n{lines}"));
    let spares = |tunnel: TunnelConfig| (tunnel.pool.spares_min, tunnel.pool.spares, tunnel.pool.spares_max);
    assert_eq!(spares(accepted(&pool("spares_max = 5"))), (1, 5, 5), "the default gives way");
    assert_eq!(spares(accepted(&pool("spares = 0"))), (0, 0, 0));
    assert_eq!(spares(accepted(&pool("spares_min = 8"))), (8, 8, 64));
    let larger = |key: &str, limit: &str| [format!("`tunnel.{key}` is larger than `tunnel.{limit}`")];
    assert_eq!(titles(&pool("spares = 65")), larger("pool.spares", "pool.spares_max"));
    assert_eq!(titles(&pool("spares_min = 9")), larger("pool.spares_min", "pool.spares"));
    assert_eq!(
        titles(&file("max_tunnels = 5\nmax_per_destination = 6", "")),
        larger("max_per_destination", "max_tunnels")
    );
    assert_eq!(accepted(&file("max_tunnels = 5", "")).max_per_destination, 5);
    assert_eq!(
        titles(&file("idle_timeout = \"1m\"\nhalf_open_timeout = \"2m\"", "")),
        larger("half_open_timeout", "idle_timeout")
    );
    assert_eq!(accepted(&file("idle_timeout = \"1m\"", "")).half_open_timeout, Duration::from_secs(60));
    assert_eq!(titles(&file("", "[tunnel.breaker]\nopen = \"2m\"")), larger("breaker.open", "breaker.open_max"));
    // A limit that is refused itself is nothing to be larger than.
    assert_eq!(titles(&pool("spares_max = 5000\nspares = 70")), ["`tunnel.pool.spares_max` is out of range"]);
    assert_eq!(
        titles(&file("max_tunnels = 0\nmax_per_destination = 600", "")),
        ["`tunnel.max_tunnels` is out of range"]
    );
}

#[test]
fn times_and_counts_of_tunnels_have_ranges() {
    for line in [
        "max_clients = 0",
        "max_tunnels = 1000001",
        "max_per_destination = 0",
        "max_waiters = 1000001",
        "acquire_timeout = \"0s\"",
        "timeout = \"11m\"",
        "handshake_timeout = \"1ms\"",
        "idle_timeout = \"8d\"",
        "half_open_timeout = \"1ms\"",
        "switch_back = \"2d\"",
        "pool = { idle_timeout = \"1ms\" }",
        "pool = { connect_timeout = \"0s\" }",
        "pool = { check_interval = \"1ms\" }",
        "pool = { spares = 4097 }",
        "udp = { max_associations = 0 }",
        "udp = { idle_timeout = \"0s\" }",
        "breaker = { failure_ratio = 0 }",
    ] {
        let titles = titles(&file(line, ""));
        assert!(titles.len() == 1 && titles[0].ends_with("is out of range"), "{line}: {titles:?}");
    }
    assert_eq!(accepted(&file("pool = { check_interval = \"0s\" }", "")).pool.check_interval, Duration::ZERO);
    assert_eq!(accepted(&file("switch_back = \"0s\"", "")).switch_back, Some(Duration::ZERO));
    for line in ["switch_back = \"newer\"", "switch_back = 10", "switch_back = true"] {
        let said = rendered(&file(line, ""), Path::new(""));
        assert!(said.contains("`tunnel.switch_back` "), "{line}: {said}");
    }
}

#[test]
fn the_daemons_limit_is_shared_with_tunnels() {
    let dns = "[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";
    let https = "[https]\nany_host = true\n";
    let with = |limit: usize, tunnel: &str, more: &str| {
        file(tunnel, &format!("{EXIT}{more}[limits]\nmax_connections = {limit}\n"))
    };
    let shares = |text: &str| {
        let Loaded { config, warnings, .. } = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(places(&warnings), [""; 0], "{text}");
        let tunnel = config.tunnel.unwrap();
        (config.dns.map_or(0, |dns| dns.max_connections), tunnel.max_tunnels, tunnel.pool.spares_max)
    };
    assert_eq!(shares(&with(512, "", "")), (0, 448, 64));
    assert_eq!(shares(&with(512, "", dns)), (10, 438, 64));
    assert_eq!(shares(&with(512, "", &format!("{dns}{https}"))), (10, 338, 64));
    assert_eq!(shares(&with(512, "max_tunnels = 100", &format!("{dns}{https}"))), (248, 100, 64));
    assert_eq!(shares(&with(100_000, "", dns)), (100_000 - 4096 - 64, 4096, 64));
    // Spares take half of little, and no fewer than are kept ready.
    assert_eq!(shares(&with(60, "", dns)), (10, 25, 25));
    assert_eq!(shares(&with(12, "", "")), (0, 4, 8));
    assert_eq!(shares(&with(12, "pool = { spares_max = 2 }", "")), (0, 10, 2));
    let title = |left, tunnels, spares| {
        [format!(
            "`limits.max_connections` leaves {left} for tunnels, which want {tunnels} and {spares} spares (`tunnel.pool.spares_max` for each upstream)"
        )]
    };
    assert_eq!(titles(&with(8, "", "")), title(8, 1, 8));
    assert_eq!(titles(&with(512, "max_tunnels = 449", "")), title(512, 449, 64));
    assert_eq!(titles(&with(512, "max_tunnels = 439", dns)), title(502, 439, 64));
    assert_eq!(shares(&with(512, "max_tunnels = 438", dns)), (10, 438, 64));
    assert_eq!(titles(&with(110, "pool = { spares_max = 50 }", &format!("{dns}{https}"))), title(0, 1, 50));
    assert_eq!(titles(&with(0, "", "")), ["`limits.max_connections` is out of range"]);
    let direct = "version = 1\n[tunnel]\nmax_tunnels = 513\n";
    assert_eq!(titles(direct), ["`limits.max_connections` leaves 512 for tunnels, which want 513"]);
    assert_eq!(
        titles("version = 1\n[tunnel]\nmax_per_destination = 513\n"),
        ["`tunnel.max_per_destination` is larger than what `limits.max_connections` leaves for tunnels"]
    );
}
