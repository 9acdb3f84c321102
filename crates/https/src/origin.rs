//! One origin under the settings of one config: what a request and what the tasks that keep it go by.
//!
//! What outlives a change of settings is in `site`. What is deliberately not here: the tasks that find and validate addresses (`keeper`).

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::uri::Authority;
use parking_lot::Mutex;

use crate::{config::OriginConfig, site::Site};

/// One origin. It derefs to its site, which it shares with the origin that comes after it where connections stay what they are.
pub(crate) struct Origin {
    pub(crate) config: OriginConfig,
    site: Arc<Site>,
    budget: Mutex<Budget>,
    /// Whether there is a task that keeps it.
    is_kept: AtomicBool,
}

impl Origin {
    pub(crate) fn new(config: OriginConfig, site: Arc<Site>) -> Arc<Origin> {
        let budget = Mutex::new(Budget::new(config.retry_budget));
        Arc::new(Origin { config, site, budget, is_kept: AtomicBool::new(false) })
    }

    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Whether connections are to be made before the first request.
    pub(crate) fn is_eager(&self) -> bool {
        self.config.warm > 0 || self.config.min_idle > 0
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
    }

    pub(crate) fn kept(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    /// Whether one more try of a request may be made.
    pub(crate) fn may_retry(&self) -> bool {
        let came = self.site.requests.came();
        self.budget.lock().take(came)
    }
}

impl Deref for Origin {
    type Target = Arc<Site>;

    fn deref(&self) -> &Arc<Site> {
        &self.site
    }
}

/// What may be spent on retries: a share of the requests, and some saved up.
struct Budget {
    share: f64,
    saved: f64,
    /// Requests whose share was saved.
    seen: u64,
}

impl Budget {
    fn new(share: f64) -> Budget {
        Budget { share, saved: SAVED_MAX, seen: 0 }
    }

    /// Whether there is enough for a retry after so many requests; it is then spent.
    fn take(&mut self, came: u64) -> bool {
        let more = came.saturating_sub(self.seen) as f64 * self.share;
        self.seen = self.seen.max(came);
        self.saved = (self.saved + more).min(SAVED_MAX);
        let has = self.saved >= 1.0;
        if has {
            self.saved -= 1.0;
        }
        has
    }
}

/// Whether it is a host name (RFC 1123 section 2.1, with underscores as they are used) or an IP address without brackets.
pub(crate) fn is_host(host: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_letter);
    host.parse::<IpAddr>().is_ok()
        || (host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label))
}

/// Host and port as a request names them (RFC 3986 section 3.2).
pub(crate) fn authority(host: &str, port: u16) -> Authority {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let text = if port == 443 { host } else { format!("{host}:{port}") };
    Authority::try_from(text.as_str()).expect("the host of an origin was checked")
}

/// Retries saved up at most: a start with many bad addresses needs one for each.
const SAVED_MAX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_the_port_where_it_is_not_the_usual_one() {
        for (host, port, expected) in [
            ("a.example", 443, "a.example"),
            ("a.example", 8443, "a.example:8443"),
            ("2001:db8::1", 443, "[2001:db8::1]"),
        ] {
            assert_eq!(authority(host, port).as_str(), expected);
        }
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let mut budget = Budget::new(0.25);
        let saved = (0..1000).take_while(|_| budget.take(0)).count();
        assert_eq!(saved, 100);
        let retries = (1..=400).filter(|came| budget.take(*came));
        assert_eq!(retries.count(), 100);
    }
}
