use proptest::prelude::*;

use super::*;
use crate::message::ClientView;
use crate::message::{Rendered, build_query, prepare_answer, render, type_from_name, verify_answer};

/// What is answered here, with these records and this hosts file.
struct Here {
    local: Local,
}

/// An answer in words, and its AA bit.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    rcode: String,
    answers: Vec<String>,
    authority: Vec<String>,
    authoritative: bool,
}

impl Here {
    fn with(records: &[&str], hosts: &str, change: impl FnOnce(&mut LocalSettings), routes: &[&str]) -> Here {
        let records: Vec<Record> = records.iter().map(|line| Record::parse(line).unwrap()).collect();
        let table = Table::new(&records, &[parse_hosts(hosts.as_bytes(), 60)]).unwrap();
        let mut settings = LocalSettings::default();
        change(&mut settings);
        let suffixes = routes.iter().map(|suffix| (*suffix).into()).collect();
        let routes = [RouteConfig { suffixes, group: "office".into() }];
        Here { local: Local::new(&settings, &routes, table) }
    }

    fn records(records: &[&str]) -> Here {
        Here::with(records, "", |_| {}, &[])
    }

    fn hosts(hosts: &str) -> Here {
        Here::with(&[], hosts, |_| {}, &[])
    }

    fn verdict(&self, query: &[u8]) -> (Verdict, Vec<u8>) {
        let (parsed, mut out) = (Query::parse(query).unwrap(), Vec::new());
        let verdict = if self.local.may_concern(query, &parsed) {
            self.local.answer(query, &parsed, &mut out)
        } else {
            Verdict::Pass
        };
        (verdict, out)
    }

    /// The answer; `None` when upstreams are to be asked.
    fn ask(&self, name: &str, qtype: &str) -> Option<Told> {
        let query = build_query(name, type_from_name(qtype).unwrap()).unwrap();
        let (verdict, out) = self.verdict(&query);
        if verdict == Verdict::Pass {
            return None;
        }
        assert_eq!(verdict, Verdict::Answered, "{name} {qtype}");
        verify_answer(&out).unwrap();
        let Rendered { rcode, answers, authority, .. } = render(&out).unwrap();
        let plain = |records: Vec<String>| records.iter().map(|record| record.replace('\t', " ")).collect();
        let authoritative = out[2] & 0x04 != 0;
        Some(Told { rcode, answers: plain(answers), authority: plain(authority), authoritative })
    }

    fn answers(&self, name: &str, qtype: &str) -> Vec<String> {
        let told = self.ask(name, qtype).unwrap_or_else(|| panic!("{name} {qtype} is answered here"));
        assert_eq!(told.rcode, "NOERROR", "{name} {qtype}");
        told.answers
    }

    /// The response code and the owner of the SOA record of an answer without records.
    fn nothing(&self, name: &str, qtype: &str) -> (String, String) {
        let told = self.ask(name, qtype).unwrap_or_else(|| panic!("{name} {qtype} is answered here"));
        assert_eq!((told.answers.len(), told.authority.len()), (0, 1), "{told:?}");
        let mut words = told.authority[0].split(' ');
        let owner = words.next().unwrap().to_owned();
        assert_eq!(words.nth(2), Some("SOA"));
        (told.rcode, owner)
    }
}

fn nodata(owner: &str) -> (String, String) {
    ("NOERROR".into(), owner.into())
}

fn nxdomain(owner: &str) -> (String, String) {
    ("NXDOMAIN".into(), owner.into())
}

