//! `dns-bench faults`: what clients notice of upstreams that misbehave, as failures out of queries.
//!
//! Server and upstreams run in this process, the settings are the daemon's defaults with the cache off. Nothing is asserted
//! here; the tests of `keepwarm-dns` hold what must never happen.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Listen, Transport, UpstreamConfig},
    server::Server,
};
use keepwarm_lab::{Ca, Lab, LabSpec};
use keepwarm_transport::tls::TlsRoots;

use self::{
    load::{Load, Record},
    scenario::{SCENARIOS, Scenario},
};
use crate::machine::Machine;

mod load;
mod scenario;

/// What is run.
#[derive(Args)]
pub(crate) struct FaultsArgs {
    /// Transports to upstreams [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = transport)]
    transport: Vec<Transport>,
    /// Scenarios by name [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Scenario::by_name)]
    only: Vec<&'static Scenario>,
    /// Write the table to this file, for example docs/faults.md.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const TRANSPORTS: [Transport; 6] =
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https, Transport::H3, Transport::Quic];

fn transport(name: &str) -> Result<Transport, String> {
    let known = || TRANSPORTS.map(Transport::as_str).join(", ");
    TRANSPORTS.into_iter().find(|transport| transport.as_str() == name).ok_or_else(|| format!("one of {}", known()))
}

/// Runs every scenario over every transport that it concerns, and prints the table.
pub(crate) fn run(args: &FaultsArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let transports = if args.transport.is_empty() { TRANSPORTS.to_vec() } else { args.transport.clone() };
    let scenarios = if args.only.is_empty() { SCENARIOS.iter().collect() } else { args.only.clone() };
    let machine = Machine::here();
    let mut rows = Vec::new();
    for scenario in scenarios {
        let concerned = transports.iter().copied().filter(|transport| scenario.concerns(*transport));
        if scenario.is_sparse() {
            // These mostly wait, so they wait together.
            let mut together = tokio::task::JoinSet::new();
            let _guard = runtime.enter();
            for transport in concerned {
                together.spawn(measure(scenario, transport));
            }
            let mut measured = runtime.block_on(together.join_all()).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            measured.sort_by_key(|row| TRANSPORTS.iter().position(|transport| *transport == row.transport));
            rows.extend(measured);
        } else {
            for transport in concerned {
                rows.push(runtime.block_on(measure(scenario, transport))?);
            }
        }
        for row in rows.iter().filter(|row| std::ptr::eq(row.scenario, scenario)) {
            eprintln!("{}", row.line());
        }
    }
    let page = page(&machine, &rows);
    match &args.out {
        Some(file) => std::fs::write(file, page).with_context(|| format!("write {}", file.display())),
        None => {
            print!("{page}");
            Ok(())
        }
    }
}

/// One scenario over one transport, as measured.
struct Row {
    scenario: &'static Scenario,
    transport: Transport,
    queries: usize,
    /// Queries without a right answer within the client's patience.
    failed: usize,
    /// Failed queries that were sent later than a second after the fault began.
    failed_later: usize,
    /// From the fault's end to the first moment after which every query is answered; `None` where it does not end.
    recovered: Option<Duration>,
    /// Reasons of failures, with their numbers.
    reasons: Vec<(String, usize)>,
}

async fn measure(scenario: &'static Scenario, transport: Transport) -> anyhow::Result<Row> {
    let ca = Ca::new();
    let mut labs = Vec::new();
    for number in 0..scenario.upstreams {
        let spec = LabSpec { faults: scenario.faults(number, false), ..LabSpec::default() };
        labs.push(Lab::start_with_ca(spec, &ca).await.context("start an upstream")?);
    }
    let config = DnsConfig {
        listen: vec![Listen::plain((Ipv4Addr::LOCALHOST, 0).into())],
        cache: CacheSettings { size: 0, ..CacheSettings::default() },
        upstreams: labs.iter().enumerate().map(|(number, lab)| upstream(number, lab, transport)).collect(),
        workers: 1,
        roots: TlsRoots::only([ca.root()]),
        ..DnsConfig::default()
    };
    let server = Server::start(config).context("start the server")?;
    server.warm_up().await;
    let load = Load::start(server.listening()[0].address, scenario.interval, scenario.clients, scenario.length);
    let fault = async {
        let Some((begin, length)) = scenario.fault else { return };
        tokio::time::sleep(begin).await;
        set(&labs, scenario, true);
        if let Some(length) = length {
            tokio::time::sleep(length).await;
            set(&labs, scenario, false);
        }
    };
    let (records, ()) = tokio::join!(load.records(), fault);
    server.stop(Duration::from_secs(1)).await;
    for lab in labs {
        lab.stop().await;
    }
    Ok(Row::of(scenario, transport, &records))
}

