//! An inventory under other settings.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_known_stays_and_what_is_refused_leaves_once_nothing_is_in_flight() {
    let now = start();
    let mut inventory = validated(4, |_| {}, now);
    inventory.ban(net("192.0.2.2/32"), now).unwrap();
    let busy = inventory.reserve(ip(4), now).unwrap();
    inventory.renew(settings(|origin| origin.deny = vec![net("192.0.2.3/32"), net("192.0.2.4/32")]), now);
    let shown: Vec<_> = inventory.rows(now).iter().map(|row| (row.ip, row.state, row.banned)).collect();
    assert_eq!(shown, [(ip(1), AddressState::Validated, false), (ip(2), AddressState::Validated, true)]);
    assert_eq!(
        (0..20).filter_map(|random| inventory.choose(&[], now, random)).filter(|one| one.ip != ip(1)).count(),
        0
    );
    assert!(inventory.permits(ip(1)) && !inventory.permits(ip(4)));
    inventory.succeeded(busy.id, MS, now);
    inventory.release(busy.id);
    assert_eq!(inventory.reserve(ip(4), now), Err(Unusable::Denied));

    // Those that may come again do so when they are named.
    inventory.renew(settings(|_| {}), now);
    inventory.found(SourceId::Config, ips(1..=4), now);
    assert_eq!(
        (state(&inventory, 1, now), state(&inventory, 4, now)),
        (AddressState::Validated, AddressState::Candidate)
    );
    assert!(row(&inventory, ip(2), now).banned);
}

#[test]
fn validation_that_comes_later_is_for_those_that_are_not_known_yet() {
    let now = start();
    let mut inventory = validated(2, |_| {}, now);
    inventory.found(SourceId::Config, ips(1..=3), now);
    inventory.renew(settings(|origin| origin.validate = Some(Validate::default())), now);
    assert_eq!(inventory.reserve(ip(3), now), Err(Unusable::NotValidated));
    assert_eq!(inventory.counts().validated, 2);
    let probes = inventory.to_validate(9, now);
    assert_eq!(probes.iter().map(|probe| probe.ip).collect::<Vec<_>>(), [ip(3)]);
    // Whoever probes is gone: again, at once.
    inventory.renew(settings(|origin| origin.validate = Some(Validate::default())), now);
    assert_eq!(inventory.next_event(now), Some(now));
    inventory.renew(settings(|_| {}), now);
    inventory.reserve(ip(3), now).unwrap();
}

#[test]
fn lower_limits_hold_for_what_there_is() {
    let now = start();
    let mut inventory = validated(5, |origin| origin.quarantine = HOUR, now);
    fail(&mut inventory, 1, now);
    inventory.renew(settings(|origin| (origin.addresses_max, origin.quarantine_max) = (5, MS * 500)), now);
    assert!(row(&inventory, ip(1), now).quarantined_for.unwrap() <= 0.5);
    inventory.renew(settings(|origin| origin.addresses_max = 3), now);
    assert_eq!(inventory.len(), 3);
    assert!(inventory.rows(now).iter().all(|row| row.state == AddressState::Validated), "the worst go first");
    assert_eq!(inventory.found(SourceId::Config, ips(1..=5), now).beyond_max, 2);
}

#[test]
fn another_inventory_begins_with_the_addresses_and_the_bans_alone() {
    let now = start();
    let mut old = validated(3, |_| {}, now);
    old.found(SourceId::Dns, ips(3..=4), now);
    old.ban(net("192.0.2.2/32"), now).unwrap();
    let mut new = Inventory::new(settings(|origin| origin.deny = vec![net("192.0.2.1/32")]));
    new.inherit(&old, now);
    let shown: Vec<_> = new.rows(now).iter().map(|row| (row.ip, row.state, row.banned, row.source.clone())).collect();
    let candidate = |last, banned, source: &str| (ip(last), AddressState::Candidate, banned, source.to_owned());
    assert_eq!(shown, [candidate(2, true, "config"), candidate(3, false, "config,dns"), candidate(4, false, "dns")]);
    new.keep_sources(|source| source == SourceId::Dns);
    assert_eq!(new.rows(now).iter().map(|row| row.ip).collect::<Vec<_>>(), ips(3..=4));
}
