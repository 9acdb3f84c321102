//! The requests, and what they took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{Answer, Client, Mode, Outcome, Task, usage};

/// Does the task: first requests that do not count, then those that do. The first failure ends it.
///
/// # Errors
/// A request failed, or its answer was not the right one.
pub async fn drive<C: Client>(task: &Task, client: C) -> anyhow::Result<Outcome> {
    let client = Arc::new(client);
    let ahead = ahead(task);
    // One alone first: many at once would open a connection each where clients know no better.
    one(task, &*client, 0).await?;
    many(task, &client, 1..ahead).await?;
    let (rss_before, cpu, start) = (usage::rss()?, usage::cpu()?, Instant::now());
    let mut took = many(task, &client, ahead..ahead + task.requests).await?;
    let (wall, cpu, rss) = (start.elapsed(), usage::cpu()? - cpu, usage::rss()?);
    took.sort_unstable();
    Ok(Outcome {
        cpu_s: cpu.as_secs_f64(),
        wall_s: wall.as_secs_f64(),
        p50_us: micros(&took, 0.5),
        p99_us: micros(&took, 0.99),
        rss_before,
        rss,
        sent: ahead + task.requests,
        version: None,
    })
}

/// How many requests only prepare: what is set up once is set up then.
fn ahead(task: &Task) -> usize {
    match task.mode {
        Mode::Hot => (task.requests / 10).clamp(task.concurrency, 1_000) + 1,
        Mode::Cold => 5,
        Mode::Idle | Mode::Same => 10,
    }
}

/// Does the requests of these numbers, `concurrency` at a time.
async fn many<C: Client>(
    task: &Task,
    client: &Arc<C>,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    if task.concurrency == 1 {
        return worker(task, &**client, &next, numbers.end).await;
    }
    let start = || {
        let (task, client, next) = (task.clone(), Arc::clone(client), Arc::clone(&next));
        tokio::spawn(async move { worker(&task, &*client, &next, numbers.end).await })
    };
    let workers: Vec<_> = (0..task.concurrency).map(|_| start()).collect();
    let mut took = Vec::with_capacity(numbers.len());
    for worker in workers {
        took.extend(worker.await??);
    }
    Ok(took)
}

async fn worker<C: Client>(task: &Task, client: &C, next: &AtomicUsize, end: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(end.saturating_sub(next.load(Ordering::Relaxed)));
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok(took);
        }
        let start = Instant::now();
        one(task, client, number).await?;
        took.push(start.elapsed());
    }
}

async fn one<C: Client>(task: &Task, client: &C, number: usize) -> anyhow::Result<()> {
    let Answer { status, octets } = match task.mode {
        Mode::Hot => client.hot().await?,
        Mode::Cold => client.cold().await?,
        Mode::Idle | Mode::Same => client.hold(number).await?,
    };
    ensure!(status == 200 && octets == task.octets, "status {status} with {octets} octets, wanted {}", task.octets);
    Ok(())
}

/// The time that this share of the sorted times does not pass; 0 of none.
fn micros(sorted: &[Duration], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil().max(1.0);
    let time = sorted.iter().enumerate().find(|(index, _)| (index + 1) as f64 >= rank);
    time.map_or(0.0, |(_, time)| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Mutex};

    use super::*;

    /// Counts what it is asked, and gives a short answer to the request of some number.
    #[derive(Default)]
    struct Fake {
        seen: Mutex<Vec<&'static str>>,
        at_once: AtomicUsize,
        most: AtomicUsize,
        short: Option<usize>,
    }

    impl Fake {
        async fn answer(&self, how: &'static str) -> anyhow::Result<Answer> {
            let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            let mut seen = self.seen.lock().unwrap();
            seen.push(how);
            let octets = if Some(seen.len()) == self.short { 1 } else { 1024 };
            Ok(Answer { status: 200, octets })
        }
    }

    impl Client for Arc<Fake> {
        async fn hot(&self) -> anyhow::Result<Answer> {
            self.answer("hot").await
        }
        async fn cold(&self) -> anyhow::Result<Answer> {
            self.answer("cold").await
        }
        async fn hold(&self, _: usize) -> anyhow::Result<Answer> {
            self.answer("hold").await
        }
    }

    fn task(mode: Mode, concurrency: usize, requests: usize) -> Task {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let url = "https://hot.lab.test:1/".to_owned();
        Task { url, address, ca: "ca".into(), mode, concurrency, requests, octets: 1024 }
    }

    #[tokio::test]
    async fn every_request_is_made_once_and_as_many_at_a_time_as_wanted() {
        for (mode, how, concurrency) in [(Mode::Hot, "hot", 8), (Mode::Cold, "cold", 1), (Mode::Same, "hold", 1)] {
            let fake = Arc::new(Fake::default());
            let outcome = drive(&task(mode, concurrency, 100), Arc::clone(&fake)).await.unwrap();
            let seen = fake.seen.lock().unwrap();
            assert_eq!(seen.len(), outcome.sent);
            assert!(outcome.sent > 100 && seen.iter().all(|seen| *seen == how), "{seen:?}");
            assert_eq!(fake.most.load(Ordering::Relaxed), concurrency);
            assert!(outcome.p50_us <= outcome.p99_us && outcome.p99_us > 0.0, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_wrong_answer_ends_it() {
        for short in [1, 50, 100] {
            let fake = Arc::new(Fake { short: Some(short), ..Fake::default() });
            assert!(drive(&task(Mode::Hot, 4, 100), fake).await.is_err(), "{short}");
        }
    }

    #[test]
    fn percentiles_are_of_what_was_taken() {
        let took: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| micros(&took, share).round()), [50.0, 99.0, 100.0]);
        assert_eq!(micros(&[], 0.5), 0.0);
    }
}
