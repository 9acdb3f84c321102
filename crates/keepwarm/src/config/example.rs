//! `keepwarm config example` and `keepwarm config schema`: what the file format is, for people and for editors.
//!
//! The schema is made from the section declarations. Its defaults are read from the example, and a test holds the
//! example's values against the typed defaults, so that neither can say something else than the program does.

use serde_json::Value;

use super::spec::FileSpec;

/// A config file with every key of this version, commented.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The JSON Schema (draft 2020-12) of the config file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(FileSpec).to_value();
    let example = every_key();
    describe(&mut schema, &example, "");
    schema["title"] = "keepwarm configuration".into();
    schema["required"] = serde_json::json!(["version"]);
    schema["anyOf"] =
        serde_json::json!([{ "required": ["dns"] }, { "required": ["https"] }, { "required": ["tunnel"] }]);
    schema["properties"]["version"]["const"] = 1.into();
    schema["properties"]["dns"]["required"] = serde_json::json!(["upstream"]);
    schema["properties"]["dns"]["properties"]["upstream"]["minItems"] = 1.into();
    schema["properties"]["dns"]["properties"]["upstream"]["items"]["required"] = serde_json::json!(["name", "address"]);
    schema["properties"]["dns"]["properties"]["route"]["items"]["required"] = serde_json::json!(["match", "via"]);
    schema["properties"]["dns"]["properties"]["tls"]["required"] = serde_json::json!(["certificate", "key"]);
    let tunnel = &mut schema["properties"]["tunnel"]["properties"];
    tunnel["upstream"]["items"]["required"] = serde_json::json!(["name", "address"]);
    tunnel["rule"]["items"]["required"] = serde_json::json!(["match", "via"]);
    let https = &mut schema["properties"]["https"]["properties"];
    https["origin"]["items"]["required"] = serde_json::json!(["host"]);
    for reached in [&["origin", "items"], &["any_host"][..]] {
        let keys = reached.iter().fold(&mut *https, |at, key| &mut at[*key]);
        keys["properties"]["verdicts"]["items"]["required"] = serde_json::json!(["statuses"]);
    }
    if let Some(keys) = https["any_host"]["properties"].as_object_mut() {
        keys.retain(|key, _| !NOT_FOR_ANY_HOST.contains(&key.as_str()));
    }
    schema
}

/// Keys of an origin that belong to one host.
pub(super) const NOT_FOR_ANY_HOST: [&str; 4] = ["host", "port", "addresses", "warm"];

/// Whether the keys below a key are of the author's choice.
pub(super) fn is_free(path: &str) -> bool {
    matches!(path, "https.users" | "tunnel.users")
}

/// The example with the keys that are commented out in it.
pub(super) fn every_key() -> Value {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) => key,
        _ => line,
    };
    let text: Vec<&str> = EXAMPLE.lines().map(line).collect();
    toml::from_str(&text.join("\n")).expect("a test parses the example")
}

/// Keys that the example shows with something else than a default.
pub(super) fn is_only_an_example(path: &str) -> bool {
    const UPSTREAM: [&str; 4] = ["name", "address", "addresses", "server_name"];
    const TUNNEL_UPSTREAM: [&str; 9] =
        ["name", "address", "username", "password", "password_file", "through", "check", "key", "host_key"];
    const OTHERS: [&str; 16] = [
        "version",
        "dns.fallback",
        "dns.tls.certificate",
        "dns.tls.key",
        "dns.client_subnet.address",
        "dns.query_log.file",
        "https.gateway",
        "https.users",
        "https.origin.host",
        "https.origin.verdicts.statuses",
        "https.origin.proxy",
        "tunnel.users",
        "tunnel.max_tunnels",
        "tunnel.default",
        "tunnel.rule.match",
        "tunnel.rule.via",
    ];
    path.starts_with("dns.route.")
        || path.strip_prefix("dns.upstream.").is_some_and(|key| UPSTREAM.contains(&key))
        || path.strip_prefix("tunnel.upstream.").is_some_and(|key| TUNNEL_UPSTREAM.contains(&key))
        || OTHERS.contains(&path)
}

/// Adds defaults, takes the line breaks of the source out of descriptions, and takes out null, which TOML does not have.
fn describe(schema: &mut Value, example: &Value, path: &str) {
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(items) = schema.get_mut("items") {
        describe(items, &example[0], path);
    }
    if let Some(Value::Array(kinds)) = schema.pointer_mut("/additionalProperties/anyOf") {
        kinds.iter_mut().for_each(|kind| describe(kind, &Value::Null, path));
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for (key, property) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let shown = &example[key.as_str()];
        describe(property, shown, &path);
        let is_section = shown.is_object() || shown[0].is_object() || is_free(&path);
        if !is_section && !is_only_an_example(&path) && !shown.is_null() {
            property["default"] = shown.clone();
        }
    }
}
