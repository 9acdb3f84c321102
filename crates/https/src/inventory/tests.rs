//! What the inventory promises, a sentence a test. Against a model: `model`; a day in the life of fifty addresses: `simulation`.

mod model;
mod renew;
mod simulation;

use std::{collections::BTreeMap, net::Ipv4Addr};

use allocation_counter::measure;

use super::*;
use crate::config::{OriginConfig, Validate, Verdict};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MIN: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

/// 192.0.2.`last`.
fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn ips(lasts: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
    lasts.into_iter().map(ip).collect()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn settings(change: impl FnOnce(&mut OriginConfig)) -> Settings {
    let mut origin = OriginConfig::new("tiles.example");
    change(&mut origin);
    Settings::new(&origin, 7)
}

/// Addresses 192.0.2.1 to `count`, known good at 10 ms: by a probe where validation is asked for, by a request otherwise.
fn validated(count: u8, change: impl FnOnce(&mut OriginConfig), now: Instant) -> Inventory {
    let mut inventory = Inventory::new(settings(change));
    inventory.found(SourceId::Config, ips(1..=count), now);
    for probe in inventory.to_validate(usize::MAX, now) {
        inventory.validated(probe.id, Ok(MS * 10), now);
    }
    if !inventory.settings.needs_validation {
        (1..=count).for_each(|last| succeed(&mut inventory, last, now));
    }
    assert_eq!(inventory.counts().validated, usize::from(count));
    inventory
}

/// A request to one address that is answered after 10 ms.
fn succeed(inventory: &mut Inventory, last: u8, now: Instant) {
    let choice = inventory.reserve(ip(last), now).unwrap();
    inventory.succeeded(choice.id, MS * 10, now);
    inventory.release(choice.id);
}

fn row(inventory: &Inventory, ip: IpAddr, now: Instant) -> AddressRow {
    inventory.rows(now).into_iter().find(|row| row.ip == ip).unwrap()
}

fn state(inventory: &Inventory, last: u8, now: Instant) -> AddressState {
    row(inventory, ip(last), now).state
}

/// A request to one address that fails.
fn fail(inventory: &mut Inventory, last: u8, now: Instant) {
    let choice = inventory.reserve(ip(last), now).unwrap();
    inventory.failed(choice.id, "connection refused", now);
    inventory.release(choice.id);
}

/// How often each address is chosen in `count` requests, one at a time.
fn shares(inventory: &mut Inventory, count: u64, now: Instant) -> BTreeMap<IpAddr, u32> {
    let mut shares = BTreeMap::new();
    for random in 0..count {
        let choice = inventory.choose(&[], now, random).unwrap();
        *shares.entry(choice.ip).or_default() += 1;
        inventory.release(choice.id);
    }
    shares
}

#[test]
fn without_validation_the_first_request_finds_out_about_a_candidate() {
    let now = start();
    let mut inventory = Inventory::new(Settings::new(&OriginConfig::new("tiles.example"), 7));
    inventory.found(SourceId::Config, ["192.0.2.1".parse().expect("valid")], now);
    assert!(inventory.to_validate(1, now).is_empty());
    assert_eq!(inventory.next_event(now), None);
    let choice = inventory.choose(&[], now, 0).expect("a candidate");
    inventory.failed(choice.id, "refused", now);
    let due = inventory.next_event(now).expect("a quarantine ends");
    assert_eq!(inventory.to_validate(1, due).len(), 1);
}

#[test]
fn a_source_replaces_what_it_said_and_an_address_is_kept_while_any_source_names_it() {
    let now = start();
    let mut inventory = Inventory::new(settings(|_| ()));
    let found = inventory.found(SourceId::Dns, ips([1, 2, 2]), now);
    assert_eq!(found, Found { added: 2, ..Found::default() });
    assert_eq!(inventory.found(SourceId::File(0), ips([2, 3]), now), Found { added: 1, ..Found::default() });
    assert_eq!(row(&inventory, ip(2), now).source, "dns,file 0");
    fail(&mut inventory, 2, now);
    let found = inventory.found(SourceId::Dns, ips([4]), now);
    assert_eq!(found, Found { added: 1, gone: 1, ..Found::default() });
    assert_eq!(inventory.rows(now).iter().map(|row| row.ip).collect::<Vec<_>>(), ips([2, 3, 4]));
    assert_eq!(state(&inventory, 2, now), AddressState::Quarantined, "what is known of it is kept");
    assert_eq!(inventory.found(SourceId::File(0), [], now).gone, 2);
    assert_eq!(inventory.len(), 1);
}

#[test]
fn an_address_that_is_gone_is_forgotten_when_its_requests_have_ended() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    let (first, second) = (inventory.choose(&[], now, 1).unwrap(), inventory.choose(&[], now, 2).unwrap());
    assert_eq!(inventory.found(SourceId::Config, [], now).gone, 1);
    assert!(inventory.is_empty() && inventory.rows(now).is_empty());
    assert_eq!(inventory.choose(&[], now, 3), None);
    assert_eq!(inventory.reserve(ip(1), now), Err(Unusable::Unknown));
    inventory.release(first.id);
    // It is named again in time: nothing was forgotten.
    assert_eq!(inventory.found(SourceId::Dns, ips([1]), now).added, 1);
    assert_eq!(row(&inventory, ip(1), now).in_flight, 1);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated);
    inventory.found(SourceId::Dns, [], now);
    inventory.release(second.id);
    inventory.found(SourceId::Dns, ips([1]), now);
    assert_eq!(state(&inventory, 1, now), AddressState::Candidate);
    // Reports about the one before are about nothing.
    inventory.failed(second.id, "late", now);
    inventory.release(second.id);
    let row = row(&inventory, ip(1), now);
    assert_eq!((row.failures, row.in_flight), (0, 0));
}

