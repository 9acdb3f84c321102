//! The units in `packaging/systemd`, judged by systemd itself, and what they demand of the daemon.
#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use clap::Parser as _;
use keepwarm::cli::{Cli, Exit};

use crate::support::*;

const UNITS: [&str; 2] = ["keepwarm.service", "keepwarm.socket"];

fn packaged(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The version of systemd; `None`, and said, where it is not there.
fn systemd() -> Option<u32> {
    let Ok(output) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("SKIPPED: systemd-analyze is not installed (Debian: systemd)");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1)?.parse().ok()
}

/// The units in a folder, with the binary under test as their program and this at the end of the service.
fn installed(more: &str) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    for name in UNITS {
        let text = packaged(name).replace("/usr/bin/keepwarm", env!("CARGO_BIN_EXE_keepwarm"));
        let text =
            text.replace("[Install]", &format!("{}\n[Install]", if name.ends_with("service") { more } else { "" }));
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn analyze(folder: &Path, arguments: &[&str], units: &[&str]) -> Output {
    let files = units.iter().map(|name| folder.join(name)).collect::<Vec<PathBuf>>();
    Command::new("systemd-analyze").args(arguments).args(files).current_dir(folder).output().unwrap()
}

/// What systemd has against the units.
fn complaints(folder: &Path) -> Vec<String> {
    let output = analyze(folder, &["verify", "--man=no"], &UNITS);
    let mut lines: Vec<String> =
        text(&output).lines().filter(|line| line.contains("keepwarm")).map(str::to_owned).collect();
    // It may read a unit more than once.
    lines.dedup();
    lines
}

#[test]
fn systemd_knows_every_key_of_the_units() {
    let Some(version) = systemd() else { return };
    let mut found = complaints(installed("").path());
    if version < 253 {
        // What before-253.conf is for.
        found.retain(|line| !line.ends_with("Failed to parse service type, ignoring: notify-reload"));
    }
    assert!(found.is_empty(), "{found:#?}");
    for (fault, said) in [("NoSuchKey=yes", "NoSuchKey"), ("MemoryDenyWriteExecute=perhaps", "perhaps")] {
        let found = complaints(installed(fault).path());
        assert!(found.iter().any(|line| line.contains(said)), "{fault} is not noticed: {found:#?}");
    }
}

#[test]
fn the_service_is_exposed_little() {
    if systemd().is_none() {
        return;
    }
    let security = |folder: &Path| {
        // In tenths.
        analyze(folder, &["security", "--offline=yes", "--threshold=18", "--no-pager"], &UNITS[..1])
    };
    let output = security(installed("").path());
    assert!(output.status.success(), "{}", text(&output));
    assert!(!security(installed("ProtectSystem=no\nPrivateDevices=no").path()).status.success());
}

#[test]
fn the_commands_and_exit_codes_of_the_service_are_ours() {
    let service = packaged("keepwarm.service");
    let values = |key: &str| service.lines().filter_map(|line| line.strip_prefix(key)).collect::<Vec<_>>();
    let commands = values("ExecStart=");
    let [command] = &commands[..] else { panic!("{commands:?}") };
    Cli::try_parse_from(command.split(' ')).unwrap_or_else(|error| panic!("{command}: {error}"));
    let codes = values("RestartPreventExitStatus=").join(" ");
    let codes: Vec<std::process::ExitCode> =
        codes.split(' ').map(|code| std::process::ExitCode::from(code.parse::<u8>().unwrap())).collect();
    assert_eq!(codes, [Exit::Usage, Exit::Config].map(std::process::ExitCode::from));
}

/// Becomes its arguments with memory that can never be made executable (PR_SET_MDWE, which is stricter than systemd's filter).
const DENY_WRITE_EXECUTE: &str = "
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0: sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_need_no_memory_that_is_writable_and_executable() {
    let deny = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", DENY_WRITE_EXECUTE]).args(arguments);
        command
    };
    if !deny(&["/bin/true"]).output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 is not installed, or the kernel has no PR_SET_MDWE (6.3)");
        return;
    }
    let command = deny(&[env!("CARGO_BIN_EXE_keepwarm")]);
    // It waits for an answer, which comes over TLS.
    let daemon = Daemon::start_as("tls", "size = \"0\"", free_address(), command).await;
    daemon.signal("TERM");
    let output = daemon.wait();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
