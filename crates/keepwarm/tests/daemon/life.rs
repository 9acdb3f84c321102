//! Start, stop, and what keeps it from starting.

use std::{net::TcpListener, process::Stdio};

use crate::support::*;

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_drain_and_exit_with_0() {
    for signal in ["TERM", "INT"] {
        let daemon = Daemon::start("tls").await;
        daemon.signal(signal);
        let output = daemon.wait();
        assert_eq!(output.status.code(), Some(0), "{signal}: {}", text(&output));
        let log = text(&output);
        for line in [
            "dns listens",
            "status endpoint listens",
            "created 1/10",
            "closed 0/10: drained",
            &format!("SIG{signal}"),
            "stopped",
        ] {
            assert!(log.contains(line), "{signal}: the log has no `{line}`:\n{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named_with_exit_code_69() {
    let daemon = Daemon::start("udp").await;
    // The same config again: another daemon of the same user, whose sockets would share the port if we let them.
    let output = keepwarm().args(["run", "-c"]).arg(daemon.config.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    let control = format!("listen on {}", daemon.control);
    assert!(text(&output).contains(&control), "{}", text(&output));

    let other = std::fs::read_to_string(daemon.config.path()).unwrap();
    let other = other.replace(&daemon.control.to_string(), &free_address().to_string());
    let path = daemon.config.path().with_extension("second.toml");
    std::fs::write(&path, other).unwrap();
    let output = keepwarm().args(["run", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    let dns = format!("listen on {} (udp): address already in use; another program has this port", daemon.dns);
    assert!(text(&output).contains(&dns), "{}", text(&output));
}

#[test]
fn commands_that_need_a_daemon_say_so_with_exit_code_3() {
    let nobody = free_address().to_string();
    for command in [
        &["status"][..],
        &["top"],
        &["top", "--plain"],
        &["pools"],
        &["pools", "dns"],
        &["pools", "set", "dns", "max_per_host=4"],
        &["pools", "drain", "dns"],
        &["upstreams"],
        &["upstreams", "--dns"],
        &["report"],
        &["reload"],
        &["log", "debug"],
        &["cache"],
        &["cache", "flush", "--all"],
        &["query", "www.example"],
    ] {
        let output = keepwarm().args(command).args(["--control", &nobody]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("no keepwarm daemon at"), "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_and_upstreams_tell_what_the_daemon_did() {
    for scheme in ["udp", "tcp", "tls", "https"] {
        let daemon = Daemon::start(scheme).await;
        let control = daemon.control.to_string();
        let output = keepwarm().args(["query", "www.example", "--control", &control]).output().unwrap();
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        let address = keepwarm_lab::expected_a("www.example").to_string();
        // Each worker has its own UDP sockets, so the one that is asked may open its first one for this.
        let connection = if scheme == "udp" { "connection" } else { "reused" };
        for part in [&address, "NOERROR", &format!("lab ({scheme}"), connection, "exchange"] {
            assert!(shown.contains(part), "{scheme}: no `{part}` in\n{shown}");
        }
        let output = keepwarm().args(["upstreams", "--dns", "--json", "--control", &control]).output().unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
        assert_eq!(rows[0]["upstream"], "lab");
        assert_eq!(rows[0]["transport"], scheme);
        assert_eq!(rows[0]["max"], 10);
        assert!(rows[0]["open"].as_u64().unwrap() >= 1, "{rows}");
        // The same from the upstreams of the config, without the daemon.
        let output = keepwarm().args(["query", "www.example", "-c"]).arg(daemon.config.path()).output().unwrap();
        let shown = text(&output);
        // The pool opens its first connection by itself, and may be quicker than the query.
        let fresh = shown.contains("connection  new") || shown.contains("connection  opened ahead");
        assert!(shown.contains(&address) && fresh, "{scheme}: {shown}");
    }
}

#[test]
fn an_upstream_that_cannot_be_reached_is_an_error_in_words() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("keepwarm.toml");
    let text_of = format!(
        "version = 1\n[dns]\ntimeout = \"1s\"\n[[dns.upstream]]\nname = \"gone\"\naddress = \"tcp://{nobody}\"\n"
    );
    std::fs::write(&path, text_of).unwrap();
    let output = keepwarm().args(["query", "www.example", "-c"]).arg(&path).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let shown = text(&output);
    assert!(shown.contains("connection refused") && shown.contains(&nobody.to_string()), "{shown}");
}
