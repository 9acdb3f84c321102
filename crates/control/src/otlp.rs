//! Pushes what `/metrics` shows, and what was slow or failed, to an `OpenTelemetry` collector (OTLP 1 over HTTP, protobuf).
//!
//! The messages are made of the same look as a scrape: the SDK of `OpenTelemetry` has no histogram that somebody else has counted, so the
//! official messages are filled in directly. Counters are cumulative, so that an export that is lost costs nothing; a request that was
//! slow or failed becomes a span with its phases below it, told again until the collector has taken it, as long as the daemon keeps it.
//!
//! Deliberately not here: TLS, headers and compression. A collector on the machine or in the pod has them; this leads to it. Nothing is
//! queued: while one export is under way the next one waits, and the data path never does.

mod messages;
mod send;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use hyper::Uri;
use prost::Message as _;

use crate::{
    metrics::{self, Process},
    rows::RecentRow,
    serve::Control,
};
use messages::Resource;

/// Where to and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpOptions {
    /// `http://HOST:PORT` of the collector, with a path in front of `/v1/metrics` where there is one.
    endpoint: Uri,
    /// Time between two exports.
    interval: Duration,
    /// Limit for one export.
    timeout: Duration,
    /// `service.name` and what else describes this daemon.
    attributes: Vec<(String, String)>,
}

impl OtlpOptions {
    /// The options that the environment names, by the words of the `OpenTelemetry` specification; none without an endpoint, and where
    /// `OTEL_SDK_DISABLED` is `true`.
    ///
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds, 1 s to 1 h, default 30 s);
    /// `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds, up to a minute, default 10 s); `OTEL_SERVICE_NAME` (default `keepwarm`);
    /// `OTEL_RESOURCE_ATTRIBUTES` (`key=value,...`).
    ///
    /// # Errors
    /// When a value is not what it has to be: the words say what would be accepted.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Option<OtlpOptions>, String> {
        let read = |name: &str| read(name).filter(|value| !value.is_empty());
        let Some(endpoint) = read(ENDPOINT) else { return Ok(None) };
        if read("OTEL_SDK_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = endpoint.trim_end_matches('/').parse::<Uri>().ok().filter(is_plain);
        let endpoint = endpoint.ok_or_else(|| {
            format!("{ENDPOINT}: accepted is http://HOST:PORT, such as http://127.0.0.1:4318; a collector there has TLS for what is beyond")
        })?;
        let attributes =
            read("OTEL_RESOURCE_ATTRIBUTES").map(|pairs| attributes(&pairs)).transpose()?.unwrap_or_default();
        let given = |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let service = read("OTEL_SERVICE_NAME").or_else(|| given(SERVICE)).unwrap_or_else(|| "keepwarm".to_owned());
        let mut all = vec![(SERVICE.to_owned(), service)];
        all.extend(attributes.into_iter().filter(|(name, _)| name != SERVICE));
        Ok(Some(OtlpOptions {
            endpoint,
            interval: milliseconds(&read, "OTEL_METRIC_EXPORT_INTERVAL", 30_000, 1_000..=3_600_000)?,
            timeout: milliseconds(&read, "OTEL_EXPORTER_OTLP_TIMEOUT", 10_000, 1..=60_000)?,
            attributes: all,
        }))
    }

    /// Where to, without anything that could be a secret.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }

    fn host(&self) -> &str {
        self.endpoint.host().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.endpoint.port_u16().unwrap_or(80)
    }

    fn path(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.endpoint.path().trim_end_matches('/'))
    }
}

fn is_plain(uri: &Uri) -> bool {
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    uri.scheme_str() == Some("http")
        && uri.host().is_some_and(|host| !host.is_empty())
        && !has_user
        && uri.query().is_none()
}

fn milliseconds(
    read: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: u64,
    accepted: std::ops::RangeInclusive<u64>,
) -> Result<Duration, String> {
    let Some(text) = read(name) else { return Ok(Duration::from_millis(default)) };
    let value = text.parse().ok().filter(|value| accepted.contains(value));
    let (least, most) = accepted.into_inner();
    value.map(Duration::from_millis).ok_or_else(|| format!("{name}: accepted are milliseconds, {least} to {most}"))
}

fn attributes(pairs: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.trim().to_owned()))
    };
    let pairs = pairs.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| "OTEL_RESOURCE_ATTRIBUTES: accepted is key=value,...".to_owned())
}

