//! The `keepwarm` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    keepwarm::cli::main()
}
