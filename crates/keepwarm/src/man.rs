//! `keepwarm man`: the manual, a page a command.
//!
//! Made from the definition in [`cli`]. What is added here is what the command line does not say of itself: exit codes as a
//! section of their own, files, and what else to read.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::cli::{self, EXIT_CODES, Exit};

/// Arguments of `keepwarm man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write the pages of all commands to this folder, such as /usr/share/man/man1. Without it, the page of keepwarm itself is printed.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A page: its file name and its text in roff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Such as `keepwarm-run.1`.
    pub file: String,
    /// For `man -l`, or groff with the macros `man`.
    pub text: String,
}

/// Prints the main page, or writes all.
///
/// # Errors
/// When a file cannot be written.
pub fn main(args: &ManArgs) -> anyhow::Result<Exit> {
    let pages = pages()?;
    let Some(folder) = &args.dir else { return cli::print(&pages[0].text) };
    for Page { file, text } in &pages {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    cli::print(&format!("{} pages written to {}\n", pages.len(), folder.display()))
}

/// All pages, that of keepwarm itself first.
///
/// # Errors
/// None that is known: they are written to memory.
pub fn pages() -> anyhow::Result<Vec<Page>> {
    let mut command = cli::command();
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<Page>) -> anyhow::Result<()> {
    pages.push(page(command, pages.is_empty())?);
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        add(command, pages)?;
    }
    Ok(())
}

fn page(command: &Command, is_main: bool) -> anyhow::Result<Page> {
    let source = format!("keepwarm {}", env!("CARGO_PKG_VERSION"));
    // The codes get a section of their own.
    let man = Man::new(command.clone().after_help("")).source(source).manual("keepwarm");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    exit_codes(&mut more);
    if is_main {
        files(&mut more);
    }
    more.control("SH", ["SEE ALSO"]);
    let others = if is_main { "keepwarm config example, keepwarm check --help" } else { "keepwarm(1)" };
    more.text([roman(others)]);
    more.to_writer(&mut text)?;
    Ok(Page { file: man.get_filename(), text: String::from_utf8(text).context("a manual page")? })
}

/// The lines of the help, `CODE  MEANING`, as a list.
fn exit_codes(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for line in EXIT_CODES.lines().skip(1) {
        if let Some((code, meaning)) = line.trim().split_once(' ') {
            roff.control("TP", []).text([bold(code)]).text([roman(meaning.trim())]);
        }
    }
}

fn files(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    roff.control("TP", []).text([bold("/etc/keepwarm/keepwarm.toml")]);
    roff.text([roman(
        "The config of the systemd service. No place is searched: without --config and KEEPWARM_CONFIG the built-in default is used.",
    )]);
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command as Program};

    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags_and_the_exit_codes() {
        let pages = pages().unwrap();
        let page =
            |file: &str| &pages.iter().find(|page| page.file == file).unwrap_or_else(|| panic!("no {file}")).text;
        assert_eq!(pages[0].file, "keepwarm.1");
        for command in cli::command().get_subcommands() {
            let text = page(&format!("keepwarm-{}.1", command.get_name()));
            assert!(text.contains("EXIT STATUS") && text.contains("the config file is missing or refused"), "{text}");
            assert!(text.contains("keepwarm 0."), "the version: {text}");
        }
        assert!(page("keepwarm-query.1").contains("\\-\\-explain"));
        assert!(page("keepwarm-cache-flush.1").contains("keepwarm cache flush"));
        assert!(page("keepwarm.1").contains("keepwarm\\-run(1)"));
    }

    #[test]
    fn groff_has_nothing_against_a_page() {
        if Program::new("groff").arg("--version").output().is_err() {
            eprintln!("SKIPPED: groff is not installed");
            return;
        }
        for Page { file, text } in pages().unwrap() {
            let mut page = tempfile::NamedTempFile::new().unwrap();
            page.write_all(text.as_bytes()).unwrap();
            let output = Program::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(page.path()).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{file}: {output:?}");
        }
    }
}
