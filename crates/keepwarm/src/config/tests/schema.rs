//! What is said of the keys elsewhere: the example, the schema and the pages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::example::{every_key, is_free, is_only_an_example};

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

/// The schema is kept in the repository, for editors and for whoever reads along.
#[test]
fn the_schema_in_the_repository_is_the_one_of_the_types() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/keepwarm.schema.json");
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(kept == format!("{:#}\n", schema()), "write it anew: keepwarm config schema > schema/keepwarm.schema.json");
    assert_eq!(EXAMPLE.lines().next(), Some("#:schema ./keepwarm.schema.json"));
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
