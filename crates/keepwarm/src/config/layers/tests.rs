//! What stands over a file: that it is put in, that it is checked, and where its faults are shown.

use super::*;
use crate::config::{Origin, Show};

const FILE: &str = r#"version = 1
[dns]
timeout = "1s"
[[dns.upstream]]
name = "quad9"
address = "udp://127.0.0.1"
[[dns.upstream]]
name = "my.own-one"
address = "udp://127.0.0.2"
[https]
[[https.origin]]
host = "tiles.example.com"
[tunnel.users]
ann = "a password"
[[tunnel.rule]]
match = ["*:25"]
via = "reject"
"#;

fn load(variables: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Source::text("a.toml", FILE).with_environment(Environment::of(variables)).with_sets(&sets).load()
}

/// The value at a path, as TOML, and where it is from.
fn entry(loaded: &Loaded, path: &str) -> (String, String) {
    let entry = loaded.effective.entry(path).unwrap_or_else(|| panic!("no {path}"));
    (entry.value().to_owned(), entry.origin().to_string())
}

/// `file:line:column: title | label` of each fault, and the text for people.
fn refused(variables: &[(&str, &str)], sets: &[&str]) -> (Vec<String>, String) {
    match load(variables, sets) {
        Err(ConfigError::Faults(faults)) => {
            let line = |fault: &Fault| {
                let (line, column) = faults.place(fault);
                let part = faults.text().0.part(fault.span.start).name().to_owned();
                format!("{part}:{line}:{column}: {} | {}", fault.title, fault.label)
            };
            (faults.iter().map(line).collect(), faults.render(false))
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn flags_stand_over_the_environment_over_the_file_over_defaults() {
    let variable = [("KEEPWARM_DNS__TIMEOUT", "2s")];
    let pair = |value: &str, origin: &str| (format!("\"{value}\""), origin.to_owned());
    let timeout = |loaded: Result<Loaded, ConfigError>| entry(&loaded.unwrap(), "dns.timeout");
    assert_eq!(timeout(load(&[], &[])), pair("1s", "a.toml:3"));
    assert_eq!(timeout(load(&variable, &[])), pair("2s", "environment KEEPWARM_DNS__TIMEOUT"));
    assert_eq!(timeout(load(&variable, &["dns.timeout=3s"])), pair("3s", "flag --set"));
    assert_eq!(timeout(load(&variable, &["dns.timeout=3s", "dns.timeout=2500ms"])), pair("2500ms", "flag --set"));
    let loaded = load(&variable, &["dns.timeout=3s"]).unwrap();
    assert_eq!(loaded.config.dns.as_ref().unwrap().timeout, std::time::Duration::from_secs(3));
    assert_eq!(entry(&loaded, "dns.racing_delay"), pair("100ms", "default"));
    let flag = Source::text("a.toml", FILE).with_sets(&["log.level=debug".into()]).with_flag(
        "--log",
        "log.level",
        "trace,h2=warn",
    );
    assert_eq!(entry(&flag.load().unwrap(), "log.level"), pair("trace,h2=warn", "flag --log"));
}

#[test]
fn the_key_says_what_a_text_without_quotes_means() {
    for (variable, value, path, expected) in [
        ("KEEPWARM_LIMITS__MAX_CONNECTIONS", "9_000", "limits.max_connections", "9000"),
        ("KEEPWARM_DNS__BREAKER__FAILURE_RATIO", "0.25", "dns.breaker.failure_ratio", "0.25"),
        ("KEEPWARM_DNS__CACHE__PREFETCH", " false", "dns.cache.prefetch", "false"),
        ("KEEPWARM_DNS__TIMEOUT", "\"2s\"", "dns.timeout", "\"2s\""),
        ("KEEPWARM_DNS__LISTEN", "127.0.0.1:53, [::1]:53", "dns.listen", "[\"127.0.0.1:53\", \"[::1]:53\"]"),
        ("KEEPWARM_DNS__LISTEN", "[::1]:53", "dns.listen", "[\"[::1]:53\"]"),
        ("KEEPWARM_DNS__LISTEN", "[ \"127.0.0.1:53\" ]", "dns.listen", "[\"127.0.0.1:53\"]"),
        ("KEEPWARM_TUNNEL__LISTEN", "", "tunnel.listen", "[]"),
        ("KEEPWARM_HTTPS__GATEWAY", "127.0.0.1:1", "https.gateway", "\"127.0.0.1:1\""),
        ("KEEPWARM_HTTPS__GATEWAY", "127.0.0.1:1,127.0.0.1:2", "https.gateway", "[\"127.0.0.1:1\", \"127.0.0.1:2\"]"),
        ("KEEPWARM_HTTPS__ANY_HOST", "true", "https.any_host", "true"),
        ("KEEPWARM_HTTPS__ANY_HOST", "{ tries = 2 }", "https.any_host.tries", "2"),
        ("KEEPWARM_HTTPS__ANY_HOST__TRIES", "2", "https.any_host.tries", "2"),
        ("KEEPWARM_TUNNEL__POOL", "{ spares = 3 }", "tunnel.pool.spares", "3"),
        ("KEEPWARM_TUNNEL__RULE", "[{ match = [\"*\"], via = \"direct\" }]", "tunnel.rule.\"*\".via", "\"direct\""),
    ] {
        assert_eq!(entry(&load(&[(variable, value)], &[]).unwrap(), path).0, expected, "{variable}={value}");
    }
}

#[test]
fn entries_of_lists_are_reached_by_their_names() {
    for (variable, set, path) in [
        (
            "KEEPWARM_DNS__UPSTREAM__QUAD9__CASE_RANDOMIZATION=true",
            "dns.upstream.quad9.case_randomization=true",
            "dns.upstream.quad9.case_randomization",
        ),
        (
            "KEEPWARM_DNS__UPSTREAM__MY_OWN_ONE__COOKIES=false",
            "dns.upstream.\"my.own-one\".cookies=false",
            "dns.upstream.\"my.own-one\".cookies",
        ),
        (
            "KEEPWARM_HTTPS__ORIGIN__TILES_EXAMPLE_COM__WARM=5",
            "https.origin.\"tiles.example.com\".warm=5",
            "https.origin.\"tiles.example.com\".warm",
        ),
        (
            "KEEPWARM_HTTPS__ORIGIN__TILES_EXAMPLE_COM__VALIDATE__TIMEOUT=5s",
            "https.origin.'tiles.example.com'.validate.timeout=5s",
            "https.origin.\"tiles.example.com\".validate.timeout",
        ),
    ] {
        let (name, value) = variable.split_once('=').unwrap();
        let (by_variable, by_set) = (load(&[(name, value)], &[]).unwrap(), load(&[], &[set]).unwrap());
        assert_eq!(entry(&by_variable, path), (entry(&by_set, path).0, format!("environment {name}")), "{path}");
        assert_eq!(entry(&by_set, path).1, "flag --set");
    }
    let secret = load(&[("KEEPWARM_TUNNEL__USERS__ANN", "another")], &[]).unwrap();
    assert_eq!(secret.config.tunnel.unwrap().users[0].password, "another");
    let rule = load(&[], &["tunnel.rule.\"*:25\".via=direct"]).unwrap();
    assert_eq!(entry(&rule, "tunnel.rule.\"*:25\".via").0, "\"direct\"");
}

#[test]
fn what_leads_nowhere_is_refused_with_the_nearest_that_does() {
    for (name, fault) in [
        ("KEEPWARM_DNS__TIMEUOT", "unknown variable `KEEPWARM_DNS__TIMEUOT` | did you mean `KEEPWARM_DNS__TIMEOUT`?"),
        ("KEEPWARM_DNS_TIMEOUT", "unknown variable `KEEPWARM_DNS_TIMEOUT` | did you mean `KEEPWARM_DNS__TIMEOUT`?"),
        ("KEEPWARM_CONFG", "unknown variable `KEEPWARM_CONFG` | did you mean `KEEPWARM_CONFIG`?"),
        ("KEEPWARM_", "unknown variable `KEEPWARM_` | "),
        ("KEEPWARM_dns__timeout", "unknown variable `KEEPWARM_dns__timeout` | did you mean `KEEPWARM_DNS__TIMEOUT`?"),
        (
            "KEEPWARM_DNS__TIMEOUT__X",
            "unknown variable `KEEPWARM_DNS__TIMEOUT__X` | did you mean `KEEPWARM_DNS__TIMEOUT`?",
        ),
        ("KEEPWARM_DNS__UPSTREAM__QUAD8__WEIGHT", "no entry of the list is named \"quad8\" | did you mean `quad9`?"),
        ("KEEPWARM_DNS__UPSTREAM__QUAD9", "no entry of the list is named \"quad9\" | did you mean `quad9`?"),
        ("KEEPWARM_TUNNEL__RULE__0__VIA", "the entries of this list have no names that a variable could tell | "),
        ("KEEPWARM_TUNNEL__USERS__BOB", "no user is named \"bob\" | "),
    ] {
        let (faults, _) = refused(&[(name, "1")], &[]);
        assert_eq!(faults, [format!("environment:{name}:1:1: {fault}")]);
    }
    for (set, fault) in [
        ("dns.timeuot=1s", "unknown key `dns.timeuot` | did you mean `timeout`?"),
        ("dns.max_per_host=1", "unknown key `dns.max_per_host` | belongs in [dns.pool]"),
        ("dns.timeout.x=1", "`dns.timeout.x` leads below `dns.timeout`, which is no section | "),
        ("dns.upstream.quad8.weight=1", "no entry of the list is named \"quad8\" | did you mean `quad9`?"),
        ("dns.upstream.quad9=1", "`dns.upstream.quad9` is an entry of a list, and a key of it is wanted | "),
        ("dns.timeout", "this sets nothing | "),
        ("=1s", "this sets nothing | "),
        ("", "this sets nothing | "),
        ("dns..timeout=1s", "this sets nothing | "),
    ] {
        assert_eq!(refused(&[], &[set]).0, [format!("flag:--set:1:1: {fault}")]);
    }
}

#[test]
fn a_fault_is_shown_in_the_variable_or_flag_that_has_it() {
    let (faults, shown) = refused(
        &[("KEEPWARM_DNS__TIMEOUT", "2"), ("KEEPWARM_DNS__LISTEN", "127.0.0.1:1, 127.0.0.1")],
        &["limits.workers=all", "dns.pool=[1", "dns.allow=[\"10.0.0.0/8\" 1]"],
    );
    assert_eq!(
        faults,
        [
            "environment:KEEPWARM_DNS__LISTEN:1:35: `dns.listen` has no port | ",
            "environment:KEEPWARM_DNS__TIMEOUT:1:23: `dns.timeout` needs a unit | ",
            "flag:--set:1:16: `limits.workers` must be a whole number | this is a string",
            "flag:--set:1:12: not TOML: unclosed array, expected `]` | ",
            "flag:--set:1:25: not TOML: missing comma between array elements, expected `,` | ",
        ]
    );
    assert!(shown.contains("--> environment:KEEPWARM_DNS__TIMEOUT:1:23"), "{shown}");
    assert!(shown.contains("1 | KEEPWARM_DNS__TIMEOUT=2\n"), "{shown}");
    assert!(shown.contains("1 | dns.pool=**\n"), "what was no TOML may have held a password:\n{shown}");
    // The two sides of a contradiction, each in its own place.
    let (faults, shown) = refused(&[("KEEPWARM_DNS__CACHE__MIN_TTL", "2h")], &["dns.cache.max_ttl=1h"]);
    assert_eq!(
        faults[0],
        "environment:KEEPWARM_DNS__CACHE__MIN_TTL:1:30: `dns.cache.min_ttl` is larger than `dns.cache.max_ttl` | "
    );
    assert!(shown.contains("::: flag:--set:1:19") && shown.contains("the limit"), "{shown}");
}

#[test]
fn no_password_of_a_variable_or_flag_is_shown() {
    for variables in [
        [("KEEPWARM_TUNNEL__USERS__BOB", "hunter2")],
        [("KEEPWARM_TUNNEL__USERS__ANN", "hunter2\u{7}")],
        [("KEEPWARM_TUNNEL__USERS", "{ ann = \"hunter2\"")],
        [("KEEPWARM_TUNNEL__UPSTREAM__A__PASSWRD", "hunter2")],
        [("KEEPWARM_TUNNEL__UPSTREAM", "[{ name = \"a\", password = \"hunter2\" }]")],
        [("KEEPWARM_PASSWORD", "hunter2")],
        [("KEEPWARM_DNS__STRATEGY", "{ password = \"hunter2\"")],
    ] {
        let Err(ConfigError::Faults(faults)) = load(&variables, &[]) else { panic!("accepted: {variables:?}") };
        let shown = format!("{}{faults}{faults:?}{:?}", faults.render(false), faults.places());
        assert!(!shown.contains("hunter2") || variables[0].0 == "KEEPWARM_DNS__STRATEGY", "{shown}");
    }
    let source = Source::text("a", "password = \"hunter2\"").with_sets(&["tunnel.users.ann=hunter2".into()]);
    assert!(!format!("{source:?}").contains("hunter2"));
}

#[test]
fn a_source_reads_its_file_anew_and_keeps_what_stands_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keepwarm.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let source = Source::file(&file).with_sets(&["dns.racing_delay=50ms".into()]);
    write(FILE);
    let old = source.load().unwrap().effective;
    write(&FILE.replace("1s", "2s"));
    let new = source.load().unwrap().effective;
    assert_eq!(new.entry("dns.timeout").unwrap().value(), "\"2s\"");
    assert_eq!(new.entry("dns.racing_delay").unwrap().origin(), &Origin::Flag("--set".into()));
    assert_eq!(crate::config::Effective::difference(&old, &new).len(), 1);
    write("version = ");
    assert!(matches!(source.load(), Err(ConfigError::Faults(_))));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(source.load(), Err(ConfigError::Read { .. })));
}

#[test]
fn the_built_in_config_takes_variables_too() {
    let loaded = Source::built_in().with_sets(&["dns.upstream.google.weight=3".into()]).load().unwrap();
    assert_eq!(entry(&loaded, "dns.upstream.google.weight").0, "3");
    assert_eq!(entry(&loaded, "dns.strategy").1, "built-in default");
    assert!(loaded.effective.to_toml(Show::default()).starts_with("version = 1\n"));
}

proptest::proptest! {
    #[test]
    fn any_variable_and_flag_is_read_or_refused_without_a_panic(
        name in "[A-Z_0-9]{0,12}|DNS__[A-Z_]{0,9}|(DNS__UPSTREAM|HTTPS__ORIGIN|TUNNEL__RULE|TUNNEL__USERS|HTTPS__ANY_HOST)(__[A-Z0-9_]{0,9}){0,3}",
        value in "\\PC{0,9}|[\\[\\]{}\"', =a0.:]{0,9}",
        set in "\\PC{0,12}|(dns|https|tunnel)(\\.[a-z\"*:_]{0,9}){0,3}=[\\[\\]{}\"', =a0.:]{0,9}",
    ) {
        match load(&[(&format!("KEEPWARM_{name}"), &value)], &[&set]) {
            Err(ConfigError::Faults(faults)) => assert!(faults.has_errors() && !faults.render(false).is_empty()),
            Err(error) => panic!("{error}"),
            Ok(loaded) => assert!(!loaded.effective.entries().is_empty()),
        }
    }
}
