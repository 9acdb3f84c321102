use keepwarm_dns::config::Transport;

use super::{
    super::result::{CheckName, tests::demo},
    *,
};

const PLAIN: Style = Style { width: None, colored: false };

#[test]
fn a_wide_terminal_gets_one_table() {
    let text = render(&demo(), Style { width: Some(120), ..PLAIN });
    assert!(plain_width(&text) <= 120, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_narrow_terminal_gets_it_in_two_parts_that_fit() {
    let text = render(&demo(), Style { width: Some(80), ..PLAIN });
    let short: String =
        text.lines().filter(|line| !line.starts_with("note:")).map(|line| format!("{line}\n")).collect();
    assert!(plain_width(&short) <= 80, "{text}");
    insta::assert_snapshot!(short);
}

#[test]
fn no_escape_code_without_colour_and_some_with() {
    assert!(!render(&demo(), PLAIN).contains('\u{1b}'));
    let colored = render(&demo(), Style { colored: true, ..PLAIN });
    assert!(colored.contains("\u{1b}[1;32myes"));
}

#[test]
fn a_broken_promise_is_plain_to_see() {
    let mut demo = demo();
    for check in &mut demo.checks {
        if check.name == CheckName::Connections && check.transport == Transport::Tls {
            (check.ok, check.value) = (false, Some(11.0));
        }
    }
    demo.ok = false;
    let text = render(&demo, PLAIN);
    assert!(text.contains("NO   at most 10 connections per upstream"), "{text}");
    assert!(text.contains("DoT 11"), "{text}");
    assert!(text.contains("Not every promise was kept"), "{text}");
}
