//! `keepwarm lab`: the lab's DNS upstreams on loopback, with faults from flags and counters on the terminal.
//!
//! The upstreams themselves are in `keepwarm-lab`; here are its flags, the addresses to copy, and the table.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use keepwarm_lab::{CloseKind, Counters, Faults, Lab, LabSpec, TlsVersions, TransportCounters};

use crate::{
    cli::{Exit, Unavailable, print},
    config::words::parse_duration,
};

/// Arguments of `keepwarm lab`.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// Address of all listeners.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_parser = parse_loopback)]
    address: IpAddr,
    /// Port for UDP; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    udp: u16,
    /// Port for TCP; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    tcp: u16,
    /// Port for DNS over TLS; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    tls: u16,
    /// Port for DNS over HTTPS; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    https: u16,
    /// Port for DNS over QUIC; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    quic: u16,
    /// Port for DNS over HTTP/3; 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    h3: u16,
    /// Write the CA certificate here and keep it. Without it: a temporary file, removed at the end.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name in the certificate; may be repeated.
    #[arg(long, value_name = "NAME", default_value = "upstream.lab")]
    server_name: Vec<String>,
    /// TLS versions of DoT and DoH.
    #[arg(long, value_name = "VERSIONS", default_value = "both")]
    tls_versions: TlsVersionsArg,
    /// DoH speaks HTTP/1.1 only.
    #[arg(long)]
    h1_only: bool,
    /// Print the addresses and, at the end, the counters as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    faults: FaultArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Faults (shares are 0 to 1, counts are per connection, durations such as 250ms)")]
