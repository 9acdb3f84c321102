//! `keepwarm demo` as its user runs it. What is asserted are counts; times depend on what else the machine does.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

fn demo(arguments: &[&str], scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepwarm"));
    command.arg("demo").args(arguments).env("TMPDIR", scratch).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn pooling_saves_sockets_and_handshakes_and_no_answer_is_wrong() {
    let scratch = tempfile::tempdir().unwrap();
    let report = scratch.path().join("report.html");
    let arguments = ["--quick", "--json", "--report", report.to_str().unwrap()];
    let output = timeout(LONG, demo(&arguments, scratch.path()).output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "it is quiet with --json");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();

    let runs = result["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 8);
    for (pair, transport) in runs.chunks(2).zip(["udp", "tcp", "tls", "https"]) {
        let [naive, pooled] = [&pair[0]["total"], &pair[1]["total"]];
        assert_eq!((&pair[0]["transport"], &pair[0]["reuse"]), (&transport.into(), &false.into()));
        assert_eq!((&pair[1]["transport"], &pair[1]["reuse"]), (&transport.into(), &true.into()));
        for total in [naive, pooled] {
            assert_eq!(
                (count(total, "queries"), count(total, "wrong"), count(total, "bad")),
                (600, 0, 0),
                "{transport}"
            );
        }
        let answered = pooled["answered_percent"].as_f64().unwrap();
        assert!(answered >= 99.9, "{transport}: {answered} %");
        assert!((1..=10).contains(&count(pooled, "open_max")), "{transport}: {}", pooled["open_max"]);
        assert!(count(naive, "sockets") > 10 * count(pooled, "sockets"), "{transport}: {naive} {pooled}");
        let handshakes = |total| count(total, "handshakes_full") + count(total, "handshakes_resumed");
        match transport {
            "tls" | "https" => {
                assert!((3..=30).contains(&handshakes(pooled)), "{transport}: {pooled}");
                assert!(handshakes(naive) > 10 * handshakes(pooled), "{transport}: {naive}");
            }
            _ => assert_eq!(handshakes(naive) + handshakes(pooled), 0),
        }
        if transport != "udp" {
            assert_eq!(count(pooled, "tcp_connects"), count(pooled, "sockets"), "{transport}");
        }
    }
    let broken: Vec<&Value> =
        result["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert!(broken.iter().all(|check| check["name"] == "warm_p50"), "only times may depend on the machine: {broken:?}");
    assert_eq!(output.status.code(), Some(if broken.is_empty() { 0 } else { 1 }));
    assert_eq!(result["ok"], broken.is_empty());

    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    std::fs::remove_file(report).unwrap();
    assert_eq!(left_behind(scratch.path()), Vec::<String>::new());
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_demo_takes_its_server_with_it() {
    use rustix::process::{Pid, Signal, kill_process};

    let scratch = tempfile::tempdir().unwrap();
    let child = demo(&["--quick"], scratch.path()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    // The server's config is written right before the server starts, and removed with it.
    let started = async {
        while !left_behind(scratch.path()).iter().any(|name| name.ends_with(".toml")) {
            sleep(POLL).await;
        }
    };
    timeout(LONG, started).await.unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = timeout(LONG, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(left_behind(scratch.path()), Vec::<String>::new());
    // It is killed with the demo, and may take a moment to be gone.
    #[cfg(target_os = "linux")]
    timeout(LONG, async {
        while !processes_of(scratch.path()).is_empty() {
            sleep(POLL).await;
        }
    })
    .await
    .expect("no server is left");
}

#[tokio::test]
async fn a_report_that_cannot_be_written_is_said_before_the_work() {
    let scratch = tempfile::tempdir().unwrap();
    let report = scratch.path().join("nowhere").join("report.html");
    let arguments = ["--quick", "--report", report.to_str().unwrap()];
    let output = timeout(LONG, demo(&arguments, scratch.path()).output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("write the report") && errors.contains("nowhere"), "{errors}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

fn count(total: &Value, name: &str) -> u64 {
    total[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {total}"))
}

/// Paths below `directory`, all of them.
fn left_behind(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| [vec![path.display().to_string()], left_behind(&path)].concat()).collect()
}

/// Command lines of processes that name `directory`.
#[cfg(target_os = "linux")]
fn processes_of(directory: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands.filter(|command| command.contains(&*directory.to_string_lossy())).collect()
}

const LONG: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);
