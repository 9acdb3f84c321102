//! The HTTPS comparison with keepwarm alone: nginx, the delay and the client as processes, and what nginx counted.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;

#[test]
fn hot_requests_share_a_connection_and_cold_ones_do_not() {
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("SKIPPED: nginx is not on the path");
        return;
    }
    let arguments =
        ["https", "--quick", "--names", "keepwarm", "--only", "hot,hot32,cold,far-hot,idle,one-host,resumed"];
    let output = Command::new(env!("CARGO_BIN_EXE_dns-bench")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    // One connection for 2,000 requests and 201 before them, or 232 with 32 in flight, or 20 and 3.
    assert_eq!(cell(&page, "Hot, one request at a time", 4), "0.0005");
    assert_eq!(cell(&page, "Hot, 32 requests in flight", 4), "0.0005");
    assert_eq!(cell(&page, "Hot, the server 10 ms away", 3), "0.0435");
    assert_eq!(cell(&page, "Cold: a new connection for each request, full handshakes", 4), "1.0000");
    // The run itself fails where connections are not as many as wanted, or not resumed.
    for hosts in ["each to another host", "all to one host", "all to one host and resumed"] {
        let title = format!("Memory of an idle connection, {hosts}");
        let memory: f64 = cell(&page, &title, 1).parse().unwrap();
        assert!(memory > 1.0, "{title}: {memory} KiB");
    }
}

/// A cell of keepwarm's line in the table of that title.
fn cell<'a>(page: &'a str, title: &str, column: usize) -> &'a str {
    let table = page.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no table {title}: {page}"));
    let line = table.lines().find(|line| line.starts_with("| keepwarm |")).unwrap_or_else(|| panic!("{table}"));
    line.split('|').nth(column + 1).unwrap().trim()
}
