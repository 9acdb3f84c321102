//! The tunnel comparison with what needs no build: the destination, the load, the delay and the floors as processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;

#[test]
fn floors_are_measured_and_every_tunnel_works() {
    let page = page("tokio,splice,copy", "setup-user,setup32,down,up8,idle");
    for table in ["Set-up with user and password, one tunnel after another", "Set-up, 32 tunnels at a time"] {
        assert!(number(&page, table, "copy_bidirectional", 1) > 0.0, "{page}");
    }
    for table in ["Relay, one stream down", "Relay, eight streams up"] {
        for floor in ["*splice (floor)*", "*256 KiB copy (floor)*", "copy_bidirectional"] {
            assert!(number(&page, table, floor, 1) > 0.0, "{page}");
        }
        assert_eq!(cell(&page, table, "*splice (floor)*", 4), "1.00");
    }
    // One socket to the client and one to the destination, and one thread for all of them.
    assert_eq!(cell(&page, "Memory of an idle tunnel", "copy_bidirectional", 3), "2.0");
    assert_eq!(cell(&page, "Memory of an idle tunnel", "copy_bidirectional", 4), "1");
    assert!(!page.contains("tunnels failed"), "{page}");
}

#[test]
fn a_fresh_tunnel_through_a_far_proxy_takes_four_round_trips() {
    if Command::new("microsocks").arg("-h").output().is_err() {
        eprintln!("SKIPPED: microsocks is not on the path");
        return;
    }
    let table = "Ready, the upstream proxy 50 ms away, 20 tunnels a second";
    let page = page("microsocks", "ready20");
    let client = "*nothing between client and upstream*";
    // Never less, whatever else the machine does: connect, greeting, user and password, CONNECT; then the byte.
    assert!(number(&page, table, client, 1) >= 200.0 && number(&page, table, client, 4) >= 250.0, "{page}");
    assert_eq!(cell(&page, table, client, 6), "0 %");
    assert!(!page.contains("tunnels failed"), "{page}");
}

fn page(names: &str, rows: &str) -> String {
    let arguments = ["tunnel", "--quick", "--names", names, "--only", rows];
    let output = Command::new(env!("CARGO_BIN_EXE_dns-bench")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn number(page: &str, title: &str, name: &str, column: usize) -> f64 {
    let cell = cell(page, title, name, column);
    cell.parse().unwrap_or_else(|_| panic!("{title}, {name}: {cell}"))
}

/// A cell of a proxy's line in the table of that title.
fn cell<'a>(page: &'a str, title: &str, name: &str, column: usize) -> &'a str {
    let table = page.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no table {title}: {page}"));
    let line = table.lines().find(|line| line.starts_with(&format!("| {name} |")));
    line.unwrap_or_else(|| panic!("{table}")).split('|').nth(column + 1).unwrap().trim()
}
