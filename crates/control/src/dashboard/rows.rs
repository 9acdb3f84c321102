//! Rows of the tables. Each is made of the JSON of the API, and again of nothing as the template that the script fills.

use maud::{Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::{
    frame::state,
    picture,
    words::{self, Form, at, segment, show},
};
use crate::rows::{Health, PoolRow, PoolState, RecentRow, UpstreamRow};

/// A column that shows a figure of the row.
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) path: &'static str,
    pub(super) form: Form,
}

const fn column(head: &'static str, path: &'static str, form: Form) -> Column {
    Column { head, path, form }
}

/// The figures of a pool.
pub(super) const POOL: [Column; 6] = [
    column("Open", "open", Form::Count),
    column("Idle", "idle", Form::Count),
    column("In use", "in_use", Form::Count),
    column("Waiting", "waiting", Form::Count),
    column("Oldest wait", "oldest_wait", Form::Time),
    column("Reuse", "reuse_ratio", Form::Percent),
];

/// The limits of a pool that are told with it.
pub(super) const LIMITS: [Column; 2] =
    [column("Per host", "limits.max_per_host", Form::Count), column("In all", "limits.max_total", Form::Count)];

/// The figures of an upstream.
pub(super) const UPSTREAM: [Column; 5] = [
    column("p50", "latency_p50", Form::Time),
    column("p95", "latency_p95", Form::Time),
    column("Open", "open", Form::Count),
    column("Requests", "requests", Form::Count),
    column("Failures", "failures", Form::Some),
];

/// A row as the API says it.
pub(super) fn json(row: &impl Serialize) -> Value {
    serde_json::to_value(row).expect("rows have no map with keys that are not texts")
}

/// Cells of figures.
pub(super) fn figures(row: &Value, columns: &[Column]) -> Markup {
    html! {
        @for Column { head, path, form } in columns {
            td.num role="cell" data-label=(head) data-get=(path) data-as=(form.as_str()) { (show(at(row, path), *form)) }
        }
    }
}

/// Heads of columns.
pub(super) fn heads(columns: &[Column]) -> Markup {
    html! { @for column in columns { th.num scope="col" role="columnheader" { (column.head) } } }
}

fn text<'a>(row: &'a Value, path: &str) -> &'a str {
    at(row, path).as_str().unwrap_or_default()
}

/// A pool. `rate` is connections opened a second.
pub(super) fn pool(row: &Value, rate: Option<f64>) -> Markup {
    let name = text(row, "name");
    html! {
        tr role="row" data-key=(name) {
            th.name scope="row" role="rowheader" {
                a data-get="name" data-as="text" data-href="/pools/" href={ "/pools/" (segment(name)) } { (name) }
            }
            td role="cell" data-label="State" { (state("state", text(row, "state"))) }
            (figures(row, &POOL))
            td.num role="cell" data-label="Handshakes/s" data-rate="counters.opened" { (words::rate(rate)) }
            (figures(row, &LIMITS))
        }
    }
}

/// The table of pools.
pub(super) fn pools(rows: &[PoolRow], rate: impl Fn(&str) -> Option<f64>) -> Markup {
    let (shown, left) = most(rows, ROWS_SHOWN, |row| matches!(row.state, PoolState::Idle | PoolState::Ok));
    html! {
        table role="table" aria-labelledby="pools-head" {
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" { "Pool" }
                    th scope="col" role="columnheader" { "State" }
                    (heads(&POOL))
                    th.num scope="col" role="columnheader" { "Handshakes/s" }
                    (heads(&LIMITS))
                }
            }
            tbody role="rowgroup" data-rows="pools" data-template="pool-row" data-max=(ROWS_SHOWN) {
                @for row in shown { (pool(&json(row), rate(&row.name))) }
            }
        }
        template #pool-row { (pool(&Value::Null, None)) }
        (more("pools", left, "/api/v1/pools"))
    }
}

/// An upstream. `points` are its latencies of late.
pub(super) fn upstream(row: &Value, points: &[f64]) -> Markup {
    let key = ["job", "name", "transport", "address"].map(|part| text(row, part)).join("|");
    let (reason, retry) = (text(row, "reason"), at(row, "retry_in"));
    html! {
        tr role="row" data-key=(key) {
            th.name scope="row" role="rowheader" {
                span data-get="name" data-as="text" { (text(row, "name")) }
                small.quiet data-get="address" data-as="text" { (text(row, "address")) }
            }
            td role="cell" data-label="Job" {
                span data-get="job" data-as="text" { (text(row, "job")) }
                " " span.quiet data-get="transport" data-as="text" { (text(row, "transport")) }
            }
            td role="cell" data-label="Health" { (state("health", text(row, "health"))) }
            td role="cell" data-label="Breaker" {
                (state("breaker", text(row, "breaker")))
                small.quiet.retry data-get="retry_in" data-as="retry" { @if !retry.is_null() { "retry in " (show(retry, Form::Time)) } }
            }
            (figures(row, &UPSTREAM[..2]))
            td.sparks role="cell" data-label="Latency, 10 min" data-spark="" { (picture::spark(points)) }
            (figures(row, &UPSTREAM[2..]))
            td.reason role="cell" data-label="Why" data-get="reason" data-as="text" { (reason) }
        }
    }
}