#[test]
fn the_first_addresses_found_are_kept_and_the_rest_is_counted() {
    let now = start();
    let mut inventory = Inventory::new(settings(|origin| origin.addresses_max = 3));
    let found = inventory.found(SourceId::Config, ips([1, 1, 1, 1, 2]), now);
    assert_eq!(found, Found { added: 2, ..Found::default() }, "repetitions take no room");
    let found = inventory.found(SourceId::Dns, ips([3, 4, 5]), now);
    assert_eq!(found, Found { added: 1, beyond_max: 2, ..Found::default() });
    let found = inventory.found(SourceId::Dns, ips([4]), now);
    assert_eq!(found, Found { added: 1, gone: 1, ..Found::default() }, "those that go make room");
    let found = inventory.found(SourceId::File(1), ips(10..200), now);
    assert_eq!((found.added, found.beyond_max), (0, 190));
    assert_eq!(inventory.len(), 3);
}

#[test]
fn deny_wins_over_allow_whichever_way_an_address_is_written() {
    let now = start();
    let mut inventory = Inventory::new(settings(|origin| {
        origin.allow = vec![net("192.0.2.0/25")];
        origin.deny = vec![net("::ffff:192.0.2.8/125")];
    }));
    let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().into();
    let found = inventory.found(SourceId::Config, [ip(1), ip(9), mapped, ip(200)], now);
    assert_eq!(found, Found { added: 1, refused: 3, ..Found::default() });
    assert_eq!(inventory.reserve(mapped, now), Err(Unusable::Denied));
    // What is let in at run time comes with the next list, and deny still wins.
    inventory.allow(net("192.0.2.0/24")).unwrap();
    let found = inventory.found(SourceId::Config, [ip(1), ip(9), ip(200)], now);
    assert_eq!(found, Found { added: 1, refused: 1, ..Found::default() });
}

#[test]
fn to_allow_something_does_not_shut_out_the_rest() {
    let now = start();
    let mut inventory = Inventory::new(settings(|_| ()));
    inventory.allow(net("198.51.100.0/24")).unwrap();
    assert_eq!(inventory.found(SourceId::Config, ips([1]), now).added, 1);
}

