//! Where requests of `keepwarm probe` and `keepwarm bench https` go, and how: URL, addresses, profile, roots, proxy, time limits.
//!
//! What is deliberately not here: the daemon. These commands connect by themselves, so that what they show is this machine's way.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hyper::Uri;
use keepwarm_https::{
    Client,
    config::{AddressSource, HttpVersions, HttpsConfig, OriginConfig, PoolConfig},
    profile::Profile,
};
use keepwarm_transport::{
    error::Error as TransportError,
    proxy::Proxy,
    resolve::{Fixed, Resolve as _, SystemResolver, literal},
    tls::TlsRoots,
};
use tokio::time::Instant;

use crate::config::words::parse_duration;

/// How to connect.
#[derive(Debug, Clone, Args)]
pub struct OriginArgs {
    /// TLS and HTTP/2 profile: chrome, firefox, safari or plain, with a version as in chrome@156; or @FILE, a profile in JSON.
    #[arg(long, value_name = "NAME|@FILE", default_value = "plain", value_parser = parse_profile)]
    pub profile: Arc<Profile>,
    /// Protocols to offer.
    #[arg(long, value_name = "VERSIONS", default_value = "both")]
    pub http: Http,
    /// Address to connect to instead of those that the name has; may be repeated.
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// PEM file of certificate authorities to trust beside the system's.
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Proxy to connect through: socks5://HOST:PORT or http://HOST:PORT, with USER:PASSWORD@ before the host where it asks for them.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<ProxyUrl>,
    /// Longest wait for a connection.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Longest wait for an answer, connecting included.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub timeout: Duration,
}

/// Protocols to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Http {
    /// HTTP/2 and HTTP/1.1; the server chooses.
    Both,
    /// HTTP/1.1 alone.
    #[value(name = "http1")]
    Http1,
    /// HTTP/2 alone.
    #[value(name = "http2")]
    Http2,
}

impl Http {
    fn versions(self) -> HttpVersions {
        match self {
            Http::Both => HttpVersions::Both,
            Http::Http1 => HttpVersions::Http1,
            Http::Http2 => HttpVersions::Http2,
        }
    }
}

/// The URL of a proxy as it was given. Not read before it is used: what refuses arguments would repeat the password.
#[derive(Clone)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, without the credential.
    pub fn parse(&self) -> Result<Proxy, String> {
        Proxy::parse_plain(&self.0).map_err(|error| format!("invalid value for '--proxy <URL>': {error}"))
    }
}

impl FromStr for ProxyUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<ProxyUrl, Self::Err> {
        Ok(ProxyUrl(text.to_owned()))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyUrl(..)")
    }
}

/// The URL of an HTTPS resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    /// Without brackets.
    host: String,
}

impl Url {
    /// What a request names.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Host name, lower case, or an IP address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(443)
    }

    /// Host and port, as a client's methods take an origin.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

impl FromStr for Url {
    type Err = String;

    /// Reads `https://host:port/path?query`; the scheme may be left out, and what follows `#` stays here.
    fn from_str(text: &str) -> Result<Url, String> {
        const ACCEPTED: &str = "accepted: a URL such as https://www.example.com/path";
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {ACCEPTED}"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("only https is spoken; {ACCEPTED}"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("a user name is not sent; {ACCEPTED}"));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || uri.port_u16() == Some(0) {
            return Err(format!("a host and a port are needed; {ACCEPTED}"));
        }
        Ok(Url { uri, host })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// Everything that a client is made of but the addresses.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) url: Url,
    args: OriginArgs,
    roots: TlsRoots,
    proxy: Option<Arc<Proxy>>,
}

/// The addresses of an origin.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) addresses: Vec<IpAddr>,
    /// What the look-up took; `None` when nothing had to be looked up.
    pub(crate) dns: Option<Duration>,
}

