//! A trace's explanation as the status API tells it.

use keepwarm_dns::server::{AttemptTrace, CandidateTrace, Trace};

use keepwarm_control::{
    explain::{Candidate, Connection, Dial, Exchange, Explain},
    rows::BreakerState,
};

/// Why a query went as it did.
pub(super) fn explain(trace: &Trace) -> Explain {
    let local = trace.local.as_ref().map(ToString::to_string);
    let Some(explanation) = &trace.explanation else {
        // Neither the cache nor an upstream was asked.
        return Explain { local, failure: super::failure(trace), ..Explain::default() };
    };
    Explain {
        local,
        cache: explanation.cache.to_string(),
        joined: explanation.joined,
        strategy: explanation.strategy.as_str().into(),
        group: explanation.group.clone(),
        suffix: explanation.suffix.clone(),
        fallback: explanation.fallback.clone(),
        hedge: explanation.hedge.map(|hedge| hedge.to_string()),
        decide: trace.exchange.as_ref().map(|exchange| exchange.decide),
        candidates: explanation.candidates.iter().map(candidate).collect(),
        exchanges: trace.attempts.iter().map(exchange).collect(),
        failure: super::failure(trace),
    }
}

fn candidate(candidate: &CandidateTrace) -> Candidate {
    Candidate {
        upstream: candidate.upstream.clone(),
        group: candidate.group.clone(),
        asked: candidate.why.is_asked(),
        why: candidate.why.to_string(),
        breaker: match candidate.breaker {
            "open" => BreakerState::Open,
            "half-open" => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        },
        p50: candidate.p50,
        p95: candidate.p95,
        in_flight: candidate.in_flight as u64,
        weight: candidate.weight,
    }
}

fn exchange(attempt: &AttemptTrace) -> Exchange {
    Exchange {
        upstream: attempt.upstream.clone(),
        transport: attempt.transport.into(),
        designated: attempt.designated,
        started: attempt.started,
        took: attempt.took,
        why: attempt.why.to_string(),
        outcome: attempt.outcome.clone(),
        connection: attempt.connection.map(|connection| Connection {
            id: connection.id,
            address: connection.peer.to_string(),
            age: connection.age,
            reused: connection.reused,
            opened_ahead: connection.opened_ahead(),
            wait: connection.wait,
            dial: connection.dial.map(|dial| Dial {
                resolve: dial.resolve,
                connect: dial.connect,
                tls: dial.tls,
                resumed: dial.resumed,
                ech: dial.ech.map(str::to_owned),
            }),
            cookie: connection.cookie,
            random_case: connection.random_case,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepwarm_dns::{
        config::{CacheSettings, DnsConfig, RouteConfig, Strategy, Transport, UpstreamConfig},
        server::Server,
    };
    use keepwarm_lab::{Faults, Lab, LabSpec};

    use keepwarm_control::rows::{QueryError, QueryReport, QueryRequest};

    fn config(lab: &Lab) -> DnsConfig {
        let address = lab.tcp_addr();
        let upstream = UpstreamConfig {
            group: "corp".into(),
            ..UpstreamConfig::new("lab", Transport::Tcp, &address.ip().to_string(), address.port())
        };
        DnsConfig {
            strategy: Strategy::Fastest,
            cache: CacheSettings { size: 1 << 20, ..CacheSettings::default() },
            routes: vec![RouteConfig { suffixes: vec!["corp.example".into()], group: "corp".into() }],
            upstreams: vec![upstream],
            workers: 1,
            ..DnsConfig::default()
        }
    }

    async fn ask(server: &Server, explain: bool) -> Result<QueryReport, QueryError> {
        let request = QueryRequest { name: "www.corp.example".into(), qtype: "A".into(), explain };
        super::super::ask(server, request).await
    }

    #[tokio::test]
    async fn a_report_explains_itself_only_where_that_was_asked_for() {
        let lab = Lab::start(LabSpec::default()).await.unwrap();
        let server = Server::start(config(&lab)).unwrap();
        let explain = ask(&server, true).await.unwrap().explain.unwrap();
        assert_eq!((&*explain.cache, &*explain.strategy), ("miss", "fastest"));
        assert_eq!((&*explain.group, explain.suffix.as_deref()), ("corp", Some("corp.example")));
        assert_eq!((explain.failure, explain.hedge), (None, None));
        let candidate = &explain.candidates[0];
        assert_eq!((candidate.asked, &*candidate.why), (true, "first: never asked before"));
        let connection = explain.exchanges[0].connection.as_ref().unwrap();
        assert_eq!((&*connection.address, connection.reused), (&*lab.tcp_addr().to_string(), false));

        let hit = ask(&server, true).await.unwrap();
        assert_eq!(hit.explain.as_ref().map(|explain| &*explain.cache), Some("hit"));
        assert_eq!(ask(&server, false).await.unwrap().explain, None);
        server.stop(Duration::ZERO).await;
        lab.stop().await;
    }

    #[tokio::test]
    async fn a_query_that_nobody_answered_is_explained_and_without_that_an_error() {
        let faults = Faults { refuse: true, ..Faults::default() };
        let lab = Lab::start(LabSpec { faults, ..LabSpec::default() }).await.unwrap();
        let server = Server::start(config(&lab)).unwrap();
        let report = ask(&server, true).await.unwrap();
        assert_eq!((&*report.rcode, &report.upstream, report.cached), ("SERVFAIL", &None, false));
        let failure = report.explain.as_ref().and_then(|explain| explain.failure.clone()).expect("it failed");
        let text = crate::query::text(&report);
        assert!(text.contains(&format!("failure   {failure}")) && text.contains("none answered"), "{text}");
        assert!(matches!(ask(&server, false).await, Err(QueryError::Failed(_))));
        server.stop(Duration::ZERO).await;
        lab.stop().await;
    }
}