/// The table of upstreams.
pub(super) fn upstreams(rows: &[UpstreamRow], points: impl Fn(&UpstreamRow) -> Vec<f64>) -> Markup {
    let (shown, left) = most(rows, ROWS_SHOWN, |row| !matches!(row.health, Health::Down | Health::Degraded));
    html! {
        table role="table" aria-labelledby="upstreams-head" {
            thead role="rowgroup" {
                tr role="row" {
                    @for head in ["Upstream", "Job", "Health", "Breaker"] {
                        th scope="col" role="columnheader" { (head) }
                    }
                    (heads(&UPSTREAM[..2]))
                    th scope="col" role="columnheader" { "Latency, 10 min" }
                    (heads(&UPSTREAM[2..]))
                    th scope="col" role="columnheader" { "Why" }
                }
            }
            tbody role="rowgroup" data-rows="upstreams" data-template="upstream-row" data-max=(ROWS_SHOWN) {
                @for row in shown { (upstream(&json(row), &points(row))) }
            }
        }
        template #upstream-row { (upstream(&Value::Null, &[])) }
        (more("upstreams", left, "/api/v1/upstreams"))
    }
}

/// A request that was slow or failed; none: the template.
pub(super) fn recent(row: Option<&RecentRow>) -> Markup {
    let none = RecentRow::default();
    let is_one = row.is_some();
    let row = row.unwrap_or(&none);
    let word = if row.failed { "failed" } else { "slow" };
    html! {
        tr role="row" {
            td.num role="cell" data-label="Ago" data-get="age" data-as="time" { (words::time(row.age.as_secs_f64())) }
            td role="cell" data-label="How" { span.state data-get="failed" data-as="failed" data-word=(word) { (word) } }
            th.what scope="row" role="rowheader" {
                span data-get="what" data-as="text" { (row.what) }
                small.quiet data-get="job" data-as="text" { @if is_one { (row.job.as_str()) } }
            }
            td role="cell" data-label="Upstream" data-get="upstream" data-as="text" { (row.upstream.as_deref().unwrap_or_default()) }
            td.num role="cell" data-label="Total" data-get="total" data-as="time" { (words::time(row.total.as_secs_f64())) }
            td.phases role="cell" data-label="Phases" data-phases="" {
                (picture::bar(&row.phases)) small { (picture::phases(&row.phases)) }
            }
            td.reason role="cell" data-label="Why" data-get="why" data-as="text" { (row.why) }
        }
    }
}

/// The table of requests.
pub(super) fn recents(rows: &[RecentRow]) -> Markup {
    html! {
        table role="table" aria-labelledby="requests-head" {
            thead role="rowgroup" {
                tr role="row" {
                    th.num scope="col" role="columnheader" { "Ago" }
                    th scope="col" role="columnheader" { "How" }
                    th scope="col" role="columnheader" { "Request" }
                    th scope="col" role="columnheader" { "Upstream" }
                    th.num scope="col" role="columnheader" { "Total" }
                    th scope="col" role="columnheader" { "Phases" }
                    th scope="col" role="columnheader" { "Why" }
                }
            }
            tbody role="rowgroup" data-rows="recent" data-template="recent-row" data-max=(RECENT_SHOWN) {
                @for row in rows.iter().take(RECENT_SHOWN) { (recent(Some(row))) }
            }
        }
        template #recent-row { (recent(None)) }
        p.none #no-recent hidden[!rows.is_empty()] { "None was slow or failed." }
    }
}

/// The rows to show where there are too many: those that are not well first, each kind in its order. And how many that leaves.
pub(super) fn most<T>(rows: &[T], max: usize, is_well: impl Fn(&T) -> bool) -> (Vec<&T>, usize) {
    let left = rows.len().saturating_sub(max);
    let mut shown: Vec<&T> = rows.iter().collect();
    if left > 0 {
        shown.sort_by_key(|row| is_well(row));
        shown.truncate(max);
    }
    (shown, left)
}

/// How many rows are not shown, and where they are.
pub(super) fn more(what: &str, left: usize, path: &str) -> Markup {
    html! {
        p.none data-more=(what) hidden[left == 0] {
            span { (words::count(left as u64)) } " more: " a href=(path) { (path) }
        }
    }
}

/// Pools, and upstreams, that a page shows.
pub(super) const ROWS_SHOWN: usize = 20;
/// Requests that a page shows, as many as an event has.
const RECENT_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_of_an_upstream_are_two_rows() {
        let row =
            |address: &str| UpstreamRow { name: "quad9".into(), address: address.into(), ..UpstreamRow::default() };
        let shown = upstreams(&[row("192.0.2.1:853"), row("192.0.2.2:853")], |_| Vec::new()).into_string();
        assert!(shown.contains("data-key=\"dns|quad9||192.0.2.1:853\""), "{shown}");
        assert!(shown.contains("data-key=\"dns|quad9||192.0.2.2:853\""), "{shown}");
    }
}
