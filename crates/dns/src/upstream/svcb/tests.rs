use proptest::prelude::*;

use super::*;
use crate::message::{TYPE_HTTPS, TYPE_SVCB, build_query, name_from_text};

/// An answer to `name` with these records: owner, type, TTL, data.
fn answer(name: &str, records: &[(&str, u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut answer = build_query(name, TYPE_SVCB).unwrap();
    answer.truncate(answer.len() - 11);
    answer[2] |= 0x80;
    answer[7] = u8::try_from(records.len()).unwrap();
    answer[11] = 0;
    for (owner, rtype, ttl, data) in records {
        answer.extend(name_from_text(owner).unwrap());
        answer.extend(rtype.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

/// The data of a record.
fn data(priority: u16, target: &str, params: &[(u16, &[u8])]) -> Vec<u8> {
    let mut data = priority.to_be_bytes().to_vec();
    data.extend(name_from_text(target).unwrap());
    for (key, value) in params {
        data.extend(key.to_be_bytes());
        data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        data.extend(*value);
    }
    data
}

fn services(answer: &[u8], name: &str) -> Vec<Service> {
    match read(answer, name, TYPE_SVCB) {
        Ok(Binding::Services(services, _)) => services,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_with_every_parameter_is_read() {
    let params: [(u16, &[u8]); 9] = [
        (0, &[0, 1, 0, 3]),
        (1, b"\x03dot\x02h2"),
        (2, b""),
        (3, &[0x21, 0xa5]),
        (4, &[192, 0, 2, 1, 192, 0, 2, 2]),
        (5, b"keys"),
        (6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (7, b"/dns-query{?dns}"),
        (65_000, b"unknown"),
    ];
    let answer = answer("_dns.Dns.example", &[("_dns.dns.example", 64, 300, data(1, "Dns.Example.", &params))]);
    let expected = Service {
        priority: 1,
        target: "dns.example".into(),
        at_owner: false,
        alpn: vec![b"dot".to_vec(), b"h2".to_vec()],
        no_default_alpn: true,
        port: Some(8613),
        hints: ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec(),
        ech: Some(b"keys".to_vec()),
        dohpath: Some("/dns-query{?dns}".into()),
    };
    assert_eq!(
        read(&answer, "_DNS.dns.example.", TYPE_SVCB),
        Ok(Binding::Services(vec![expected], Duration::from_secs(300)))
    );
    assert_eq!(read(&answer, "_dns.dns.example", TYPE_HTTPS), Ok(Binding::Nothing));
    assert_eq!(read(&answer, "other.example", TYPE_SVCB), Ok(Binding::Nothing));
}

#[test]
fn services_come_by_priority_for_the_shortest_of_their_times() {
    let records = [("a.example", 64, 90, data(5, "late.example", &[])), ("a.example", 64, 60, data(2, ".", &[]))];
    let answer = answer("a.example", &records);
    let Ok(Binding::Services(services, ttl)) = read(&answer, "a.example", TYPE_SVCB) else { panic!() };
    assert_eq!(ttl, Duration::from_secs(60));
    assert_eq!([services[0].priority, services[1].priority], [2, 5]);
    assert_eq!((services[0].target.as_str(), services[0].at_owner), ("a.example", true));
}

#[test]
fn a_record_that_demands_the_unknown_is_left_out_and_the_others_stay() {
    let strange = data(1, ".", &[(0, &[0, 99]), (99, b"?")]);
    let answer =
        answer("a.example", &[("a.example", 64, 60, strange), ("a.example", 64, 60, data(2, "b.example", &[]))]);
    let services = services(&answer, "a.example");
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].target, "b.example");
}

#[test]
fn aliases_are_followed_within_the_answer_and_named_beyond_it() {
    let cname = ("a.example", TYPE_CNAME, 20, name_from_text("b.example").unwrap());
    let alias = ("b.example", 64, 30, data(0, "c.example", &[]));
    let end = ("c.example", 64, 40, data(1, ".", &[]));
    let whole = answer("a.example", &[cname.clone(), alias.clone(), end]);
    let Ok(Binding::Services(services, ttl)) = read(&whole, "a.example", TYPE_SVCB) else { panic!() };
    assert_eq!((services[0].target.as_str(), ttl), ("c.example", Duration::from_secs(20)));
    let part = answer("a.example", &[cname, alias]);
    assert_eq!(read(&part, "a.example", TYPE_SVCB), Ok(Binding::Alias("c.example".into())));
    let nowhere = answer("a.example", &[("a.example", 64, 30, data(0, ".", &[]))]);
    assert_eq!(read(&nowhere, "a.example", TYPE_SVCB), Ok(Binding::Nothing));
}

#[test]
fn aliases_in_a_circle_come_to_nothing() {
    let records = [("a.example", 64, 30, data(0, "b.example", &[])), ("b.example", 64, 30, data(0, "a.example", &[]))];
    assert_eq!(read(&answer("a.example", &records), "a.example", TYPE_SVCB), Ok(Binding::Nothing));
}

#[test]
fn one_malformed_record_makes_the_set_void() {
    let sound = ("a.example", 64, 60, data(1, ".", &[]));
    let broken: [Vec<u8>; 14] = [
        vec![],
        vec![0],
        vec![0, 1],
        vec![0, 1, 1],
        // Compressed.
        vec![0, 1, 0xc0, 12],
        data(1, ".", &[(3, &[1])]),
        data(1, ".", &[(1, b"")]),
        data(1, ".", &[(1, b"\0")]),
        data(1, ".", &[(1, b"\x09dot")]),
        data(1, ".", &[(4, &[1, 2, 3])]),
        data(1, ".", &[(3, &[0, 1]), (1, b"\x03dot")]),
        data(1, ".", &[(0, &[0, 0])]),
        data(1, ".", &[(0, &[0, 3])]),
        data(1, ".", &[(2, b"x")]),
    ];
    for data in broken {
        let answer = answer("a.example", &[sound.clone(), ("a.example", 64, 60, data.clone())]);
        assert_eq!(read(&answer, "a.example", TYPE_SVCB), Err(Malformed), "{data:?}");
    }
}

#[test]
fn only_templates_that_a_post_request_can_use_give_a_path() {
    let path = |template: &str| Service { dohpath: Some(template.into()), ..Service::default() }.doh_path();
    assert_eq!(path("/dns-query{?dns}").as_deref(), Some("/dns-query"));
    assert_eq!(path("/q?id=1{&dns}").as_deref(), Some("/q?id=1"));
    for template in ["/dns-query", "dns-query{?dns}", "/{id}/q{?dns}", "/q{?dns,x}", "/q{?dns}/x", "/q x{?dns}", ""] {
        assert_eq!(path(template), None, "{template}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, "a.example", TYPE_SVCB);
    }

    #[test]
    fn no_record_data_makes_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = read(&answer("a.example", &[("a.example", 64, 60, data)]), "a.example", TYPE_SVCB);
    }

    #[test]
    fn no_change_of_a_byte_makes_the_reader_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let params: [(u16, &[u8]); 4] = [(0, &[0, 1]), (1, b"\x03dot"), (3, &[3, 85]), (4, &[192, 0, 2, 1])];
        let mut answer = answer("a.example", &[("a.example", 64, 60, data(1, "b.example", &params))]);
        let at = at.index(answer.len());
        answer[at] = byte;
        let _ = read(&answer, "a.example", TYPE_SVCB);
    }

    #[test]
    fn what_was_written_is_read(
        priority in 1_u16..,
        alpn in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 1..4),
        port in any::<u16>(),
        hints in proptest::collection::vec(any::<[u8; 4]>(), 1..4),
        ech in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let list: Vec<u8> = alpn
            .iter()
            .flat_map(|name| [&[u8::try_from(name.len()).unwrap()], &name[..]].concat())
            .collect();
        let port_bytes = port.to_be_bytes();
        let params: [(u16, &[u8]); 4] = [(1, &list), (3, &port_bytes), (4, hints.as_flattened()), (5, &ech)];
        let answer = answer("a.example", &[("a.example", 64, 60, data(priority, "b.example", &params))]);
        let read = &services(&answer, "a.example")[0];
        prop_assert_eq!((read.priority, &read.alpn, read.port, &read.ech), (priority, &alpn, Some(port), &Some(ech)));
        let written: Vec<IpAddr> = hints.iter().map(|ip| IpAddr::from(*ip)).collect();
        prop_assert_eq!(&read.hints, &written);
    }
}
