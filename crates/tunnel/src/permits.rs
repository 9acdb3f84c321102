//! Who may have a tunnel: so many live ones to a destination, so many in all, the rest in the order in which they came.
//!
//! A permit is taken before anything is dialled and is given back when it is dropped, on every path.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use hashbrown::HashMap;
use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use crate::gate::{Gate, Pass};

/// Counts the live tunnels of every destination.
pub(crate) struct Permits {
    /// Changed under the lock of the map, so that no destination comes into use with another one.
    max_per_destination: AtomicUsize,
    max_waiters: AtomicUsize,
    all: Arc<Gate>,
    destinations: Mutex<HashMap<Arc<Target>, Arc<Destination>>>,
}

struct Destination {
    permits: Arc<Gate>,
    /// Permits and waits for one; changed under the lock of the map, so that nobody enters what is being forgotten.
    users: AtomicUsize,
    waiting: AtomicUsize,
    total: AtomicU64,
}

/// The right to one live tunnel.
pub(crate) struct Permit {
    // Given back in this order: first to the waiters of this destination.
    of_destination: Option<Pass>,
    of_all: Option<Pass>,
    entered: Entered,
}

/// Keeps a destination from being forgotten.
struct Entered {
    permits: Arc<Permits>,
    target: Arc<Target>,
    destination: Arc<Destination>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many wait for this destination as may.
    QueueFull,
    /// None of this destination's came free in time.
    Destination,
    /// None of all tunnels' came free in time.
    All,
    /// The gates were closed.
    Closed,
}

/// What is known of one destination that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DestinationGauges {
    pub(crate) target: Arc<Target>,
    pub(crate) live: usize,
    pub(crate) waiting: usize,
    pub(crate) total: u64,
}

impl Permits {
    pub(crate) fn new(max_per_destination: usize, max_tunnels: usize, max_waiters: usize) -> Arc<Permits> {
        Arc::new(Permits {
            max_per_destination: AtomicUsize::new(max_per_destination),
            max_waiters: AtomicUsize::new(max_waiters),
            all: Gate::new(max_tunnels),
            destinations: Mutex::default(),
        })
    }

    /// Changes the limits. Permits that are out stay, and those that wait stay where they are.
    pub(crate) fn set_limits(&self, max_per_destination: usize, max_tunnels: usize, max_waiters: usize) {
        self.max_waiters.store(max_waiters, Ordering::Relaxed);
        let destinations = self.destinations.lock();
        self.max_per_destination.store(max_per_destination, Ordering::Relaxed);
        destinations.values().for_each(|destination| destination.permits.set_max(max_per_destination));
        drop(destinations);
        self.all.set_max(max_tunnels);
    }

    /// Waits in order for a permit, until `deadline`. `make_room` is called before each wait, when the one who waits is seen already: with
    /// the destination while its permits are out, with nothing while those of all tunnels are.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        target: &Target,
        deadline: Instant,
        make_room: impl Fn(Option<&Target>),
    ) -> Result<Permit, Refused> {
        let entered = self.enter(target);
        let destination = &entered.destination;
        let of_destination = match destination.permits.try_pass() {
            Some(permit) => permit,
            None => {
                let _waiting = Waiting::new(&destination.waiting, self.max_waiters()).ok_or(Refused::QueueFull)?;
                make_room(Some(target));
                let wait = Arc::clone(&destination.permits).pass();
                let permit = tokio::time::timeout_at(deadline, wait).await;
                permit.map_err(|_| Refused::Destination)?.map_err(|_| Refused::Closed)?
            }
        };
        let of_all = match self.all.try_pass() {
            Some(permit) => permit,
            None => {
                let _waiting = Waiting::new(&destination.waiting, self.max_waiters()).ok_or(Refused::QueueFull)?;
                make_room(None);
                let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.all).pass()).await;
                permit.map_err(|_| Refused::All)?.map_err(|_| Refused::Closed)?
            }
        };
        destination.total.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { of_destination: Some(of_destination), of_all: Some(of_all), entered })
    }

    /// A permit, if one is free now and nobody waits for it.
    pub(crate) fn try_acquire(self: &Arc<Self>, target: &Target) -> Option<Permit> {
        let entered = self.enter(target);
        let of_destination = entered.destination.permits.try_pass()?;
        let of_all = self.all.try_pass()?;
        entered.destination.total.fetch_add(1, Ordering::Relaxed);
        Some(Permit { of_destination: Some(of_destination), of_all: Some(of_all), entered })
    }

    fn enter(self: &Arc<Self>, target: &Target) -> Entered {
        let mut destinations = self.destinations.lock();
        let (target, destination) = match destinations.get_key_value(target) {
            Some((target, destination)) => (Arc::clone(target), Arc::clone(destination)),
            None => {
                let target = Arc::new(target.clone());
                let destination = Arc::new(Destination {
                    permits: Gate::new(self.max_per_destination.load(Ordering::Relaxed)),
                    users: AtomicUsize::new(0),
                    waiting: AtomicUsize::new(0),
                    total: AtomicU64::new(0),
                });
                destinations.insert(Arc::clone(&target), Arc::clone(&destination));
                (target, destination)
            }
        };
        destination.users.fetch_add(1, Ordering::Relaxed);
        drop(destinations);
        Entered { permits: Arc::clone(self), target, destination }
    }

    /// Fails everyone who waits, and whoever comes.
    pub(crate) fn close(&self) {
        self.all.close();
        self.destinations.lock().values().for_each(|destination| destination.permits.close());
    }

    /// Permits that are out.
    pub(crate) fn live(&self) -> usize {
        self.all.through()
    }

    fn max_waiters(&self) -> usize {
        self.max_waiters.load(Ordering::Relaxed)
    }

    /// Destinations with a live tunnel or somebody who waits for one.
    pub(crate) fn destinations(&self) -> Vec<DestinationGauges> {
        let destinations = self.destinations.lock();
        let gauges = |(target, destination): (&Arc<Target>, &Arc<Destination>)| DestinationGauges {
            target: Arc::clone(target),
            live: destination.permits.through(),
            waiting: destination.waiting.load(Ordering::Relaxed),
            total: destination.total.load(Ordering::Relaxed),
        };
        destinations.iter().map(gauges).collect()
    }
}