fn set(labs: &[Lab], scenario: &Scenario, misbehave: bool) {
    for (number, lab) in labs.iter().enumerate() {
        lab.set_faults(scenario.faults(number, misbehave));
    }
}

fn upstream(number: usize, lab: &Lab, transport: Transport) -> UpstreamConfig {
    let address = address(lab, transport);
    UpstreamConfig {
        server_name: transport.is_encrypted().then(|| "upstream.lab".into()),
        ..UpstreamConfig::new(&format!("lab{number}"), transport, &address.ip().to_string(), address.port())
    }
}

fn address(lab: &Lab, transport: Transport) -> SocketAddr {
    match transport {
        Transport::Udp => lab.udp_addr(),
        Transport::Tcp => lab.tcp_addr(),
        Transport::Tls => lab.tls_addr(),
        Transport::Https => lab.https_addr(),
        Transport::H3 => lab.h3_addr(),
        Transport::Quic => lab.quic_addr(),
    }
}

impl Row {
    fn of(scenario: &'static Scenario, transport: Transport, records: &[Record]) -> Row {
        let failures = || records.iter().filter(|record| record.failure.is_some());
        let begin = scenario.fault.map_or(Duration::ZERO, |(begin, _)| begin);
        let end = scenario.fault.and_then(|(begin, length)| Some(begin + length?));
        let mut reasons: Vec<(String, usize)> = Vec::new();
        for reason in failures().filter_map(|record| record.failure.as_ref()) {
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason.clone(), 1)),
            }
        }
        Row {
            scenario,
            transport,
            queries: records.len(),
            failed: failures().count(),
            failed_later: failures().filter(|record| record.sent > begin + Duration::from_secs(1)).count(),
            recovered: end.map(|end| {
                let last = failures().map(|record| record.sent).max().unwrap_or_default();
                last.saturating_sub(end)
            }),
            reasons,
        }
    }

    fn line(&self) -> String {
        let Row { scenario, transport, queries, failed, failed_later, recovered, reasons } = self;
        let mut result = format!("{failed} of {queries}");
        if *failed > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            let share = *failed as f64 / *queries as f64 * 100.0;
            let _ = write!(result, " ({share:.2} %)");
        }
        if scenario.names_first_second() {
            let _ = write!(result, ", {failed_later} after the first second");
        }
        if let Some(recovered) = recovered {
            let _ = write!(result, ", all answered {} ms after the return", recovered.as_millis());
        }
        let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!(
            "| {} | {} | {} | {result} | {} |",
            scenario.title,
            transport.as_str(),
            scenario.goal,
            reasons.join(", ")
        )
    }
}

fn page(machine: &Machine, rows: &[Row]) -> String {
    let mut page = format!(
        "# What clients notice of upstreams that misbehave\n\n\
         `cargo run --release -p keepwarm-bench -- faults --out docs/faults.md` on {machine}.\n\n\
         Clients ask over UDP, a new name each time, and give up after 5 s; SERVFAIL, a wrong answer and no answer are\n\
         failures alike. The daemon has its default settings (racing, deadline 4 s), its cache off, and one worker. Upstreams\n\
         answer after 1 ms. 1,000 queries/s from 100 clients, but for idle closes, where each of 10 clients asks once in 5 s\n\
         or 11 s. Queries sent in the last 5 s of a run are waited for.\n\n\
         | upstream | over | goal | failures | what they were |\n|---|---|---|---|---|\n"
    );
    for row in rows {
        let _ = writeln!(page, "{}", row.line());
    }
    page
}
