//! The reference of the config is what the schema says, and keys that pages name are in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
};

use keepwarm::config::{EXAMPLE, schema};
use serde_json::Value;

use super::{read, root};

const REFERENCE: &str = "docs/reference/config.md";

#[test]
fn the_reference_of_the_config_is_the_one_of_the_types() {
    let (path, page) = (root().join(REFERENCE), reference(&schema()));
    if env::var_os("KEEPWARM_UPDATE").is_some() {
        fs::write(&path, &page).expect("the page is written");
    }
    assert!(read(&path) == page, "write it anew: KEEPWARM_UPDATE=1 cargo test -p keepwarm --test docs reference");
}

/// Keys are written whole on the pages about all of it: `dns.pool.max_per_host`.
#[test]
fn keys_that_the_guides_name_exist() {
    let schema = schema();
    let mut named = 0;
    for page in ["start", "tuning", "troubleshooting", "security", "control/README", "control/reload", "control/api"] {
        let text = read(&root().join(format!("docs/{page}.md")));
        let prose: String = text.split("```").step_by(2).collect();
        for word in prose.split('`').skip(1).step_by(2) {
            let word = word.split(" = ").next().unwrap_or_default();
            if is_key(word) {
                named += 1;
                assert!(find(&schema, word).is_some(), "docs/{page}.md: no key `{word}`");
            }
        }
    }
    assert!(named > 60, "{named} keys");
}

/// What becomes of a key may be said of its section as a whole.
#[test]
fn the_page_about_reloads_speaks_of_every_key() {
    let page = read(&root().join("docs/control/reload.md"));
    let rows: String = page.lines().filter(|line| line.starts_with("| `")).collect();
    let named: BTreeSet<&str> = rows.split('`').skip(1).step_by(2).collect();
    let schema = schema();
    let mut spoken = 0;
    for (section, about) in schema["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "version")
    {
        for key in about["properties"].as_object().into_iter().flatten().map(|(key, _)| join(section, key)) {
            let is_part = |name: &&str| name.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.'));
            assert!(named.contains(&*key) || named.iter().any(is_part), "no word on `{key}`");
            spoken += 1;
        }
    }
    assert!(spoken > 50, "{spoken} keys");
}

/// Whether a word reads like a key; a pool is named like one, and a part of an answer may be.
fn is_key(word: &str) -> bool {
    let Some((section, rest)) = word.split_once('.') else { return false };
    let is_plain = rest.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '0'..='9'));
    matches!(section, "dns" | "https" | "tunnel" | "limits" | "control" | "log" | "tls")
        && is_plain
        && !POOLS.contains(&word)
}

const POOLS: [&str; 1] = ["dns.udp"];

fn find<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |at, key| {
        let at = if at["items"].is_object() { &at["items"] } else { at };
        at["properties"].get(key)
    })
}

/// The page: a table for each section, in the order of the example.
fn reference(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    let order: BTreeMap<String, usize> = places();
    let mut sections = Vec::new();
    gather(schema, "", &mut sections);
    let place = |path: &str| order.get(path).copied().unwrap_or(usize::MAX);
    sections.sort_by_key(|(path, _)| (path.split('.').next().map(place), place(path)));
    for (path, section) in &sections {
        section_of(&mut page, path, section, &place);
    }
    page
}

fn section_of(page: &mut String, path: &str, section: &Value, place: &dyn Fn(&str) -> usize) {
    let is_list = section["items"].is_object();
    let keys = if is_list { &section["items"] } else { section };
    let title = match (path, is_list) {
        ("", _) => "At the top".to_owned(),
        (path, true) => format!("`[[{path}]]`"),
        (path, false) => format!("`[{path}]`"),
    };
    let _ = write!(page, "\n## {title}\n{}\n\n| key | default | meaning |\n|---|---|---|\n", text(section));
    let mut rows: Vec<_> = keys["properties"].as_object().into_iter().flatten().collect();
    rows.sort_by_key(|(key, _)| place(&join(path, key)));
    for (key, about) in rows {
        if !is_section(about) {
            let _ = writeln!(page, "| `{key}` | {} | {} |", default(about), text(about));
        }
    }
}

/// Every section with keys of its own.
fn gather<'a>(at: &'a Value, path: &str, sections: &mut Vec<(String, &'a Value)>) {
    sections.push((path.to_owned(), at));
    let keys = if at["items"].is_object() { &at["items"] } else { at };
    for (key, about) in keys["properties"].as_object().into_iter().flatten() {
        if is_section(about) {
            gather(about, &join(path, key), sections);
        }
    }
}

/// Whether a key stands for keys: a table or a list of tables, but for those that are mostly written in a line.
fn is_section(about: &Value) -> bool {
    let keys = if about["items"].is_object() { &about["items"] } else { about };
    keys["properties"].is_object() && about.get("default").is_none()
}

/// Where each key stands in the example, that its author reads too.
fn places() -> BTreeMap<String, usize> {
    let mut places = BTreeMap::from([(String::new(), 0)]);
    let mut section = String::new();
    for (number, line) in EXAMPLE.lines().enumerate() {
        let line = line.strip_prefix('#').unwrap_or(line);
        let path = if let Some(rest) = line.strip_prefix('[') {
            section = rest.trim_start_matches('[').split(']').next().unwrap_or_default().to_owned();
            section.clone()
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            join(&section, key)
        } else {
            continue;
        };
        places.entry(path).or_insert(number + 1);
    }
    places
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn text(about: &Value) -> String {
    about["description"].as_str().unwrap_or_default().replace('|', "\\|")
}

fn default(about: &Value) -> String {
    match about.get("default") {
        Some(value) => format!("`{}`", toml(value)),
        None => String::new(),
    }
}

/// As it is written in the file.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(keys) => {
            let pairs = keys.iter().map(|(key, value)| format!("{key} = {}", toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

const HEAD: &str = "# Every key of the config

Made from the types of the program, as `keepwarm config schema` is; a test holds it against them. `keepwarm config example` prints the same
as a file, with a word to each key. A key without a default here is required, or means nothing unless it is there, or its default follows
from another key: the pages about [DNS](../dns/README.md), [hot HTTPS](../https/config.md) and [tunnels](../tunnel/config.md) say which.

A key is set by, the strongest first: a flag (`--set dns.timeout=2s`), the environment (`KEEPWARM_DNS__TIMEOUT=2s`), the file, the default.
Durations and sizes are words (`\"250ms\"`, `\"1h30m\"`, `\"64MiB\"`); unknown keys are refused. [What changes at run time](../control/reload.md).
";