#[test]
fn records_of_every_common_type_are_answered_as_they_were_written() {
    let lines = [
        "nas.lan. 300 IN A 192.168.1.10",
        "nas.lan. 300 IN AAAA fd00::10",
        "lan. 300 IN MX 10 nas.lan.",
        "txt.lan. 300 IN TXT \"two words\" \"more\"",
        "_ldap._tcp.lan. 300 IN SRV 0 5 389 nas.lan.",
        "10.1.168.192.in-addr.arpa. 300 IN PTR nas.lan.",
        "lan. 300 IN CAA 0 issue \"ca.example\"",
        "_dns.resolver.arpa. 300 IN SVCB 1 dns.lan. alpn=\"dot\" port=853",
        "web.lan. 300 IN HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.168.1.10",
    ];
    let here = Here::records(&lines);
    let expected = lines.map(|line| {
        let mut words = line.splitn(5, ' ');
        let (owner, qtype) = (words.next().unwrap(), words.nth(2).unwrap());
        (owner, qtype, line.replace("alpn=\"h2,h3\"", "alpn=h2,h3").replace("alpn=\"dot\"", "alpn=dot"))
    });
    for (owner, qtype, line) in expected {
        assert_eq!(here.answers(owner, qtype), [line]);
    }
}

#[test]
fn quoted_strings_may_hold_anything() {
    let lines = [
        r#"a.lan. 60 IN TXT "semi;colon" "es\"caped" "" "(" plain"#,
        r#"a.lan. 60 IN TXT ( "one" "two" ) ; a "comment"#,
    ];
    let told = lines.map(|line| Here::records(&[line]).answers("a.lan", "TXT").remove(0));
    assert_eq!(told[0], r#"a.lan. 60 IN TXT "semi;colon" "es\"caped" "" "(" "plain""#);
    assert_eq!(told[1], r#"a.lan. 60 IN TXT "one" "two""#);
}

#[test]
fn an_answer_is_authoritative_and_keeps_the_bits_and_the_case_of_the_question() {
    let here = Here::records(&["nas.lan. A 192.168.1.10"]);
    let mut query = build_query("NaS.lAn", 1).unwrap();
    query[3] |= 0x30;
    let (verdict, out) = here.verdict(&query);
    assert_eq!(verdict, Verdict::Answered);
    assert_eq!(out[12..21], query[12..21]);
    assert_eq!((out[2], out[3]), (0x85, 0x90), "QR, AA, RD; RA and CD, and never AD");
    assert_eq!(render(&out).unwrap().answers, ["NaS.lAn.\t3600\tIN\tA\t192.168.1.10"]);
}

#[test]
fn a_name_that_is_here_has_an_empty_answer_for_other_types_and_all_other_names_are_not_here() {
    let here = Here::records(&["nas.lan. 120 A 192.168.1.10"]);
    assert_eq!(here.nothing("nas.lan", "AAAA"), nodata("nas.lan."));
    assert_eq!(here.nothing("nas.lan", "HTTPS"), nodata("nas.lan."));
    let told = here.ask("nas.lan", "MX").unwrap();
    assert_eq!(told.authority, ["nas.lan. 120 IN SOA nas.lan. nobody.invalid. 1 3600 1200 604800 120"]);
    for name in ["lan", "other.lan", "www.nas.lan", "xnas.lan"] {
        assert_eq!(here.ask(name, "A"), None, "{name}");
    }
}

#[test]
fn any_gets_one_set_of_records() {
    let here = Here::records(&["nas.lan. A 192.0.2.1", "nas.lan. A 192.0.2.2", "nas.lan. TXT x"]);
    assert_eq!(here.answers("nas.lan", "ANY").len(), 2);
}

#[test]
fn the_records_of_a_set_share_the_smallest_ttl_and_are_there_once() {
    let here = Here::records(&["nas.lan. 60 A 192.0.2.1", "nas.lan. 30 A 192.0.2.2", "NAS.lan. 90 A 192.0.2.1"]);
    assert_eq!(here.answers("nas.lan", "A"), ["nas.lan. 30 IN A 192.0.2.1", "nas.lan. 30 IN A 192.0.2.2"]);
}

#[test]
fn a_wildcard_stands_for_names_below_its_parent_but_not_for_the_parent() {
    let here = Here::records(&["*.dev.lan. A 192.0.2.1"]);
    assert_eq!(here.answers("a.dev.lan", "A"), ["a.dev.lan. 3600 IN A 192.0.2.1"]);
    assert_eq!(here.answers("c.b.a.dev.lan", "A"), ["c.b.a.dev.lan. 3600 IN A 192.0.2.1"]);
    assert_eq!(here.answers("*.dev.lan", "A"), ["*.dev.lan. 3600 IN A 192.0.2.1"]);
    assert_eq!(here.nothing("a.dev.lan", "AAAA"), nodata("a.dev.lan."));
    assert_eq!(here.ask("dev.lan", "A"), None);
    assert_eq!(here.ask("adev.lan", "A"), None);
}

#[test]
fn a_wildcard_ends_at_names_that_exist() {
    // The example of RFC 4592 section 2.2.1, as far as it is about wildcards.
    let here = Here::records(&[
        "*.example. 3600 TXT \"this is a wildcard\"",
        "*.example. 3600 MX 10 host1.example.",
        "host1.example. 3600 A 192.0.2.1",
        "_ssh._tcp.host1.example. 3600 SRV 0 0 22 host1.example.",
        "_ssh._tcp.host2.example. 3600 SRV 0 0 22 host2.example.",
    ]);
    assert_eq!(here.answers("host3.example", "MX"), ["host3.example. 3600 IN MX 10 host1.example."]);
    assert_eq!(here.nothing("host3.example", "A"), nodata("host3.example."));
    assert_eq!(here.answers("foo.bar.example", "TXT").len(), 1);
    assert_eq!(here.nothing("host1.example", "MX"), nodata("host1.example."));
    assert_eq!(here.nothing("_telnet._tcp.host1.example", "SRV"), nxdomain("example."));
    assert_eq!(here.nothing("ghost.host1.example", "MX"), nxdomain("example."));
    assert_eq!(here.nothing("host2.example", "MX"), nodata("host2.example."), "it is between others");
    assert_eq!(here.nothing("ghost.*.example", "MX"), nxdomain("example."), "the wildcard itself exists");
}

#[test]
fn an_alias_is_followed_here() {
    let here = Here::records(&["www.lan. 60 CNAME Web.lan.", "web.lan. 60 CNAME nas.lan.", "nas.lan. 60 A 192.0.2.1"]);
    let chain = ["www.lan. 60 IN CNAME Web.lan.", "Web.lan. 60 IN CNAME nas.lan.", "nas.lan. 60 IN A 192.0.2.1"];
    assert_eq!(here.answers("www.lan", "A"), chain);
    assert_eq!(here.answers("www.lan", "CNAME"), chain[..1]);
    let told = here.ask("www.lan", "AAAA").unwrap();
    assert_eq!(
        (told.answers.len(), &*told.authority[0]),
        (2, "nas.lan. 60 IN SOA nas.lan. nobody.invalid. 1 3600 1200 604800 60")
    );
}

#[test]
fn an_alias_that_leads_out_is_left_to_upstreams_from_there() {
    let here = Here::records(&["www.lan. 60 CNAME web.lan.", "web.lan. 60 CNAME cdn.example."]);
    let query = build_query("www.lan", 1).unwrap();
    let (verdict, aliases) = here.verdict(&query);
    let Verdict::Alias { target, place } = verdict else { panic!("{verdict:?}") };
    assert_eq!((&*target, &aliases[place..]), (&b"\x03cdn\x07example\0"[..], &b"\x03cdn\x07example\0"[..]));
    // The upstream's answer has pointers into its question and into its records.
    let mut answer = build_query("cdn.example", 1).unwrap();
    answer.truncate(29);
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2, 0, 1, 0, 0]);
    let at = answer.len();
    assert_eq!(at, 29);
    answer.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x1e\0\x04\x01a\xc0\x10");
    answer.extend_from_slice(b"\xc0\x29\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07");
    answer.extend_from_slice(
        b"\xc0\x10\0\x06\0\x01\0\0\0\x1e\0\x18\xc0\x29\xc0\x0c\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01",
    );
    let direct = render(&answer).unwrap();
    assert_eq!(direct.answers[1], "a.example.\t30\tIN\tA\t192.0.2.7");
    let mut joined = Vec::new();
    assert!(join(&aliases, place, &answer, &mut joined));
    verify_answer(&joined).unwrap();
    let all = render(&joined).unwrap();
    assert_eq!(all.answers[..2], ["www.lan.\t60\tIN\tCNAME\tweb.lan.", "web.lan.\t60\tIN\tCNAME\tcdn.example."]);
    assert_eq!((&all.answers[2..], &all.authority), (&direct.answers[..], &direct.authority));
    let view = ClientView::new(&Query::parse(&query).unwrap(), 1232, 1232);
    let mut prepared = Vec::new();
    prepare_answer(&joined, &view, &query[12..query.len() - 11], &mut prepared);
    assert_eq!(render(&prepared).unwrap().answers, all.answers);
    // Whatever is broken in it, nothing panics, and what comes out is sound.
    for end in 0..answer.len() {
        assert!(!join(&aliases, place, &answer[..end], &mut joined));
    }
    for at in 0..answer.len() {
        for bit in 0..8 {
            let mut broken = answer.clone();
            broken[at] ^= 1 << bit;
            if join(&aliases, place, &broken, &mut joined) && verify_answer(&broken).is_ok() {
                assert!(verify_answer(&joined).is_ok(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn aliases_in_a_circle_are_a_failure() {
    let here = Here::records(&["a.lan. CNAME b.lan.", "b.lan. CNAME a.lan."]);
    let told = here.ask("a.lan", "A").unwrap();
    assert_eq!((&*told.rcode, told.answers.len(), told.authority.len()), ("SERVFAIL", 0, 0));
}

#[test]
fn an_alias_beside_other_records_is_refused() {
    let records = ["a.lan. CNAME b.lan.", "a.lan. TXT x"].map(|line| Record::parse(line).unwrap());
    let error = Table::new(&records, &[]).unwrap_err().to_string();
    assert!(error.contains("a.lan.") && error.contains("CNAME"), "{error}");
    let records = ["a.lan. CNAME b.lan.", "a.lan. CNAME c.lan."].map(|line| Record::parse(line).unwrap());
    assert!(Table::new(&records, &[]).is_err());
}

#[test]
fn a_line_that_is_no_record_is_refused_with_a_reason() {
    for (line, why) in [
        ("", "there is none"),
        ("; a comment", "there is none"),
        ("nas.lan.", "unexpected end"),
        ("nas.lan. A 192.168.1.300", "address"),
        ("nas.lan. A 192.168.1.3 4", "trailing"),
        ("nas.lan. CH A 192.168.1.3", "class"),
        ("nas.lan. NOTYPE x", ""),
        ("nas.lan. DNAME other.lan.", "DNAME"),
        ("$INCLUDE /etc/passwd", "there is none"),
        (" A 192.0.2.1", ""),
        ("a.lan. TXT \"x\"y", "the quote at character 14 has to stand apart"),
        ("a.lan. TXT x\"y\"", "the quote at character 13 has to stand apart"),
        ("a.lan. TXT \"x\"\"y\"", "the quote at character 15 has to stand apart"),
        ("a.lan. TXT \"x", "the quote at character 12 is not closed"),
        ("a.lan. TXT \"é\" \"x", "the quote at character 16 is not closed"),
        ("a.lan. TXT (x", "the parenthesis at character 12 is not closed"),
        ("a.lan. TXT ((x)", "the parenthesis at character 12 is not closed"),
        ("a.lan. A (192.0.2.1", "the parenthesis at character 10 is not closed"),
        ("a.lan. TXT x)", "the parenthesis at character 13 closes none"),
        ("a.lan. A 192.0.2.1\nb.lan. A 192.0.2.1", "more than one"),
    ] {
        let error = Record::parse(line).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("zone file"), "{line}: {error}");
    }
}

// The zone file parser writes an empty string for each step that it takes behind the end of TXT data whose line does not end,
// until it is beyond its buffer.
#[test]
fn txt_data_with_an_open_parenthesis_is_refused_before_the_parser_panics() {
    for line in [
        "a.lan. TXT (",
        "a.lan. TXT x(",
        "a.lan. TXT ( x ; a comment )",
        "a.lan. TXT ( x ; a comment )\n y",
        "a.lan. TXT \\) ( \")\" \\)",
        "a.lan. TXT \"xn. TXT \" dev.lan. TXT0(\\# 3 010203",
        // As fuzzing found it: strings that touch each other were taken for the reason.
        "a.lan. TXT \"xn. TXT \"x\" dev.lan. TXT \"xn. TXT0(\\# 3 010203",
    ] {
        let error = Record::parse(line).unwrap_err().to_string();
        assert!(error.contains("is not closed") || error.contains("stand apart"), "{line}: {error}");
    }
}

#[test]
fn a_record_may_have_parentheses_that_are_closed() {
    for (line, strings) in [
        ("a.lan. TXT (x y)", "\"x\" \"y\""),
        ("a.lan. (60 IN TXT ( x\n ; (\n y ) )", "\"x\" \"y\""),
        ("a.lan. TXT \"(\" \\( ; (", "\"(\" \"(\""),
        ("a.lan. TXT (\"x\")", "\"x\""),
    ] {
        let here = Here::records(&[line]);
        let answers = here.answers("a.lan", "TXT");
        assert!(answers.len() == 1 && answers[0].ends_with(&format!("IN TXT {strings}")), "{line}: {answers:?}");
    }
}

proptest! {
    #[test]
    fn no_line_of_words_and_signs_panics(
        head in proptest::sample::select(&["a.lan. ", "*.a.lan. 60 IN ", "a.lan. (", "\"a.lan\" ", ""][..]),
        rtype in proptest::sample::select(TYPES),
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..12),
    ) {
        let line = format!("{head}{rtype} {}", words.concat());
        if let Ok(record) = Record::parse(&line) {
            prop_assert!(Table::new(&[record], &[]).is_ok());
        }
    }
}

const TYPES: &[&str] = &[
    "A",
    "AAAA",
    "TXT",
    "TXT",
    "CNAME",
    "MX",
    "SRV",
    "CAA",
    "NAPTR",
    "HINFO",
    "SOA",
    "DS",
    "DNSKEY",
    "RRSIG",
    "NSEC",
    "NSEC3",
    "TLSA",
    "SVCB 1 .",
    "HTTPS 1 .",
    "TYPE65280",
];

/// What data is made of, and what breaks it.
const WORDS: &[&str] = &[
    " ",
    " ",
    " ",
    "(",
    ")",
    "\"",
    "\"",
    ";",
    "\n",
    "\t",
    "\r",
    "\\",
    "\\# ",
    "\\\"",
    "\\(",
    "\\065",
    "\\300",
    "@",
    "$",
    "=",
    ".",
    ",",
    "0 ",
    "1 ",
    "300 ",
    "65536 ",
    "\u{e9}",
    "\0",
    "x",
    "a.lan.",
    "a.lan ",
    "*.lan.",
    "IN ",
    "A ",
    "alpn=",
    "port=",
    "mandatory=",
    "ipv4hint=",
    "ech=",
    "key9=",
    "192.0.2.1",
    "fd00::1",
    "AbCd==",
    "-",
    "20300101000000 ",
];

#[test]
fn hosts_files_give_addresses_of_both_families_and_the_names_of_addresses() {
    let here = Here::hosts(
        "# comment\n\n192.0.2.1\tNas.lan nas # the disk\r\n2001:db8:1::1 nas.lan\n192.0.2.1 other.lan\n192.0.2.2 nas.lan",
    );
    assert_eq!(here.answers("nas.lan", "A"), ["nas.lan. 60 IN A 192.0.2.1", "nas.lan. 60 IN A 192.0.2.2"]);
    assert_eq!(here.answers("nas.lan", "AAAA"), ["nas.lan. 60 IN AAAA 2001:db8:1::1"]);
    assert_eq!(here.answers("nas", "A"), ["nas. 60 IN A 192.0.2.1"]);
    assert_eq!(here.nothing("nas.lan", "MX"), nodata("nas.lan."));
    assert_eq!(here.answers("1.2.0.192.in-addr.arpa", "PTR"), ["1.2.0.192.in-addr.arpa. 60 IN PTR Nas.lan."]);
    let reverse = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(here.answers(reverse, "PTR"), [format!("{reverse}. 60 IN PTR nas.lan.")]);
}

#[test]
fn lines_of_a_hosts_file_that_are_not_understood_are_told_and_the_others_hold() {
    let text = b"192.0.2.1 good.lan\nnonsense\n300.1.1.1 bad.lan\n192.0.2.2 .. fine.lan\n192.0.2.3\nfe80::1%lo0 zone.lan\n\xff";
    let hosts = parse_hosts(text, 60);
    assert_eq!(hosts.unknown, [2, 3, 4, 5, 7]);
    let table = Table::new(&[], &[hosts]).unwrap();
    let here = Here { local: Local::new(&LocalSettings::default(), &[], table) };
    for name in ["good.lan", "fine.lan"] {
        assert_eq!(here.answers(name, "A").len(), 1);
    }
    assert_eq!(here.ask("zone.lan", "AAAA"), None);
}

#[test]
fn a_list_of_unwanted_names_gives_no_name_to_the_unspecified_address() {
    let here = Here::hosts("0.0.0.0 ads.example\n:: ads.example\n");
    assert_eq!(here.answers("ads.example", "A"), ["ads.example. 60 IN A 0.0.0.0"]);
    assert_eq!(here.answers("ads.example", "AAAA"), ["ads.example. 60 IN AAAA ::"]);
    let (rcode, _) = here.nothing("0.0.0.0.in-addr.arpa", "PTR");
    assert_eq!(rcode, "NXDOMAIN");
}

#[test]
fn a_record_hides_the_same_name_of_a_hosts_file() {
    let here = Here::with(&["nas.lan. A 192.0.2.1"], "192.0.2.9 nas.lan\n2001:db8::9 nas.lan", |_| {}, &[]);
    assert_eq!(here.answers("nas.lan", "A"), ["nas.lan. 3600 IN A 192.0.2.1"]);
    assert_eq!(here.nothing("nas.lan", "AAAA"), nodata("nas.lan."));
}

#[test]
fn the_aaaa_filter_empties_all_but_what_is_here() {
    let here = Here::with(&["nas.lan. AAAA fd00::1"], "", |settings| settings.filter_aaaa = true, &[]);
    assert_eq!(here.nothing("www.example", "AAAA"), nodata("www.example."));
    assert!(!here.ask("www.example", "AAAA").unwrap().authoritative);
    assert_eq!(here.ask("www.example", "A"), None);
    assert_eq!(here.answers("nas.lan", "AAAA"), ["nas.lan. 3600 IN AAAA fd00::1"]);
    assert_eq!(here.answers("localhost", "AAAA"), ["localhost. 10800 IN AAAA ::1"]);
}

#[test]
fn localhost_is_the_loopback_address() {
    let here = Here::records(&[]);
    for name in ["localhost", "LocalHost", "a.b.localhost"] {
        let answers = here.answers(name, "A");
        assert_eq!(answers, [format!("{name}. 10800 IN A 127.0.0.1")]);
        assert_eq!(here.answers(name, "AAAA"), [format!("{name}. 10800 IN AAAA ::1")]);
        assert_eq!(here.nothing(name, "MX").0, "NOERROR");
    }
    assert_eq!(here.answers("1.0.0.127.in-addr.arpa", "PTR"), ["1.0.0.127.in-addr.arpa. 10800 IN PTR localhost."]);
    let one = format!("1.{}ip6.arpa", "0.".repeat(31));
    assert_eq!(here.answers(&one, "PTR"), [format!("{one}. 10800 IN PTR localhost.")]);
    for name in ["0.0.127.in-addr.arpa", "0.127.in-addr.arpa"] {
        assert_eq!(here.nothing(name, "PTR"), nodata("127.in-addr.arpa."), "a name below it exists");
    }
}

#[test]
fn special_names_do_not_exist() {
    let here = Here::records(&[]);
    for (name, zone) in [
        ("invalid", "invalid."),
        ("www.Invalid", "Invalid."),
        ("test", "test."),
        ("a.b.test", "test."),
        ("x.onion", "onion."),
        ("printer.local", "local."),
        ("nas.home.arpa", "home.arpa."),
        ("1.2.3.10.in-addr.arpa", "10.in-addr.arpa."),
        ("1.1.16.172.in-addr.arpa", "16.172.in-addr.arpa."),
        ("1.1.31.172.in-addr.arpa", "31.172.in-addr.arpa."),
        ("1.1.168.192.in-addr.arpa", "168.192.in-addr.arpa."),
        ("1.1.254.169.in-addr.arpa", "254.169.in-addr.arpa."),
        ("1.1.64.100.in-addr.arpa", "64.100.in-addr.arpa."),
        ("1.1.127.100.in-addr.arpa", "127.100.in-addr.arpa."),
        ("1.2.0.192.in-addr.arpa", "2.0.192.in-addr.arpa."),
        ("1.100.51.198.in-addr.arpa", "100.51.198.in-addr.arpa."),
        ("1.113.0.203.in-addr.arpa", "113.0.203.in-addr.arpa."),
        ("1.0.0.0.in-addr.arpa", "0.in-addr.arpa."),
        ("9.9.9.127.in-addr.arpa", "127.in-addr.arpa."),
        ("1.d.f.ip6.arpa", "d.f.ip6.arpa."),
        ("1.b.e.f.ip6.arpa", "b.e.f.ip6.arpa."),
        ("1.8.b.d.0.1.0.0.2.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa."),
    ] {
        assert_eq!(here.nothing(name, "PTR"), nxdomain(zone), "{name}");
        assert!(here.ask(name, "A").unwrap().authoritative);
    }
}

#[test]
fn names_that_only_look_special_are_for_upstreams() {
    let here = Here::records(&[]);
    for name in [
        ".",
        "example",
        "www.example.com",
        "contest",
        "latest.com",
        "myhost",
        "host",
        "nonion",
        "xlocal",
        "vocal",
        "arpa",
        "in-addr.arpa",
        "ip6.arpa",
        "172.in-addr.arpa",
        "1.1.15.172.in-addr.arpa",
        "1.1.32.172.in-addr.arpa",
        "1.1.63.100.in-addr.arpa",
        "1.1.128.100.in-addr.arpa",
        "1.1.010.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "1.255.255.255.255.in-addr.arpa.example",
        "254.255.255.255.in-addr.arpa",
        "ipv4only.arpa",
        "f.ip6.arpa",
        "1.c.f.ip6.arpa",
        "1.c.e.f.ip6.arpa",
        "1.0.0.2.ip6.arpa",
        "use-application-dns.net",
        "local.example",
        "alocalhost",
        "xhome.arpa",
        "home.xarpa",
    ] {
        assert_eq!(here.ask(name, "A"), None, "{name}");
    }
}

#[test]
fn the_top_of_an_empty_zone_has_soa_and_ns_and_leaves_ds_to_its_parent() {
    let here = Here::records(&[]);
    let soa = "10.in-addr.arpa. 10800 IN SOA 10.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 10800";
    assert_eq!(here.answers("10.in-addr.arpa", "SOA"), [soa]);
    assert_eq!(here.answers("10.in-addr.arpa", "NS"), ["10.in-addr.arpa. 10800 IN NS 10.in-addr.arpa."]);
    assert_eq!(here.nothing("10.in-addr.arpa", "PTR"), nodata("10.in-addr.arpa."));
    assert_eq!(here.ask("home.arpa", "DS"), None);
    assert_eq!(here.nothing("x.home.arpa", "DS"), nxdomain("home.arpa."));
}

#[test]
fn questions_about_the_resolver_are_not_forwarded() {
    let here = Here::records(&[]);
    for (name, qtype) in [("_dns.resolver.arpa", "SVCB"), ("_dns.resolver.arpa", "A"), ("resolver.arpa", "A")] {
        assert_eq!(here.nothing(name, qtype), nodata("resolver.arpa."), "RFC 9462 section 6.4");
    }
    let own = Here::records(&["_dns.resolver.arpa. 300 SVCB 1 dns.lan. alpn=\"dot\""]);
    assert_eq!(own.answers("_dns.resolver.arpa", "SVCB").len(), 1);
}

#[test]
fn a_route_for_a_special_name_wins_and_a_record_wins_over_both() {
    let here = Here::with(&["own.local. A 192.0.2.1"], "", |_| {}, &["local", "10.IN-ADDR.arpa", "."]);
    assert_eq!(here.ask("dc.local", "A"), None);
    assert_eq!(here.ask("local", "SOA"), None);
    assert_eq!(here.ask("1.2.3.10.in-addr.arpa", "PTR"), None);
    assert_eq!(here.answers("own.local", "A").len(), 1);
    assert_eq!(
        here.nothing("x.home.arpa", "A"),
        nxdomain("home.arpa."),
        "a route for all names is for none in particular"
    );
    let other = Here::with(&[], "", |_| {}, &["cal", "corp.local"]);
    assert_eq!(other.nothing("dc.local", "A"), nxdomain("local."));
    assert_eq!(other.ask("dc.corp.local", "A"), None);
}

#[test]
fn special_names_are_left_to_upstreams_when_turned_off() {
    let here = Here::with(&[], "", |settings| settings.special_names = false, &[]);
    for name in ["localhost", "x.test", "1.2.3.10.in-addr.arpa"] {
        assert_eq!(here.ask(name, "A"), None, "{name}");
    }
}

#[test]
fn other_classes_and_signed_queries_are_for_upstreams() {
    let here = Here::records(&["nas.lan. A 192.0.2.1"]);
    let mut query = build_query("nas.lan", 1).unwrap();
    let class = query.len() - 12;
    query[class] = 3;
    assert_eq!(here.verdict(&query).0, Verdict::Pass);
    let mut signed = build_query("nas.lan", 1).unwrap();
    signed[11] = 2;
    signed.extend_from_slice(b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\0");
    assert!(Query::parse(&signed).unwrap().signed);
    assert_eq!(here.verdict(&signed).0, Verdict::Pass);
}

#[test]
fn more_records_than_a_message_holds_are_cut_and_never_panic() {
    let lines: Vec<String> =
        (0..6000).map(|number| format!("big.lan. A 10.0.{}.{}", number / 250, number % 250)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let here = Here::records(&lines);
    let query = build_query("big.lan", 1).unwrap();
    let (_, out) = here.verdict(&query);
    assert!(out.len() <= 65_535 && verify_answer(&out).unwrap().answer_count > 3000);
    let view = ClientView::new(&Query::parse(&query).unwrap(), 1232, 1232);
    let mut prepared = Vec::new();
    prepare_answer(&out, &view, &query[12..query.len() - 11], &mut prepared);
    assert!(prepared.len() <= 1232 && prepared[2] & 0x02 != 0, "TC sends the client to TCP");
}
