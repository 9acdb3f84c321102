//! `[[tunnel.rule]]`: which way a destination goes.

use super::*;

#[test]
fn names_lead_to_one_upstream_or_group() {
    let second = |lines: &str| file("default = \"direct\"", &format!("{EXIT}[[tunnel.upstream]]\n{lines}"));
    let named = |name: &str, group: &str| {
        second(&format!(
            "name = \"{name}\"\naddress = \"socks5://b\"\ngroup = \"{group}\"\n[[tunnel.rule]]\nmatch = [\"*\"]\nvia = \"exit\"\n"
        ))
    };
    assert_eq!(titles(&named("exit", "default"))[0], "two upstreams are named \"exit\"");
    assert_eq!(titles(&named("b", "exit")), ["\"exit\" is the name of an upstream and of a group"]);
    assert_eq!(
        titles(&named("direct", "reject")),
        [
            "no upstream can be named \"direct\", which has a meaning of its own after `via`",
            "no group can be named \"reject\", which has a meaning of its own after `via`"
        ]
    );
    let unknown =
        |key: &str, name: &str| [format!("`{key}` names \"{name}\", which is neither an upstream nor a group")];
    assert_eq!(titles(&rule("match = [\"*\"]\nvia = \"exti\"")), unknown("tunnel.rule.via", "exti"));
    assert_eq!(titles(&file("default = \"x\"", EXIT)), unknown("tunnel.default", "x"));
    // A name that is refused may have been the one that is meant.
    let refused = file("default = \"a b\"", &format!("{EXIT}[[tunnel.rule]]\nmatch = [\"*\"]\nvia = \"exit\"\n"));
    assert_eq!(titles(&refused), ["`tunnel.default` cannot be used in logs and metrics"]);
}

#[test]
fn what_no_rule_matches_has_to_go_somewhere() {
    let grouped = format!("{EXIT}group = \"exits\"\n");
    let title = "`tunnel.default` is missing, and no upstream is in the group \"default\"";
    assert_eq!(titles(&file("", &grouped)), [title]);
    assert_eq!(accepted(&file("default = \"exits\"", &grouped)).default, Via::Group("exits".into()));
    assert_eq!(accepted(&file("default = \"exit\"", &grouped)).default, Via::Upstream("exit".into()));
    let unused = ["nothing leads to the upstream \"exit\""];
    assert_eq!(warned(&file("default = \"direct\"", &grouped)), unused);
    assert_eq!(warned(&file("default = \"reject\"", &grouped)), unused);
    let rule = format!("{grouped}[[tunnel.rule]]\nmatch = [\"a.b\"]\nvia = \"exits\"\n");
    accepted(&file("default = \"direct\"", &rule));
    let before = format!(
        "{EXIT}through = \"first\"\n[[tunnel.upstream]]\nname = \"first\"\ngroup = \"x\"\naddress = \"socks5://f\"\n"
    );
    accepted(&file("", &before));
}

#[test]
fn rules_that_cannot_match_are_warned_of() {
    let never = "this `tunnel.rule` never matches: an earlier one takes all of it";
    let two = |first: &str, second: &str| {
        rule(&format!("match = [{first}]\nvia = \"direct\"\n[[tunnel.rule]]\nmatch = [{second}]\nvia = \"reject\""))
    };
    for (first, second) in [
        ("\"*\"", "\"a.b\", \"10.0.0.0/8:80\""),
        ("\".a.b\", \"10.0.0.0/8\"", "\"x.a.b\", \"10.1.0.0/16\""),
        ("\"a.b:80-90\"", "\"a.b:85\""),
        ("\"*:1-65535\"", "\"*\""),
        ("\"2001:db8::/32\"", "\"[2001:db8::1]:80\""),
    ] {
        assert_eq!(warned(&two(first, second)), [never], "{first} {second}");
    }
    for (first, second) in [
        ("\"a.b\"", "\"*\""),
        ("\"*:80\"", "\"*:80-81\""),
        ("\"*.a.b\"", "\".a.b\""),
        ("\".a.b\"", "\"x.a.b\", \"c.d\""),
        ("\"0.0.0.0/0\"", "\"a.b\""),
    ] {
        accepted(&two(first, second));
    }
    assert_eq!(titles(&rule("match = []\nvia = \"direct\"")), ["`tunnel.rule.match` is empty"]);
    assert_eq!(titles(&rule("")), ["`tunnel.rule.match` is missing", "`tunnel.rule.via` is missing"]);
}

#[test]
fn nothing_is_opened_ahead_where_the_server_speaks_first() {
    let speculate = |patterns: &str| rule(&format!("match = [{patterns}]\nvia = \"exit\"\nspeculate = 16"));
    assert_eq!(accepted(&speculate("\"*:443\", \"*:8000-8443\", \"a.b:80\"")).rules[0].speculate, 16);
    let unnamed = |shown: &str| [format!("`tunnel.rule.speculate` needs ports, and \"{shown}\" names none")];
    assert_eq!(titles(&speculate("\"*:443\", \"a.b\"")), unnamed("a.b"));
    for (port, range) in [
        (21, "21"),
        (22, "22"),
        (25, "25-30"),
        (110, "108-112"),
        (143, "130-150"),
        (587, "587"),
        (3306, "3000-4000"),
        (5901, "5901"),
        (13, "1-65535"),
    ] {
        let range = speculate(&format!("\"*:{range}\""));
        let first = if port == 3306 { 3306 } else { port };
        let first = if first == 110 { 109 } else { first };
        let words = format!("`tunnel.rule.speculate` has no place at port {first}, where the server speaks first");
        assert_eq!(titles(&range), [words]);
    }
    accepted(&rule("match = [\"*\"]\nvia = \"exit\"\nspeculate = 0"));
    assert_eq!(
        titles(&rule("match = [\"*:443\"]\nvia = \"reject\"\nspeculate = 1")),
        ["`tunnel.rule.speculate` has no meaning where tunnels are refused"]
    );
    assert_eq!(titles(&speculate("\"*:443\"").replace("16", "17")), ["`tunnel.rule.speculate` is out of range"]);
}
