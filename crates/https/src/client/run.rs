//! One request from its call to the head of its answer: an address, a lease, an exchange, and again where that is safe.
//!
//! All of it within one deadline. What is deliberately not here: how an address is chosen (`inventory`).

use std::{
    future::Future as _,
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use keepwarm_pool::{AcquireError, AcquireOptions, Lease};
use keepwarm_transport::error::{Error as TransportError, ErrorKind as TransportKind};
use smallvec::SmallVec;

use super::{Inner, Outcome, RecentRequest, RequestOptions, requests::UnderWay, retry_after};
use crate::{
    body::{Body, RequestBody},
    connection::{Dialer, Target},
    error::Error,
    exchange::{self, Failure, Incoming, Until},
    head::Head,
    inventory::{self, AddressId, Choice, Unusable},
    keeper::is_local,
    origin::Origin,
    served::{Phases, Served},
    site::InFlight,
};

/// Sends a request and returns the answer when its head has come.
pub(crate) async fn run(
    inner: &Arc<Inner>,
    mut request: Request<RequestBody>,
    options: Option<RequestOptions>,
) -> Result<Response<Body>, Error> {
    let start = now();
    let options = options.or_else(|| request.extensions_mut().remove()).unwrap_or_default();
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let entry = inner.entry(&parts.uri)?;
    let origin = &entry.origin;
    let _under_way = UnderWay::new(&origin.requests);
    let target = match (&options.profile, options.http) {
        (None, None) => origin.main().clone(),
        (profile, http) => origin.target(profile.as_ref(), http)?,
    };
    let profile = origin.config.profile_headers.then(|| target.headers());
    let head = Head::new(parts, profile, &body);
    let deadline = options.deadline.unwrap_or_else(|| later(start, origin.config.timeout));
    let mut run = Run {
        inner,
        origin,
        target: &target,
        options: &options,
        head,
        body,
        start,
        deadline,
        stale: 0,
        tried: SmallVec::new(),
        slow: false,
        tries: 0,
        unsent: 0,
        newer_than: None,
        last: None,
        kept: None,
        sent: None,
        is_over: false,
    };
    let result = run.go().await;
    run.is_over = true;
    match &result {
        Ok(answer) => {
            origin.requests.answered.fetch_add(1, Ordering::Relaxed);
            let served = answer.body().served();
            if served.reused {
                origin.requests.reused.fetch_add(1, Ordering::Relaxed);
            }
            let total = served.phases.total;
            origin.requests.latency.lock().record(total);
            inner.latency.lock().record(total);
            if inner.recent.is_slow(total) {
                run.note_answer(answer.status(), served);
            }
        }
        Err(error) => {
            origin.requests.failed.fetch_add(1, Ordering::Relaxed);
            run.note(Outcome::from(error), error.address());
        }
    }
    origin.requests.retried.fetch_add(u64::from(run.tries.saturating_sub(1)), Ordering::Relaxed);
    let tries = run.tries;
    result.map_err(|error| {
        let what = || format!("{} https://{}", method.as_str().to_ascii_lowercase(), origin.authority());
        let error = error.of(what);
        match error.address() {
            Some(address) => error.at(address, tries),
            None => error,
        }
    })
}

/// A request under way.
struct Run<'a> {
    inner: &'a Inner,
    origin: &'a Arc<Origin>,
    target: &'a Arc<Target>,
    options: &'a RequestOptions,
    head: Head,
    body: RequestBody,
    start: Instant,
    deadline: Instant,
    /// Addresses that are not asked again for this request.
    tried: SmallVec<[AddressId; 4]>,
    /// Whether some of them were left only because others might be quicker.
    slow: bool,
    /// Tries that were sent.
    tries: u32,
    /// Tries of which nothing was processed.
    unsent: u32,
    /// Connections in a row that turned out dead.
    stale: u8,
    /// After a connection turned out dead: only one made later will do, at this address.
    newer_than: Option<(Choice, Instant)>,
    /// Why the last try failed.
    last: Option<Error>,
    /// The answer; or one that another address might better, while that is asked.
    kept: Option<Response<Body>>,
    /// The last try that was sent.
    sent: Option<Sent>,
    is_over: bool,
}

/// A try that was sent.
struct Sent {
    ip: IpAddr,
    reused: bool,
    phases: Phases,
    at: Instant,
}

/// What comes after a try.
enum Step {
    Answered,
    Again,
    Failed(Error),
}

