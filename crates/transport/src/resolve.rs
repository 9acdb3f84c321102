//! Host names to addresses, for upstreams that are given by name.
//!
//! What is deliberately not here: the resolver that asks DNS servers itself (it belongs to the DNS crate) and a cache.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Phase};

/// A lookup under way.
pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Error>> + Send>>;

/// A lookup under way whose answer says for how long it holds.
pub type LookingUp = Pin<Box<dyn Future<Output = Result<Resolved, Error>> + Send>>;

/// What a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one, most wanted first.
    pub addresses: Vec<IpAddr>,
    /// For how long they hold: the smallest time to live of the records, aliases included. `None` where the resolver does not tell.
    pub ttl: Option<Duration>,
}

/// Turns a host name into addresses, most wanted first.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// Looks `host` up. An answer has at least one address; a literal address needs no lookup.
    fn resolve(&self, host: &str) -> Resolving;

    /// As [`resolve`](Self::resolve), with the time to live where the resolver knows it; by default it does not.
    fn lookup(&self, host: &str) -> LookingUp {
        let resolving = self.resolve(host);
        Box::pin(async move { Ok(Resolved { addresses: resolving.await?, ttl: None }) })
    }
}

/// Asks the operating system (`getaddrinfo`).
///
/// The lookup runs on a thread that cannot be interrupted. After `timeout` the caller gets its error, the thread goes on
/// to its own end; at most [`SystemResolver::LOOKUPS_MAX`] of them exist, further lookups wait within their time-out.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    timeout: Duration,
    permits: Arc<Semaphore>,
}

/// Always answers with the same addresses, whatever the name.
#[derive(Debug, Clone)]
pub struct Fixed(pub Vec<IpAddr>);

impl SystemResolver {
    /// Lookups under way at a time.
    pub const LOOKUPS_MAX: usize = 8;

    /// Makes a resolver that waits for `timeout` at most.
    pub fn new(timeout: Duration) -> SystemResolver {
        SystemResolver { timeout, permits: Arc::new(Semaphore::new(SystemResolver::LOOKUPS_MAX)) }
    }
}

impl Default for SystemResolver {
    /// Waits for 5 s.
    fn default() -> Self {
        SystemResolver::new(Duration::from_secs(5))
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Resolving {
        if let Some(ip) = literal(host) {
            return Box::pin(std::future::ready(Ok(vec![ip])));
        }
        let (host, timeout, permits) = (host.to_owned(), self.timeout, Arc::clone(&self.permits));
        Box::pin(async move {
            let tried = format!("resolve {host}");
            let lookup = async {
                let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
                let job = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    (host.as_str(), 0).to_socket_addrs().map(distinct)
                });
                job.await.unwrap_or_else(|error| Err(io::Error::other(error)))
            };
            match tokio::time::timeout(timeout, lookup).await {
                Ok(answer) => answered(answer, tried),
                Err(_) => Err(Error::timed_out(Phase::Resolve, tried, timeout)),
            }
        })
    }
}

impl Resolve for Fixed {
    fn resolve(&self, host: &str) -> Resolving {
        let answer = answered(Ok(self.0.clone()), format!("resolve {host}"));
        Box::pin(std::future::ready(answer))
    }
}

/// The address that `host` already is, with or without the brackets of an IPv6 literal.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn answered(answer: io::Result<Vec<IpAddr>>, tried: String) -> Result<Vec<IpAddr>, Error> {
    match answer {
        Ok(ips) if ips.is_empty() => {
            Err(Error::new(ErrorKind::Resolve, Phase::Resolve, tried, "the name has no address"))
        }
        Ok(ips) => Ok(ips),
        Err(error) => {
            let kind = ErrorKind::from_io(&error, Phase::Resolve);
            let happened = format!("the system's resolver failed: {error}");
            // getaddrinfo's own failures carry no code; a shortage of files does, and is named as such.
            let kind = if kind == ErrorKind::Other { ErrorKind::Resolve } else { kind };
            Err(Error::new(kind, Phase::Resolve, tried, happened).with_source(error))
        }
    }
}

/// `getaddrinfo` repeats an address for each socket type.
fn distinct(addrs: impl Iterator<Item = SocketAddr>) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for addr in addrs.take(ANSWERS_MAX) {
        if !ips.contains(&addr.ip()) {
            ips.push(addr.ip());
        }
    }
    ips
}

/// Addresses looked at in one answer.
const ANSWERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::error::Side;

    #[tokio::test]
    async fn literals_need_no_lookup() {
        let resolver = SystemResolver::new(Duration::ZERO);
        assert_eq!(resolver.resolve("192.0.2.1").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(resolver.resolve("[2001:db8::1]").await.unwrap(), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolver.resolve("2001:db8::1").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn localhost_is_found_once_for_each_address() {
        let ips = SystemResolver::default().resolve("localhost").await.unwrap();
        assert!(
            ips.contains(&Ipv4Addr::LOCALHOST.into()) || ips.contains(&std::net::Ipv6Addr::LOCALHOST.into()),
            "{ips:?}"
        );
        let distinct: std::collections::HashSet<_> = ips.iter().collect();
        assert_eq!(distinct.len(), ips.len());
    }

    #[tokio::test]
    async fn a_lookup_that_takes_too_long_is_given_up() {
        let resolver = SystemResolver::new(Duration::from_millis(50));
        // With all threads busy the lookup cannot even start.
        let _busy = Arc::clone(&resolver.permits).acquire_many_owned(8).await.unwrap();
        let error = resolver.resolve("dns.example").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut(Phase::Resolve));
        assert_eq!(error.side(), Side::Local);
        assert_eq!(error.to_string(), "resolve dns.example: name lookup timed out after 50ms");
    }

    #[tokio::test]
    async fn fixed_addresses_answer_for_any_name_and_none_is_an_error() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(Fixed(vec![ip]).resolve("dns.example").await.unwrap(), [ip]);
        let found = Fixed(vec![ip]).lookup("dns.example").await.unwrap();
        assert_eq!(found, Resolved { addresses: vec![ip], ttl: None });
        let error = Fixed(Vec::new()).resolve("dns.example").await.unwrap_err();
        assert_eq!((error.kind(), error.side()), (ErrorKind::Resolve, Side::Local));
        assert_eq!(error.to_string(), "resolve dns.example: the name has no address");
    }

    #[test]
    fn repeated_addresses_are_told_once() {
        let addrs = ["192.0.2.1:0", "192.0.2.1:0", "192.0.2.2:0"].map(|addr| addr.parse().unwrap());
        assert_eq!(distinct(addrs.into_iter()).len(), 2);
    }
}