struct FaultArgs {
    /// Every answer leaves so much after its query.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    delay: Duration,
    /// Up to so much more, at random.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    jitter: Duration,
    /// UDP queries that are lost.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    loss: f64,
    /// Queries over TCP, TLS, HTTPS and QUIC that are never answered.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    stream_loss: f64,
    /// UDP answers that come back empty with TC set.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    truncate: f64,
    /// Close in order after so many queries.
    #[arg(long, value_name = "N")]
    close_after: Option<u32>,
    /// Reset after so many queries.
    #[arg(long, value_name = "N")]
    reset_after: Option<u32>,
    /// HTTP/2 and HTTP/3: GOAWAY after so many streams.
    #[arg(long, value_name = "N")]
    goaway_after: Option<u32>,
    /// End connections that idled for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle_close: Option<Duration>,
    /// How --idle-close ends a connection: notify sends GOAWAY or close_notify and FIN, fin only FIN, reset RST (over QUIC a
    /// stateless reset); silence keeps the socket open and dead.
    #[arg(long, value_name = "KIND", default_value = "notify", requires = "idle_close")]
    idle_close_kind: CloseKindArg,
    /// Read queries and never answer.
    #[arg(long)]
    silent: bool,
    /// Reset or refuse new connections; drop UDP queries.
    #[arg(long)]
    refuse: bool,
    /// Answer everything with this response code, such as 2 for SERVFAIL.
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u8).range(0..16))]
    rcode: Option<u8>,
    /// Answers exchanged with another waiting one: right id, another's question.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    swap: f64,
    /// Answers that leave later by --late-by.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    late: f64,
    /// How much later.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    late_by: Duration,
    /// Answers that are sent twice.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    duplicate: f64,
    /// Answers that a forged one precedes.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    forge: f64,
    /// HTTP/2 and QUIC: streams at once.
    #[arg(long, value_name = "N")]
    h2_max_streams: Option<u32>,
    /// Announce edns-tcp-keepalive.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    keepalive: Option<Duration>,
    /// TTL of all records, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Faults::default().ttl)]
    ttl: u32,
    /// DoH: another content type.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// DoH: pad bodies to so many bytes; at most 16 MiB.
    #[arg(long, value_name = "BYTES", value_parser = body_size)]
    body_size: Option<usize>,
    /// DoH: answer with this HTTP status.
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(100..1000))]
    http_status: Option<u16>,
    /// DoH: id of all answers.
    #[arg(long, value_name = "ID")]
    doh_id: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TlsVersionsArg {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CloseKindArg {
    Notify,
    Fin,
    Reset,
    Silence,
}

impl LabArgs {
    /// What the lab is started with.
    fn spec(&self) -> LabSpec {
        LabSpec {
            address: self.address,
            udp: Some(self.udp),
            tcp: Some(self.tcp),
            tls: Some(self.tls),
            https: Some(self.https),
            quic: Some(self.quic),
            h3: Some(self.h3),
            faults: self.faults.faults(),
            server_names: self.server_name.clone(),
            tls_versions: match self.tls_versions {
                TlsVersionsArg::Tls12 => TlsVersions::Tls12,
                TlsVersionsArg::Tls13 => TlsVersions::Tls13,
                TlsVersionsArg::Both => TlsVersions::Both,
            },
            h1_only: self.h1_only,
        }
    }
}

impl LabArgs {
    /// The address and the ports that were asked for by number: with a port left to the system nothing can be in use.
    fn listeners(&self) -> String {
        let ports = [
            ("udp", self.udp),
            ("tcp", self.tcp),
            ("tls", self.tls),
            ("https", self.https),
            ("quic", self.quic),
            ("h3", self.h3),
        ];
        let chosen: Vec<String> =
            ports.iter().filter(|(_, port)| *port > 0).map(|(name, port)| format!("{name} {port}")).collect();
        if chosen.is_empty() { self.address.to_string() } else { format!("{} ({})", self.address, chosen.join(", ")) }
    }
}

impl FaultArgs {
    fn faults(&self) -> Faults {
        let kind = match self.idle_close_kind {
            CloseKindArg::Notify => CloseKind::Notify,
            CloseKindArg::Fin => CloseKind::Fin,
            CloseKindArg::Reset => CloseKind::Reset,
            CloseKindArg::Silence => CloseKind::Silence,
        };
        Faults {
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss,
            stream_loss: self.stream_loss,
            truncate: self.truncate,
            close_after: self.close_after,
            reset_after: self.reset_after,
            goaway_after: self.goaway_after,
            idle_close: self.idle_close.map(|after| (after, kind)),
            silent: self.silent,
            refuse: self.refuse,
            rcode: self.rcode,
            swap: self.swap,
            late: self.late,
            late_by: self.late_by,
            duplicate: self.duplicate,
            forge: self.forge,
            h2_max_streams: self.h2_max_streams,
            keepalive: self.keepalive,
            ttl: self.ttl,
            content_type: self.content_type.clone(),
            body_size: self.body_size,
            http_status: self.http_status,
            doh_id: self.doh_id,
        }
    }
}

/// Runs the lab until Ctrl-C or SIGTERM, then prints its counters.
///
/// # Errors
/// [`Unavailable`] when an address cannot be listened on.
pub fn main(args: &LabArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(run(args))
}

async fn run(args: &LabArgs) -> anyhow::Result<Exit> {
    let lab = Lab::start(args.spec())
        .await
        .map_err(|error| Unavailable(format!("cannot listen on {}: {error}", args.listeners())))?;
    let ca = CaFile::write(args.ca.as_deref(), lab.ca_pem()).context("write the CA certificate")?;
    let peers = [
        ("udp", format!("udp://{}", lab.udp_addr())),
        ("tcp", format!("tcp://{}", lab.tcp_addr())),
        ("tls", format!("tls://{}", lab.tls_addr())),
        ("https", format!("https://{}/dns-query", lab.https_addr())),
        ("quic", format!("quic://{}", lab.quic_addr())),
        ("h3", format!("h3://{}/dns-query", lab.h3_addr())),
    ];
    print(&match args.json {
        true => {
            let addresses: serde_json::Map<_, _> =
                peers.iter().map(|(name, url)| ((*name).to_owned(), url.clone().into())).collect();
            let line = serde_json::json!({ "addresses": addresses, "ca": ca.path(), "server_names": args.server_name });
            format!("{line}\n")
        }
        false => introduction(&peers, ca.path(), &args.server_name),
    })?;
    watch(&lab, !args.json && io::stdout().is_terminal()).await?;
    let counters = lab.counters();
    lab.stop().await;
    print(&match args.json {
        true => format!("{}\n", serde_json::to_string(&counters).context("write json")?),
        false => table(&counters),
    })
}

/// Waits for the end; on a terminal the counters are shown every second, in place.
async fn watch(lab: &Lab, live: bool) -> anyhow::Result<()> {
    let mut end = std::pin::pin!(end());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut lines = 0;
    loop {
        tokio::select! {
            ended = end.as_mut() => {
                erase(lines);
                return ended.context("wait for a signal");
            }
            _ = ticks.tick(), if live => {
                let text = table(&lab.counters());
                erase(lines);
                print(&text)?;
                lines = text.lines().count();
            }
        }
    }
}

async fn end() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Takes the last lines off the terminal, and the `^C` that a terminal echoes into the line after them.
fn erase(lines: usize) {
    if lines > 0 {
        let _ = write!(io::stdout().lock(), "\r\x1b[{lines}A\x1b[J");
    }
}

fn introduction(peers: &[(&str, String)], ca: &Path, names: &[String]) -> String {
    let mut text = String::from(
        "DNS upstreams on loopback, until Ctrl-C. Every name exists; A and AAAA encode their question.\n\n",
    );
    for (name, url) in peers {
        text += &format!("  {name:<6}{url}\n");
    }
    let name = names.first().map_or("", String::as_str);
    text += &format!("  CA    {}   (server_name = \"{name}\")\n\n", ca.display());
    text += &format!(
        "To ask through keepwarm, put into a config:\n\n  [tls]\n  extra_roots = [\"{}\"]\n  [[dns.upstream]]\n  name = \"lab\"\n  address = \"{}\"\n  server_name = \"{name}\"\n\n",
        ca.display(),
        peers.iter().find(|(name, _)| *name == "https").map_or("", |(_, url)| url.as_str()),
    );
    text
}

/// The lab's counters, one column a transport.
fn table(counters: &Counters) -> String {
    type Count = fn(&TransportCounters) -> u64;
    let rows: [(&str, Count); 13] = [
        ("queries", |c| c.queries),
        ("answers", |c| c.answers),
        ("source ports", |c| c.source_ports),
        ("connections accepted", |c| c.accepted),
        ("open", |c| c.open),
        ("open at most", |c| c.open_max),
        ("handshakes full", |c| c.handshakes_full),
        ("handshakes resumed", |c| c.handshakes_resumed),
        ("handshakes failed", |c| c.handshakes_failed),
        ("in flight at most", |c| c.in_flight_max),
        ("closed by peer", |c| c.closed_by_peer),
        ("closed by lab", |c| c.closed_by_lab),
        ("bad messages", |c| c.bad),
    ];
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "udp", "tcp", "tls", "https", "quic", "h3"]);
    for (name, count) in rows {
        let Counters { udp, tcp, tls, https, quic, h3 } = counters;
        let cells = [udp, tcp, tls, https, quic, h3].map(|c| count(c).to_string());
        table.add_row(std::iter::once(name.to_owned()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The CA certificate in a file: one that the user named, or one that goes with the lab.
enum CaFile {
    Kept(PathBuf),
    Temporary(tempfile::NamedTempFile),
}

impl CaFile {
    fn write(path: Option<&Path>, pem: &str) -> io::Result<CaFile> {
        if let Some(path) = path {
            std::fs::write(path, pem)?;
            return Ok(CaFile::Kept(path.to_owned()));
        }
        let mut file = tempfile::Builder::new().prefix("keepwarm-lab-").suffix(".pem").tempfile()?;
        file.write_all(pem.as_bytes())?;
        Ok(CaFile::Temporary(file))
    }

    fn path(&self) -> &Path {
        match self {
            CaFile::Kept(path) => path,
            CaFile::Temporary(file) => file.path(),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{}; {}", error.problem, error.accepted))
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "accepted: 0 to 1, such as 0.05".into())
}

fn body_size(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|size| *size <= 16 << 20).ok_or_else(|| "accepted: 0 to 16777216".into())
}

fn parse_loopback(text: &str) -> Result<IpAddr, String> {
    // Its answers are made up, and forged on request: nobody but this machine should be able to ask.
    text.parse()
        .ok()
        .filter(IpAddr::is_loopback)
        .ok_or_else(|| "accepted: a loopback address, such as 127.0.0.2 or ::1".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(flags: &[&str]) -> LabArgs {
        match Cli::try_parse_from(["keepwarm", "lab"].iter().chain(flags)).unwrap().command {
            Command::Lab(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_there_are_no_faults() {
        assert_eq!(parse(&[]).spec().faults, Faults::default());
    }

    #[test]
    fn flags_become_faults() {
        let flags = "--delay 20ms --jitter 5ms --loss 0.1 --stream-loss 0.2 --truncate 0.3 --close-after 1 --reset-after 2 \
            --goaway-after 3 --idle-close 4s --idle-close-kind fin --silent --refuse --rcode 2 --swap 0.4 --late 0.5 \
            --late-by 1s --duplicate 0.6 --forge 0.7 --h2-max-streams 8 --keepalive 9s --ttl 10 --content-type text/html \
            --body-size 11 --http-status 503 --doh-id 12";
        let faults = parse(&flags.split_whitespace().collect::<Vec<_>>()).spec().faults;
        let expected = Faults {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            loss: 0.1,
            stream_loss: 0.2,
            truncate: 0.3,
            close_after: Some(1),
            reset_after: Some(2),
            goaway_after: Some(3),
            idle_close: Some((Duration::from_secs(4), CloseKind::Fin)),
            silent: true,
            refuse: true,
            rcode: Some(2),
            swap: 0.4,
            late: 0.5,
            late_by: Duration::from_secs(1),
            duplicate: 0.6,
            forge: 0.7,
            h2_max_streams: Some(8),
            keepalive: Some(Duration::from_secs(9)),
            ttl: 10,
            content_type: Some("text/html".into()),
            body_size: Some(11),
            http_status: Some(503),
            doh_id: Some(12),
        };
        assert_eq!(faults, expected);
    }

    #[test]
    fn the_table_has_a_column_for_each_transport() {
        let mut counters = Counters::default();
        counters.udp.queries = 12;
        counters.https.handshakes_resumed = 34;
        counters.h3.open = 5;
        insta::assert_snapshot!(table(&counters));
    }
}