impl Origin {
    /// Reads the files that the arguments name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn new(url: &Url, args: &OriginArgs, proxy: Option<Proxy>) -> anyhow::Result<Origin> {
        let roots = TlsRoots::system();
        let roots = match &args.cacert {
            Some(file) => roots.with_pem_file(file).context("--cacert")?,
            None => roots,
        };
        Ok(Origin { url: url.clone(), args: args.clone(), roots, proxy: proxy.map(Arc::new) })
    }

    /// The label of the profile.
    pub(crate) fn profile(&self) -> String {
        self.args.profile.label()
    }

    /// The proxy without its credential.
    pub(crate) fn proxy(&self) -> Option<String> {
        self.proxy.as_ref().map(ToString::to_string)
    }

    /// The addresses that were given, or those that the system finds.
    ///
    /// # Errors
    /// When the name has none.
    pub(crate) async fn find(&self) -> Result<Found, TransportError> {
        if !self.args.address.is_empty() {
            return Ok(Found { addresses: self.args.address.clone(), dns: None });
        }
        let start = Instant::now();
        let addresses = SystemResolver::new(self.args.connect_timeout).resolve(self.url.host()).await?;
        Ok(Found { addresses, dns: literal(self.url.host()).is_none().then(|| start.elapsed()) })
    }

    /// A client that knows nothing yet but these addresses, with this many connections at most. It must be made in a runtime.
    ///
    /// # Errors
    /// When the profile cannot be used here, or there is nobody to trust.
    pub(crate) fn client(&self, addresses: &[IpAddr], connections: usize) -> anyhow::Result<Client> {
        let OriginArgs { profile, http, connect_timeout, timeout, .. } = &self.args;
        let origin = OriginConfig {
            port: self.url.port(),
            profile: profile.clone(),
            http: http.versions(),
            addresses: addresses.iter().map(|ip| AddressSource::Net((*ip).into())).collect(),
            refresh: None,
            // What an answer says of its address is shown, and nothing is made of it.
            verdicts: Vec::new(),
            timeout: *timeout,
            body_timeout: *timeout,
            // A second try would hide what happened to the first.
            tries: 1,
            proxy: self.proxy.clone(),
            ..OriginConfig::new(self.url.host())
        };
        let pool = PoolConfig {
            max_total: connections,
            max_per_host: connections,
            max_idle: connections,
            connect_timeout: *connect_timeout,
            acquire_timeout: *timeout,
            ..PoolConfig::default()
        };
        let config = HttpsConfig { origins: vec![origin], pool, roots: self.roots.clone(), ..HttpsConfig::default() };
        // Only the proxy's name may be left to look up.
        let resolver: Arc<dyn keepwarm_transport::resolve::Resolve> = match self.proxy {
            Some(_) => Arc::new(SystemResolver::new(*connect_timeout)),
            None => Arc::new(Fixed(Vec::new())),
        };
        Ok(Client::new(config, resolver)?)
    }
}

fn parse_profile(text: &str) -> Result<Arc<Profile>, String> {
    match text.strip_prefix('@') {
        Some(file) => Profile::from_file(file).map(Arc::new).map_err(|error| error.to_string()),
        None => Profile::named(text).map_err(|error| error.to_string()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| format!("{}; {}", error.problem, error.accepted))?;
    if duration.is_zero() || duration > TIMEOUT_MAX {
        return Err("accepted: more than nothing, and 10m at most".to_owned());
    }
    Ok(duration)
}

const TIMEOUT_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Url, String> {
        text.parse()
    }

    #[test]
    fn a_url_may_leave_out_scheme_port_and_path() {
        for (text, shown, host, port) in [
            ("www.Example.com", "https://www.example.com/", "www.example.com", 443),
            ("https://a.test:8443/b?c=d#e", "https://a.test:8443/b?c=d", "a.test", 8443),
            ("[::1]:444/x", "https://[::1]:444/x", "::1", 444),
            ("127.0.0.1", "https://127.0.0.1/", "127.0.0.1", 443),
        ] {
            let url = url(text).unwrap();
            assert_eq!((url.to_string().to_lowercase().as_str(), url.host(), url.port()), (shown, host, port));
        }
        assert_eq!(url("a.test:8443/b").unwrap().authority(), "a.test:8443");
    }

    #[test]
    fn other_urls_are_refused_in_words() {
        for (text, problem) in [
            ("http://a.test", "only https is spoken"),
            ("ftp://a.test", "only https is spoken"),
            ("https://ann:secret@a.test", "a user name is not sent"),
            ("", "accepted"),
            ("https://", "accepted"),
            ("a.test:0", "a port are needed"),
            ("a test", "invalid uri character"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(problem) && error.contains("https://www.example.com/path"), "{text}: {error}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn a_proxy_keeps_its_password_to_itself() {
        let proxy: ProxyUrl = "socks4://ann:secret@a.test:1080".parse().unwrap();
        let told = format!("{proxy:?} {}", proxy.parse().unwrap_err());
        assert!(told.contains("--proxy") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn waits_have_bounds() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["0s", "11m", "5"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
