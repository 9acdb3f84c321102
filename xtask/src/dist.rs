//! `cargo xtask dist DIR`: the tree that a package installs below its prefix.
//!
//! Manual pages and completions are made by the program itself and kept nowhere, so that they cannot be out of date.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

/// Puts the program that was built, its pages, completions and units into a folder.
pub(crate) fn main(program: &str, folder: &str) -> ExitCode {
    match dist(Path::new(program), Path::new(folder)) {
        Ok(files) => {
            println!("{files} files in {folder}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dist(program: &Path, folder: &Path) -> anyhow::Result<usize> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let mut files = 0;
    let mut copy = |from: PathBuf, to: &str| -> anyhow::Result<()> {
        files += 1;
        let to = folder.join(to);
        create(&to)?;
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display())).map(drop)
    };
    copy(program.to_owned(), "bin/keepwarm")?;
    for (file, to) in UNITS {
        copy(packaging.join(file), to)?;
    }
    let man = folder.join("share/man/man1");
    fs::create_dir_all(&man)?;
    run(program, &["man", &man.to_string_lossy()])?;
    files += fs::read_dir(&man)?.count();
    for (words, to) in OUTPUTS {
        let to = folder.join(to);
        create(&to)?;
        fs::write(&to, run(program, words)?).with_context(|| format!("write {}", to.display()))?;
        files += 1;
    }
    Ok(files)
}

/// What the program prints.
fn run(program: &Path, words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(program).args(words).output().with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} {}: {}", program.display(), words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn create(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

const UNITS: [(&str, &str); 5] = [
    ("keepwarm.service", "lib/systemd/system/keepwarm.service"),
    ("keepwarm.sysusers", "lib/sysusers.d/keepwarm.conf"),
    ("keepwarm.tmpfiles", "lib/tmpfiles.d/keepwarm.conf"),
    // Examples: neither is right for every machine.
    ("keepwarm.socket", "share/doc/keepwarm/keepwarm.socket"),
    ("before-253.conf", "share/doc/keepwarm/before-253.conf"),
];

const OUTPUTS: [(&[&str], &str); 7] = [
    (&["completions", "bash"], "share/bash-completion/completions/keepwarm"),
    (&["completions", "zsh"], "share/zsh/site-functions/_keepwarm"),
    (&["completions", "fish"], "share/fish/vendor_completions.d/keepwarm.fish"),
    (&["completions", "elvish"], "share/elvish/lib/keepwarm.elv"),
    (&["completions", "powershell"], "share/powershell/keepwarm.ps1"),
    (&["config", "example"], "share/doc/keepwarm/keepwarm.example.toml"),
    (&["config", "schema"], "share/doc/keepwarm/keepwarm.schema.json"),
];
