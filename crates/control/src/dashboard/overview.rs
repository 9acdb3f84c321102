//! `GET /`: the daemon on one page.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use maud::{Markup, html};

use super::{
    answer, cards,
    frame::{Frame, fact, figure, state},
    outcome::Outcome,
    picture, rows,
    words::{self, Form, count},
};
use crate::{
    history::{History, STEP},
    routes::Shared,
    rows::{ConfigState, DaemonHealth, LogRow, PoolSeries, StatusRow, UpstreamRow},
    sample::Sample,
};

pub(super) async fn show(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let asked = shared.clone();
    shared.heavy.run(move || made(&asked, &headers)).await
}

fn made(shared: &Shared, headers: &HeaderMap) -> Response {
    let sample = shared.sampler.now(&*shared.snapshots);
    let frame = Frame::new(shared, &sample.status, headers);
    let mut response = answer(StatusCode::OK, overview(&frame, &sample));
    if frame.outcome.is_some() {
        Outcome::forget(&mut response);
    }
    response
}

fn overview(frame: &Frame<'_>, sample: &Sample) -> Markup {
    let history = &frame.shared.history;
    let past = history.pools(HOUR);
    let (status, recent) = (&sample.status, frame.shared.snapshots.recent());
    let main = html! {
        h1.hidden { "keepwarm" }
        (health(status))
        section.panel aria-labelledby="chart-head" {
            h2 #chart-head { "Connections, last hour" }
            (chart(&past, status))
        }
        section.panel #pools aria-labelledby="pools-head" {
            h2 #pools-head { "Pools" }
            (rows::pools(&sample.pools, |name| opened(&past, name)))
        }
        section.panel #upstreams aria-labelledby="upstreams-head" {
            h2 #upstreams-head { "Upstreams" }
            (rows::upstreams(&sample.upstreams, |row| latencies(history, row)))
        }
        section #jobs aria-labelledby="jobs-head" {
            h2.hidden #jobs-head { "Jobs" }
            div.cards data-region="cards" { (cards::cards(frame)) }
        }
        section.panel #requests aria-labelledby="requests-head" {
            h2 #requests-head { "Slow and failed requests" }
            (rows::recents(&recent))
        }
        section.panel #config aria-labelledby="config-head" {
            h2 #config-head { "Config and actions" }
            (config(status))
            (actions(frame))
        }
    };
    frame.page(&format!("{}: keepwarm", status.health.as_str()), None, &main)
}

/// How all is, in a word, a sentence and figures.
fn health(status: &StatusRow) -> Markup {
    let row = rows::json(status);
    html! {
        section.health aria-label="Health" data-word=(status.health.as_str()) {
            div.verdict role="status" aria-live="polite" {
                (state("health", status.health.as_str()))
                span #sentence
                    data-ok=(sentence(DaemonHealth::Ok)) data-degraded=(sentence(DaemonHealth::Degraded))
                    data-failing=(sentence(DaemonHealth::Failing)) data-stopping=(sentence(DaemonHealth::Stopping))
                    { (sentence(status.health)) }
            }
            dl.figures data-scope="status" {
                (figure("connections", &row, "connections", Form::Count))
                (figure("in use", &row, "in_use", Form::Count))
                (figure("waiting", &row, "waiting", Form::Count))
                (figure("reuse", &row, "reuse_ratio", Form::Percent))
                div {
                    dt { "upstreams up" }
                    dd {
                        span data-get="upstreams_up" data-as="count" { (count(status.upstreams_up)) } " of "
                        span data-get="upstreams" data-as="count" { (count(status.upstreams)) }
                    }
                }
                (figure("running for", &row, "uptime", Form::Time))
            }
            ul.troubles #troubles {
                @for trouble in status.troubles.iter().take(TROUBLES_SHOWN) { li { (trouble) } }
                @if let Some(left) = status.troubles.len().checked_sub(TROUBLES_SHOWN).filter(|left| *left > 0) {
                    li { (count(left as u64)) " more" }
                }
            }
        }
    }
}

fn sentence(health: DaemonHealth) -> &'static str {
    match health {
        DaemonHealth::Ok => "All is well.",
        DaemonHealth::Degraded => "Clients are served. Something is not well:",
        DaemonHealth::Failing => "A job cannot serve its clients:",
        DaemonHealth::Stopping => "The daemon ends what is in flight and stops.",
    }
}