impl Permit {
    /// The destination.
    pub(crate) fn target(&self) -> &Target {
        &self.entered.target
    }

    /// Whether others wait for a permit of the same destination.
    pub(crate) fn is_wanted(&self) -> bool {
        // Ordered with the look of somebody who asked to be told beforehand; see `next_wait`.
        self.entered.destination.waiting.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of_destination = None;
        self.of_all = None;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut destinations = self.permits.destinations.lock();
        if self.destination.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            destinations.remove(&*self.target);
        }
    }
}

/// Ready when somebody begins to wait for a permit of any destination. Who has to miss none enables it before the first look at
/// [`Permit::is_wanted`].
pub(crate) fn next_wait() -> Notified<'static> {
    WAITS.notified()
}

/// One for all destinations: those who listen hold an idle permit for seconds, and each looks for itself whether it is meant.
static WAITS: Notify = Notify::const_new();

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("target", self.target()).finish_non_exhaustive()
    }
}

/// One who waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize, max: usize) -> Option<Waiting<'_>> {
        let waiting = Waiting(count);
        let is_let_in = count.fetch_add(1, Ordering::SeqCst) < max;
        if is_let_in {
            WAITS.notify_waiters();
        }
        is_let_in.then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// For how long a permit is waited for where it does not matter.
    const LONG: Duration = Duration::from_secs(3600);

    fn target(host: &str) -> Target {
        Target::new(host, 443).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_for_one_destination_are_served_in_order_ten_at_a_time() {
        let permits = Permits::new(10, 1000, 1000);
        let (served, live, live_max) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (permits, served) = (Arc::clone(&permits), Arc::clone(&served));
            let (live, live_max) = (Arc::clone(&live), Arc::clone(&live_max));
            tasks.spawn(async move {
                let permit = permits.acquire(&target("one.test"), Instant::now() + LONG, |_| ()).await.unwrap();
                served.lock().push(number);
                live_max.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                live.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        tasks.join_all().await;
        assert_eq!(*served.lock(), (0..100).collect::<Vec<_>>());
        assert_eq!(live_max.load(Ordering::SeqCst), 10);
        assert_eq!((permits.live(), permits.destinations().len()), (0, 0), "nothing is left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_gives_up_leaves_no_trace() {
        let permits = Permits::new(1, 10, 2);
        let held = permits.acquire(&target("one.test"), Instant::now(), |_| ()).await.unwrap();
        let wait = |permits: &Arc<Permits>, seconds| {
            let permits = Arc::clone(permits);
            let deadline = Instant::now() + Duration::from_secs(seconds);
            tokio::spawn(async move { permits.acquire(&target("one.test"), deadline, |_| ()).await })
        };
        let (short, given_up) = (wait(&permits, 1), wait(&permits, 100));
        tokio::task::yield_now().await;
        let row = permits.destinations().remove(0);
        assert_eq!((row.live, row.waiting), (1, 2));
        assert!(held.is_wanted());
        let full = permits.acquire(&target("one.test"), Instant::now() + LONG, |_| ()).await.unwrap_err();
        assert_eq!(full, Refused::QueueFull);
        assert_eq!(short.await.unwrap().unwrap_err(), Refused::Destination);
        given_up.abort();
        assert!(given_up.await.is_err());
        drop(held);
        assert!(permits.destinations().is_empty());
        assert!(permits.try_acquire(&target("one.test")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn holders_are_told_when_somebody_begins_to_wait() {
        let permits = Permits::new(1, 10, 1);
        let held = permits.acquire(&target("a.test"), Instant::now(), |_| ()).await.unwrap();
        let mut next = std::pin::pin!(next_wait());
        next.as_mut().enable();
        assert!(!held.is_wanted());
        let waiter = {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move { permits.acquire(&target("a.test"), Instant::now() + LONG, |_| ()).await })
        };
        next.await;
        assert!(held.is_wanted());
        drop(held);
        assert!(!waiter.await.unwrap().unwrap().is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_all_tunnels_holds_across_destinations() {
        let permits = Permits::new(10, 2, 10);
        let deadline = Instant::now() + Duration::from_secs(1);
        let _a = permits.acquire(&target("a.test"), deadline, |_| ()).await.unwrap();
        let b = permits.acquire(&target("b.test"), deadline, |_| ()).await.unwrap();
        assert_eq!(permits.acquire(&target("c.test"), deadline, |_| ()).await.unwrap_err(), Refused::All);
        drop(b);
        assert!(permits.acquire(&target("c.test"), deadline, |_| ()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn limits_change_while_permits_are_out_and_others_wait() {
        let permits = Permits::new(1, 10, 10);
        let mut held = vec![permits.acquire(&target("a.test"), Instant::now(), |_| ()).await.unwrap()];
        let waiter = {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move { permits.acquire(&target("a.test"), Instant::now() + LONG, |_| ()).await })
        };
        tokio::task::yield_now().await;
        permits.set_limits(3, 10, 10);
        held.push(waiter.await.unwrap().unwrap());
        held.push(permits.try_acquire(&target("a.test")).unwrap());
        permits.set_limits(1, 2, 0);
        assert_eq!(permits.acquire(&target("b.test"), Instant::now(), |_| ()).await.unwrap_err(), Refused::QueueFull);
        assert_eq!((permits.live(), permits.destinations()[0].live), (3, 3), "those that are live stay");
        held.truncate(1);
        assert!(permits.try_acquire(&target("a.test")).is_none());
        let other = permits.try_acquire(&target("b.test")).unwrap();
        assert!(permits.try_acquire(&target("c.test")).is_none(), "two of all tunnels");
        drop((held, other));
        assert_eq!((permits.live(), permits.destinations().len()), (0, 0));
    }

    /// A tunnel that nobody uses holds a permit, and was put where nobody of its destination has looked since.
    #[tokio::test(start_paused = true)]
    async fn who_waits_has_room_made_for_it_at_the_destination_and_among_all() {
        let permits = Permits::new(1, 2, 10);
        let mut unused = HashMap::new();
        for host in ["a.test", "b.test"] {
            unused.insert(target(host), permits.try_acquire(&target(host)).unwrap());
        }
        let unused = Mutex::new(unused);
        let make_room = |of: Option<&Target>| match of {
            Some(of) => drop(unused.lock().remove(of)),
            None => unused.lock().clear(),
        };
        let a = permits.acquire(&target("a.test"), Instant::now() + LONG, make_room).await.unwrap();
        assert!(unused.lock().contains_key(&target("b.test")), "that of another destination stays");
        let c = permits.acquire(&target("c.test"), Instant::now() + LONG, make_room).await.unwrap();
        assert_eq!(permits.live(), 2);
        drop((a, c));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_fails_those_who_wait() {
        let permits = Permits::new(1, 10, 10);
        let _held = permits.acquire(&target("a.test"), Instant::now(), |_| ()).await.unwrap();
        let waiter = {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move { permits.acquire(&target("a.test"), Instant::now() + LONG, |_| ()).await })
        };
        tokio::task::yield_now().await;
        permits.close();
        assert_eq!(waiter.await.unwrap().unwrap_err(), Refused::Closed);
    }
}
