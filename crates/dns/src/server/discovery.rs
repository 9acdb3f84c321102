//! What upstreams publish about themselves: keys for encrypted client hello (RFC 9848), and the encrypted faces of plain
//! ones (RFC 9462). Asked for at the start and again before it ends, away from the queries of clients.

mod faces;

use std::{sync::Arc, time::Duration};

use keepwarm_transport::tls::TlsClient;
use tokio::{sync::oneshot, time::timeout};

use super::{
    Shared,
    inbox::{Address, Event, Inbox},
    setup::Setup,
};
use crate::{
    config::Ech,
    message,
    upstream::{BootstrapResolver, Endpoint, Upstream, ech, svcb},
};

/// Finds out what an upstream publishes, until it is dropped. Called before its first dial, since dials wait for the first keys.
pub(super) fn start(shared: &Arc<Shared>, upstream: &Upstream, setup: &Setup, workers: &[Address]) {
    let runtime = &shared.handles[0];
    let source = Source::of(shared, setup, &workers[0]);
    let mut tasks = Vec::new();
    for endpoint in upstream.endpoints().filter(|endpoint| endpoint.ech.wants_keys()) {
        endpoint.ech.asking(patience(endpoint, setup));
        tasks.push(runtime.spawn(keep_keys(endpoint.clone(), source.clone())).abort_handle());
    }
    if let Some(designation) = &upstream.ddr {
        let place = setup.upstreams.iter().position(|other| Arc::ptr_eq(&other.main, &upstream.main));
        if let Some(config) = place.and_then(|place| setup.config.upstreams.get(place)) {
            let plain = faces::Plainly {
                main: upstream.main.clone(),
                designation: designation.clone(),
                config: config.clone(),
            };
            tasks.push(runtime.spawn(faces::keep_face(shared.clone(), plain, workers.to_vec())).abort_handle());
        }
    }
    upstream.keep(tasks);
}

/// How long dials wait for the first keys.
fn patience(endpoint: &Endpoint, setup: &Setup) -> Duration {
    match (endpoint.ech.mode(), !setup.config.bootstrap.is_empty()) {
        (Ech::Require, true) => setup.config.pool.connect_timeout,
        // What is asked through the upstreams may need this very dial.
        (Ech::Require, false) | (_, true) => WORTH_WAITING,
        (_, false) => Duration::ZERO,
    }
}

/// Who is asked for records.
#[derive(Clone)]
enum Source {
    /// The `bootstrap` resolvers.
    Bootstrap(BootstrapResolver),
    /// The server itself, and through it the upstreams.
    Upstreams { shared: Arc<Shared>, inbox: Arc<Inbox> },
}

impl Source {
    fn of(shared: &Arc<Shared>, setup: &Setup, worker: &Address) -> Source {
        match &setup.config.bootstrap[..] {
            [] => Source::Upstreams { shared: shared.clone(), inbox: worker.inbox.clone() },
            servers => Source::Bootstrap(BootstrapResolver::new(servers)),
        }
    }

    async fn ask(&self, name: &str, qtype: u16) -> Result<Vec<u8>, String> {
        match self {
            Source::Bootstrap(resolver) => resolver.query(name, qtype).await.map_err(|error| error.to_string()),
            Source::Upstreams { shared, inbox } => {
                let patience = shared.setup().config.timeout;
                ask_upstreams(inbox, patience, name, qtype).await
            }
        }
    }

    /// Whether the answer could only come over connections that wait for it.
    fn is_circular(&self, endpoint: &Endpoint) -> bool {
        let Source::Upstreams { shared, .. } = self else { return false };
        let waits = |endpoint: &Endpoint| endpoint.ech.mode() == Ech::Require && endpoint.is_published_by_name();
        waits(endpoint) && shared.setup().upstreams.iter().all(|upstream| waits(&upstream.main))
    }
}

