//! Fifty addresses on a virtual clock: 10 refuse, 5 hang, 5 answer 403, 5 present a wrong certificate; then all of them recover.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Slow,
    Refuses,
    Hangs,
    Forbids,
    WrongCertificate,
}

fn kind(ip: IpAddr) -> Kind {
    let IpAddr::V4(four) = ip else { panic!("{ip}") };
    match four.octets()[3] {
        1..=10 => Kind::Refuses,
        11..=15 => Kind::Hangs,
        16..=20 => Kind::Forbids,
        21..=25 => Kind::WrongCertificate,
        26 => Kind::Slow,
        _ => Kind::Good,
    }
}

/// What a request or a probe comes to, and after which time.
fn outcome(kind: Kind) -> (Duration, Result<StatusCode, &'static str>) {
    match kind {
        Kind::Good => (MS * 10, Ok(StatusCode::OK)),
        Kind::Slow => (MS * 100, Ok(StatusCode::OK)),
        Kind::Forbids => (MS * 10, Ok(StatusCode::FORBIDDEN)),
        Kind::Refuses => (MS, Err("connection refused")),
        Kind::Hangs => (S * 10, Err("timed out")),
        Kind::WrongCertificate => (MS * 5, Err("certificate is not for this name")),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// A client's request.
    Request,
    /// A try of a request has come to its end; which addresses it had before.
    Ended {
        choice: Choice,
        tried: Vec<AddressId>,
    },
    Probed {
        choice: Choice,
    },
}

struct Simulation {
    inventory: Inventory,
    events: BinaryHeap<Reverse<(Instant, usize)>>,
    what: BTreeMap<usize, Event>,
    now: Instant,
    dice: Dice,
    has_recovered: bool,
    probing: usize,
    /// Answers that clients saw, by status; 0: none.
    seen: BTreeMap<u16, u32>,
    /// Choices that were no probes, by address.
    chosen: BTreeMap<IpAddr, u32>,
    /// Until when no choice of an address may be made that is no probe.
    verdicts: BTreeMap<IpAddr, Instant>,
}

impl Simulation {
    fn new(change: impl FnOnce(&mut OriginConfig)) -> Simulation {
        let now = start();
        let mut inventory = Inventory::new(settings(change));
        assert_eq!(inventory.found(SourceId::Dns, ips(1..=50), now).added, 50);
        Simulation {
            inventory,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            now,
            dice: Dice::new(11),
            has_recovered: false,
            probing: 0,
            seen: BTreeMap::new(),
            chosen: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        }
    }

    fn kind(&self, ip: IpAddr) -> Kind {
        if self.has_recovered { Kind::Good } else { kind(ip) }
    }

    fn at(&mut self, time: Instant, event: Event) {
        let number = self.what.last_key_value().map_or(0, |(last, _)| last + 1);
        self.what.insert(number, event);
        self.events.push(Reverse((time, number)));
    }

    /// Requests every `pause` for as long as `duration`, and what follows from them until then.
    fn run(&mut self, duration: Duration, pause: Duration) {
        let end = self.now + duration;
        self.at(self.now, Event::Request);
        loop {
            let event = self.events.peek().map(|Reverse((time, _))| *time);
            let probe = self.inventory.next_event(self.now).filter(|_| self.probing < 4);
            let Some(next) = event.into_iter().chain(probe).min().filter(|next| *next < end) else { break };
            self.now = next;
            if probe == Some(next) {
                self.probe();
                continue;
            }
            let Some(Reverse((_, number))) = self.events.pop() else { break };
            match self.what.remove(&number).unwrap() {
                Event::Request => {
                    if self.now + pause < end {
                        self.at(self.now + pause, Event::Request);
                    }
                    self.request(Vec::new());
                }
                Event::Ended { choice, tried } => self.ended(choice, tried),
                Event::Probed { choice } => self.probed(choice),
            }
        }
        self.now = end;
    }

    fn probe(&mut self) {
        for choice in self.inventory.to_validate(4 - self.probing, self.now) {
            self.probing += 1;
            let after = outcome(self.kind(choice.ip)).0;
            self.at(self.now + after, Event::Probed { choice });
        }
    }

    fn probed(&mut self, choice: Choice) {
        self.probing -= 1;
        let (took, outcome) = outcome(self.kind(choice.ip));
        match outcome {
            // As the client does: a probe's status is looked at where validation is asked for, and otherwise there is none.
            Ok(StatusCode::FORBIDDEN) if self.inventory.settings.needs_validation => {
                self.inventory.validated(choice.id, Err("status 403"), self.now);
            }
            Ok(_) => self.inventory.validated(choice.id, Ok(took), self.now),
            Err(error) => self.inventory.validated(choice.id, Err(error), self.now),
        }
        if outcome != Ok(StatusCode::OK) {
            self.note_verdict(choice.ip);
        }
    }

    fn note_verdict(&mut self, ip: IpAddr) {
        let row = row(&self.inventory, ip, self.now);
        let left = row.resting_for.into_iter().chain(row.quarantined_for).fold(0.0, f64::max);
        self.verdicts.insert(ip, self.now + Duration::from_secs_f64(left));
    }

    fn request(&mut self, mut tried: Vec<AddressId>) {
        let random = self.dice.roll();
        let Some(choice) = self.inventory.choose(&tried, self.now, random) else {
            *self.seen.entry(0).or_default() += 1;
            return;
        };
        if !choice.probe {
            *self.chosen.entry(choice.ip).or_default() += 1;
            let verdict = self.verdicts.get(&choice.ip);
            // Rows tell times in floating point.
            assert!(verdict.is_none_or(|until| *until <= self.now + MS), "{:?} after its verdict", kind(choice.ip));
        }
        tried.push(choice.id);
        let after = outcome(self.kind(choice.ip)).0;
        self.at(self.now + after, Event::Ended { choice, tried });
    }

    fn ended(&mut self, choice: Choice, tried: Vec<AddressId>) {
        let (took, outcome) = outcome(self.kind(choice.ip));
        let again = match outcome {
            Ok(status) => {
                self.inventory.succeeded(choice.id, took, self.now);
                let ruling = self.inventory.answered(choice.id, status, None, self.now);
                ruling.is_some_and(|ruling| ruling.retry)
            }
            Err(error) => {
                self.inventory.failed(choice.id, error, self.now);
                true
            }
        };
        self.inventory.release(choice.id);
        if outcome != Ok(StatusCode::OK) {
            self.note_verdict(choice.ip);
        }
        if again && tried.len() < 3 {
            self.request(tried);
        } else {
            *self.seen.entry(outcome.map_or(0, |status| status.as_u16())).or_default() += 1;
        }
    }

    fn bad(&self) -> impl Iterator<Item = (&IpAddr, &u32)> {
        self.chosen.iter().filter(|(ip, _)| !matches!(kind(**ip), Kind::Good | Kind::Slow))
    }
}

fn verdicts(origin: &mut OriginConfig) {
    origin.verdicts = vec![Verdict { retry: true, ..Verdict::default() }];
}

#[test]
fn with_validation_no_request_meets_a_bad_address_and_they_are_back_within_a_pause_of_recovery() {
    let mut simulation = Simulation::new(|origin| origin.validate = Some(Validate::default()));
    // The first round of probes; one that hangs takes ten seconds.
    simulation.probe();
    // Five that hang, four probes at a time.
    simulation.run(S * 30, MIN);
    simulation.seen.clear();
    assert_eq!((simulation.inventory.counts().validated, simulation.inventory.counts().quarantined), (25, 25));
    simulation.run(MIN * 60, MS * 100);
    simulation.run(S * 10, MS);
    assert_eq!(simulation.bad().count(), 0);
    assert_eq!(simulation.seen.keys().collect::<Vec<_>>(), [&200], "{:?}", simulation.seen);
    assert!(simulation.seen[&200] > 45_000);

    let rows = simulation.inventory.rows(simulation.now);
    let (out, longest) = rows
        .iter()
        .filter_map(|row| row.quarantined_for)
        .fold((0, 0.0_f64), |(count, longest), it| (count + 1, longest.max(it)));
    assert!(out >= 20 && longest <= 3600.0, "{out} {longest}");
    simulation.has_recovered = true;
    // A probe that began before the recovery ends within ten seconds.
    simulation.run(Duration::from_secs_f64(longest) + S * 11, MS * 100);
    assert_eq!(simulation.inventory.counts().validated, 50);
    simulation.chosen.clear();
    simulation.run(MIN, MS);
    assert_eq!(simulation.chosen.len(), 50, "all of them are used again");
    assert_eq!(simulation.seen.keys().collect::<Vec<_>>(), [&200]);
}

#[test]
fn without_validation_each_bad_address_costs_a_try_and_no_client_sees_it() {
    let mut simulation = Simulation::new(verdicts);
    simulation.run(S * 10, MS);
    let transport = |ip: IpAddr| matches!(kind(ip), Kind::Refuses | Kind::Hangs | Kind::WrongCertificate);
    let bad: Vec<_> = simulation.bad().map(|(ip, count)| (*ip, *count)).collect();
    assert!(bad.iter().all(|(ip, count)| *count <= 2 || !transport(*ip)), "{bad:?}");
    simulation.run(MIN * 60, MS * 100);
    assert_eq!(simulation.seen.keys().collect::<Vec<_>>(), [&200], "{:?}", simulation.seen);
    let forbids: Vec<u32> = simulation.bad().filter(|(ip, _)| !transport(**ip)).map(|(_, count)| *count).collect();
    assert!(forbids.iter().all(|count| *count <= 62), "one in each rest of a minute: {forbids:?}");

    let rows = simulation.inventory.rows(simulation.now);
    let longest = rows.iter().filter_map(|row| row.quarantined_for).fold(0.0, f64::max);
    simulation.has_recovered = true;
    simulation.run(Duration::from_secs_f64(longest) + S * 11, MS * 100);
    assert_eq!(simulation.inventory.counts().validated, 50);
    assert_eq!(simulation.seen.keys().collect::<Vec<_>>(), [&200]);
}

#[test]
fn in_the_long_run_the_good_share_alike_and_the_slow_one_has_less() {
    let mut simulation = Simulation::new(|origin| origin.validate = Some(Validate::default()));
    simulation.run(S * 20, MS);
    simulation.chosen.clear();
    simulation.run(S * 20, MS);
    let slow = simulation.chosen[&ip(26)];
    let good: Vec<u32> = (27..=50).map(|last| simulation.chosen[&ip(last)]).collect();
    let (least, most) = (good.iter().min().unwrap(), good.iter().max().unwrap());
    assert!(*most < least + least / 5, "{good:?}");
    assert!(slow > 0 && slow < least / 5, "{slow} of {good:?}");
}

#[test]
fn when_all_are_bad_requests_still_try_the_least_bad_and_recovery_is_seen_at_once() {
    let now = start();
    let mut inventory = validated(5, |_| (), now);
    (1..=5).for_each(|last| fail(&mut inventory, last, now));
    let mut tried = BTreeMap::new();
    for random in 0..100 {
        let choice = inventory.choose(&[], now + S, random).unwrap();
        assert!(choice.probe);
        *tried.entry(choice.ip).or_insert(0) += 1;
        inventory.failed(choice.id, "connection refused", now + S);
        // Held, so that the next one goes to another address.
    }
    assert!(tried.len() == 5 && tried.values().all(|count| *count == 20), "{tried:?}");
    let choice = inventory.choose(&[], now + S, 1).unwrap();
    inventory.succeeded(choice.id, MS, now + S);
    let next = inventory.choose(&[], now + S, 2).unwrap();
    assert_eq!((next.ip, next.probe), (choice.ip, false));
}