impl Run<'_> {
    async fn go(&mut self) -> Result<Response<Body>, Error> {
        loop {
            let chosen = match self.choose().await {
                Ok(chosen) => chosen,
                Err(error) => return self.kept.take().ok_or(error),
            };
            let Some((choice, in_flight)) = chosen else {
                let nothing = || Error::no_address("none of its addresses can be used now");
                return self.kept.take().ok_or_else(|| self.last.take().unwrap_or_else(nothing));
            };
            let step = match self.lease(&choice).await {
                Ok(lease) => self.exchange(lease, choice, in_flight).await,
                Err(Unleased::Slow) => Step::Again,
                Err(Unleased::Failed(error)) => {
                    drop(in_flight);
                    self.not_leased(&error, choice)
                }
            };
            match step {
                Step::Answered => return self.kept.take().ok_or_else(Error::closed),
                Step::Again => {}
                Step::Failed(error) => return self.kept.take().ok_or(error),
            }
        }
    }

    /// An address with this request counted on it; `None` when those that are left cannot be used.
    async fn choose(&mut self) -> Result<Option<(Choice, InFlight)>, Error> {
        if let Some((choice, _)) = self.newer_than {
            return match self.origin.reserve(choice.ip, now()) {
                Ok(chosen) => Ok(Some(chosen)),
                Err(_) if self.options.address.is_some() => Ok(None),
                Err(_) => {
                    // It was banned, or is not one of the origin's any more: another one.
                    self.newer_than = None;
                    self.tried.push(choice.id);
                    Box::pin(self.choose()).await
                }
            };
        }
        if let Some(ip) = self.options.address {
            return match self.origin.reserve(ip, now()) {
                Ok((choice, _)) if self.tried.contains(&choice.id) => Ok(None),
                Ok(chosen) => Ok(Some(chosen)),
                Err((Unusable::Unknown | Unusable::NotValidated, nothing)) if nothing.is_searching => {
                    self.await_named(ip).await
                }
                Err((Unusable::Unknown, _)) => {
                    Err(Error::request(format!("{ip} is none of the addresses of {}", self.origin.authority())))
                }
                Err((Unusable::Denied, _)) => {
                    Err(Error::request(format!("{ip} may not be used: it is denied or banned")))
                }
                Err((Unusable::NotValidated, _)) => Err(Error::no_address(format!("{ip} was not found good"))),
            };
        }
        if let Ok(chosen) = self.origin.choose(&self.tried, now()) {
            return Ok(Some(chosen));
        }
        if std::mem::take(&mut self.slow) {
            // Nobody was quicker: now with all the time there is.
            self.tried.clear();
            self.unsent = self.unsent.max(PATIENT);
        }
        self.await_address().await
    }

    /// Waits until the address that the request names was found and validated.
    async fn await_named(&mut self, ip: IpAddr) -> Result<Option<(Choice, InFlight)>, Error> {
        let mut progress = self.origin.progress();
        loop {
            progress.borrow_and_update();
            match self.origin.reserve(ip, now()) {
                Ok(chosen) => return Ok(Some(chosen)),
                Err((_, nothing)) if nothing.is_searching => {}
                Err(_) => {
                    return Err(Error::no_address(format!("{ip} is none of its addresses, or was not found good")));
                }
            }
            match tokio::time::timeout_at(self.deadline.into(), progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::closed()),
                Err(_) => return Err(self.timed_out("the address was not found and validated")),
            }
        }
    }

    /// Waits until an address was found and validated.
    async fn await_address(&mut self) -> Result<Option<(Choice, InFlight)>, Error> {
        let mut progress = self.origin.progress();
        loop {
            progress.borrow_and_update();
            let nothing = match self.origin.choose(&self.tried, now()) {
                Ok(chosen) => return Ok(Some(chosen)),
                Err(_) if !self.tried.is_empty() => return Ok(None),
                Err(nothing) => nothing,
            };
            if !nothing.is_searching {
                let trouble = progress.borrow().trouble.clone();
                return Err(Error::no_address(trouble.as_deref().unwrap_or("it has no address that may be used")));
            }
            match tokio::time::timeout_at(self.deadline.into(), progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::closed()),
                Err(_) => return Err(self.timed_out("no address was found and validated")),
            }
        }
    }

    async fn lease(&mut self, choice: &Choice) -> Result<Lease<Dialer>, Unleased> {
        let host = self.origin.host_of(&self.inner.pool, self.target, choice);
        let opened_after = match self.newer_than {
            Some((_, instant)) => Some(instant),
            None => self.options.fresh.then_some(self.start),
        };
        let options = AcquireOptions { deadline: Some(self.deadline), timeout: None, opened_after };
        let mut acquire = pin!(host.acquire_with(options));
        if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx))).await {
            return result.map_err(Unleased::Failed);
        }
        if self.is_patient(choice) {
            return acquire.await.map_err(Unleased::Failed);
        }
        let Ok(result) = tokio::time::timeout(IMPATIENCE, acquire).await else {
            self.tried.push(choice.id);
            self.unsent += 1;
            self.slow = true;
            return Err(Unleased::Slow);
        };
        result.map_err(Unleased::Failed)
    }

    /// Whether this address is waited for to the end: it was asked for by name, or there is no other.
    fn is_patient(&self, choice: &Choice) -> bool {
        self.options.address.is_some()
            || self.newer_than.is_some()
            || self.unsent >= PATIENT
            || !self.origin.has_others(&self.tried, choice.id)
    }

    /// No connection to the address could be had. Nothing was sent, so another may be tried whatever the request is.
    fn not_leased(&mut self, error: &AcquireError<TransportError>, choice: Choice) -> Step {
        let explained = Error::acquire(error).at(choice.ip, self.tries);
        if let AcquireError::DialTimeout { after } = error
            && self.origin.config.proxy.is_none()
        {
            self.origin.failed(choice.id, &format!("no connection within {after:.1?}"), now());
        }
        self.newer_than = None;
        self.tried.push(choice.id);
        self.unsent += 1;
        if self.unsent >= UNSENT_MAX || now() >= self.deadline || matches!(error, AcquireError::Closed) {
            return Step::Failed(explained);
        }
        self.last = Some(explained);
        Step::Again
    }

    async fn exchange(&mut self, lease: Lease<Dialer>, choice: Choice, in_flight: InFlight) -> Step {
        let sent_at = now();
        let again = self.body.again();
        let streams = again.is_none();
        let is_repeatable = again.is_some() && self.head.method.is_idempotent();
        let until = self.try_deadline(is_repeatable, sent_at);
        let mut served = self.served(&lease, sent_at);
        self.sent = Some(Sent { ip: choice.ip, reused: served.reused, phases: served.phases, at: sent_at });
        let settings = if served.reused { None } else { lease.settings.clone() };
        self.tries += 1;
        served.tries = self.tries;
        let body_timeout = self.origin.config.body_timeout;
        // Who named a deadline meant it; the default one is about servers that do not answer.
        let after_upload = self.options.deadline.is_none().then_some(self.origin.config.timeout.max(body_timeout));
        let until = Until { at: until, after_upload };
        let (head, body) = (&self.head, &mut self.body);
        let result = exchange::send(lease, self.target, head, body, body_timeout, until, Some(in_flight)).await;
        let ended = now();
        if let Some(again) = again {
            self.body = again;
        }
        match result {
            Ok((parts, incoming)) => {
                let head = ended.saturating_duration_since(sent_at);
                served.phases.head = head;
                served.phases.total = ended.saturating_duration_since(self.start);
                served.settings = settings.and_then(|settings| settings.get().copied());
                self.answered(Response::from_parts(parts, incoming), served, choice, is_repeatable, ended)
            }
            Err((Failure::RequestBody(error), ..)) => Step::Failed(Error::request_body(error)),
            Err((Failure::Refused(error), lease, _)) => {
                drop(lease);
                self.refused(&error, choice, streams, ended)
            }
            Err((Failure::Transport(error), lease, _)) => {
                self.not_answered(&error, lease, choice, is_repeatable, streams, ended)
            }
            Err((Failure::Reset(error), lease, _)) => {
                drop(lease);
                self.reset(&error, choice, is_repeatable, ended)
            }
            Err((Failure::Silent { is_sent }, lease, _)) => {
                self.silent(lease, choice, is_repeatable && is_sent, is_sent, sent_at, ended)
            }
        }
    }

    /// How long one try may take: all the time there is, or a share of it while another could follow.
    fn try_deadline(&self, is_repeatable: bool, now: Instant) -> Instant {
        let left = self.origin.config.tries.saturating_sub(self.tries);
        if !is_repeatable || left < 2 || self.options.address.is_some() {
            return self.deadline;
        }
        now + self.deadline.saturating_duration_since(now) / left
    }

    fn served(&self, lease: &Lease<Dialer>, sent_at: Instant) -> Served {
        let reused = lease.reused();
        Served {
            address: lease.address,
            connection: lease.id(),
            reused,
            protocol: lease.protocol(),
            profile: self.target.label().clone(),
            resumed: lease.tls.resumed,
            tls: lease.tls.version.as_str(),
            tries: self.tries,
            phases: Phases {
                wait: sent_at.saturating_duration_since(self.start),
                connect: (!reused).then_some(lease.connect),
                tls: (!reused).then_some(lease.tls.handshake),
                head: Duration::ZERO,
                total: Duration::ZERO,
            },
            settings: None,
        }
    }

    fn answered(
        &mut self,
        response: Response<Incoming>,
        served: Served,
        choice: Choice,
        is_repeatable: bool,
        now: Instant,
    ) -> Step {
        let wait = || retry_after(response.headers()).and_then(|text| inventory::retry_after(text, unix_now()));
        let word = self.origin.answered(choice.id, served.phases.head, response.status(), wait, now);
        let patience = self.origin.config.body_timeout;
        let answer = response.map(|incoming| Body::new(incoming, served, patience));
        #[cfg(feature = "browser")]
        let answer = if self.head.decodes && self.has_whole_body(answer.status()) { decoded(answer) } else { answer };
        let improves = word.is_some_and(|word| word.retry) && is_repeatable && self.kept.is_none();
        if improves && self.may_try_again(now) && self.origin.has_others(&self.tried, choice.id) {
            self.tried.push(choice.id);
            self.kept = Some(answer);
            return Step::Again;
        }
        self.kept = Some(answer);
        Step::Answered
    }

    fn not_answered(
        &mut self,
        error: &TransportError,
        mut lease: Lease<Dialer>,
        choice: Choice,
        is_repeatable: bool,
        streams: bool,
        now: Instant,
    ) -> Step {
        let explained = || Error::transport(error.clone()).at(choice.ip, self.tries);
        let unprocessed = error.is_retryable();
        if !(unprocessed || is_repeatable) || !self.has_body(streams) {
            self.blame(error, choice, lease.reused(), now);
            return Step::Failed(explained());
        }
        let explained = explained();
        if lease.reused() && self.stale < STALE_MAX && ends_connection(error) {
            // The connection was dead before the request came: not the address's fault. Once more over a new one.
            lease.reuse_failed();
            // Those that were opened in between may be dead as well: the second time only a dial from now on will do.
            let after = if self.stale == 0 { lease.opened_at() + Duration::from_nanos(1) } else { now };
            self.stale += 1;
            self.newer_than = Some((choice, after));
            self.tries -= u32::from(unprocessed);
            self.last = Some(explained);
            return Step::Again;
        }
        if ends_connection(error) {
            lease.poison();
        }
        self.blame(error, choice, false, now);
        self.newer_than = None;
        if unprocessed {
            self.tries -= 1;
            self.unsent += 1;
        }
        self.last = Some(explained);
        if unprocessed {
            // A server that goes away says which requests it leaves to others: sending them again doubles no load.
            if self.unsent < UNSENT_MAX && now < self.deadline { Step::Again } else { self.give_up() }
        } else if self.may_try_again(now) {
            self.tried.push(choice.id);
            Step::Again
        } else {
            self.give_up()
        }
    }

    /// The server has too much to do: another address, or this one again, as far as the budget goes.
    fn refused(&mut self, error: &TransportError, choice: Choice, streams: bool, now: Instant) -> Step {
        self.last = Some(Error::transport(error.clone()).at(choice.ip, self.tries));
        self.newer_than = None;
        if !self.has_body(streams) || !self.may_try_again(now) {
            return self.give_up();
        }
        if self.origin.has_others(&self.tried, choice.id) {
            self.tried.push(choice.id);
        }
        Step::Again
    }

    /// The server gave up this stream alone. Another address may do better, and nothing is wrong with this one.
    fn reset(&mut self, error: &TransportError, choice: Choice, is_repeatable: bool, now: Instant) -> Step {
        self.last = Some(Error::transport(error.clone()).at(choice.ip, self.tries));
        self.newer_than = None;
        if !is_repeatable || !self.may_try_again(now) {
            return self.give_up();
        }
        self.tried.push(choice.id);
        Step::Again
    }

    fn give_up(&mut self) -> Step {
        Step::Failed(self.last.take().unwrap_or_else(Error::closed))
    }

    /// Nothing came within the time of this try.
    ///
    /// A connection that has served before may be dead without a word, as behind a NAT that forgot it: no other request goes over it,
    /// and the address is not blamed before a new connection was silent too.
    fn silent(
        &mut self,
        mut lease: Lease<Dialer>,
        choice: Choice,
        is_repeatable: bool,
        is_sent: bool,
        sent_at: Instant,
        now: Instant,
    ) -> Step {
        let waited = now.saturating_duration_since(sent_at);
        let error = self.timed_out("no answer came").at(choice.ip, self.tries);
        // Callers in a hurry say nothing about the connection or the address, nor do those whose own body is slow.
        if is_sent && waited >= self.origin.config.timeout / (self.origin.config.tries + 1) {
            lease.poison();
            if !lease.reused() {
                self.origin.failed(choice.id, &format!("no answer within {waited:.1?}"), now);
            }
        }
        let is_stale = lease.reused() && self.newer_than.is_none() && is_repeatable;
        self.newer_than = None;
        if is_stale && !self.origin.has_others(&self.tried, choice.id) && self.may_try_again(now) {
            self.newer_than = Some((choice, now));
            self.last = Some(error);
            return Step::Again;
        }
        self.tried.push(choice.id);
        if !is_repeatable || !self.may_try_again(now) {
            return Step::Failed(error);
        }
        self.last = Some(error);
        Step::Again
    }

    fn blame(&self, error: &TransportError, choice: Choice, was_stale: bool, now: Instant) {
        if !is_local(error) && !error.is_retryable() && !was_stale {
            self.origin.failed(choice.id, &error.to_string(), now);
        }
    }

    /// Whether the body is still there: a stream is gone once its first piece was asked for.
    fn has_body(&self, streams: bool) -> bool {
        !streams || self.body.whole().is_none()
    }

    /// Whether the answer's body is a whole representation, so that its coding can be decoded.
    #[cfg(feature = "browser")]
    fn has_whole_body(&self, status: StatusCode) -> bool {
        self.head.method != http::Method::HEAD && !matches!(status.as_u16(), 204 | 206 | 304)
    }

    fn may_try_again(&self, now: Instant) -> bool {
        self.tries < self.origin.config.tries && now < self.deadline && self.origin.may_retry()
    }

    fn timed_out(&self, what: &str) -> Error {
        Error::timed_out(now().saturating_duration_since(self.start), what)
    }
}

