//! The command line as its user sees it: what is printed, and the exit code.

#[test]
fn commands_print_what_is_recorded() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd").case("tests/cmd/*.toml");
}
