//! The project's own commands, `cargo xtask ...`.
#![expect(clippy::print_stdout, reason = "a command for a terminal")]

mod browser;
mod check;
mod dist;
mod instructions;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check"] => check::main(),
        ["build"] => browser::build(),
        ["dist", program, folder] => dist::main(program, folder),
        ["instructions", rest @ ..] if let Some(options) = instructions::Options::parse(rest) => {
            if instructions::pass(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            println!(
                "usage: cargo xtask check                              format, lint, tests, documentation, licences, instructions\n       cargo xtask build                              the daemon as it is released, with profiles of browsers\n       cargo xtask dist PROGRAM DIR                   what a package installs: program, manual, completions, units\n       cargo xtask instructions [--accept] [PATH]...  instructions per query of the DNS paths: {}",
                instructions::names(),
            );
            ExitCode::from(2)
        }
    }
}
