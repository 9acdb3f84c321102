//! The dashboard in Chromium, led by Playwright, before a daemon that is made up: `tests/dashboard/dashboard.test.cjs` says what is
//! tested. Everything below the made-up rows is real: pools with leases, the endpoint, its history, a browser.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "test code shared by modules: a failure is a panic, a skip is said"
)]

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

#[path = "dashboard/director.rs"]
mod director;
#[path = "dashboard/fake.rs"]
mod fake;
#[path = "dashboard/forms.rs"]
mod forms;

/// One thread, so that the clock can be stopped while an hour passes.
#[tokio::test(flavor = "current_thread")]
async fn people_see_and_steer_the_daemon_in_a_browser() {
    let Some(modules) = modules() else { return };
    let director = director::Director::start().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard");
    let shots =
        std::env::var("KEEPWARM_SHOTS").unwrap_or_else(|_| concat!(env!("CARGO_TARGET_TMPDIR"), "/shots").into());
    std::fs::create_dir_all(&shots).unwrap();
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(folder.join("dashboard.test.cjs"))
        .env("NODE_PATH", modules)
        .env("BASE", format!("http://{}", director.control))
        .env("DIRECTOR", format!("http://{}", director.address))
        .env("SHOTS", shots)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(240), output).await.unwrap().unwrap();
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
    println!("{told}");
    assert!(output.status.success(), "{told}");
}

/// Where Playwright and axe-core are; says so where something is missing. Nothing is fetched here: `.ci/run` installs them.
fn modules() -> Option<String> {
    let has = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    for (program, package) in [("node", "nodejs"), ("chromium", "chromium")] {
        if !has(program) {
            println!("SKIPPED: {program} is not installed (Debian: {package})");
            return None;
        }
    }
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../dashboard-node/node_modules");
    let paths = [std::env::var("NODE_PATH").unwrap_or_default(), beside.to_string_lossy().into_owned()].join(":");
    let mut probe = std::process::Command::new("node");
    probe.env("NODE_PATH", &paths).args(["-e", "require('playwright-core'); require('axe-core')"]);
    if probe.output().is_ok_and(|output| output.status.success()) {
        return Some(paths);
    }
    println!(
        "SKIPPED: no playwright-core and axe-core; copy package.json and package-lock.json of crates/control/tests/dashboard to \
         dashboard-node in the target folder and run `npm ci` there"
    );
    None
}
