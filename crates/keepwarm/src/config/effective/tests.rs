//! The config in force: that it is whole, that it means the same when it is read again, and what changes.

use std::path::Path;

use super::*;
use crate::config::example::every_key;

const FILE: &str = r#"version = 1
[tls]
extra_roots = []
[[dns.upstream]]
name = "a"
address = "udp://127.0.0.1"
[[dns.upstream]]
name = "b"
address = "udp://127.0.0.2"
weight = 0x2
[https]
any_host = { tries = 2 }
[https.users]
ann = "hunter2"
bob.password_file = "PASSWORD"
[[https.origin]]
host = "tiles.example.com"
validate = {}
proxy = "socks5://ann:hunter2@127.0.0.1:1080"
verdicts = [{ statuses = "403", rest = "1m" }]
[tunnel]
[[tunnel.upstream]]
name = "exit"
address = "socks5://token-hunter2@127.0.0.1:1080"
[[tunnel.upstream]]
name = "other"
address = "socks5://127.0.0.1:1080"
username = "ann"
password = "hunter2"
[[tunnel.rule]]
match = ["*:25"]
via = "reject"
[[tunnel.rule]]
match = ["10.0.0.0/8"]
via = "direct"
"#;

fn load(text: &str) -> Effective {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("PASSWORD"), "a password\n").unwrap();
    Config::parse("a.toml", text, folder.path()).unwrap_or_else(|error| panic!("{error}")).effective
}

fn value<'e>(effective: &'e Effective, path: &str) -> &'e str {
    effective.entry(path).unwrap_or_else(|| panic!("no {path} in {effective:#?}")).value()
}

/// `path: from -> to` of each change.
fn changes(old: &str, new: &str) -> Vec<String> {
    let none = || "none".to_owned();
    Effective::difference(&load(old), &load(new))
        .into_iter()
        .map(|change| {
            format!("{}: {} -> {}", change.path, change.from.unwrap_or_else(none), change.to.unwrap_or_else(none))
        })
        .collect()
}

#[test]
fn secrets_are_in_nothing_that_is_shown() {
    let effective = load(FILE);
    let shown = format!(
        "{effective:?}{}{}{:?}",
        effective.to_toml(Show { defaults: true, origins: true }),
        serde_json::to_string(&effective).unwrap(),
        Effective::difference(&load("version = 1\n[tunnel]\n"), &effective),
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    for (path, expected) in [
        ("https.users.ann", "\"<redacted>\""),
        ("https.users.bob", "{ password_file = \"PASSWORD\" }"),
        ("https.origin.\"tiles.example.com\".proxy", "\"socks5://ann:<redacted>@127.0.0.1:1080\""),
        ("tunnel.upstream.exit.address", "\"socks5://<redacted>@127.0.0.1:1080\""),
        ("tunnel.upstream.other.password", "\"<redacted>\""),
        ("tunnel.upstream.other.username", "\"ann\""),
    ] {
        assert_eq!(value(&effective, path), expected, "{path}");
    }
    assert!(effective.entry("https.users.ann").unwrap().is_secret());
    assert!(!effective.entry("tunnel.upstream.other.username").unwrap().is_secret());
}

#[test]
fn every_key_with_a_default_is_there_once_its_section_is() {
    let effective = load(FILE);
    let paths: Vec<&str> = effective.entries().iter().map(|entry| entry.path()).collect();
    let mut expected = Vec::new();
    leaves(&every_key(), "", &mut expected);
    for path in expected {
        let path = path
            .replace("dns.upstream.", "dns.upstream.a.")
            .replace("https.origin.", "https.origin.\"tiles.example.com\".")
            .replace("tunnel.upstream.", "tunnel.upstream.exit.")
            .replace("tunnel.rule.", "tunnel.rule.\"*:25\".");
        let is_there = paths.iter().any(|known| *known == path || known.starts_with(&format!("{path}.")));
        assert!(is_there || MOOT.contains(&path.as_str()), "{path} is missing in {paths:#?}");
    }
    let mut unique = paths.clone();
    unique.dedup();
    assert_eq!(unique.len(), paths.len());
}

/// What does nothing beside the other keys of the file.
const MOOT: [&str; 5] = [
    "dns.client_subnet.v4_prefix",
    "dns.client_subnet.v6_prefix",
    "dns.upstream.a.ech",
    "dns.upstream.a.padding",
    "tunnel.upstream.exit.channels",
];

/// Keys of the example that have a default.
fn leaves(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    use crate::config::example::{is_free, is_only_an_example};
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // What is off without its section has no keys.
        if is_free(&path)
            || is_only_an_example(&path)
            || path == "https.origin.validate"
            || path.starts_with("dns.route")
        {
            continue;
        }
        match if value.is_array() { &value[0] } else { value } {
            section if section.is_object() && path != "https.origin.verdicts" => leaves(section, &path, found),
            _ if path == "https.origin.verdicts" => found.push(format!("{path}.403.retry")),
            _ => found.push(path),
        }
    }
}

