//! The client: requests to origins over connections that are open already.
//!
//! What is deliberately not here: redirects, cookies, caching and decompression. An answer is passed on as it came.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderMap, Method, Request, Response, Uri, header, uri::Scheme};
use http_body::Body as HttpBody;
use ipnet::IpNet;
use keepwarm_pool::{Histogram, HostStats, LimitsError, NamedPool};
use keepwarm_transport::resolve::Resolve;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    body::{Body, BoxError, RequestBody},
    config::{HttpVersions, HttpsConfig},
    connection::{DialTimes, Dialer, Key},
    error::Error,
    inventory::AddressRow,
    keeper::{self, WarmUp},
    profile::Profile,
    tls::TlsSetupError,
};

mod entry;
mod limits;
mod past;
mod recent;
mod reload;
mod requests;
mod run;

use entry::{Entry, Origins, Settings};
use past::Past;
pub(crate) use recent::Recent;
pub use recent::{Outcome, RecentRequest};
pub use reload::Prepared;
pub(crate) use requests::Counters;
pub use requests::Requests;
pub(crate) use run::run;

/// The pool of all connections.
pub(crate) type Pool = keepwarm_pool::Pool<Dialer>;

/// Sends requests over validated, pre-warmed connections. Clones share everything; the last one that is dropped lets the connections go.
///
/// # Examples
/// ```no_run
/// use keepwarm_https::{Client, config::{HttpsConfig, OriginConfig}};
/// use keepwarm_transport::resolve::SystemResolver;
/// use std::sync::Arc;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let origin = OriginConfig { warm: 2, ..OriginConfig::new("tiles.example.com") };
/// let config = HttpsConfig { origins: vec![origin], ..HttpsConfig::default() };
/// let client = Client::new(config, Arc::new(SystemResolver::default()))?;
/// let answer = client.get("https://tiles.example.com/0/0/0.png").await?;
/// println!("{} from {}", answer.status(), answer.body().served().address);
/// let tile = answer.into_body().collect(1 << 20).await?;
/// # drop(tile); Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    /// Of its dials.
    times: Arc<RwLock<DialTimes>>,
    resolver: Arc<dyn Resolve>,
    origins: RwLock<Origins>,
    /// Counts requests, for the order in which origins were used.
    turn: AtomicU64,
    /// Two tasks at most for each origin that was used.
    keepers: Mutex<JoinSet<()>>,
    /// What is left to count of origins that are gone.
    past: Past,
    pub(crate) recent: Recent,
    /// Times to the head of an answer, of all origins together.
    latency: Mutex<Histogram>,
    /// Has a permit for the one reload at a time.
    reload: Arc<Semaphore>,
}

/// What one request asks for beside its head and body.
///
/// A tower service takes them from the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// The address it must go to; no other is tried. Default: the best one.
    pub address: Option<IpAddr>,
    /// Whether the connection must be a new one. Default `false`.
    pub fresh: bool,
    /// The TLS and HTTP/2 profile. Default: the origin's.
    pub profile: Option<Arc<Profile>>,
    /// The protocols that are offered. Default: the origin's.
    pub http: Option<HttpVersions>,
    /// The time by which the head of the answer must be there, tries included. Default: the origin's `timeout` from now.
    pub deadline: Option<Instant>,
}

/// Why a client could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The limits contradict each other.
    Limits(LimitsError),
    /// The TLS of an origin could not be set up.
    Tls {
        /// The origin's host.
        host: String,
        /// Why.
        error: TlsSetupError,
    },
    /// Two origins have the same host and port.
    Twice(String),
    /// A host that is neither a name nor an address.
    Host(String),
    /// Another new config is being put in force.
    Busy,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Limits(error) => write!(f, "limits: {error}"),
            StartError::Tls { host, error } => write!(f, "tls of {host}: {error}"),
            StartError::Twice(authority) => write!(f, "two origins are {authority}"),
            StartError::Host(host) => write!(f, "{host:?} is neither a host name nor an address"),
            StartError::Busy => f.write_str("another new config is being put in force: try again"),
        }
    }
}

impl std::error::Error for StartError {}

/// The figures of one origin.
#[derive(Debug, Clone)]
pub struct OriginStats {
    /// Host and port as requests name them.
    pub authority: String,
    /// The label of its profile.
    pub profile: String,
    /// Whether the config names it.
    pub is_configured: bool,
    /// Its addresses by state.
    pub addresses: crate::inventory::Counts,
    /// What happened to its requests.
    pub requests: Requests,
    /// Times of its requests to the head of their answer, tries and waits included.
    pub latency: Histogram,
}