/// All pools together over the last hour.
fn chart(pools: &[PoolSeries], status: &StatusRow) -> Markup {
    let sum = |figure: fn(&PoolSeries) -> &Vec<u64>| {
        let length = pools.iter().map(|pool| figure(pool).len()).max().unwrap_or(0);
        let mut all = vec![0; length.min(HOUR)];
        for points in pools.iter().map(figure) {
            for (sum, point) in all.iter_mut().rev().zip(points.iter().rev()) {
                *sum += *point;
            }
        }
        all
    };
    let row = rows::json(status);
    let series = [
        ("c-open", sum(|pool| &pool.open)),
        ("c-in-use", sum(|pool| &pool.in_use)),
        ("c-waiting", sum(|pool| &pool.waiting)),
    ];
    let most = |at: usize| count(series[at].1.iter().copied().max().unwrap_or(0));
    let text = format!("Most in the last hour: {} open, {} in use, {} waiting.", most(0), most(1), most(2));
    html! {
        dl.legend data-scope="status" {
            @for (class, name, path) in [("c-open", "open", "connections"), ("c-in-use", "in use", "in_use"), ("c-waiting", "waiting", "waiting")] {
                div class=(class) {
                    dt { svg.swatch viewBox="0 0 24 8" aria-hidden="true" { path class=(class) d="M0 4h24" {} } (name) }
                    dd data-get=(path) data-as="count" { (words::show(words::at(&row, path), Form::Count)) }
                }
            }
        }
        div.chart #chart { (picture::chart(&series, &text)) }
        p.quiet #chart-text { (text) }
    }
}

fn config(status: &StatusRow) -> Markup {
    let ConfigState { file, generation, loaded, needs_restart, last_error, changed_at_run_time } = &status.config;
    let ago = match status.now.saturating_sub(*loaded) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", words::time(seconds as f64)),
    };
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    html! {
        div data-region="config" {
            dl.figures {
                (fact("file", file.as_deref().unwrap_or("none: built-in defaults")))
                (fact("generation", &count(*generation)))
                (fact("read", &ago))
                (fact("waits for a restart", &list(needs_restart)))
                (fact("changed at run time", &list(changed_at_run_time)))
            }
            @if let Some(error) = last_error {
                p.fault { span.state data-word="refused" { "refused" } " The last reload changed nothing: " (error) }
            }
        }
    }
}

fn actions(frame: &Frame<'_>) -> Markup {
    let LogRow { level, configured, reverts_in } = frame.shared.snapshots.log();
    html! {
        div.actions {
            (frame.button("/reload", "Reload the config"))
            @if frame.shared.snapshots.cache().is_some() {
                details.confirm {
                    summary { "Flush the cache …" }
                    form method="post" action="/cache/flush" {
                        (frame.secret())
                        p { "Forgotten answers are asked of upstreams again: clients wait longer for a while." }
                        label { "Only this name" input name="name" placeholder="every name" autocomplete="off" spellcheck="false"; }
                        button.danger { "Flush" }
                    }
                }
            }
            details.confirm {
                summary { "Log level …" }
                form method="post" action="/log" {
                    (frame.secret())
                    p {
                        "It is " code { (level) } ", in the config " code { (configured) }
                        @if let Some(left) = reverts_in { "; back to that in " (words::time(left.as_secs_f64())) } "."
                    }
                    label { "Level"
                        select name="level" {
                            @for word in ["error", "warn", "info", "debug", "trace"] { option selected[level == word] { (word) } }
                        }
                    }
                    label { "For seconds" input name="seconds" type="number" min="1" max="86400" value="600"; }
                    button { "Set" }
                }
            }
        }
    }
}

/// Connections opened a second in the last step; none before the first.
fn opened(past: &[PoolSeries], pool: &str) -> Option<f64> {
    let series = past.iter().find(|series| series.pool == pool)?;
    Some(*series.opened.last()? as f64 / STEP as f64)
}

/// What the latency of an upstream was in the last ten minutes, and is.
fn latencies(history: &History, row: &UpstreamRow) -> Vec<f64> {
    let now = row.latency_p50.map_or(0.0, |latency| latency.as_secs_f64());
    history.latencies(row, SPARK).into_iter().chain([now]).collect()
}

const TROUBLES_SHOWN: usize = 8;
/// Steps of an hour, and of the ten minutes of a spark.
const HOUR: usize = 360;
const SPARK: usize = 60;
