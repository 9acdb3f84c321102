//! Host names to addresses through the server itself, so that what else the daemon connects to is found as its clients find it: with
//! the cache, the local names and the upstreams of the config.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    resolve::{LookingUp, Resolve, Resolved, Resolving, literal},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant as Clock, timeout_at},
};

use super::inbox::{Event, Inbox};
use crate::{
    message::{self, NOERROR, NXDOMAIN, TYPE_A, TYPE_AAAA},
    upstream::bootstrap::resolved,
};

/// Asks a [`Server`](super::Server) for A and AAAA. Handles are cheap to clone and share one limit of lookups at a time.
///
/// It does not keep the server from stopping. Once that has stopped, every lookup fails at once.
#[derive(Clone)]
pub struct ServerResolver {
    /// The first worker's, which is there for as long as the server.
    inbox: Weak<Inbox>,
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl ServerResolver {
    /// Lookups at a time; further ones wait for their turn, within their patience.
    pub const LOOKUPS_MAX: usize = 64;

    /// Addresses of one family that are kept of one name.
    pub const ADDRESSES_MAX: usize = 1024;

    /// `timeout` is what the server gives a query.
    pub(super) fn new(inbox: &Arc<Inbox>, timeout: Duration) -> ServerResolver {
        let permits = Arc::new(Semaphore::new(ServerResolver::LOOKUPS_MAX));
        // Some more, so that the server's own word on what failed comes first.
        ServerResolver { inbox: Arc::downgrade(inbox), permits, patience: timeout + SLACK }
    }

    async fn find(self, host: String) -> Result<Resolved, Error> {
        if let Some(ip) = literal(&host) {
            return Ok(Resolved { addresses: vec![ip], ttl: None });
        }
        let start = Clock::now();
        let asked = async {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
            tokio::join!(self.ask(&host, TYPE_AAAA), self.ask(&host, TYPE_A))
        };
        let Ok((v6, v4)) = timeout_at(start + self.patience, asked).await else {
            return Err(Error::timed_out(Phase::Resolve, format!("resolve {host}"), start.elapsed()));
        };
        let (mut answers, mut failed) = (Vec::new(), None);
        for answer in [v6, v4] {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(why) => failed = Some(why),
            }
        }
        // An address of one family is worth more than the failure of the other.
        resolved(&answers, ServerResolver::ADDRESSES_MAX)
            .ok_or_else(|| unresolved(&host, failed.as_deref().unwrap_or("the name has no address")))
    }

    /// The answer that says whether there are such records, or why there is none.
    async fn ask(&self, host: &str, qtype: u16) -> Result<Vec<u8>, String> {
        let stopped = || "the dns server has stopped".to_owned();
        let mut query = message::build_query(host, qtype).ok_or("not a valid name")?;
        query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
        let (answer, receiver) = oneshot::channel();
        self.inbox.upgrade().ok_or_else(stopped)?.push(Event::Ask { query, answer });
        // The worker drops what it has not answered when it leaves.
        let trace = receiver.await.map_err(|_| stopped())?;
        match message::verify_answer(&trace.answer).map(|info| info.rcode) {
            Ok(NOERROR) => Ok(trace.answer),
            Ok(NXDOMAIN) => Err("the name does not exist".to_owned()),
            Ok(rcode) => Err(trace.error.unwrap_or_else(|| format!("answered {}", message::rcode_name(rcode)))),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Resolve for ServerResolver {
    fn resolve(&self, host: &str) -> Resolving {
        let found = self.clone().find(host.to_owned());
        Box::pin(async move { found.await.map(|found| found.addresses) })
    }

    fn lookup(&self, host: &str) -> LookingUp {
        Box::pin(self.clone().find(host.to_owned()))
    }
}

impl fmt::Debug for ServerResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerResolver").field("patience", &self.patience).finish_non_exhaustive()
    }
}

fn unresolved(host: &str, why: &str) -> Error {
    Error::new(ErrorKind::Resolve, Phase::Resolve, format!("resolve {host}"), why)
}

/// Beyond the server's own time for a query.
const SLACK: Duration = Duration::from_secs(1);
