//! `cargo xtask check`: everything that must pass before a change lands, in one command that needs nothing but the
//! toolchain. What a machine lacks beyond that is skipped by name.

use std::process::{Command, ExitCode, Stdio};

use crate::{browser::Tools, instructions};

/// One step: its name and how it is run.
struct Step {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// The command that shows whether the step can run here at all, and what to do when it cannot.
    needs: Option<(&'static [&'static str], &'static str)>,
}

const FORMAT: Step = cargo("format", &["fmt", "--all", "--check"]);
const LINT: Step = cargo("lint", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
const TEST: Step = cargo("tests", &["test", "--workspace", "--all-targets", "--locked"]);
const NEXTEST: Step = cargo("tests", &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
const DOC_TEST: Step = cargo("doc tests", &["test", "--workspace", "--doc", "--locked"]);
const DOC: Step = cargo("documentation", &["doc", "--workspace", "--no-deps", "--locked"]);
/// Looks at the dependencies of all platforms, so their sources have to be here.
const DENY: Step = Step {
    needs: Some((&["deny", "fetch", "--help"], "install it with `cargo install --locked cargo-deny`")),
    ..cargo("licences", &["deny", "--offline", "--log-level", "error", "check", "licenses", "bans", "sources"])
};

const fn cargo(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program: "cargo", arguments, needs: None }
}

/// Runs every step and says at the end which of them failed.
pub(crate) fn main() -> ExitCode {
    for (program, proof) in PEERS {
        let found = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if !found {
            println!("== tests: {proof} SKIPPED, {program} is missing here");
        }
    }
    let tools = Tools::get().inspect_err(|lack| println!("== profiles of browsers: SKIPPED, {lack}")).ok();
    let nextest = succeeds(&["nextest", "--version"]);
    let tests = if nextest { NEXTEST } else { TEST };
    let mut failed = Vec::new();
    for step in [FORMAT, LINT, tests, DOC_TEST, DOC, DENY] {
        if let Some((probe, remedy)) = step.needs
            && !succeeds(probe)
        {
            println!("== {}: SKIPPED, cargo {} is missing here; {remedy}", step.name, probe[0]);
            continue;
        }
        if step.name == DENY.name && !succeeds(&["fetch", "--locked"]) {
            println!("== {}: SKIPPED, the sources of all platforms are neither here nor to be had", step.name);
            continue;
        }
        println!("== {}", step.name);
        let mut command = Command::new(step.program);
        let (before, after) = step
            .arguments
            .split_at(step.arguments.iter().position(|word| *word == "--").unwrap_or(step.arguments.len()));
        command.args(before);
        if before.contains(&"--workspace") {
            command.args(if tools.is_some() { WITH_BROWSERS } else { WITHOUT_BROWSERS });
        }
        command.args(after);
        if let Some(tools) = &tools {
            tools.lend(&mut command);
        }
        if step.name == "documentation" {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        if !command.status().is_ok_and(|status| status.success()) {
            failed.push(step.name);
        }
    }
    match instructions::lacks() {
        Some(lack) => println!("== instructions: SKIPPED, {lack}"),
        None => {
            println!("== instructions");
            if !instructions::pass(&instructions::Options::all()) {
                failed.push("instructions");
            }
        }
    }
    if failed.is_empty() {
        println!("== all passed");
        ExitCode::SUCCESS
    } else {
        println!("== failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

/// Profiles of browsers everywhere, or nowhere. SSH upstreams and OTLP, which need no tool, always.
const WITH_BROWSERS: &[&str] = &[
    "--features",
    "keepwarm/browser,keepwarm-https/browser,keepwarm-bench/browser,keepwarm/ssh,keepwarm-transport/ssh,keepwarm/otlp,keepwarm-control/otlp",
];
const WITHOUT_BROWSERS: &[&str] = &[
    "--exclude",
    "keepwarm-boring-ext",
    "--features",
    "keepwarm/ssh,keepwarm-transport/ssh,keepwarm/otlp,keepwarm-control/otlp",
];

/// Programs that single tests need; without them these tests pass without a proof, which is said here.
const PEERS: [(&str, &str); 6] = [
    ("kdig", "interoperability with kdig"),
    ("dig", "interoperability with dig"),
    ("dnsperf", "interoperability with dnsperf"),
    ("unshare", "the run with 200 ephemeral ports"),
    ("ip", "the run with 200 ephemeral ports"),
    ("promtool", "the metrics, the alerts and the queries of the dashboard, by promtool"),
];

/// Whether a cargo subcommand is there.
fn succeeds(arguments: &[&str]) -> bool {
    let run = Command::new("cargo").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}
