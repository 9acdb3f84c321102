//! The daemon as it is counted: a release build that runs under valgrind.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// Builds the daemon and copies it to `scratch`, where no other build replaces it while it is counted.
///
/// # Errors
/// When it does not build; the compiler's words are on the terminal.
pub(super) fn daemon(scratch: &Path) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "keepwarm", "--bin", "keepwarm"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo build")?;
    if !output.status.success() {
        bail!("the daemon does not build");
    }
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .find_map(|message| message.executable)
        .context("cargo build does not say where the daemon is")?;
    let program = scratch.join("keepwarm");
    std::fs::copy(&built, &program).with_context(|| format!("copy {}", built.display()))?;
    Ok(program)
}

/// What cargo says of a thing that it built.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}