impl Control {
    /// Exports until the control plane goes or stops. What cannot be exported is said in the log once, and again when it can.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; an export that is under way may have arrived.
    pub async fn export(control: Weak<Control>, options: OtlpOptions) {
        let Some(mut stop) = control.upgrade().map(|control| control.stop.clone()) else { return };
        let mut exporter = Exporter { options, process: Arc::default(), told: HashSet::new(), failing: false };
        let mut ticks = tokio::time::interval(exporter.options.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => return,
            }
            let Some(control) = control.upgrade() else { return };
            tokio::select! {
                () = exporter.export(control) => {}
                _ = stop.changed() => return,
            }
        }
    }
}

struct Exporter {
    options: OtlpOptions,
    process: Arc<Process>,
    /// The slow and failed requests of the last export that arrived.
    told: HashSet<u64>,
    failing: bool,
}

impl Exporter {
    async fn export(&mut self, control: Arc<Control>) {
        let sent = match tokio::time::timeout(self.options.timeout, self.send(control)).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("no answer within {:?}", self.options.timeout)),
        };
        let endpoint = self.options.endpoint();
        match &sent {
            Ok(()) if self.failing => tracing::info!(endpoint, "the collector takes exports again"),
            Err(error) if !self.failing => {
                tracing::warn!(endpoint, error, "the collector takes no exports; tried again each interval");
            }
            Ok(()) | Err(_) => {}
        }
        self.failing = sent.is_err();
    }

    async fn send(&mut self, control: Arc<Control>) -> Result<(), String> {
        let (process, attributes) = (Arc::clone(&self.process), self.options.attributes.clone());
        // As for a scrape: not on a thread that carries clients' bytes.
        let look = tokio::task::spawn_blocking(move || look(&control, &process, attributes));
        let (metrics, resource, recent) = look.await.map_err(|error| error.to_string())?;
        let news: Vec<&RecentRow> = recent.iter().filter(|row| !self.told.contains(&fingerprint(row))).collect();
        let spans = (!news.is_empty()).then(|| messages::traces(&news, &resource, now()).encode_to_vec());
        let mut connection = send::connect(self.options.host(), self.options.port()).await?;
        connection.post(&self.options.path("metrics"), metrics).await?;
        if let Some(spans) = spans {
            connection.post(&self.options.path("traces"), spans).await?;
        }
        self.told = recent.iter().map(fingerprint).collect();
        Ok(())
    }
}

fn look(
    control: &Control,
    process: &Process,
    attributes: Vec<(String, String)>,
) -> (Vec<u8>, Resource, Vec<RecentRow>) {
    let sample = control.sampler.now(&*control.snapshots);
    let families = metrics::families(&*control.snapshots, &sample, process);
    let resource = Resource { attributes, version: sample.status.version.clone() };
    let now = now();
    let message = messages::metrics(&families, &resource, now.saturating_sub(sample.status.uptime), now);
    (message.encode_to_vec(), resource, control.snapshots.recent())
}

/// Tells a request from others; its age is another one each time.
fn fingerprint(row: &RecentRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    (row.job.as_str(), row.failed, &row.what, &row.upstream, row.total, row.tries, &row.why).hash(&mut hasher);
    row.phases.iter().for_each(|phase| (&phase.phase, phase.took).hash(&mut hasher));
    hasher.finish()
}

/// Time since 1970.
fn now() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "OTLP dates what it carries by the wall clock; nothing is decided by it"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SERVICE: &str = "service.name";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<OtlpOptions>, String> {
        OtlpOptions::from_environment(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_where_to_and_a_slip_is_named() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[(ENDPOINT, "")]), Ok(None));
        assert_eq!(read(&[(ENDPOINT, "http://[::1]:4318"), ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        let options = read(&[
            (ENDPOINT, "http://collector.test:4318/otel/"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "host.name=a, service.name=b"),
        ]);
        let options = options.unwrap().unwrap();
        assert_eq!(
            (options.endpoint().as_str(), options.path("traces").as_str()),
            ("collector.test:4318", "/otel/v1/traces")
        );
        assert_eq!((options.interval, options.timeout), (Duration::from_secs(5), Duration::from_secs(10)));
        assert_eq!(options.attributes, [("service.name".into(), "b".into()), ("host.name".to_owned(), "a".to_owned())]);
        for (name, value) in [
            (ENDPOINT, "https://collector.test:4318"),
            (ENDPOINT, "collector.test:4318"),
            (ENDPOINT, "http://user:secret@collector.test"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "host"),
        ] {
            let error = read(&[(name, value), (ENDPOINT, "http://127.0.0.1:4318")]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: accepted")) && !error.contains("secret"), "{error}");
        }
    }
}