#[test]
fn a_banned_address_is_neither_chosen_nor_probed_and_comes_back_as_it_was() {
    let now = start();
    let mut inventory = validated(3, |_| (), now);
    fail(&mut inventory, 3, now);
    assert_eq!(inventory.ban(net("192.0.2.2/31"), now), Ok(2));
    assert_eq!(shares(&mut inventory, 500, now).into_keys().collect::<Vec<_>>(), ips([1]));
    assert_eq!(inventory.reserve(ip(2), now), Err(Unusable::Denied));
    assert_eq!(inventory.next_event(now), None);
    assert_eq!(inventory.to_validate(9, now + MIN * 60), []);
    assert_eq!((inventory.counts().banned, inventory.len()), (2, 3));
    inventory.found(SourceId::Dns, ips([2]), now);
    assert!(row(&inventory, ip(2), now).banned, "a ban outlives what sources say");
    assert_eq!(inventory.unban(net("192.0.2.3/32"), now), 0, "a part of a ban cannot be lifted");
    assert_eq!(inventory.unban(net("192.0.2.0/24"), now), 2);
    assert_eq!(state(&inventory, 2, now), AddressState::Validated);
    assert_eq!(state(&inventory, 3, now), AddressState::Quarantined);
    assert_eq!(inventory.to_validate(9, now + MIN * 60).len(), 1);
}

#[test]
fn a_new_address_within_a_ban_is_banned_from_the_start() {
    let now = start();
    let mut inventory = Inventory::new(settings(|_| ()));
    inventory.ban(net("192.0.2.0/24"), now).unwrap();
    assert_eq!(inventory.found(SourceId::Dns, ips([1]), now).added, 1);
    assert_eq!(inventory.choose(&[], now, 1), None);
    assert_eq!(inventory.unban(net("0.0.0.0/0"), now), 1);
    assert!(inventory.choose(&[], now, 1).is_some());
}

#[test]
fn bans_are_bounded() {
    let now = start();
    let mut inventory = Inventory::new(settings(|_| ()));
    for index in 0..1024_u32 {
        inventory.ban(IpAddr::from(index.to_be_bytes()).into(), now).unwrap();
    }
    assert_eq!(inventory.ban(net("192.0.2.0/24"), now), Err(ListFull));
    assert_eq!(inventory.ban(net("0.0.0.7/32"), now), Ok(0), "one that is there already needs no room");
    inventory.unban(net("0.0.0.0/8"), now);
    assert_eq!(inventory.ban(net("192.0.2.0/24"), now), Ok(0));
}

#[test]
fn without_validation_a_candidate_is_chosen_at_once_and_its_first_success_validates_it() {
    let now = start();
    let mut inventory = Inventory::new(settings(|_| ()));
    inventory.found(SourceId::Dns, ips([1]), now);
    let choice = inventory.choose(&[], now, 1).unwrap();
    assert_eq!((choice.ip, choice.probe), (ip(1), false));
    inventory.succeeded(choice.id, MS * 10, now);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated);
}

#[test]
fn a_candidate_that_is_probed_without_validation_can_be_chosen_meanwhile() {
    let now = start();
    let mut inventory = Inventory::new(Settings { probes_candidates: true, ..settings(|_| ()) });
    inventory.found(SourceId::Dns, ips([1]), now);
    let probe = inventory.to_validate(9, now)[0];
    let choice = inventory.choose(&[], now, 1).unwrap();
    assert_eq!((choice.id, choice.probe), (probe.id, false));
    inventory.failed(choice.id, "connection refused", now);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined);
    inventory.validated(probe.id, Ok(MS), now);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined, "the probe began before");
}

#[test]
fn an_address_is_found_by_name_with_an_id_that_counts_now() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    assert_eq!(inventory.find(ip(9)), None);
    let before = inventory.find(ip(1)).unwrap();
    assert_eq!(row(&inventory, ip(1), now).in_flight, 0, "nothing is reserved");
    inventory.failed(before, "closed while idle", now);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined);
    inventory.succeeded(before, MS, now);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined, "an id from before the quarantine");
    inventory.succeeded(inventory.find(ip(1)).unwrap(), MS, now);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated);
    let held = inventory.choose(&[], now, 1).unwrap();
    inventory.found(SourceId::Config, [], now);
    assert_eq!(inventory.find(ip(1)), None, "it only waits for its last request");
    inventory.release(held.id);
}