/// For those who look at what was slow.
impl Run<'_> {
    fn note_answer(&self, status: StatusCode, served: &Served) {
        self.note_as(RecentRequest {
            address: Some(served.address.ip()),
            phases: served.phases,
            reused: Some(served.reused),
            ..self.unanswered(Outcome::Answered(status), None)
        });
    }

    fn note(&self, outcome: Outcome, ip: Option<IpAddr>) {
        self.note_as(self.unanswered(outcome, ip));
    }

    fn note_as(&self, request: RecentRequest) {
        self.inner.recent.add(request, now());
    }

    /// `ip`: where there was no connection to.
    fn unanswered(&self, outcome: Outcome, ip: Option<IpAddr>) -> RecentRequest {
        let now = now();
        let total = now.saturating_duration_since(self.start);
        let last = self.sent.as_ref().filter(|sent| ip.is_none_or(|ip| ip == sent.ip));
        let phases = match last {
            Some(sent) => Phases { head: now.saturating_duration_since(sent.at), total, ..sent.phases },
            None => Phases { wait: total, total, ..Phases::default() },
        };
        RecentRequest {
            age: Duration::ZERO,
            origin: self.origin.authority().to_string(),
            address: ip.or(last.map(|sent| sent.ip)),
            method: self.head.method.as_str().chars().take(METHOD_MAX).collect(),
            outcome,
            phases,
            reused: last.map(|sent| sent.reused),
            tries: self.tries,
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.inner.recent.is_slow(now().saturating_duration_since(self.start)) {
            self.note(Outcome::GivenUp, None);
        }
    }
}

/// Why there is no lease.
enum Unleased {
    /// Others may be quicker.
    Slow,
    Failed(AcquireError<TransportError>),
}

/// Whether an error is one of the whole connection.
fn ends_connection(error: &TransportError) -> bool {
    !matches!(error.kind(), TransportKind::Http2) || error.is_retryable()
}

#[cfg(feature = "browser")]
fn decoded(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let body = body.decoded(&mut head.headers);
    Response::from_parts(head, body)
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or_else(|| now + FAR)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Seconds since 1970-01-01 UTC.
#[expect(clippy::disallowed_methods, reason = "Retry-After may name a time of day (RFC 9110 section 10.2.3)")]
fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Connections in a row that may turn out dead before an address is blamed.
const STALE_MAX: u8 = 2;

/// Instead of times that no clock can show.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Letters of a method that are noted.
const METHOD_MAX: usize = 16;

/// For how long a connection to one address is waited for while others might be quicker.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Tries of which nothing was processed; after so many the next is waited for to its end ...
const PATIENT: u32 = 4;

/// ... and after so many the request fails.
const UNSENT_MAX: u32 = 32;