impl Client {
    /// Makes a client and, for origins with `warm` or `min_idle`, starts to find their addresses and to connect. Must be called in a
    /// tokio runtime. `resolver` finds the addresses of hosts that have none in the config.
    ///
    /// # Errors
    /// When the config contradicts itself, or TLS cannot be set up.
    pub fn new(config: HttpsConfig, resolver: Arc<dyn Resolve>) -> Result<Client, StartError> {
        let (pool, times) = limits::pool(&config.pool)?;
        let settings = Settings::new(&config)?;
        let ground = settings.ground(&resolver);
        let mut by_authority = HashMap::new();
        for origin in config.origins {
            let entry = Entry::new(origin, &ground, Arc::default(), true)?;
            let authority: Box<str> = entry.origin.authority().as_str().into();
            if by_authority.insert(authority, entry.clone()).is_some() {
                return Err(StartError::Twice(entry.origin.config.host.clone()));
            }
        }
        let eager: Vec<_> = by_authority.values().filter(|entry| entry.origin.is_eager()).cloned().collect();
        let origins = RwLock::new(Origins { by_authority, settings: Arc::new(settings), closed: false });
        let client = Client {
            inner: Arc::new(Inner {
                pool,
                times,
                resolver,
                origins,
                turn: AtomicU64::new(1),
                keepers: Mutex::default(),
                past: Past::default(),
                recent: Recent::new(config.slow),
                latency: Mutex::default(),
                reload: Arc::new(Semaphore::new(1)),
            }),
        };
        eager.iter().for_each(|entry| client.keep(entry));
        Ok(client)
    }

    /// Asks for a URL.
    ///
    /// # Errors
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn get(&self, url: &str) -> Result<Response<Body>, Error> {
        self.request(bare(Method::GET, url, RequestBody::empty())?).await
    }

    /// Asks for the head of a URL.
    ///
    /// # Errors
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn head(&self, url: &str) -> Result<Response<Body>, Error> {
        self.request(bare(Method::HEAD, url, RequestBody::empty())?).await
    }

    /// Posts a body to a URL. It is sent once: see [`request`](Self::request).
    ///
    /// # Errors
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn post(&self, url: &str, body: impl Into<RequestBody>) -> Result<Response<Body>, Error> {
        self.request(bare(Method::POST, url, body.into())?).await
    }

    /// Sends a request and returns the answer when its head has come; its body streams. The URI is absolute: `https://host/path`.
    ///
    /// A request that failed is sent again, to another address where there is one, when that is safe: nothing of it was processed (the
    /// connection was never made or had ended, the server refused the stream), or its method is idempotent (RFC 9110 section 9.2.2), its
    /// body is known as a whole and no byte of an answer came. All tries share one deadline.
    ///
    /// # Errors
    /// An [`Error`] when there is no answer. A status such as 500 is an answer.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the request: its stream is reset, or its connection closed where that is exclusive. The server may
    /// have acted on it.
    pub async fn request<B: Into<RequestBody>>(&self, request: Request<B>) -> Result<Response<Body>, Error> {
        run(&self.inner, request.map(Into::into), None).await
    }