#[test]
fn with_validation_nothing_is_used_before_its_probe_was_good() {
    let now = start();
    let mut inventory = Inventory::new(settings(|origin| origin.validate = Some(Validate::default())));
    inventory.found(SourceId::Dns, ips([1, 2]), now);
    assert_eq!(inventory.choose(&[], now, 1), None);
    assert_eq!(inventory.reserve(ip(1), now), Err(Unusable::NotValidated));
    let probes = inventory.to_validate(9, now);
    assert_eq!(probes.len(), 2);
    assert_eq!(inventory.choose(&[], now, 1), None);
    inventory.validated(probes[0].id, Ok(MS * 10), now);
    inventory.validated(probes[1].id, Err("status 403"), now);
    let good = probes[0].ip;
    assert_eq!(shares(&mut inventory, 300, now).into_keys().collect::<Vec<_>>(), [good]);
    assert_eq!(row(&inventory, probes[1].ip, now).last_error.as_deref(), Some("status 403"));
}

#[test]
fn with_validation_a_success_does_not_end_a_quarantine_but_the_probe_does() {
    let now = start();
    let mut inventory = validated(1, |origin| origin.validate = Some(Validate::default()), now);
    fail(&mut inventory, 1, now);
    let choice = inventory.choose(&[], now, 1).unwrap();
    assert!(choice.probe, "rather this one than none");
    inventory.succeeded(choice.id, MS, now);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined);
    let probes = inventory.to_validate(9, now + MIN * 5);
    inventory.validated(probes[0].id, Ok(MS), now + MIN * 5);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated);
}

#[test]
fn known_good_addresses_are_preferred_once_there_are_enough() {
    let now = start();
    let mut inventory = validated(8, |_| (), now);
    inventory.found(SourceId::Dns, ips(100..200), now);
    let of_candidates = |shares: BTreeMap<IpAddr, u32>| {
        shares.into_iter().filter(|(chosen, _)| *chosen >= ip(100)).map(|(_, count)| count).sum::<u32>()
    };
    let few = of_candidates(shares(&mut inventory, 10_000, now));
    assert!((50..200).contains(&few), "{few} in 10,000");
    fail(&mut inventory, 8, now);
    let more = of_candidates(shares(&mut inventory, 10_000, now));
    assert!((2000..3000).contains(&more), "{more} in 10,000");
}

#[test]
fn a_candidate_that_has_not_answered_yet_is_not_given_to_another_request_while_there_are_good_ones() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    inventory.found(SourceId::Dns, ips([9]), now);
    let held = inventory.reserve(ip(9), now).unwrap();
    assert_eq!(shares(&mut inventory, 1000, now).into_keys().collect::<Vec<_>>(), ips([1]));
    inventory.release(held.id);
    assert_eq!(shares(&mut inventory, 1000, now).len(), 2);
}

#[test]
fn failures_in_a_row_lead_to_quarantine_and_a_success_between_them_does_not() {
    let now = start();
    let mut inventory = validated(2, |origin| origin.failures = 3, now);
    for _ in 0..5 {
        fail(&mut inventory, 1, now);
        fail(&mut inventory, 1, now);
        assert_eq!(state(&inventory, 1, now), AddressState::Validated);
        succeed(&mut inventory, 1, now);
    }
    (0..3).for_each(|_| fail(&mut inventory, 1, now));
    let row = row(&inventory, ip(1), now);
    assert_eq!((row.state, row.failures, row.successes), (AddressState::Quarantined, 13, 6));
}

#[test]
fn each_pause_is_twice_the_last_up_to_the_longest_and_up_to_a_tenth_shorter() {
    let mut now = start();
    let mut inventory = validated(1, |_| (), now);
    fail(&mut inventory, 1, now);
    for minutes in [5, 10, 20, 40, 60, 60] {
        let pause = row(&inventory, ip(1), now).quarantined_for.unwrap();
        let full = f64::from(minutes) * 60.0;
        assert!((full * 0.9..=full).contains(&pause), "{pause} s of {full} s");
        let due = inventory.next_event(now).unwrap();
        assert_eq!(inventory.to_validate(9, due - MS), [], "not before its time");
        now = due;
        let probe = inventory.to_validate(9, now)[0];
        assert_eq!(inventory.to_validate(9, now), [], "one probe at a time");
        inventory.validated(probe.id, Err("timed out"), now);
    }
    let probe = inventory.to_validate(9, now + MIN * 60)[0];
    inventory.validated(probe.id, Ok(MS), now + MIN * 60);
    now += MIN * 60;
    fail(&mut inventory, 1, now);
    let pause = row(&inventory, ip(1), now).quarantined_for.unwrap();
    assert!(pause > 3200.0, "no request succeeded since");
    let probe = inventory.to_validate(9, now + MIN * 60)[0];
    inventory.validated(probe.id, Ok(MS), now + MIN * 60);
    now += MIN * 60;
    let choice = inventory.choose(&[], now, 1).unwrap();
    inventory.succeeded(choice.id, MS, now);
    fail(&mut inventory, 1, now);
    let pause = row(&inventory, ip(1), now).quarantined_for.unwrap();
    assert!(pause <= 300.0, "from the start after a success");
}

