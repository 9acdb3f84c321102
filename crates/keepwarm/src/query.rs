//! `keepwarm query`: one name, its answer, and where the time went.
//!
//! The running daemon is asked, so that what is shown is what its clients get; with `-c` the upstreams of a config are
//! asked from here, over connections of this process.

mod explain;

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use keepwarm_dns::{
    config::{DnsConfig, QueryLogSettings},
    server::Server,
};

use crate::{
    cli::{Exit, QueryArgs, print},
    config::Config,
    logging::LogFilter,
    pools, run,
};
use keepwarm_control::{
    client::{self, ClientError},
    rows::{QueryReport, QueryRequest},
};

/// Asks and prints. With `--explain`, a query that nobody answered is explained too, and is a failure.
///
/// # Errors
/// When no answer came; [`NoDaemon`](crate::cli::NoDaemon) when no daemon runs.
pub fn main(args: &QueryArgs, log: Option<LogFilter>) -> anyhow::Result<Exit> {
    let explain = args.explain;
    let request = QueryRequest { name: args.name.clone(), qtype: args.qtype.to_uppercase(), explain };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let report = match &args.config {
        Some(file) => {
            let mut config = Config::load(file)?.config;
            // The answer is what was asked for: connection events are only shown when asked for, too.
            config.log.filter = log.unwrap_or_else(|| "warn".parse().expect("a level"));
            crate::logging::init(&config.log)?;
            let dns =
                config.dns.with_context(|| format!("{} has no [dns]: there is no upstream to ask", file.display()))?;
            runtime.block_on(ask_here(dns, request))?
        }
        None => {
            let daemon = args.ask.daemon()?;
            runtime.block_on(client::post(&daemon, "/api/v1/query", &request, PATIENCE)).map_err(unreached)?
        }
    };
    print(&match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report).context("write json")?),
        false => text(&report),
    })?;
    let failed = report.explain.is_some_and(|explain| explain.failure.is_some());
    Ok(if failed { Exit::Failure } else { Exit::Ok })
}

async fn ask_here(mut dns: DnsConfig, request: QueryRequest) -> anyhow::Result<QueryReport> {
    dns.listen.clear();
    dns.workers = 1;
    // The upstreams are what is asked here, and an empty cache could only say that it is empty.
    dns.cache.size = 0;
    // The log is the running daemon's, and may not be this user's to write.
    dns.query_log = QueryLogSettings::default();
    let server = Server::start(dns).map_err(run::unavailable)?;
    let report = run::ask(&server, request).await;
    server.stop(Duration::ZERO).await;
    Ok(report?)
}

fn unreached(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::NotRunning { .. } => crate::ask::unavailable(error)
            .context("cannot ask the daemon; `-c FILE` asks the upstreams of a config instead"),
        other => crate::ask::unavailable(other),
    }
}

