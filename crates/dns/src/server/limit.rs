//! Limits for one client over all its sockets and connections: queries a second, and queries in flight.
//!
//! A client is an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber has at least. Nothing of this
//! exists while both limits are off. What is deliberately not here: limits on connections ([`access`](super::access)).

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use crate::config::ClientLimits;

/// The limits of all clients, shared by all workers.
pub(crate) struct Limiter {
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) in_flight: Option<Arc<InFlight>>,
}

impl Limiter {
    /// `None` when nothing is limited.
    pub(crate) fn new(limits: &ClientLimits, now: Instant) -> Option<Limiter> {
        Limiter::renewed(None, limits, limits, now)
    }

    /// As [`new`](Self::new), after one for the limits `before`: what it has counted holds on where a limit is as it was.
    pub(crate) fn renewed(
        old: Option<&Limiter>,
        before: &ClientLimits,
        limits: &ClientLimits,
        now: Instant,
    ) -> Option<Limiter> {
        let (rate, in_flight) = (limits.rate_limit, limits.max_in_flight_per_client);
        let known = old.and_then(|old| old.rate.clone()).filter(|_| before.rate_limit == rate);
        let rate = (rate > 0).then(|| known.unwrap_or_else(|| Arc::new(Rate::new(rate, now))));
        let known = old.and_then(|old| old.in_flight.clone()).filter(|_| before.max_in_flight_per_client == in_flight);
        let in_flight = (in_flight > 0).then(|| known.unwrap_or_else(|| InFlight::new(in_flight)));
        (rate.is_some() || in_flight.is_some()).then_some(Limiter { rate, in_flight })
    }
}

/// What the rate limit says of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be asked.
    Within,
    /// Beyond the limit. Every second one may `slip` through as an answer with TC, so that an honest client whose address
    /// others forge gets through over TCP.
    Over { slip: bool },
}

/// Queries a second, as a token bucket a client that holds one second's worth.
///
/// The buckets are a table of fixed size: a client has eight places, and a new one takes that of the client who has waited
/// longest, which is as a rule one whose bucket is full again.
pub(crate) struct Rate {
    sets: Box<[Mutex<[Bucket; WAYS]>]>,
    hasher: RandomState,
    epoch: Instant,
    /// Nanoseconds between two queries at the limit.
    interval: u64,
    burst: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    client: u128,
    /// When the bucket is full again, in nanoseconds since `epoch`: the generic cell rate algorithm.
    full_at: u64,
    slipped: bool,
}

impl Rate {
    fn new(limit: u32, now: Instant) -> Rate {
        Rate {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            epoch: now,
            interval: NANOS / u64::from(limit),
            burst: NANOS,
        }
    }

    /// Takes one query of a client.
    pub(crate) fn take(&self, client: IpAddr, now: Instant) -> Verdict {
        let client = key(client);
        // Zero is what an unused bucket says.
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX / 2) + 1;
        let set = usize::try_from(self.hasher.hash_one(client) % SETS).expect("a remainder is small");
        let mut set = self.sets[set].lock();
        let place = set.iter().position(|bucket| bucket.client == client && bucket.full_at > 0);
        let place = place.unwrap_or_else(|| {
            let least = set.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at);
            let place = least.expect("a set has ways").0;
            set[place] = Bucket { client, full_at: now, slipped: false };
            place
        });
        let bucket = &mut set[place];
        let full_at = bucket.full_at.max(now) + self.interval;
        if full_at - now > self.burst {
            bucket.slipped = !bucket.slipped;
            return Verdict::Over { slip: bucket.slipped };
        }
        bucket.full_at = full_at;
        Verdict::Within
    }
}

/// Queries in flight of each client that has any.
pub(crate) struct InFlight {
    shards: [Mutex<HashMap<u128, usize>>; SHARDS],
    max: usize,
}

/// The right to one query in flight; dropping it gives it back.
pub(crate) struct Charge {
    counts: Arc<InFlight>,
    client: u128,
}

impl InFlight {
    fn new(max: usize) -> Arc<InFlight> {
        Arc::new(InFlight { shards: std::array::from_fn(|_| Mutex::default()), max })
    }