#[test]
fn addresses_that_failed_together_are_not_probed_together() {
    let now = start();
    let mut inventory = validated(20, |_| (), now);
    (1..=20).for_each(|last| fail(&mut inventory, last, now));
    let mut pauses: Vec<f64> = inventory.rows(now).iter().filter_map(|row| row.quarantined_for).collect();
    pauses.sort_by(f64::total_cmp);
    pauses.dedup();
    assert_eq!(pauses.len(), 20);
    assert!(pauses[19] - pauses[0] > 10.0, "{pauses:?}");
}

#[test]
fn failures_of_an_address_in_quarantine_do_not_lengthen_its_pause() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    fail(&mut inventory, 1, now);
    let due = inventory.next_event(now);
    (0..10).for_each(|_| fail(&mut inventory, 1, now + S));
    assert_eq!(inventory.next_event(now), due);
    assert_eq!(row(&inventory, ip(1), now).failures, 11);
}

#[test]
fn what_began_before_a_quarantine_or_a_recovery_does_not_change_it() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    let early: Vec<Choice> = (0..3).filter_map(|random| inventory.choose(&[], now, random)).collect();
    fail(&mut inventory, 1, now);
    inventory.succeeded(early[0].id, MS, now + S);
    assert_eq!(state(&inventory, 1, now), AddressState::Quarantined, "an answer on an old connection");
    let let_through = inventory.choose(&[], now + S, 1).unwrap();
    inventory.succeeded(let_through.id, MS, now + S);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated, "an answer to a request that was let through");
    inventory.failed(early[1].id, "timed out after 30s", now + S * 30);
    assert_eq!(state(&inventory, 1, now), AddressState::Validated, "a time-out from before the recovery");
    assert_eq!(row(&inventory, ip(1), now).failures, 2, "it is counted all the same");
}

#[test]
fn a_verdict_lets_an_address_rest_and_it_comes_back_by_itself() {
    let now = start();
    let mut inventory = validated(2, |_| (), now);
    let choice = inventory.reserve(ip(1), now).unwrap();
    inventory.succeeded(choice.id, MS * 10, now);
    assert_eq!(inventory.answered(choice.id, StatusCode::OK, None, now), None);
    let ruling = inventory.answered(choice.id, StatusCode::FORBIDDEN, None, now);
    assert_eq!(ruling, Some(Ruling { rest_until: Some(now + MIN), retry: false }));
    inventory.release(choice.id);
    assert_eq!(shares(&mut inventory, 500, now + S * 59).into_keys().collect::<Vec<_>>(), ips([2]));
    let resting = row(&inventory, ip(1), now);
    assert_eq!((resting.state, resting.resting_for), (AddressState::Validated, Some(60.0)), "its transport is well");
    assert_eq!((resting.refusals, resting.failures, resting.last_status), (1, 0, Some(403)));
    assert_eq!(shares(&mut inventory, 500, now + MIN).len(), 2);
    assert_eq!(inventory.counts().resting, 0);
}

#[test]
fn retry_after_counts_where_it_is_longer_and_up_to_the_longest_pause() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    let id = inventory.choose(&[], now, 1).unwrap().id;
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut rest = |asked| inventory.answered(id, status, asked, now).unwrap().rest_until.unwrap() - now;
    assert_eq!(rest(Some(S)), MIN);
    assert_eq!(rest(Some(MIN * 7)), MIN * 7);
    assert_eq!(rest(Some(MIN * 600)), MIN * 60);
    assert_eq!(rest(None), MIN);
    assert_eq!(row(&inventory, ip(1), now).resting_for, Some(3600.0), "a shorter rest does not end a longer one");
}