    /// Sends a request with options of its own.
    ///
    /// # Errors
    /// See [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn request_with<B: Into<RequestBody>>(
        &self,
        request: Request<B>,
        options: RequestOptions,
    ) -> Result<Response<Body>, Error> {
        run(&self.inner, request.map(Into::into), Some(options)).await
    }

    /// Finds and validates addresses of an origin (`host` or `host:port`) and connects until `wanted` connections are open, over as many
    /// addresses as possible, or nothing more can be done. `progress` is called with each step.
    ///
    /// # Errors
    /// When the origin is not known, or no address could be connected to.
    ///
    /// # Cancel safety
    /// What is open stays open.
    pub async fn warm_up(
        &self,
        origin: &str,
        wanted: usize,
        progress: impl FnMut(&WarmUp) + Send,
    ) -> Result<WarmUp, Error> {
        let entry = self.entry(origin)?;
        keeper::warm_up(&self.inner.pool, &entry.origin, wanted, progress).await
    }

    /// The addresses of an origin (`host` or `host:port`), in no order.
    ///
    /// # Errors
    /// When the origin is not known.
    pub fn inventory(&self, origin: &str) -> Result<Vec<AddressRow>, Error> {
        let entry = self.known(origin)?;
        Ok(entry.origin.rows(tokio::time::Instant::now().into_std()))
    }

    /// Looks for the origin's addresses, in DNS or wherever the config says, until the first round has ended.
    ///
    /// # Errors
    /// When the origin is not known, or the round found nothing.
    ///
    /// # Cancel safety
    /// The search goes on.
    pub async fn find_addresses(&self, origin: &str) -> Result<(), Error> {
        let entry = self.entry(origin)?;
        let mut progress = entry.origin.progress();
        let progress = progress.wait_for(|progress| progress.lookups > 0).await.map_err(|_| Error::closed())?;
        progress.trouble.as_ref().map_or(Ok(()), |trouble| Err(Error::no_address(&**trouble)))
    }

    /// Bans addresses of an origin until they are allowed again: they get no new request, and their idle connections are closed.
    ///
    /// # Errors
    /// When the origin is not known.
    pub fn ban(&self, origin: &str, net: IpNet) -> Result<(), Error> {
        let entry = self.known(origin)?;
        let now = tokio::time::Instant::now().into_std();
        let banned = entry.origin.with_inventory(|inventory| inventory.ban(net, now));
        banned.map_err(|full| Error::request(full.to_string()))?;
        for (key, _) in self.inner.pool.host_stats() {
            if key.host() == entry.origin.config.host
                && key.port() == entry.origin.config.port
                && net.contains(&key.ip())
            {
                self.inner.pool.flush(&key);
            }
        }
        Ok(())
    }

    /// Ends bans within a network, and lets it in beside the networks that the config allows. What the config denies stays denied.
    ///
    /// # Errors
    /// When the origin is not known, or too many networks were let in already.
    pub fn allow(&self, origin: &str, net: IpNet) -> Result<(), Error> {
        let entry = self.known(origin)?;
        let now = tokio::time::Instant::now().into_std();
        let allowed = entry.origin.with_inventory(|inventory| {
            inventory.unban(net, now);
            inventory.allow(net)
        });
        allowed.map_err(|full| Error::request(full.to_string()))
    }

    /// The figures of each origin, in the order of their names.
    pub fn stats(&self) -> Vec<OriginStats> {
        let origins = self.inner.origins.read();
        let mut rows: Vec<_> = origins.by_authority.values().map(|entry| entry.stats()).collect();
        rows.sort_by(|a, b| a.authority.cmp(&b.authority));
        rows
    }

    /// Whether hosts are served that no origin names.
    pub fn serves_any_host(&self) -> bool {
        self.inner.origins.read().settings.any_host.is_some()
    }

    /// What happened to the requests of all origins, those included that are gone.
    pub fn requests(&self) -> Requests {
        // Under the lock, so that none is missed on its way from here to there.
        let origins = self.inner.origins.read();
        let mut sum = self.inner.past.read();
        for entry in origins.by_authority.values() {
            sum.add(entry.origin.requests.read());
        }
        sum
    }

    /// Times of requests to the head of their answer, tries and waits included; of all origins, those included that are gone.
    pub fn latency(&self) -> Histogram {
        self.inner.latency.lock().clone()
    }

    /// The last 128 requests that took longer than [`slow`](HttpsConfig::slow) to the head of their answer, or got none; the last one first.
    /// Callers who gave up sooner are not among them.
    pub fn recent(&self) -> Vec<RecentRequest> {
        self.inner.recent.read(tokio::time::Instant::now().into_std())
    }

    /// The pool of all connections, as operators see and steer it: `https`.
    pub fn pools(&self) -> Vec<NamedPool> {
        vec![NamedPool { name: "https".to_owned(), pool: Arc::new(self.inner.pool.clone()) }]
    }

    /// The figures of the pool, one row for each address that has connections or had them lately.
    pub fn host_stats(&self) -> Vec<(Key, HostStats)> {
        self.inner.pool.host_stats()
    }

    /// The figures of all connections together.
    pub fn pool_stats(&self) -> keepwarm_pool::Stats {
        self.inner.pool.stats()
    }

    /// What happens to connections, for a log.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<keepwarm_pool::Event<Key>> {
        self.inner.pool.subscribe_lifecycle()
    }

    /// The machine has another network: connections are made anew, and addresses in quarantine are probed at once.
    pub fn network_changed(&self) {
        self.inner.pool.network_changed();
        let now = tokio::time::Instant::now().into_std();
        for entry in self.inner.origins.read().by_authority.values() {
            entry.origin.with_inventory(|inventory| inventory.network_changed(now));
        }
    }

    /// Refuses new requests, waits for answers under way for at most `patience` and closes every connection. Returns how many were cut off.
    ///
    /// # Cancel safety
    /// The client stays closed; call it again to wait again.
    pub async fn close(&self, patience: Duration) -> usize {
        self.inner.origins.write().closed = true;
        let mut keepers = std::mem::take(&mut *self.inner.keepers.lock());
        keepers.shutdown().await;
        for entry in self.inner.origins.read().by_authority.values() {
            // Whoever waits for addresses waits in vain.
            entry.origin.touch(|progress| {
                progress.lookups += 1;
                progress.trouble = Some("the client was closed".into());
            });
        }
        let deadline = tokio::time::Instant::now() + patience;
        self.inner.pool.drain(deadline.into_std()).await
    }

    /// The origin of that name, made on the spot where hosts need not be configured.
    fn entry(&self, origin: &str) -> Result<Arc<Entry>, Error> {
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(origin).path_and_query("/").build();
        let uri = uri.map_err(|_| Error::request(format!("{origin:?} is not a host, or host:port")))?;
        self.inner.entry(&uri)
    }

    fn known(&self, origin: &str) -> Result<Arc<Entry>, Error> {
        let origins = self.inner.origins.read();
        let entry = origins.by_authority.get(&*normal(origin)).cloned();
        entry.ok_or_else(|| Error::request(format!("{origin} is not an origin that is known")))
    }

    fn keep(&self, entry: &Arc<Entry>) {
        self.inner.keep(entry);
    }
}

