//! `keepwarm upstreams`: who is asked, how each does and why not; with what only DNS, hot HTTPS or tunnels know of theirs on request.
//!
//! The figures are the daemon's; here they only become a table.

mod dns;
mod https;

use clap::Args;
use serde::de::DeserializeOwned;

use crate::{
    ask::{AskArgs, OutputArgs, unavailable},
    cli::{Exit, print},
    runtime::block_on,
    table::{self, Field, Tone, Value},
    tunnels,
};
use keepwarm_control::{
    client::{self, ClientError, Daemon},
    https::HttpsPoolRow,
    rows::{DnsUpstreamRow, Health, UpstreamRow},
    tunnel::TunnelStatus,
};

/// Arguments of `keepwarm upstreams`.
#[derive(Debug, Clone, Args)]
pub struct UpstreamsArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Of which job more is shown than is known of every upstream.
    #[command(flatten)]
    pub of: OfJob,
}

/// At most one of them.
#[derive(Debug, Clone, Copy, Default, Args)]
#[group(multiple = false)]
pub struct OfJob {
    /// The upstreams of DNS: handshakes, ECH, designated faces, cookies, errors of dials.
    #[arg(long)]
    pub dns: bool,
    /// The addresses of the origins of hot HTTPS that have connections.
    #[arg(long)]
    pub https: bool,
    /// The upstreams of tunnels with their spares.
    #[arg(long)]
    pub tunnel: bool,
}

/// Asks the daemon and prints its upstreams.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address.
pub fn main(args: &UpstreamsArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    print(&block_on(shown(args, &daemon))??)
}

async fn shown(args: &UpstreamsArgs, daemon: &Daemon) -> anyhow::Result<String> {
    let output = &args.output;
    match args.of {
        OfJob { dns: true, .. } => dns_rows(daemon, output).await,
        OfJob { https: true, .. } => https_rows(daemon, output).await,
        OfJob { tunnel: true, .. } => tunnel_rows(daemon, output).await,
        OfJob { .. } => {
            let rows: Vec<UpstreamRow> = client::get(daemon, "/api/v1/upstreams").await.map_err(unavailable)?;
            output.rows(&rows, &["job", "name", "transport", "health", "reason"], || {
                table(&rows, table::terminal_width())
            })
        }
    }
}

async fn dns_rows(daemon: &Daemon, output: &OutputArgs) -> anyhow::Result<String> {
    let rows: Vec<DnsUpstreamRow> = of_job(daemon, "/api/v1/dns/upstreams").await?.unwrap_or_default();
    output.rows(&rows, &["upstream", "transport", "address"], || dns::table(&rows))
}

/// The addresses of hot HTTPS that have connections.
pub(crate) async fn https_rows(daemon: &Daemon, output: &OutputArgs) -> anyhow::Result<String> {
    let rows: Vec<HttpsPoolRow> = of_job(daemon, "/api/v1/https/pools").await?.unwrap_or_default();
    output.rows(&rows, &["origin", "ip", "profile"], || https::table(&rows))
}

async fn tunnel_rows(daemon: &Daemon, output: &OutputArgs) -> anyhow::Result<String> {
    let status: Option<TunnelStatus> = of_job(daemon, "/api/v1/tunnel").await?;
    let rows = status.as_ref().map(|status| &*status.upstreams).unwrap_or_default();
    let table = || status.as_ref().and_then(tunnels::spares).unwrap_or_else(|| "no upstreams of tunnels\n".into());
    output.rows(rows, &["name", "address"], table)
}

/// What the daemon shows of one job; none where its config has none of it.
async fn of_job<T: DeserializeOwned>(daemon: &Daemon, path: &str) -> anyhow::Result<Option<T>> {
    match client::get(daemon, path).await {
        Ok(shown) => Ok(Some(shown)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

/// The upstreams as a table for people.
pub(crate) fn table(rows: &[UpstreamRow], width: Option<usize>) -> String {
    if rows.is_empty() {
        return "no upstreams: the config names none, or none was asked yet\n".into();
    }
    table::fitted(&FIELDS, rows, width)
}

/// How well a health is.
pub(crate) fn health(health: Health) -> Value {
    let tone = match health {
        Health::Unknown => Tone::Quiet,
        Health::Up => Tone::Good,
        Health::Degraded => Tone::Warn,
        Health::Down => Tone::Bad,
    };
    Value::Word(health.as_str(), tone)
}

const FIELDS: [Field<UpstreamRow>; 13] = [
    Field::words("NAME", 0, |row| (&row.name).into()),
    Field::words("JOB", 4, |row| row.job.as_str().into()),
    Field::words("TRANSPORT", 3, |row| (&row.transport).into()),
    Field::words("HEALTH", 0, |row| health(row.health)),
    Field::figures("P50", 0, |row| row.latency_p50.into()),
    Field::figures("P95", 2, |row| row.latency_p95.into()),
    Field::figures("REQUESTS", 0, |row| row.requests.into()),
    Field::figures("FAILURES", 0, |row| row.failures.into()),
    Field::figures("HANDSHAKES", 5, |row| row.handshakes.into()),
    Field::figures("RESUMED", 8, |row| row.handshakes_resumed.into()),
    Field::figures("OPEN", 6, |row| row.open.into()),
    Field::words("ADDRESS", 7, |row| (&row.address).into()),
    Field::words("REASON", 0, |row| row.reason.as_ref().into()),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use keepwarm_control::rows::Job;

    #[test]
    fn each_upstream_says_how_it_does_and_why_not() {
        let ms = Duration::from_millis;
        let good = UpstreamRow {
            name: "quad9".into(),
            transport: "tls".into(),
            address: "dns.quad9.net:853".into(),
            health: Health::Up,
            latency_p50: Some(ms(20)),
            latency_p95: Some(ms(31)),
            requests: 120_034,
            failures: 2,
            handshakes: 3,
            handshakes_resumed: 9,
            open: 2,
            ..UpstreamRow::default()
        };
        let bad = UpstreamRow {
            job: Job::Tunnel,
            name: "exit-a".into(),
            transport: "socks5".into(),
            address: "proxy.example.com:1080".into(),
            health: Health::Down,
            reason: Some("connect to 192.0.2.1:1080: connection refused (3s ago)".into()),
            requests: 12,
            failures: 12,
            ..UpstreamRow::default()
        };
        let rows = [good, bad];
        insta::assert_snapshot!(table(&rows, None), @r"
        NAME    JOB     TRANSPORT  HEALTH      P50      P95  REQUESTS  FAILURES  HANDSHAKES  RESUMED  OPEN  ADDRESS                 REASON
        quad9   dns     tls        up      20.0 ms  31.0 ms    120034         2           3        9     2  dns.quad9.net:853       -
        exit-a  tunnel  socks5     down          -        -        12        12           0        0     0  proxy.example.com:1080  connect to 192.0.2.1:1080: connection refused (3s ago)
        ");
        let narrow = table(&rows, Some(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        insta::assert_snapshot!(narrow, @r"
        NAME    HEALTH      P50      P95  REQUESTS  FAILURES  REASON
        quad9   up      20.0 ms  31.0 ms    120034         2  -
        exit-a  down          -        -        12        12  connect to 192.0.2.1:1080…
        ");
        assert!(table(&[], None).starts_with("no upstreams"));
    }
}