#[test]
fn the_first_verdict_that_names_a_status_counts_and_one_without_rest_says_nothing_of_the_address() {
    let now = start();
    let verdict = |statuses: &str, rest, retry| Verdict { statuses: statuses.parse().unwrap(), rest, retry };
    let mut inventory = validated(
        1,
        |origin| {
            origin.verdicts = vec![verdict("404", Duration::ZERO, false), verdict("503", Duration::ZERO, true)];
            origin.verdicts.push(verdict("400-599", S, true));
        },
        now,
    );
    let id = inventory.choose(&[], now, 1).unwrap().id;
    let mut answered = |status: u16| inventory.answered(id, StatusCode::from_u16(status).unwrap(), Some(MIN), now);
    assert_eq!(answered(204), None);
    assert_eq!(answered(404), Some(Ruling { rest_until: None, retry: false }));
    assert_eq!(answered(503), Some(Ruling { rest_until: None, retry: true }));
    assert_eq!(answered(418), Some(Ruling { rest_until: Some(now + MIN), retry: true }));
    assert_eq!(row(&inventory, ip(1), now).refusals, 1);
}

#[test]
fn when_nothing_good_is_left_it_is_the_shortest_rest_and_then_the_least_bad() {
    let now = start();
    let mut inventory = validated(4, |_| (), now);
    for (last, minutes) in [(1, 9), (2, 3)] {
        let choice = inventory.reserve(ip(last), now).unwrap();
        inventory.answered(choice.id, StatusCode::FORBIDDEN, Some(MIN * minutes), now);
        inventory.release(choice.id);
    }
    (3..=4).for_each(|last| fail(&mut inventory, last, now));
    let third = inventory.next_event(now).unwrap() + MIN;
    let probes = inventory.to_validate(9, third);
    probes.iter().filter(|probe| probe.ip == ip(3)).for_each(|it| inventory.validated(it.id, Err("refused"), third));
    // 3 failed twice, 4 is being probed.
    inventory.network_changed(now);
    let mut tried = Vec::new();
    let mut order = Vec::new();
    while let Some(choice) = inventory.choose(&tried, now, 5) {
        tried.push(choice.id);
        order.push((choice.ip, choice.probe));
    }
    assert_eq!(order, [(ip(2), false), (ip(1), false), (ip(4), true), (ip(3), true)]);
}

#[test]
fn a_slow_address_gets_less_and_a_loaded_one_gives_way() {
    let now = start();
    let mut inventory = validated(4, |_| (), now);
    for last in 1..=4 {
        let choice = inventory.reserve(ip(last), now).unwrap();
        (0..40).for_each(|_| inventory.succeeded(choice.id, if last == 4 { MS * 200 } else { MS * 10 }, now));
        inventory.release(choice.id);
    }
    let alone = shares(&mut inventory, 10_000, now);
    assert!(alone[&ip(4)] < 100, "once in a hundred times it is any: {alone:?}");
    assert!(alone[&ip(4)] > 5, "so that it is noticed when it is well again: {alone:?}");
    // 60 at a time: 19 times as slow gets about a nineteenth of what each of the others has.
    let held: Vec<Choice> = (0..60).filter_map(|random| inventory.choose(&[], now, random)).collect();
    let on = |last| held.iter().filter(|choice| choice.ip == ip(last)).count();
    assert!(on(4) <= 3, "{}", on(4));
    assert!((1..=3).all(|last| (16..=24).contains(&on(last))), "{:?}", [on(1), on(2), on(3)]);
}

#[test]
fn equals_get_equal_shares() {
    let now = start();
    let mut inventory = validated(10, |_| (), now);
    let shares = shares(&mut inventory, 10_000, now);
    assert!(shares.len() == 10 && shares.values().all(|count| (850..1150).contains(count)), "{shares:?}");
}

#[test]
fn of_more_than_sixty_four_a_sample_is_looked_at_and_all_get_their_turn() {
    let now = start();
    let mut inventory = validated(200, |_| (), now);
    let shares = shares(&mut inventory, 20_000, now);
    assert!(shares.len() == 200 && shares.values().all(|count| (50..170).contains(count)), "{shares:?}");
    let held: Vec<AddressId> = (0..199).filter_map(|random| Some(inventory.choose(&[], now, random)?.id)).collect();
    let busiest = inventory.rows(now).iter().map(|row| row.in_flight).max();
    assert!(busiest <= Some(3), "two at a time would do: {busiest:?}");
    let all: Vec<AddressId> = inventory.book.all().into_iter().map(|slot| inventory.book.id(slot)).collect();
    let last = inventory.choose(&all[1..], now, 1).unwrap();
    assert_eq!(last.id, all[0], "the only one that was not tried is found");
    assert_eq!(inventory.choose(&all, now, 1), None);
    assert_eq!(held.len(), 199);
}

