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

/// A program that was named, wherever servers start.
pub(crate) fn checked(program: &Path) -> anyhow::Result<PathBuf> {
    // Servers start in directories of their own.
    let program = std::path::absolute(program)?;
    if is_program(&program) { Ok(program) } else { bail!("{} is not a program", program.display()) }
}

/// Release builds of the workspace; quick when nothing changed.
pub(crate) fn build_keepwarm() -> anyhow::Result<PathBuf> {
    cargo(&["build", "--release", "--package", "keepwarm"])?;
    checked(&target_dir()?.join("release/keepwarm"))
}

/// The first word that looks like a version.
pub(crate) fn version_in(text: &str) -> String {
    let looks_right = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let words = text
        .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ','))
        .map(|word| word.trim_start_matches('v'));
    words.into_iter().find(looks_right).unwrap_or("of unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("dnsdist 1.9.10 (Lua 5.1.4 [LuaJIT 2.1])\nEnabled features: ...", "1.9.10"),
            ("Version 1.22.0\n\nConfigure line: --build=x86_64", "1.22.0"),
            ("smartdns 46.1+dfsg-1.1~deb13u1\n", "46.1+dfsg-1.1~deb13u1"),
            ("Hickory DNS named server 0.26.3", "0.26.3"),
            ("oxidns v1.6.1 (abc)", "1.6.1"),
            ("", "of unknown version"),
        ] {
            assert_eq!(version_in(said), version);
        }
    }
}
