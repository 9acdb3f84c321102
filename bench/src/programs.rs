//! Programs: those that are installed, this one, and those that Cargo builds.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// A command of this program.
pub(crate) fn own(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Vec<OsString>> {
    let me = std::env::current_exe().context("find this program")?;
    Ok(std::iter::once(me.into_os_string()).chain(arguments).collect())
}

/// Finds a program as a shell would, and where distributions put servers.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|place| place.join(program)).find(|file| is_program(file))
}

/// Whether a file can be run.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Where Cargo put this program.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    me.ancestors().nth(2).map(Path::to_owned).context("this program is not in a target directory of Cargo")
}

/// Runs Cargo.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A path of this workspace, so that it works from anywhere.
    let status = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    let status = status.context("run cargo")?;
    if status.success() { Ok(()) } else { bail!("`cargo {}` failed", arguments.join(" ")) }
}
