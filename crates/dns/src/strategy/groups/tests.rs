use super::*;
use crate::config::{RouteConfig, Transport, UpstreamConfig};

const A: u16 = 1;

fn config(upstreams: &[&str], routes: &[(&[&str], &str)], fallback: Option<&str>) -> DnsConfig {
    let upstream = |(number, group): (usize, &&str)| UpstreamConfig {
        group: (*group).into(),
        ..UpstreamConfig::new(&format!("u{number}"), Transport::Udp, "127.0.0.1", 53)
    };
    let route = |(suffixes, group): &(&[&str], &str)| RouteConfig {
        suffixes: suffixes.iter().map(|suffix| (*suffix).into()).collect(),
        group: (*group).into(),
    };
    DnsConfig {
        upstreams: upstreams.iter().enumerate().map(upstream).collect(),
        routes: routes.iter().map(route).collect(),
        fallback: fallback.map(Into::into),
        ..DnsConfig::default()
    }
}

fn wire(name: &str) -> Vec<u8> {
    name_from_text(name).expect("a name")
}

#[test]
fn the_longest_suffix_wins_at_label_boundaries_in_any_case() {
    let routes: [(&[&str], &str); 2] =
        [(&["corp.example", "10.in-addr.arpa"], "corp"), (&["Lab.Corp.EXAMPLE."], "lab")];
    let groups = Groups::new(&config(&["default", "corp", "lab", "corp"], &routes, None)).unwrap();
    for (name, group, suffix) in [
        ("corp.example", "corp", Some("corp.example")),
        ("CORP.eXample", "corp", Some("corp.example")),
        ("www.corp.example", "corp", Some("corp.example")),
        ("lab.corp.example", "lab", Some("Lab.Corp.EXAMPLE.")),
        ("a.b.lab.corp.example", "lab", Some("Lab.Corp.EXAMPLE.")),
        ("lab.lab.example", "default", None),
        ("1.0.0.10.in-addr.arpa", "corp", Some("10.in-addr.arpa")),
        ("110.in-addr.arpa", "default", None),
        ("xcorp.example", "default", None),
        ("corp.example.com", "default", None),
        ("corp\\.example", "default", None),
        ("example", "default", None),
        (".", "default", None),
    ] {
        let chosen = groups.route(&wire(name), A);
        assert_eq!((&**chosen.name, chosen.suffix.map(|suffix| &**suffix)), (group, suffix), "{name}");
    }
    assert_eq!(groups.route(&wire("corp.example"), A).members, [1, 3]);
    assert_eq!(groups.route(&wire("else.example"), A).members, [0]);
}

#[test]
fn a_ds_query_goes_where_the_name_above_goes() {
    let routes: [(&[&str], &str); 2] = [(&["corp.example"], "corp"), (&["."], "root")];
    let groups = Groups::new(&config(&["default", "corp", "root"], &routes, None)).unwrap();
    for (name, qtype, group) in [
        ("corp.example", A, "corp"),
        ("corp.example", TYPE_DS, "root"),
        ("www.corp.example", TYPE_DS, "corp"),
        ("example", TYPE_DS, "root"),
        (".", TYPE_DS, "root"),
        (".", A, "root"),
    ] {
        assert_eq!(&**groups.route(&wire(name), qtype).name, group, "{name} {qtype}");
    }
}

#[test]
fn the_longest_names_find_their_way() {
    let longest = "a.".repeat(127);
    let routes: [(&[&str], &str); 1] = [(&[&longest[2..]], "deep")];
    let groups = Groups::new(&config(&["default", "deep"], &routes, None)).unwrap();
    assert_eq!(&**groups.route(&wire(&longest), A).name, "deep");
    assert_eq!(&**groups.route(&wire(&longest[4..]), A).name, "default");
}

#[test]
fn what_is_no_name_has_no_route() {
    let routes: [(&[&str], &str); 1] = [(&["a"], "a")];
    let groups = Groups::new(&config(&["default", "a"], &routes, None)).unwrap();
    for broken in [&b""[..], &[5], &[0xc0, 0], &[1, b'b', 7, b'a'], &[1]] {
        assert_eq!(&**groups.route(broken, A).name, "default", "{broken:?}");
        assert_eq!(&**groups.route(broken, TYPE_DS).name, "default", "{broken:?}");
    }
}

#[test]
fn plain_means_that_nothing_is_routed() {
    let plain = |config: &DnsConfig| Groups::new(config).unwrap().is_plain();
    assert!(plain(&config(&["default"; 2], &[], None)));
    assert!(!plain(&config(&["default", "spare"], &[], None)));
    assert!(!plain(&config(&["default"], &[(&["a"], "default")], None)));
    assert!(!plain(&config(&["default"], &[], Some("default"))));
}

#[test]
fn each_fault_says_where_it_is() {
    let routes: [(&[&str], &str); 3] =
        [(&["a.example"], "gone"), (&["b..example", "c.example"], "default"), (&["C.example"], "default")];
    let faults = check_groups(&config(&["default"], &routes, Some("nowhere")));
    assert_eq!(
        faults,
        [
            GroupFault::UnknownRoute { route: 0, group: "gone".into() },
            GroupFault::BadSuffix { route: 1, suffix: 0 },
            GroupFault::TwiceSuffix { route: 2, suffix: 0, first: (1, 1) },
            GroupFault::UnknownFallback { group: "nowhere".into() },
        ]
    );
    assert_eq!(faults[2].to_string(), "route 3: suffix 1 is suffix 2 of route 2 again");
}

#[test]
fn a_group_for_names_without_a_route_is_missed_unless_there_is_a_fallback() {
    let routes: [(&[&str], &str); 1] = [(&["corp.example"], "corp")];
    assert_eq!(check_groups(&config(&["corp"], &routes, None)), [GroupFault::NoDefault]);
    assert_eq!(check_groups(&config(&["corp", "spare"], &routes, Some("spare"))), []);
    assert_eq!(check_groups(&config(&[], &[], None)), []);
    let groups = Groups::new(&config(&["corp"], &routes, None)).unwrap();
    assert_eq!(groups.route(&wire("else.example"), A).members, [0_usize; 0]);
}