impl Inner {
    /// The origin of a request.
    pub(crate) fn entry(self: &Arc<Inner>, uri: &Uri) -> Result<Arc<Entry>, Error> {
        let authority = uri.authority().ok_or_else(|| Error::request("the url has no host"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(Error::request("only https is served"));
        }
        let entry = self.find(authority.as_str())?;
        let entry = match entry {
            Some(entry) => entry,
            None => self.add(uri)?,
        };
        entry.origin.came(self.turn.fetch_add(1, Ordering::Relaxed));
        self.keep(&entry);
        Ok(entry)
    }

    fn find(&self, authority: &str) -> Result<Option<Arc<Entry>>, Error> {
        let origins = self.origins.read();
        if origins.closed {
            return Err(Error::closed());
        }
        if let Some(entry) = origins.by_authority.get(authority) {
            return Ok(Some(entry.clone()));
        }
        Ok(origins.by_authority.get(&*normal(authority)).cloned())
    }

    /// Makes the origin of a host that no origin names, where that is allowed, and forgets the one unused for longest above the limit.
    fn add(self: &Arc<Inner>, uri: &Uri) -> Result<Arc<Entry>, Error> {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        loop {
            let settings = self.origins.read().settings.clone();
            let Some(config) = settings.passing(&host, port) else {
                return Err(Error::request(format!("{host} is not an origin that is configured")));
            };
            let entry = Entry::new(config, &settings.ground(&self.resolver), Arc::default(), false)
                .map_err(|error| Error::request(error.to_string()))?;
            // Or it would be the one to be forgotten.
            entry.origin.came(self.turn.fetch_add(1, Ordering::Relaxed));
            let mut origins = self.origins.write();
            // Other settings may have come meanwhile, or another request may have been first.
            if Arc::ptr_eq(&settings, &origins.settings) {
                let authority: Box<str> = entry.origin.authority().as_str().into();
                let entry = origins.by_authority.entry(authority).or_insert(entry).clone();
                let gone = origins.trim();
                gone.iter().for_each(|gone| self.past.add(gone.origin.requests.clone()));
                drop(origins);
                return Ok(entry);
            }
        }
    }

    /// Starts what keeps an origin, once.
    fn keep(&self, entry: &Arc<Entry>) {
        if !entry.origin.is_kept() {
            entry.keep(&self.pool, &self.keepers, || self.origins.read().closed);
        }
    }
}

fn bare(method: Method, url: &str, body: RequestBody) -> Result<Request<RequestBody>, Error> {
    let uri: Uri = url.parse().map_err(|error| Error::request(format!("{url:?} is not a url: {error}")))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    Ok(request)
}

/// Lower case, and without the port where it is 443.
fn normal(authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    let without_user = lower.rsplit_once('@').map_or(lower.as_str(), |(_, host)| host);
    without_user.strip_suffix(":443").unwrap_or(without_user).to_owned()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.inner.origins.read();
        f.debug_struct("Client").field("origins", &origins.by_authority.keys()).finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for Client
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    /// Always ready: requests wait for connections in order, within their own deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let mut request = request.map(RequestBody::stream);
        let options = request.extensions_mut().remove::<RequestOptions>();
        Box::pin(async move { run(&inner, request, options).await })
    }
}

/// The value of Retry-After, unread.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()
}