    /// `None` when the client has as many as it may.
    pub(crate) fn charge(self: &Arc<InFlight>, client: IpAddr) -> Option<Charge> {
        let client = key(client);
        let mut counts = self.shard(client).lock();
        let count = counts.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Charge { counts: self.clone(), client })
    }

    fn shard(&self, client: u128) -> &Mutex<HashMap<u128, usize>> {
        // The last bits of an IPv4 address, and of an IPv6 network.
        let folded = client ^ client >> 64;
        &self.shards[usize::try_from(folded % SHARDS as u128).expect("a remainder is small")]
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut counts = self.counts.shard(self.client).lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// One client: an IPv4 address, mapped, or the first 64 bits of an IPv6 address.
fn key(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

const NANOS: u64 = 1_000_000_000;

/// 32,768 clients in 1.1 MiB.
const SETS: u64 = 4096;
const WAYS: usize = 8;

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` queries of a client at one moment are within.
    fn within(rate: &Rate, client: IpAddr, count: usize, now: Instant) -> usize {
        (0..count).filter(|_| rate.take(client, now) == Verdict::Within).count()
    }

    #[test]
    fn a_client_may_ask_one_seconds_worth_at_once_and_then_at_the_rate() {
        let start = now();
        for limit in [1, 7, 100, 33_333] {
            let rate = Rate::new(limit, start);
            let all = usize::try_from(limit).unwrap();
            assert_eq!(within(&rate, ip("192.0.2.1"), all + 50, start), all, "{limit}");
            let soon = start + Duration::from_secs(1) / limit;
            assert_eq!(within(&rate, ip("192.0.2.1"), 50, soon), 1, "{limit}");
            // After an hour it is a second's worth again, not an hour's.
            let later = start + Duration::from_secs(3600);
            assert_eq!(within(&rate, ip("192.0.2.1"), all + 50, later), all, "{limit}");
        }
    }

    #[test]
    fn every_second_query_beyond_the_limit_slips() {
        let (start, client) = (now(), ip("192.0.2.1"));
        let rate = Rate::new(1, start);
        assert_eq!(rate.take(client, start), Verdict::Within);
        let verdicts: Vec<_> = (0..4).map(|_| rate.take(client, start)).collect();
        assert_eq!(verdicts, [true, false, true, false].map(|slip| Verdict::Over { slip }));
    }

    #[test]
    fn clients_are_told_apart_by_address_and_ipv6_clients_by_network() {
        let start = now();
        let rate = Rate::new(1, start);
        assert_eq!(within(&rate, ip("192.0.2.1"), 2, start), 1);
        assert_eq!(within(&rate, ip("::ffff:192.0.2.1"), 2, start), 0, "the same through an ipv6 socket");
        assert_eq!(within(&rate, ip("192.0.2.2"), 2, start), 1);
        assert_eq!(within(&rate, ip("2001:db8::1"), 2, start), 1);
        assert_eq!(within(&rate, ip("2001:db8::ffff"), 2, start), 0, "the same /64");
        assert_eq!(within(&rate, ip("2001:db8:0:1::1"), 2, start), 1);
    }

    #[test]
    fn more_clients_than_places_take_those_that_waited_longest() {
        let start = now();
        let rate = Rate::new(1, start);
        let later = start + Duration::from_secs(2);
        for number in 0..100_000_u32 {
            assert_eq!(rate.take(IpAddr::from(number.to_be_bytes()), start), Verdict::Within);
        }
        let used =
            rate.sets.iter().map(|set| set.lock().iter().filter(|bucket| bucket.full_at > 0).count()).sum::<usize>();
        assert!(used <= WAYS * usize::try_from(SETS).unwrap());
        let busy = ip("203.0.113.1");
        assert_eq!(rate.take(busy, later), Verdict::Within);
        // Others that were there before give way first.
        for number in 0..1000_u32 {
            rate.take(IpAddr::from((number + 200_000).to_be_bytes()), later);
        }
        assert!(matches!(rate.take(busy, later), Verdict::Over { .. }));
    }

    #[test]
    fn queries_in_flight_are_counted_per_client_and_given_back() {
        let limiter =
            Limiter::new(&ClientLimits { max_in_flight_per_client: 2, ..ClientLimits::default() }, now()).unwrap();
        assert!(limiter.rate.is_none());
        let counts = limiter.in_flight.unwrap();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(ip);
        let first = counts.charge(a).unwrap();
        let second = counts.charge(a).unwrap();
        assert!(counts.charge(a).is_none());
        assert!(counts.charge(b).is_some());
        drop(first);
        assert!(counts.charge(a).is_some());
        drop(second);
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()), "nobody is left");
    }

    #[test]
    fn what_was_counted_holds_on_where_the_limit_is_as_it_was() {
        let now = now();
        let limits = ClientLimits { rate_limit: 1, max_in_flight_per_client: 1, ..ClientLimits::default() };
        let before = Limiter::new(&limits, now).unwrap();
        let client = ip("192.0.2.1");
        assert_eq!(before.rate.as_ref().unwrap().take(client, now), Verdict::Within);
        let _charge = before.in_flight.as_ref().unwrap().charge(client).unwrap();
        let other = ClientLimits { max_in_flight_per_client: 2, ..limits.clone() };
        let after = Limiter::renewed(Some(&before), &limits, &other, now).unwrap();
        assert!(matches!(after.rate.as_ref().unwrap().take(client, now), Verdict::Over { .. }));
        assert!(after.in_flight.as_ref().unwrap().charge(client).is_some());
        let same = Limiter::renewed(Some(&before), &limits, &limits, now).unwrap();
        assert!(same.in_flight.unwrap().charge(client).is_none());
        assert!(Limiter::renewed(Some(&before), &limits, &ClientLimits::default(), now).is_none());
    }

    #[test]
    fn without_limits_there_is_nothing() {
        assert!(Limiter::new(&ClientLimits::default(), now()).is_none());
    }
}