/// The report for people.
pub fn text(report: &QueryReport) -> String {
    let mut text = String::new();
    for record in report.answers.iter().chain(&report.authority) {
        let _ = writeln!(text, "{record}");
    }
    if text.is_empty() {
        text.push_str("(no records)\n");
    }
    let QueryReport { rcode, size, phases, .. } = report;
    let _ = writeln!(text, "\nstatus      {rcode}, {size} bytes");
    match &report.upstream {
        Some(upstream) => {
            let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
            let (transport, address) = (or_unknown(&report.transport), or_unknown(&report.address));
            let age = report.age.map_or_else(String::new, |age| format!(", {} old", pools::short(age)));
            let connection = match (report.reused, report.opened_ahead) {
                (true, _) => format!("reused{age}"),
                (false, true) => format!("opened ahead{age}"),
                (false, false) => "new".to_owned(),
            };
            let _ = writeln!(text, "upstream    {upstream} ({transport}, {address})");
            let _ = writeln!(text, "connection  {connection}");
            if let Some(ech) = report.ech.as_deref().filter(|ech| *ech != "off") {
                let _ = writeln!(text, "ech         {ech}");
            }
            let _ = writeln!(text, "time        {} in all", millis(report.total));
        }
        None if report.local && !report.cached => {
            let _ = writeln!(text, "local       answered here");
            let _ = writeln!(text, "time        {} in all", pools::short(report.total));
        }
        None if !report.cached => {
            let _ = writeln!(text, "upstream    none answered");
            let _ = writeln!(text, "time        {} in all", millis(report.total));
        }
        None => {
            let from = if report.stale { "stale: past its end, served because upstreams failed" } else { "hit" };
            let _ = writeln!(text, "cache       {from}");
            let _ = writeln!(text, "time        {} in all", pools::short(report.total));
        }
    }
    let steps = [
        ("wait", phases.wait),
        ("resolve", phases.resolve),
        ("connect", phases.connect),
        ("tls", phases.tls),
        ("exchange", phases.exchange),
    ];
    for (name, time) in steps {
        if let Some(time) = time {
            let _ = writeln!(text, "  {name:<10}{}", millis(time));
        }
    }
    if let Some(explain) = &report.explain {
        text.push_str(&explain::text(explain));
        return text;
    }
    // A single try that gave the answer is told above already.
    if report.attempts.len() > usize::from(!report.cached) {
        text.push_str("tries\n");
        for attempt in &report.attempts {
            let _ = writeln!(text, "  {:<10}{} after {}", attempt.upstream, attempt.outcome, millis(attempt.took));
        }
    }
    text
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Longer than any query deadline that makes sense.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use keepwarm_control::rows::{Attempt, Phases};

    #[test]
    fn a_report_tells_the_connection_and_each_phase_that_happened() {
        let attempt = |outcome: &str| Attempt {
            upstream: "quad9".into(),
            outcome: outcome.into(),
            took: Duration::from_millis(7),
        };
        let report = QueryReport {
            rcode: "NOERROR".into(),
            answers: vec!["www.example. 60 IN A 192.0.2.1".into()],
            size: 45,
            upstream: Some("quad9".into()),
            transport: Some("tls".into()),
            address: Some("9.9.9.9:853".into()),
            phases: Phases {
                wait: Some(Duration::from_micros(31_250)),
                tls: Some(Duration::from_millis(20)),
                exchange: Some(Duration::from_millis(8)),
                ..Phases::default()
            },
            total: Duration::from_millis(40),
            attempts: vec![attempt("SERVFAIL"), attempt("NOERROR")],
            ..QueryReport::default()
        };
        insta::assert_snapshot!(text(&report), @r"
        www.example. 60 IN A 192.0.2.1

        status      NOERROR, 45 bytes
        upstream    quad9 (tls, 9.9.9.9:853)
        connection  new
        time        40.0 ms in all
          wait      31.2 ms
          tls       20.0 ms
          exchange  8.0 ms
        tries
          quad9     SERVFAIL after 7.0 ms
          quad9     NOERROR after 7.0 ms
        ");
    }

    #[test]
    fn a_report_from_the_cache_names_no_upstream_but_those_that_failed() {
        let hit = QueryReport {
            rcode: "NOERROR".into(),
            answers: vec!["www.example. 59 IN A 192.0.2.1".into()],
            size: 45,
            cached: true,
            total: Duration::from_micros(12),
            ..QueryReport::default()
        };
        insta::assert_snapshot!(text(&hit), @r"
        www.example. 59 IN A 192.0.2.1

        status      NOERROR, 45 bytes
        cache       hit
        time        12 us in all
        ");
        let local = QueryReport { cached: false, local: true, ..hit.clone() };
        insta::assert_snapshot!(text(&local), @r"
        www.example. 59 IN A 192.0.2.1

        status      NOERROR, 45 bytes
        local       answered here
        time        12 us in all
        ");
        let took = Duration::from_millis(1800);
        let failed = Attempt { upstream: "quad9".into(), outcome: "timed out".into(), took };
        let stale = QueryReport { stale: true, total: took, attempts: vec![failed], ..hit };
        insta::assert_snapshot!(text(&stale), @r"
        www.example. 59 IN A 192.0.2.1

        status      NOERROR, 45 bytes
        cache       stale: past its end, served because upstreams failed
        time        1.80 s in all
        tries
          quad9     timed out after 1800.0 ms
        ");
    }
}