#[test]
fn a_request_that_was_tried_elsewhere_goes_to_another_address_and_takes_no_chances() {
    let now = start();
    let mut inventory = validated(2, |_| (), now);
    inventory.found(SourceId::Dns, ips(100..150), now);
    let first = inventory.reserve(ip(1), now).unwrap();
    inventory.release(first.id);
    for random in 0..2000 {
        let choice = inventory.choose(&[first.id], now, random).unwrap();
        assert_eq!(choice.ip, ip(2));
        inventory.release(choice.id);
    }
}

#[test]
fn a_probe_that_was_given_up_or_lost_is_made_again() {
    let now = start();
    let mut inventory = validated(1, |origin| origin.validate = Some(Validate::default()), now);
    inventory.found(SourceId::Dns, ips([1, 2]), now);
    fail(&mut inventory, 1, now);
    let later = now + MIN * 5;
    let probes = inventory.to_validate(9, later);
    assert_eq!(probes.len(), 2);
    assert_eq!(inventory.counts().probing, 2);
    probes.iter().for_each(|probe| inventory.given_up(probe.id, later));
    assert_eq!(state(&inventory, 1, later), AddressState::Quarantined);
    assert_eq!(state(&inventory, 2, later), AddressState::Candidate);
    assert_eq!(inventory.next_event(later), Some(later + S * 10));
    assert_eq!(inventory.to_validate(1, later + S * 10).len(), 1, "no more than were asked for");
    assert_eq!(inventory.to_validate(9, later + S * 10).len(), 1);
    assert_eq!(inventory.to_validate(9, later + MIN * 10), []);
    assert_eq!(inventory.to_validate(9, later + MIN * 11).len(), 2, "nothing was heard of them");
    assert_eq!(row(&inventory, ip(1), now).probes, 4, "the one that it became known good by, and three");
}

#[test]
fn a_changed_network_makes_probes_due_at_once() {
    let now = start();
    let mut inventory = validated(3, |_| (), now);
    (1..=2).for_each(|last| fail(&mut inventory, last, now));
    inventory.network_changed(now + S);
    assert_eq!(inventory.next_event(now + S), Some(now + S));
    assert_eq!(inventory.to_validate(9, now + S).len(), 2);
}

#[test]
fn rows_are_json_and_errors_are_cut() {
    let now = start();
    let mut inventory = validated(1, |_| (), now);
    let choice = inventory.choose(&[], now, 1).unwrap();
    inventory.failed(choice.id, &format!("reset\n\u{1b}[31m{}", "é".repeat(500)), now);
    let rows = inventory.rows(now);
    let error = rows[0].last_error.as_deref().unwrap();
    assert!(error.starts_with("reset  [31mé") && error.chars().count() == 200, "{error:?}");
    let json = serde_json::to_value(&rows[0]).unwrap();
    assert_eq!((&json["ip"], &json["state"]), (&"192.0.2.1".into(), &"quarantined".into()));
    assert_eq!((&json["source"], &json["in_flight"]), (&"config".into(), &1.into()));
    assert_eq!(serde_json::from_value::<AddressRow>(json).unwrap(), rows[0]);
}

#[test]
fn to_choose_and_to_release_allocate_nothing() {
    let now = start();
    for count in [10, 200] {
        let mut inventory = validated(count, |_| (), now);
        let tried = [inventory.choose(&[], now, 1).unwrap().id];
        let allocated = measure(|| {
            for random in 0..500 {
                for tried in [&[] as &[AddressId], &tried] {
                    let choice = inventory.choose(tried, now, random).unwrap();
                    inventory.succeeded(choice.id, MS, now);
                    inventory.answered(choice.id, StatusCode::OK, None, now);
                    inventory.release(choice.id);
                }
            }
        });
        assert_eq!(allocated.count_total, 0, "{count} addresses");
    }
}
