//! The `keepwarm` command.
fn main() {}
