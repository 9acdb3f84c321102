//! Rows of the API as CSV (RFC 4180): a column a key, with the names of the API, and its values as they are: durations are seconds.
//!
//! A key below another one is `counters.hits`; lists are joined by `; `.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

/// The rows, with the keys in `first` before the others, which come by their names. A row without a key has an empty cell there.
///
/// # Errors
/// When a row cannot be written as JSON.
pub(crate) fn csv<R: Serialize>(rows: &[R], first: &[&str]) -> anyhow::Result<String> {
    let rows = rows.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>().context("write rows")?;
    let rows: Vec<Vec<(String, String)>> = rows.iter().map(flat).collect();
    let named: BTreeSet<&str> = rows.iter().flatten().map(|(key, _)| key.as_str()).collect();
    let leading = first.iter().copied().filter(|key| named.contains(key));
    let keys: Vec<&str> = leading.chain(named.iter().copied().filter(|key| !first.contains(key))).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !keys.is_empty() {
        writer.write_record(&keys)?;
    }
    for row in &rows {
        let cell = |key: &&str| row.iter().find(|(known, _)| known == key).map_or("", |(_, text)| text);
        writer.write_record(keys.iter().map(cell))?;
    }
    String::from_utf8(writer.into_inner().context("write csv")?).context("write csv")
}

/// Every value of a row with its key.
fn flat(row: &Value) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    flatten("", row, &mut cells);
    cells
}

fn flatten(key: &str, value: &Value, cells: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(object) => {
            for (name, value) in object {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, cells);
            }
            return;
        }
        Value::Array(list) => list.iter().map(scalar).collect::<Vec<_>>().join("; "),
        value => scalar(value),
    };
    cells.push((key.to_owned(), text));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_api_and_quotes_are_right() {
        let rows = [
            serde_json::json!({ "name": "a, \"b\"\nc", "wait": { "p50": 0.25, "p99": null }, "open": 2 }),
            serde_json::json!({ "name": "d", "closed": { "lifetime": 3 }, "jobs": ["dns", "https"], "ok": true }),
        ];
        insta::assert_snapshot!(csv(&rows, &["name", "state"]).unwrap(), @r#"
        name,closed.lifetime,jobs,ok,open,wait.p50,wait.p99
        "a, ""b""
        c",,,,2,0.25,
        d,3,dns; https,true,,,
        "#);
        assert_eq!(csv::<u64>(&[], &["name"]).unwrap(), "");
    }
}
