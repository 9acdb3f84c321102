//! `[tunnel]`: what it comes to, what is held against what, and that no message has a password.

use keepwarm_transport::proxy::ProxyProtocol;
use keepwarm_tunnel::config::{
    HostKey, ListenKind, PoolConfig, Strategy as Sharing, TunnelConfig, UdpConfig, UpstreamConfig, UpstreamKind, Via,
};

use super::*;

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

const NO_SSH: &str = "`tunnel.upstream.address` is an SSH server, and this build has no SSH";

#[test]
fn an_ssh_server_needs_a_build_that_speaks_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "id_ed25519", "a key\n");
    write(folder.path(), "known_hosts", "");
    let text = r#"
        version = 1
        [[tunnel.upstream]]
        name = "c"
        address = "ssh://eve@host.example"
        key = "id_ed25519"
        host_key = "known_hosts"
        channels = 4
        through = "http://ann:hunter5@first.example:3128"
        [[tunnel.upstream]]
        name = "d"
        address = "ssh://eve:hunter6@[2001:db8::1]:2222"
        host_key = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    "#;
    let loaded = Config::parse("test.toml", text, folder.path());
    if !cfg!(feature = "ssh") {
        let Err(ConfigError::Faults(faults)) = loaded else { panic!("{loaded:?}") };
        let said: Vec<_> = faults.iter().map(|fault| &*fault.title).collect();
        assert_eq!(said, [NO_SSH, NO_SSH]);
        return;
    }
    let loaded = loaded.unwrap();
    assert_eq!(places(&loaded.warnings), [""; 0]);
    let upstreams = loaded.config.tunnel.unwrap().upstreams;
    assert!(!format!("{upstreams:?}").contains("hunter"));
    let [c, d] = &upstreams[..] else { panic!("{upstreams:?}") };
    let ssh = |upstream: &UpstreamConfig| match &upstream.kind {
        UpstreamKind::Ssh(ssh) => (**ssh).clone(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (ssh(c), ssh(d));
    assert_eq!((&*first.host, first.port, &*first.user, first.password), ("host.example", 22, "eve", None));
    assert_eq!(first.key, Some(folder.path().join("id_ed25519")));
    assert_eq!(first.host_key, HostKey::KnownHosts(folder.path().join("known_hosts")));
    assert_eq!(login(c.through.as_deref().unwrap()), Some(("ann", "hunter5")));
    assert_eq!((&*second.host, second.port, second.password.as_deref()), ("2001:db8::1", 2222, Some("hunter6")));
    let digest = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned();
    assert_eq!((second.key, second.host_key), (None, HostKey::Fingerprint(digest)));
    assert_eq!((first.channels, second.channels), (4, 1));
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
fn credentials_come_from_one_place() {
    let socks = |lines: &str| titles(&upstream(&format!("address = \"socks5://proxy\"\n{lines}")));
    let known = |lines: &str| titles(&upstream(&format!("address = \"socks5://ann:hunter2@proxy\"\n{lines}")));
    let key = |key: &str, words: &str| [format!("`tunnel.upstream.{key}` {words}")];
    accepted(&upstream("address = \"socks5://proxy\"\nusername = \"ann\"\npassword = \"\""));
    assert_eq!(socks("username = \"ann\""), key("username", "is without a password"));
    assert_eq!(socks("password = \"x\""), key("password", "is without a user"));
    assert_eq!(known("username = \"ann\""), key("username", "is beside a credential in `address`"));
    assert_eq!(known("password = \"x\""), key("password", "is beside a credential in `address`"));
    assert_eq!(
        socks("username = \"ann\"\npassword = \"x\"\npassword_file = \"y\""),
        key("password_file", "is beside `password`")
    );
    let missing = socks("username = \"ann\"\npassword_file = \"no-such-file\"");
    assert!(missing.len() == 1 && missing[0].contains("no-such-file cannot be read"), "{missing:?}");
    for scheme in ["http", "https"] {
        let colon = format!("address = \"{scheme}://proxy:1\"\nusername = \"a:b\"\npassword = \"x\"");
        assert_eq!(titles(&upstream(&colon)), key("username", "cannot be told to the upstream"));
    }
    let long = format!("username = \"ann\"\npassword = \"{}\"", "x".repeat(256));
    assert_eq!(socks(&long), key("password", "cannot be told to the upstream"));
}

#[test]
fn keys_that_mean_nothing_beside_the_address_are_refused() {
    let no_meaning = |key: &str| format!("`tunnel.upstream.{key}` has no meaning here");
    let direct =
        "address = \"direct://\"\nusername = \"a\"\npassword = \"b\"\nthrough = \"socks5://p\"\nhost_key = \"x\"";
    assert_eq!(titles(&upstream(direct)), ["username", "password", "through", "host_key"].map(no_meaning));
    assert_eq!(
        titles(&upstream("address = \"socks5://p\"\nkey = \"x\"\nchannels = 2")),
        ["key", "channels"].map(no_meaning)
    );
    let titles = |text: &str| titles(text).into_iter().filter(|title| title != NO_SSH).collect::<Vec<_>>();
    let ssh = |lines: &str| titles(&upstream(&format!("address = \"ssh://ann@host\"\n{lines}")));
    let digest = "host_key = \"SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"";
    assert_eq!(ssh("password = \"x\""), ["`tunnel.upstream.host_key` is missing: the server could be anybody"]);
    assert_eq!(ssh(digest), ["`tunnel.upstream` has neither a `key` nor a password for SSH"]);
    assert_eq!(
        ssh("password = \"x\"\nhost_key = \"SHA256:abc\""),
        ["`tunnel.upstream.host_key` is not a SHA-256 fingerprint"]
    );
    let no_user = format!("address = \"ssh://host\"\nkey = \"no-such-file\"\n{digest}");
    let no_user = titles(&upstream(&no_user));
    assert_eq!(no_user.len(), 2, "{no_user:?}");
    assert_eq!(no_user[0], "`tunnel.upstream.address` names no user");
    assert!(no_user[1].contains("no-such-file cannot be read"), "{no_user:?}");
}

#[test]
fn chains_are_of_two_proxies() {
    let chain = |second: &str, third: &str| {
        file(
            "",
            &format!(
                "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://a\"\nthrough = \"b\"\n\
                 [[tunnel.upstream]]\nname = \"b\"\naddress = \"{second}\"\n{third}"
            ),
        )
    };
    accepted(&chain("http://b:1", ""));
    let refused = |words: &str| [format!("`tunnel.upstream.through` names \"b\", which {words}")];
    let second = "has a `through` of its own; chains are of two";
    assert_eq!(titles(&chain("http://b:1", "through = \"socks5://c\"")), refused(second));
    assert_eq!(titles(&chain("direct://", "")), refused("is not a proxy"));
    assert_eq!(titles(&upstream("address = \"socks5://a\"\nthrough = \"b\"")), refused("is no upstream"));
    let own = titles(&upstream("address = \"socks5://a\"\nthrough = \"exit\""));
    assert_eq!(own, ["`tunnel.upstream.through` names \"exit\", which is the upstream itself"]);
    // One fault is enough where the second is faulty itself.
    assert_eq!(titles(&chain("socks9://b", "")).len(), 1);
}

#[test]
fn names_lead_to_one_upstream_or_group() {
    let second = |lines: &str| file("default = \"direct\"", &format!("{EXIT}[[tunnel.upstream]]\n{lines}"));
    let named = |name: &str, group: &str| {
        second(&format!(
            "name = \"{name}\"\naddress = \"socks5://b\"\ngroup = \"{group}\"\n[[tunnel.rule]]\nmatch = [\"*\"]\nvia = \"exit\"\n"
        ))
    };
    assert_eq!(titles(&named("exit", "default"))[0], "two upstreams are named \"exit\"");
    assert_eq!(titles(&named("b", "exit")), ["\"exit\" is the name of an upstream and of a group"]);
    assert_eq!(
        titles(&named("direct", "reject")),
        [
            "no upstream can be named \"direct\", which has a meaning of its own after `via`",
            "no group can be named \"reject\", which has a meaning of its own after `via`"
        ]
    );
    let unknown =
        |key: &str, name: &str| [format!("`{key}` names \"{name}\", which is neither an upstream nor a group")];
    assert_eq!(titles(&rule("match = [\"*\"]\nvia = \"exti\"")), unknown("tunnel.rule.via", "exti"));
    assert_eq!(titles(&file("default = \"x\"", EXIT)), unknown("tunnel.default", "x"));
    // A name that is refused may have been the one that is meant.
    let refused = file("default = \"a b\"", &format!("{EXIT}[[tunnel.rule]]\nmatch = [\"*\"]\nvia = \"exit\"\n"));
    assert_eq!(titles(&refused), ["`tunnel.default` cannot be used in logs and metrics"]);
}

#[test]
fn what_no_rule_matches_has_to_go_somewhere() {
    let grouped = format!("{EXIT}group = \"exits\"\n");
    let title = "`tunnel.default` is missing, and no upstream is in the group \"default\"";
    assert_eq!(titles(&file("", &grouped)), [title]);
    assert_eq!(accepted(&file("default = \"exits\"", &grouped)).default, Via::Group("exits".into()));
    assert_eq!(accepted(&file("default = \"exit\"", &grouped)).default, Via::Upstream("exit".into()));
    let unused = ["nothing leads to the upstream \"exit\""];
    assert_eq!(warned(&file("default = \"direct\"", &grouped)), unused);
    assert_eq!(warned(&file("default = \"reject\"", &grouped)), unused);
    let rule = format!("{grouped}[[tunnel.rule]]\nmatch = [\"a.b\"]\nvia = \"exits\"\n");
    accepted(&file("default = \"direct\"", &rule));
    let before = format!(
        "{EXIT}through = \"first\"\n[[tunnel.upstream]]\nname = \"first\"\ngroup = \"x\"\naddress = \"socks5://f\"\n"
    );
    accepted(&file("", &before));
}

#[test]
fn rules_that_cannot_match_are_warned_of() {
    let never = "this `tunnel.rule` never matches: an earlier one takes all of it";
    let two = |first: &str, second: &str| {
        rule(&format!("match = [{first}]\nvia = \"direct\"\n[[tunnel.rule]]\nmatch = [{second}]\nvia = \"reject\""))
    };
    for (first, second) in [
        ("\"*\"", "\"a.b\", \"10.0.0.0/8:80\""),
        ("\".a.b\", \"10.0.0.0/8\"", "\"x.a.b\", \"10.1.0.0/16\""),
        ("\"a.b:80-90\"", "\"a.b:85\""),
        ("\"*:1-65535\"", "\"*\""),
        ("\"2001:db8::/32\"", "\"[2001:db8::1]:80\""),
    ] {
        assert_eq!(warned(&two(first, second)), [never], "{first} {second}");
    }
    for (first, second) in [
        ("\"a.b\"", "\"*\""),
        ("\"*:80\"", "\"*:80-81\""),
        ("\"*.a.b\"", "\".a.b\""),
        ("\".a.b\"", "\"x.a.b\", \"c.d\""),
        ("\"0.0.0.0/0\"", "\"a.b\""),
    ] {
        accepted(&two(first, second));
    }
    assert_eq!(titles(&rule("match = []\nvia = \"direct\"")), ["`tunnel.rule.match` is empty"]);
    assert_eq!(titles(&rule("")), ["`tunnel.rule.match` is missing", "`tunnel.rule.via` is missing"]);
}

#[test]
fn nothing_is_opened_ahead_where_the_server_speaks_first() {
    let speculate = |patterns: &str| rule(&format!("match = [{patterns}]\nvia = \"exit\"\nspeculate = 16"));
    assert_eq!(accepted(&speculate("\"*:443\", \"*:8000-8443\", \"a.b:80\"")).rules[0].speculate, 16);
    let unnamed = |shown: &str| [format!("`tunnel.rule.speculate` needs ports, and \"{shown}\" names none")];
    assert_eq!(titles(&speculate("\"*:443\", \"a.b\"")), unnamed("a.b"));
    for (port, range) in [
        (21, "21"),
        (22, "22"),
        (25, "25-30"),
        (110, "108-112"),
        (143, "130-150"),
        (587, "587"),
        (3306, "3000-4000"),
        (5901, "5901"),
        (13, "1-65535"),
    ] {
        let range = speculate(&format!("\"*:{range}\""));
        let first = if port == 3306 { 3306 } else { port };
        let first = if first == 110 { 109 } else { first };
        let words = format!("`tunnel.rule.speculate` has no place at port {first}, where the server speaks first");
        assert_eq!(titles(&range), [words]);
    }
    accepted(&rule("match = [\"*\"]\nvia = \"exit\"\nspeculate = 0"));
    assert_eq!(
        titles(&rule("match = [\"*:443\"]\nvia = \"reject\"\nspeculate = 1")),
        ["`tunnel.rule.speculate` has no meaning where tunnels are refused"]
    );
    assert_eq!(titles(&speculate("\"*:443\"").replace("16", "17")), ["`tunnel.rule.speculate` is out of range"]);
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

#[test]
fn a_check_without_a_port_is_taken_for_http() {
    let with = |check: &str| upstream(&format!("address = \"socks5://proxy\"\ncheck = \"{check}\""));
    assert_eq!(warned(&with("www.example")), ["`tunnel.upstream.check` has no port: 80 is taken"]);
    let target = |text: &str| parse(text).unwrap().config.tunnel.unwrap().upstreams[0].check.clone().unwrap();
    assert_eq!(target(&with("www.example")).to_string(), "www.example:80");
    assert_eq!(target(&with("[2001:db8::1]:81")).to_string(), "[2001:db8::1]:81");
    assert_eq!(
        titles(&with("http://www.example")),
        ["`tunnel.upstream.check` is a URL, and a destination is a host and a port"]
    );
}

#[cfg(unix)]
#[test]
fn a_secret_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exit.password");
    std::fs::write(&path, "hunter2\n").unwrap();
    let text = upstream("address = \"socks5://ann@proxy\"\npassword_file = \"exit.password\"");
    for (mode, warnings) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Config::parse("test.toml", &text, folder.path()).unwrap();
        let said: Vec<_> = loaded.warnings.iter().map(|fault| fault.title.clone()).collect();
        assert_eq!(said.len(), warnings, "{mode:o}: {said:?}");
        assert!(said.iter().all(|title| title.contains("everybody on this machine may read")), "{said:?}");
    }
}

#[test]
fn passwords_of_tunnels_are_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("two.password"), "hunter2\nhunter2\n").unwrap();
    for text in [
        "[tunnel.users]\nann = \"hunter2\"\nbob = 3\n",
        "[tunnel.users]\nbob = 3 \nann = \"hunter2\"\n",
        "[tunnel.users]\nann = { pasword = \"hunter2\" }\n",
        "[tunnel]\nusers = \"ann:hunter2\"\n",
        "[tunnel]\nuser = { ann = \"hunter2\" }\n",
        "[tunnel]\nauth = { ann = \"hunter2\" }\n",
        "[tunnel.users]\nann = { password_file = \"two.password\" }\n",
        "[tunnel.users]\nann = \"hunter2\n",
        "[tunnel]\nusers = { ann = \"hunter2\", ann = \"hunter2\" }\n",
        "[tunnel]\nlisten = \"ann:hunter2@127.0.0.1:1080\"\n",
        "[[tunnel.upstream]]\npassword = \"hunter2\"\nnam = \"a\"\n",
        "[[tunnel.upstream]]\npassword = [\"hunter2\"]\n",
        "[[tunnel.upstream]]\npasword = \"hunter2\"\n",
        "[[tunnel.upstream]]\npassword = \"hunter2\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\npassword = \"hunter2\"\npassword_file = \"hunter\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nusername = \"ann\"\npassword_file = \"two.password\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://ann:hunter2@p\"\nusername = \"ann\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"ann:hunter2@p:1\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"http://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"ssh://ann:hunter2@p:0\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = [\"socks5://ann:hunter2@p\"]\n",
        "[[tunnel.upstream]]\nname = \"a\"\nadress = \"socks5://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nthrough = \"ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nthrough = \"http://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\ncheck = \"ann:hunter2@p:1\"\n",
        "[[tunnel.rule]]\nmatch = [\"ann:hunter2@p\"]\nvia = \"direct\"\n",
    ] {
        let said = rendered(&format!("version = 1\n{text}"), folder.path());
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains("test.toml:"), "{said}");
    }
}