#[test]
fn what_is_shown_means_the_same_when_it_is_read() {
    let secretless = FILE.replace("hunter2@", "@").replace("token-", "").replace("ann:@", "").replace("//@", "//");
    let secretless =
        secretless.replace("ann = \"hunter2\"\n", "").replace("username = \"ann\"\npassword = \"hunter2\"\n", "");
    for show in [Show::default(), Show { defaults: true, origins: false }, Show { defaults: true, origins: true }] {
        for text in [&secretless, "version = 1\n[tunnel]\n", crate::config::DEFAULT] {
            let first = load(text);
            let again = load(&first.to_toml(show));
            assert_eq!(Effective::difference(&first, &again), [], "{show:?}:\n{}", first.to_toml(show));
            assert_eq!(Effective::difference(&again, &first), []);
        }
    }
}

#[test]
fn only_what_somebody_set_is_shown_unless_defaults_are_asked_for() {
    let short = "version = 1\n\n[tunnel]\n";
    assert_eq!(load("version = 1\n[tunnel]\n").to_toml(Show::default()), short);
    let long = load("version = 1\n[tunnel]\n").to_toml(Show { defaults: true, origins: true });
    assert!(
        long.contains("\n[tunnel.pool]\n") && long.contains("max_clients = 4096  ") && long.contains("# default\n"),
        "{long}"
    );
    assert!(long.starts_with("version = 1  # a.toml:1\n"), "{long}");
    assert!(!long.contains("[dns") && !long.contains("[https"), "{long}");
}

#[test]
fn a_default_that_depends_on_other_keys_is_shown_as_it_comes_to() {
    let dns =
        "version = 1\n[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n[dns.cache]\nmax_ttl = \"1m\"\n";
    assert_eq!(value(&load(dns), "dns.cache.negative_ttl"), "\"1m\"");
    assert_eq!(value(&load(&dns.replace("1m", "1h")), "dns.cache.negative_ttl"), "\"5m\"");
    let tunnel = load("version = 1\n[limits]\nmax_connections = 7\n[tunnel]\n");
    assert_eq!((value(&tunnel, "tunnel.max_tunnels"), value(&tunnel, "tunnel.max_per_destination")), ("7", "7"));
}

#[test]
fn a_difference_names_the_keys_and_entries_that_changed() {
    assert_eq!(changes(FILE, FILE), [""; 0]);
    for (from, to, expected) in [
        ("weight = 0x2", "weight = 2", vec![]),
        ("weight = 0x2", "weight = 1", vec!["dns.upstream.b.weight: 2 -> 1"]),
        ("weight = 0x2\n", "", vec!["dns.upstream.b.weight: 2 -> 1"]),
        ("extra_roots = []\n", "", vec![]),
        (
            "any_host = { tries = 2 }",
            "any_host = true",
            vec!["https.any_host: none -> true", "https.any_host.tries: 2 -> none"],
        ),
        (
            "password = \"hunter2\"",
            "password = \"hunter3\"",
            vec!["tunnel.upstream.other.password: \"<redacted>\" -> \"<redacted>\""],
        ),
        ("ann = \"hunter2\"\n", "", vec!["https.users.ann: \"<redacted>\" -> none"]),
        (
            "name = \"b\"",
            "name = \"c\"",
            vec![
                "dns.upstream.b.name: \"b\" -> none",
                "dns.upstream.b.address: \"udp://127.0.0.2\" -> none",
                "dns.upstream.b.weight: 2 -> none",
                "dns.upstream.c.name: none -> \"c\"",
                "dns.upstream.c.address: none -> \"udp://127.0.0.2\"",
                "dns.upstream.c.weight: none -> 2",
            ],
        ),
        (
            "match = [\"*:25\"]\nvia = \"reject\"\n[[tunnel.rule]]\nmatch = [\"10.0.0.0/8\"]\nvia = \"direct\"",
            "match = [\"10.0.0.0/8\"]\nvia = \"direct\"\n[[tunnel.rule]]\nmatch = [\"*:25\"]\nvia = \"reject\"",
            vec!["tunnel.rule: *:25, 10.0.0.0/8 -> 10.0.0.0/8, *:25"],
        ),
    ] {
        let new = FILE.replace(from, to);
        assert_ne!(new, FILE, "{from}");
        assert_eq!(changes(FILE, &new), expected, "{from} -> {to}");
    }
}

#[test]
fn a_job_that_comes_or_goes_is_named() {
    let dns = "version = 1\n[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n";
    let both = format!("{dns}[tunnel]\n");
    assert_eq!(changes(dns, &both), ["tunnel: none -> [tunnel]"]);
    assert_eq!(changes(&both, dns), ["tunnel: [tunnel] -> none"]);
}

#[test]
fn entries_of_the_same_name_are_told_apart() {
    let rule = "[[tunnel.rule]]\nmatch = [\"*:25\"]\nvia = \"direct\"\n";
    let twice = Config::parse("a.toml", &format!("version = 1\n[tunnel]\n{rule}{rule}"), Path::new(""));
    let Ok(twice) = twice else { return };
    assert_eq!(value(&twice.effective, "tunnel.rule.\"*:25 #2\".via"), "\"direct\"");
}
