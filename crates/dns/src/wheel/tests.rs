use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock; its value does not matter")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn a_timer_fires_at_its_tick_and_not_before() {
    let now = start();
    let mut wheel = Wheel::new(now);
    wheel.insert(now + MS * 25, 'a');
    assert_eq!(wheel.next_tick(now), Some(now + MS * 30));
    let mut fired = Vec::new();
    wheel.advance(now + MS * 29, &mut fired);
    assert!(fired.is_empty());
    wheel.advance(now + MS * 30, &mut fired);
    assert_eq!(fired, ['a']);
    assert_eq!(wheel.next_tick(now + MS * 30), None);
}

#[test]
fn a_key_of_a_timer_that_fired_does_not_cancel_its_successor() {
    let now = start();
    let mut wheel = Wheel::new(now);
    let old = wheel.insert(now, 1);
    let mut fired = Vec::new();
    wheel.advance(now + MS * 10, &mut fired);
    let new = wheel.insert(now + MS * 50, 2);
    assert_eq!(wheel.cancel(old), None);
    assert_eq!(wheel.cancel(new), Some(2));
    assert_eq!(wheel.cancel(new), None);
    assert!(wheel.is_empty());
}

#[test]
fn steady_use_takes_no_more_memory() {
    let mut now = start();
    let mut wheel = Wheel::new(now);
    let mut fired = Vec::new();
    for round in 0..10_000 {
        wheel.insert(now + MS * 100, round);
        now += MS;
        wheel.advance(now, &mut fired);
    }
    assert!(wheel.nodes.len() <= 112, "{} places for 110 timers", wheel.nodes.len());
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64),
    Cancel(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_u64..300).prop_map(Op::Insert),
        1 => (0_u64..20_000).prop_map(Op::Insert),
        2 => any::<usize>().prop_map(Op::Cancel),
        3 => (0_u64..200).prop_map(Op::Advance),
        1 => (0_u64..12_000).prop_map(Op::Advance),
    ]
}

proptest! {
    /// The model is a sorted map from due tick to token.
    #[test]
    fn behaves_as_a_sorted_map(ops in prop::collection::vec(op(), 1..200)) {
        let begin = start();
        let mut wheel = Wheel::new(begin);
        let mut model: BTreeMap<(u64, u32), Key> = BTreeMap::new();
        let mut keys: HashMap<u32, (Key, u64)> = HashMap::new();
        let (mut elapsed, mut token) = (0_u64, 0_u32);
        for op in ops {
            match op {
                Op::Insert(after) => {
                    let due = (elapsed + after).div_ceil(10).max(elapsed / 10 + 1);
                    let key = wheel.insert(begin + MS * u32::try_from(elapsed + after).unwrap(), token);
                    model.insert((due, token), key);
                    keys.insert(token, (key, due));
                    token += 1;
                }
                Op::Cancel(which) if token > 0 => {
                    let which = u32::try_from(which % token as usize).unwrap();
                    let (key, due) = keys[&which];
                    let expected = model.remove(&(due, which)).map(|_| which);
                    prop_assert_eq!(wheel.cancel(key), expected);
                }
                Op::Cancel(_) => {}
                Op::Advance(by) => {
                    elapsed += by;
                    let mut fired = Vec::new();
                    wheel.advance(begin + MS * u32::try_from(elapsed).unwrap(), &mut fired);
                    fired.sort_unstable();
                    let later = model.split_off(&(elapsed / 10 + 1, 0));
                    let mut expected: Vec<u32> = model.keys().map(|(_, token)| *token).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(fired, expected);
                    model = later;
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            let next = wheel.next_tick(begin);
            prop_assert_eq!(next.is_none(), model.is_empty());
            if let (Some(next), Some(((due, _), _))) = (next, model.first_key_value()) {
                // Never later than the first timer; earlier only by whole turns.
                prop_assert!(next <= begin + MS * u32::try_from(due * 10).unwrap());
            }
        }
    }
}
