//! What is shipped for Prometheus and Grafana, and what promtool makes of it.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    exposition::{Exposition, ask, scraped, served},
    fake::Fake,
};
use keepwarm_control::ControlOptions;

#[tokio::test]
async fn promtool_finds_nothing_to_mend_in_a_scrape() {
    if !has_promtool() {
        println!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    }
    let served = served(Fake::whole().await, ControlOptions::default()).await;
    let (_, _, body) = ask(served.address, "").await;
    let (ok, words) = promtool(&["check", "metrics"], &body);
    assert!(ok && words.is_empty(), "{words}");
    // It does find things.
    let (ok, words) = promtool(&["check", "metrics"], "# TYPE a_total gauge\na_total 1\n");
    assert!(!ok && words.contains("a_total"), "{words}");
}

#[test]
fn promtool_takes_the_alerts_and_runs_their_tests() {
    if !has_promtool() {
        println!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    }
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let (ok, words) = promtool(&arguments, "");
        assert!(ok, "{words}");
    }
}

#[test]
fn promtool_takes_every_query_of_the_dashboard() {
    if !has_promtool() {
        println!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    }
    let queries = queries();
    assert!(queries.len() > 50, "{}", queries.len());
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(i, query)| {
            let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$pool", ".*");
            serde_json::json!({ "record": format!("panel:{i}"), "expr": query })
        })
        .collect();
    // JSON is YAML, too.
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dashboard.yaml");
    fs::write(&path, file).unwrap();
    let (ok, words) = promtool(&["check", "rules", path.to_str().unwrap()], "");
    assert!(ok, "{words}");
}

#[tokio::test]
async fn dashboards_and_alerts_name_metrics_that_a_scrape_has() {
    let names = scraped(Fake::whole().await).await.names();
    let alerts = read("packaging/prometheus/alerts.yaml");
    let alerts = alerts.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let queries = queries().join("\n");
    for (what, text, least) in [("alerts.yaml", alerts.as_str(), 15), ("keepwarm.json", queries.as_str(), 50)] {
        let named = metrics(text);
        assert!(named.len() >= least, "{what} names {} metrics", named.len());
        for metric in named {
            let histogram = format!("{metric}_bucket");
            assert!(names.contains(&metric) || names.contains(&histogram), "{what}: no metric {metric}");
        }
    }
}

#[tokio::test]
async fn labels_that_the_alerts_match_are_values_of_the_code() {
    // A matcher with a slip in it is silent for ever; promtool cannot know.
    let seen = scraped(Fake::whole().await).await;
    let values: BTreeSet<&str> = seen
        .series
        .keys()
        .flat_map(|series| series.split(' '))
        .filter_map(|label| label.split_once('='))
        .map(|(_, value)| value)
        .collect();
    for result in ["timeout", "error", "in_use", "draining", "max_total"] {
        assert!(values.contains(result), "{result}");
    }
    let kinds = fs::read_to_string(root().join("crates/transport/src/error.rs")).unwrap();
    let alerts = read("packaging/prometheus/alerts.yaml");
    let matched = alerts.split("kind=~\"").nth(1).unwrap().split('"').next().unwrap();
    for kind in matched.split('|') {
        assert!(kinds.contains(&format!("=> \"{kind}\",")), "{kind} is no kind of error");
    }
}

// Elsewhere the system does not tell of its process.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_page_about_metrics_lists_them_as_they_are() {
    let seen = scraped(Fake::whole().await).await;
    let page = read("docs/control/metrics.md");
    let listed = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let wanted = reference(&seen);
    assert!(listed == wanted, "docs/control/metrics.md has another list; as it is:\n{wanted}");
}

/// A line a metric: its name, its labels, its kind, and what it is.
fn reference(seen: &Exposition) -> String {
    let line = |(name, (kind, help)): (&String, &(String, String))| {
        let is_of = |series: &&String| {
            let series = series.split(' ').next().unwrap();
            series == name || (kind == "histogram" && series.strip_suffix("_count") == Some(name))
        };
        let labels: BTreeSet<&str> = seen
            .series
            .keys()
            .filter(is_of)
            .flat_map(|series| series.split(' ').skip(1))
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name)
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.into_iter().collect::<Vec<_>>().join(",")),
        };
        format!("{name}{labels} {kind}\n    {help}\n")
    };
    seen.families.iter().map(line).collect()
}

/// The names in a query, without functions and labels: ours and those of the process.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_ours = |word: &&str| word.starts_with("keepwarm_") || word.starts_with("process_");
    words.filter(is_ours).map(str::to_owned).collect()
}

/// Every query of the dashboard, those of variables and annotations included.
fn queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match value {
                        Value::String(query) if key == "expr" => queries.push(query.clone()),
                        _ => collect(value, queries),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/keepwarm.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    let ids: Vec<i64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "two panels have the same id");
    queries
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has_promtool() -> bool {
    Command::new("promtool").arg("--version").output().is_ok()
}

/// Runs promtool beside the alerts and says whether it was content, and what it wrote.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("packaging/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}