async fn ask_upstreams(inbox: &Inbox, patience: Duration, name: &str, qtype: u16) -> Result<Vec<u8>, String> {
    let mut query = message::build_query(name, qtype).ok_or_else(|| format!("{name} is not a valid name"))?;
    query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
    let (answer, receiver) = oneshot::channel();
    inbox.push(Event::Ask { query, answer });
    let late = || format!("resolve {name}: no answer");
    let trace = timeout(patience * 2, receiver).await.map_err(|_| late())?.map_err(|_| late())?;
    match message::verify_answer(&trace.answer).map(|info| info.rcode) {
        Ok(message::NOERROR | message::NXDOMAIN) => Ok(trace.answer),
        Ok(rcode) => Err(format!("resolve {name}: {}", trace.error.unwrap_or_else(|| message::rcode_name(rcode)))),
        Err(error) => Err(format!("resolve {name}: {error}")),
    }
}

/// Keeps the keys of one upstream up to date.
async fn keep_keys(endpoint: Arc<Endpoint>, source: Source) {
    let Some(client) = endpoint.tls.clone() else { return };
    let mut failures = 0;
    loop {
        if source.is_circular(&endpoint) {
            endpoint.ech.failed(
                "they could only be asked for through upstreams that wait for keys themselves: set dns.bootstrap",
            );
            // Another config may bring one that does not.
            tokio::time::sleep(REFRESH_MIN).await;
            continue;
        }
        let pause = match look_up(&endpoint, &client, &source).await {
            Ok(ttl) => {
                failures = 0;
                refresh_after(ttl)
            }
            Err(why) => {
                tracing::debug!(upstream = &*endpoint.name, "keys for encrypted client hello: {why}");
                endpoint.ech.failed(&why);
                failures += 1;
                retry_after(failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Asks once, and tells the endpoint. Returns for how long that holds.
async fn look_up(endpoint: &Endpoint, client: &TlsClient, source: &Source) -> Result<Duration, String> {
    let (name, rtype) = ech::question(endpoint.transport, &endpoint.host, endpoint.port);
    let mut asked = name;
    for _ in 0..ALIASES_MAX {
        let answer = source.ask(&asked, rtype).await?;
        match svcb::read(&answer, &asked, rtype) {
            Ok(svcb::Binding::Alias(next)) => asked = next,
            Ok(svcb::Binding::Services(services, ttl)) => {
                match ech::published(&services, endpoint.transport, &endpoint.host, endpoint.port) {
                    Some((keys, target)) => {
                        if endpoint.ech.publish(client, keys, target) && endpoint.ech.mode() == Ech::Require {
                            // What failed for the lack of keys says nothing any more.
                            endpoint.network_changed();
                        }
                    }
                    None => endpoint.ech.none_published(),
                }
                return Ok(ttl);
            }
            Ok(svcb::Binding::Nothing) => break,
            Err(_) => return Err(format!("resolve {asked}: malformed record")),
        }
    }
    endpoint.ech.none_published();
    Ok(ABSENT_FOR)
}

/// What was published for so long is asked for again shortly before its end; not more often than is polite, and not so
/// seldom that a change goes unnoticed for a day.
pub(super) fn refresh_after(ttl: Duration) -> Duration {
    (ttl - ttl / 10).clamp(REFRESH_MIN, REFRESH_MAX)
}

/// The pause after so many failures in a row.
pub(super) fn retry_after(failures: u32) -> Duration {
    (RETRY_MIN * (1 << (failures.max(1) - 1).min(16))).min(RETRY_MAX)
}

/// A dial may be delayed by so much when that may spare it from showing its name.
const WORTH_WAITING: Duration = Duration::from_millis(300);

/// Aliases that are followed from answer to answer.
const ALIASES_MAX: usize = 4;

/// For how long it holds that nothing is published.
const ABSENT_FOR: Duration = Duration::from_secs(3600);

const REFRESH_MIN: Duration = Duration::from_secs(30);
const REFRESH_MAX: Duration = Duration::from_secs(4 * 3600);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_asked_for_again_before_its_end() {
        assert_eq!(refresh_after(Duration::from_secs(300)), Duration::from_secs(270));
        assert_eq!(refresh_after(Duration::ZERO), REFRESH_MIN);
        assert_eq!(refresh_after(Duration::MAX), REFRESH_MAX);
    }

    #[test]
    fn pauses_between_failures_grow_to_five_minutes() {
        assert_eq!([1, 2, 3].map(retry_after), [1, 2, 4].map(Duration::from_secs));
        assert_eq!(retry_after(u32::MAX), RETRY_MAX);
    }
}
