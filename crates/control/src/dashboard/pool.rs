//! `GET /pools/{name}`: a pool with every figure, its hosts and connections, and what can be done to it.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use keepwarm_pool::NamedPool;
use maud::{Markup, html};
use serde_json::Value;

use super::{
    answer,
    frame::{Frame, fact, figure, state},
    outcome::Outcome,
    refuse,
    rows::{self, Column},
    words::{Form, count, segment},
};
use crate::{
    pools::find,
    routes::Shared,
    rows::{ConnectionRow, HostRow, PoolRow, PoolState},
};

pub(super) async fn show(State(shared): State<Shared>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let asked = shared.clone();
    shared.heavy.run(move || made(&asked, &name, &headers)).await
}

fn made(shared: &Shared, name: &str, headers: &HeaderMap) -> Response {
    let Some(named) = find(shared, name) else {
        return refuse(StatusCode::NOT_FOUND, "There is no pool of this name: a reload may have taken it away.");
    };
    let sample = shared.sampler.now(&*shared.snapshots);
    let frame = Frame::new(shared, &sample.status, headers);
    let mut response = answer(StatusCode::OK, detail(&frame, &named));
    if frame.outcome.is_some() {
        Outcome::forget(&mut response);
    }
    response
}

fn detail(frame: &Frame<'_>, named: &NamedPool) -> Markup {
    let (row, hosts) = (PoolRow::from(named), hosts(named));
    let json = rows::json(&row);
    let main = html! {
        section.health aria-labelledby="pool-head" data-scope="pool" data-word=(row.state.as_str()) {
            div.verdict role="status" aria-live="polite" {
                h1 #pool-head { "Pool " (row.name) }
                (state("state", row.state.as_str()))
            }
            dl.figures {
                @for Column { head, path, form } in rows::POOL { (figure(head, &json, path, form)) }
                (figure("Dialing", &json, "dialing", Form::Count))
                (figure("Draining", &json, "draining", Form::Count))
                (figure("Hosts", &json, "hosts", Form::Count))
            }
        }
        section.panel aria-labelledby="act-head" {
            h2 #act-head { "Actions" }
            (actions(frame, &row, &hosts))
        }
        section.panel aria-labelledby="hosts-head" {
            h2 #hosts-head { "Hosts" }
            div data-region="hosts" { (host_rows(&row.name, &hosts)) }
        }
        div.columns {
            section.panel aria-labelledby="times-head" {
                h2 #times-head { "Times" }
                div data-region="times" { (times(&json)) }
            }
            section.panel aria-labelledby="counters-head" {
                h2 #counters-head { "Since the start" }
                div data-region="counters" { (counters(&json)) }
            }
        }
    };
    frame.page(&format!("{}: pool {}: keepwarm", row.state.as_str(), row.name), Some(&row.name), &main)
}

fn hosts(named: &NamedPool) -> Vec<HostRow> {
    let mut hosts = named.pool.hosts();
    hosts.sort_by(|left, right| left.name.cmp(&right.name));
    hosts.into_iter().map(HostRow::new).collect()
}

/// What can be done to it. What may hurt has to be opened first, and says what it does.
fn actions(frame: &Frame<'_>, row: &PoolRow, hosts: &[HostRow]) -> Markup {
    let path = format!("/pools/{}", segment(&row.name));
    let which = html! {
        label { "Host"
            select name="host" {
                option value="" { "all of them" }
                @for host in hosts.iter().take(HOSTS_SHOWN) { option value=(host.name) { (host.name) } }
            }
        }
    };
    let confirmed = |action: &str, word: &str, what: &str| {
        html! {
            details.confirm {
                summary { (word) " …" }
                form method="post" action=(format!("{path}/{action}")) {
                    (frame.secret()) p { (what) } (which) button.danger { (word) }
                }
            }
        }
    };
    html! {
        div.actions {
            details.confirm {
                summary { "Limits …" }
                form.limits method="post" action=(format!("{path}/limits")) {
                    (frame.secret())
                    p {
                        "In force until a restart, or a reload that changes the pool's section. No connection in use is dropped; "
                        "what is left empty stays."
                    }
                    @for (name, now) in limits(row) {
                        label { (name) " (" (count(now)) ")" input name=(name) type="number" min="0" placeholder=(now); }
                    }
                    button { "Set" }
                }
            }
            details.confirm {
                summary { "Warm …" }
                form method="post" action=(format!("{path}/warm")) {
                    (frame.secret())
                    p { "Opens connections ahead, of each host that is meant." }
                    (which)
                    label { "Connections" input name="connections" type="number" min="1" placeholder=(row.limits.min_idle.max(1)); }
                    button { "Warm" }
                }
            }
            (frame.button(&format!("{path}/resume"), "Resume"))
            (confirmed("flush", "Flush", "Closes idle connections, and busy ones with their last request. The next requests dial anew."))
            (confirmed("pause", "Pause", "Requests that need a connection of it fail from now on, until somebody resumes it."))
            (confirmed("drain", "Drain", "As a pause, and connections are closed as they become idle."))
        }
    }
}

