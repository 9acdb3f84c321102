//! `keepwarm completions`: what a shell needs to complete the command line.
//!
//! Made from the definition in [`cli`], so that nothing is written twice and no file is kept that could be out of date.

use clap::Args;
use clap_complete::Shell;

use crate::cli::{self, Exit};

/// Arguments of `keepwarm completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When it cannot be printed.
pub fn main(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    cli::print(&script(args.shell))
}

/// The script for a shell.
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "keepwarm", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command};

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    /// Completes a line in a shell of its own.
    #[test]
    fn bash_completes_a_command_and_its_flag() {
        if Command::new("bash").arg("--version").output().is_err() {
            eprintln!("SKIPPED: bash is not installed");
            return;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(script(Shell::Bash).as_bytes()).unwrap();
        for (words, index, completed) in
            [("keepwarm compl", 1, "completions"), ("keepwarm query --expl", 2, "--explain")]
        {
            let last = words.split(' ').next_back().unwrap();
            let script = format!(
                "source {}; COMP_WORDS=({words}); COMP_CWORD={index}; _keepwarm keepwarm {last} keepwarm; echo \"${{COMPREPLY[@]}}\"",
                file.path().display()
            );
            let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), completed, "{words}: {output:?}");
        }
    }
}
