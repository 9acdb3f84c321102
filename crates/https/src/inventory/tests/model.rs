//! Random calls, against a model that has no lists, no slots and no agenda: only what each address is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Call {
    Found { source: u16, lasts: BTreeSet<u8> },
    Choose { tried: usize, random: u64 },
    Reserve { last: u8 },
    Release { ticket: usize },
    Succeeded { ticket: usize },
    Failed { ticket: usize },
    Answered { ticket: usize, forbidden: bool },
    ToValidate { max: usize },
    Validated { probe: usize, good: bool },
    GivenUp { probe: usize },
    Ban { last: u8 },
    Unban { last: u8 },
    NetworkChanged,
    Pass { seconds: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let index = || 0_usize..40;
    let last = || 1_u8..13;
    prop_oneof![
        1 => (0_u16..2, proptest::collection::btree_set(last(), 0..12))
            .prop_map(|(source, lasts)| Call::Found { source, lasts }),
        8 => (0_usize..4, any::<u64>()).prop_map(|(tried, random)| Call::Choose { tried, random }),
        2 => last().prop_map(|last| Call::Reserve { last }),
        6 => index().prop_map(|ticket| Call::Release { ticket }),
        4 => index().prop_map(|ticket| Call::Succeeded { ticket }),
        4 => index().prop_map(|ticket| Call::Failed { ticket }),
        2 => (index(), any::<bool>()).prop_map(|(ticket, forbidden)| Call::Answered { ticket, forbidden }),
        3 => (0_usize..6).prop_map(|max| Call::ToValidate { max }),
        4 => (index(), any::<bool>()).prop_map(|(probe, good)| Call::Validated { probe, good }),
        1 => index().prop_map(|probe| Call::GivenUp { probe }),
        1 => last().prop_map(|last| Call::Ban { last }),
        1 => last().prop_map(|last| Call::Unban { last }),
        1 => Just(Call::NetworkChanged),
        4 => prop_oneof![0_u64..20, 30_u64..700, 3000_u64..4000].prop_map(|seconds| Call::Pass { seconds }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Candidate,
    Probing { again: bool, since: Instant },
    Good,
    Out,
}

#[derive(Debug)]
struct Known {
    /// Tells it from one with the same address that was forgotten.
    life: usize,
    sources: BTreeSet<u16>,
    stand: Stand,
    /// Changes when it is put out or let in.
    turn: usize,
    in_a_row: u32,
    pause: u64,
    rest_until: Option<Instant>,
    in_flight: u32,
    /// Not to be probed before; of quarantines only a lower bound, because of the jitter.
    due: Instant,
}

impl Known {
    fn is_out(&self) -> bool {
        matches!(self.stand, Stand::Out | Stand::Probing { again: true, .. })
    }

    fn stands(&mut self, stand: Stand) {
        let was_out = self.is_out();
        self.stand = stand;
        if was_out != self.is_out() {
            self.turn += 1;
            self.in_a_row = 0;
        }
    }
}

/// A request or probe, as the model sees it.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    id: AddressId,
    ip: IpAddr,
    life: usize,
    turn: usize,
}

struct World {
    inventory: Inventory,
    needs_validation: bool,
    probes_candidates: bool,
    failures: u32,
    known: BTreeMap<IpAddr, Known>,
    banned: BTreeSet<IpAddr>,
    requests: Vec<Ticket>,
    /// Also old ones.
    probes: Vec<Ticket>,
    lives: usize,
    now: Instant,
}

const FIRST: u64 = 300;
const LONGEST: u64 = 3600;

impl World {
    fn new(needs_validation: bool, probes_candidates: bool, failures: u32) -> World {
        let settings = settings(|origin| {
            origin.validate = needs_validation.then(Validate::default);
            origin.failures = failures;
        });
        World {
            inventory: Inventory::new(Settings { probes_candidates, ..settings }),
            needs_validation,
            probes_candidates,
            failures,
            known: BTreeMap::new(),
            banned: BTreeSet::new(),
            requests: Vec::new(),
            probes: Vec::new(),
            lives: 0,
            now: start(),
        }
    }

    fn ticket(&self, choice: Choice) -> Ticket {
        let known = &self.known[&choice.ip];
        Ticket { id: choice.id, ip: choice.ip, life: known.life, turn: known.turn }
    }

    /// The address that a ticket is for, if it is still the same.
    fn of(&mut self, ticket: Ticket) -> Option<&mut Known> {
        self.known.get_mut(&ticket.ip).filter(|known| known.life == ticket.life)
    }

    fn current(&mut self, ticket: Ticket) -> Option<&mut Known> {
        self.of(ticket).filter(|known| known.turn == ticket.turn)
    }

    /// 3: known good. 2: as good as nothing better. 1: rests. 0: out. None: not to be chosen.
    fn rank(&self, ip: IpAddr) -> Option<u8> {
        let known = self.known.get(&ip).filter(|known| !known.sources.is_empty() && !self.banned.contains(&ip))?;
        let is_resting = known.rest_until.is_some_and(|until| until > self.now);
        match known.stand {
            _ if known.is_out() => Some(0),
            Stand::Candidate | Stand::Probing { .. } if self.needs_validation => None,
            _ if is_resting => Some(1),
            Stand::Good => Some(3),
            _ => Some(2),
        }
    }

    fn quarantine(&mut self, ip: IpAddr) {
        let (now, before) = (self.now, self.inventory.next_event(self.now));
        let known = self.known.get_mut(&ip).unwrap();
        known.pause = if known.pause == 0 { FIRST } else { (known.pause * 2).min(LONGEST) };
        known.stands(Stand::Out);
        known.due = now + Duration::from_secs(known.pause).mul_f64(0.9);
        let pause = known.pause as f64;
        if !known.sources.is_empty() {
            let told = row(&self.inventory, ip, now).quarantined_for.unwrap();
            assert!((pause * 0.899..=pause).contains(&told), "{told} s where {pause} s are due; before: {before:?}");
        }
    }

    fn forget(&mut self) {
        self.known.retain(|_, known| !known.sources.is_empty() || known.in_flight > 0);
    }

    fn run(&mut self, call: &Call) {
        let now = self.now;
        match call {
            Call::Found { source, lasts } => self.found(*source, lasts),
            Call::Choose { tried, random } => self.choose(*tried, *random),
            Call::Reserve { last } => {
                let (ip, rank) = (ip(*last), self.rank(ip(*last)));
                match self.inventory.reserve(ip, now) {
                    Ok(choice) => {
                        assert_eq!((choice.ip, choice.probe), (ip, rank == Some(0)));
                        self.reserved(choice);
                    }
                    Err(_) => assert_eq!(rank, None),
                }
            }
            Call::Release { ticket } if !self.requests.is_empty() => {
                let ticket = self.requests.remove(ticket % self.requests.len());
                self.inventory.release(ticket.id);
                self.of(ticket).unwrap().in_flight -= 1;
                self.forget();
            }
            Call::ToValidate { max } => self.begin_probes(*max),
            Call::Ban { last } => {
                self.inventory.ban(ip(*last).into(), now).unwrap();
                self.banned.insert(ip(*last));
            }
            Call::Unban { last } => {
                self.inventory.unban(ip(*last).into(), now);
                self.banned.remove(&ip(*last));
            }
            Call::NetworkChanged => {
                self.inventory.network_changed(now);
                self.known.values_mut().filter(|known| known.stand == Stand::Out).for_each(|known| known.due = now);
            }
            Call::Pass { seconds } => self.now += Duration::from_secs(*seconds),
            _ => self.report(call),
        }
    }

    fn report(&mut self, call: &Call) {
        let pick = |list: &[Ticket], index: usize| list.get(index % list.len().max(1)).copied();
        let now = self.now;
        match *call {
            Call::Succeeded { ticket } => {
                let Some(ticket) = pick(&self.requests, ticket) else { return };
                self.inventory.succeeded(ticket.id, MS * 10, now);
                let needs_validation = self.needs_validation;
                if let Some(known) = self.current(ticket)
                    && (known.stand == Stand::Good || !needs_validation)
                {
                    (known.in_a_row, known.pause) = (0, 0);
                    known.stands(Stand::Good);
                }
            }
            Call::Failed { ticket } => {
                let Some(ticket) = pick(&self.requests, ticket) else { return };
                self.inventory.failed(ticket.id, "reset", now);
                let limit = self.failures;
                if let Some(known) = self.current(ticket).filter(|known| !known.is_out()) {
                    known.in_a_row += 1;
                    if known.in_a_row >= limit {
                        self.quarantine(ticket.ip);
                    }
                }
            }
            Call::Answered { ticket, forbidden } => {
                let Some(ticket) = pick(&self.requests, ticket) else { return };
                let status = if forbidden { StatusCode::FORBIDDEN } else { StatusCode::OK };
                let ruling = self.inventory.answered(ticket.id, status, None, now);
                assert_eq!(ruling.is_some(), forbidden);
                if let Some(known) = self.of(ticket).filter(|_| forbidden) {
                    known.rest_until = known.rest_until.max(Some(now + MIN));
                }
            }
            Call::Validated { probe, good } => {
                let Some(ticket) = pick(&self.probes, probe) else { return };
                self.inventory.validated(ticket.id, if good { Ok(MS) } else { Err("timed out") }, now);
                match self.current(ticket) {
                    Some(known) if good => {
                        known.in_a_row = 0;
                        known.stands(Stand::Good);
                    }
                    Some(known) if known.stand != Stand::Out => self.quarantine(ticket.ip),
                    _ => {}
                }
            }
            Call::GivenUp { probe } => {
                let Some(ticket) = pick(&self.probes, probe) else { return };
                self.inventory.given_up(ticket.id, now);
                if let Some(known) = self.current(ticket)
                    && let Stand::Probing { again, .. } = known.stand
                {
                    known.stands(if again { Stand::Out } else { Stand::Candidate });
                    known.due = now + S * 10;
                }
            }
            _ => {}
        }
    }

    fn found(&mut self, source: u16, lasts: &BTreeSet<u8>) {
        let found = self.inventory.found(SourceId::File(source), lasts.iter().copied().map(ip), self.now);
        let named = |known: &BTreeMap<IpAddr, Known>| known.values().filter(|it| !it.sources.is_empty()).count();
        let before = named(&self.known);
        self.known.values_mut().for_each(|known| _ = known.sources.remove(&source));
        for last in lasts {
            self.lives += 1;
            let (life, due) = (self.lives, self.now);
            let known = self.known.entry(ip(*last)).or_insert_with(|| Known {
                life,
                sources: BTreeSet::new(),
                stand: Stand::Candidate,
                turn: 0,
                in_a_row: 0,
                pause: 0,
                rest_until: None,
                in_flight: 0,
                due,
            });
            known.sources.insert(source);
        }
        self.forget();
        assert_eq!(before + found.added - found.gone, named(&self.known), "{found:?}");
    }

    fn reserved(&mut self, choice: Choice) {
        self.known.get_mut(&choice.ip).unwrap().in_flight += 1;
        self.requests.push(self.ticket(choice));
    }

    fn choose(&mut self, tried: usize, random: u64) {
        let tried: Vec<Ticket> = self.requests.iter().rev().take(tried).copied().collect();
        let ids: Vec<AddressId> = tried.iter().map(|ticket| ticket.id).collect();
        let is_untried = |ip: &IpAddr| !tried.iter().any(|ticket| ticket.ip == *ip);
        let best = self.known.keys().filter(|ip| is_untried(ip)).filter_map(|ip| self.rank(*ip)).max();
        let choice = self.inventory.choose(&ids, self.now, random);
        let chosen = choice.map(|choice| self.rank(choice.ip).expect("one that may be chosen"));
        match chosen {
            // A candidate takes part beside known good ones.
            Some(2) => assert!(best >= Some(2)),
            _ => assert_eq!(chosen, best),
        }
        if let Some(choice) = choice {
            assert!(is_untried(&choice.ip));
            assert_eq!(choice.probe, chosen == Some(0));
            self.reserved(choice);
        }
    }

    fn begin_probes(&mut self, max: usize) {
        let now = self.now;
        let probes = self.inventory.to_validate(max, now);
        assert!(probes.len() <= max);
        for probe in &probes {
            assert!(probe.probe && !self.banned.contains(&probe.ip));
            let known = self.known.get_mut(&probe.ip).unwrap();
            let is_due = match known.stand {
                Stand::Candidate => self.probes_candidates && known.due <= now,
                Stand::Out => known.due <= now,
                Stand::Probing { since, .. } => since + MIN * 10 <= now,
                Stand::Good => false,
            };
            assert!(is_due && !known.sources.is_empty(), "{known:?}");
            let again = known.is_out();
            known.stands(Stand::Probing { again, since: now });
            self.probes.push(self.ticket(*probe));
        }
        if probes.len() < max {
            assert!(self.inventory.next_event(now).is_none_or(|due| due > now));
            // Nobody waits who is surely due.
            for (ip, known) in self.known.iter().filter(|(ip, it)| !it.sources.is_empty() && !self.banned.contains(ip))
            {
                let full = known.due + Duration::from_secs(known.pause).mul_f64(0.1);
                let waits = known.stand == Stand::Out || known.stand == Stand::Candidate && self.probes_candidates;
                assert!(!waits || full + MS > now, "{ip}: {known:?}");
            }
        }
    }

    /// Rows, counts and the model say the same.
    fn check(&mut self) {
        // Rests end when somebody looks; a choice that is given back is a look.
        if let Some(choice) = self.inventory.choose(&[], self.now, 1) {
            self.inventory.release(choice.id);
        }
        let rows = self.inventory.rows(self.now);
        let named: Vec<IpAddr> =
            self.known.iter().filter(|(_, it)| !it.sources.is_empty()).map(|(ip, _)| *ip).collect();
        assert_eq!(rows.iter().map(|row| row.ip).collect::<Vec<_>>(), named);
        for row in &rows {
            let known = &self.known[&row.ip];
            let state = match known.stand {
                Stand::Candidate => AddressState::Candidate,
                Stand::Probing { .. } => AddressState::Probing,
                Stand::Good => AddressState::Validated,
                Stand::Out => AddressState::Quarantined,
            };
            assert_eq!((row.state, row.in_flight), (state, known.in_flight), "{}", row.ip);
            assert_eq!(row.banned, self.banned.contains(&row.ip));
            assert_eq!(row.resting_for.is_some(), known.rest_until.is_some_and(|until| until > self.now));
        }
        let count = |state| rows.iter().filter(|row| row.state == state).count();
        let expected = Counts {
            candidate: count(AddressState::Candidate),
            validated: count(AddressState::Validated),
            quarantined: count(AddressState::Quarantined),
            probing: count(AddressState::Probing),
            resting: rows.iter().filter(|row| row.resting_for.is_some()).count(),
            banned: rows.iter().filter(|row| row.banned).count(),
        };
        assert_eq!(self.inventory.counts(), expected);
        assert_eq!(self.inventory.len(), rows.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_leave_it_as_the_model_says(
        needs_validation in any::<bool>(),
        probes_candidates in any::<bool>(),
        failures in 1_u32..3,
        calls in vec(call(), 1..150),
    ) {
        let mut world = World::new(needs_validation, probes_candidates, failures);
        world.run(&Call::Found { source: 0, lasts: (1..9).collect() });
        for call in &calls {
            world.run(call);
            world.check();
        }
    }
}