/// The limits by the names of the API.
fn limits(row: &PoolRow) -> Vec<(String, u64)> {
    let Value::Object(limits) = rows::json(&row.limits) else { return Vec::new() };
    limits.into_iter().filter_map(|(name, now)| Some((name, now.as_u64()?))).collect()
}

fn host_rows(pool: &str, hosts: &[HostRow]) -> Markup {
    let (shown, left) = rows::most(hosts, HOSTS_SHOWN, |host| matches!(host.state, PoolState::Idle | PoolState::Ok));
    let mut places = CONNECTIONS_SHOWN;
    html! {
        @if hosts.is_empty() { p.none { "None yet: nobody asked for a connection." } }
        @else {
            table role="table" aria-labelledby="hosts-head" {
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Host" }
                        th scope="col" role="columnheader" { "State" }
                        (rows::heads(&rows::POOL))
                        (rows::heads(&HOST))
                    }
                }
                tbody role="rowgroup" {
                    @for host in &shown {
                        @let json = rows::json(host);
                        tr role="row" data-key=(host.name) {
                            th.name scope="row" role="rowheader" { (host.name) }
                            td role="cell" data-label="State" { (state("state", host.state.as_str())) }
                            (rows::figures(&json, &rows::POOL))
                            (rows::figures(&json, &HOST))
                        }
                    }
                }
            }
            h3 { "Connections" }
            @for host in shown {
                @let some = host.connections.len().min(places);
                ({ places -= some; "" })
                (connections(host, &host.connections[..some]))
            }
            @let path = format!("/api/v1/pools/{}", segment(pool));
            (rows::more("hosts", left, &path))
        }
    }
}

/// The connections of a host, folded up.
fn connections(host: &HostRow, shown: &[ConnectionRow]) -> Markup {
    let all = host.connections.len();
    html! {
        details.connections data-key=(host.name) {
            summary { (host.name) " " span.quiet { (count(all as u64)) } }
            @if shown.len() < all { p.none { (count((all - shown.len()) as u64)) " more are in the API." } }
            table role="table" aria-label={ "Connections to " (host.name) } {
                thead role="rowgroup" {
                    tr role="row" {
                        th.num scope="col" role="columnheader" { "Id" }
                        th scope="col" role="columnheader" { "State" }
                        (rows::heads(&CONNECTION))
                    }
                }
                tbody role="rowgroup" {
                    @for connection in shown {
                        tr role="row" {
                            th.num scope="row" role="rowheader" { (connection.id) }
                            td role="cell" data-label="State" { (state("state", &connection.state)) }
                            (rows::figures(&rows::json(connection), &CONNECTION))
                        }
                    }
                }
            }
        }
    }
}

fn times(pool: &Value) -> Markup {
    html! {
        table role="table" aria-labelledby="times-head" {
            thead role="rowgroup" {
                tr role="row" { th scope="col" role="columnheader" { "What" } (rows::heads(&TIMES)) }
            }
            tbody role="rowgroup" {
                @for (name, path) in [("Wait", "wait"), ("Dial", "dial"), ("Lease", "lease"), ("Idle before use", "idle_age")] {
                    tr role="row" {
                        th scope="row" role="rowheader" { (name) }
                        (rows::figures(&pool[path], &TIMES))
                    }
                }
            }
        }
    }
}

/// Every counter that is not 0; those by kind as `name: kind`.
fn counters(pool: &Value) -> Markup {
    let Value::Object(counters) = &pool["counters"] else { return html! {} };
    let mut all: Vec<(String, u64)> = Vec::new();
    for (name, value) in counters {
        let name = name.replace('_', " ");
        match value {
            Value::Object(kinds) => all.extend(
                kinds
                    .iter()
                    .map(|(kind, value)| (format!("{name}: {}", kind.replace('_', " ")), value.as_u64().unwrap_or(0))),
            ),
            value => all.push((name, value.as_u64().unwrap_or(0))),
        }
    }
    all.retain(|(_, value)| *value > 0);
    html! {
        @if all.is_empty() { p.none { "Nothing was asked of it yet." } }
        dl.figures.list { @for (name, value) in &all { (fact(name, &count(*value))) } }
    }
}

const HOST: [Column; 2] = [
    Column { head: "Dial p50", path: "dial.p50", form: Form::Time },
    Column { head: "Idle limit", path: "idle_limit", form: Form::Time },
];
const CONNECTION: [Column; 5] = [
    Column { head: "In flight", path: "in_flight", form: Form::Count },
    Column { head: "Capacity", path: "capacity", form: Form::Count },
    Column { head: "Uses", path: "uses", form: Form::Count },
    Column { head: "Age", path: "age", form: Form::Time },
    Column { head: "Idle for", path: "idle_for", form: Form::Time },
];
const TIMES: [Column; 5] = [
    Column { head: "Count", path: "count", form: Form::Count },
    Column { head: "p50", path: "p50", form: Form::Time },
    Column { head: "p90", path: "p90", form: Form::Time },
    Column { head: "p99", path: "p99", form: Form::Time },
    Column { head: "Longest", path: "max", form: Form::Time },
];
/// Hosts, and connections of all of them, that a page shows.
const HOSTS_SHOWN: usize = 30;
const CONNECTIONS_SHOWN: usize = 80;
