//! The report as one HTML file that needs nothing else, neither a network nor a script.

use std::fmt::Write as _;

use super::{
    Report,
    advice::Advice,
    chart::{Curve, chart},
    text::{POOLS, slow},
};
use crate::{
    pools::UNTIL,
    table::{Field, Value},
};
use keepwarm_control::rows::{PoolSeries, RecentRow, UpstreamRow};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let json = serde_json::to_string(report).unwrap_or_else(|error| error.to_string());
    let parts = [
        ("{{style}}", include_str!("style.css").to_owned()),
        ("{{span}}", escape(&report.span())),
        ("{{health}}", escape(report.status.health.as_str())),
        ("{{advice}}", report.advice.iter().map(advice).collect()),
        ("{{charts}}", charts(report)),
        ("{{pools}}", table(&POOLS, &report.pools)),
        ("{{upstreams}}", table(&UPSTREAMS, &report.upstreams)),
        ("{{recent}}", table(&RECENT, &report.recent)),
        ("{{version}}", escape(&report.status.version)),
        ("{{json}}", escape(&json)),
    ];
    fill(include_str!("page.html"), &parts)
}

/// The template with its places filled, in one pass: what is put in is not looked at again.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((at, (place, text))) =
        parts.iter().filter_map(|part| Some((rest.find(part.0)?, part))).min_by_key(|(at, _)| *at)
    {
        page.push_str(&rest[..at]);
        page.push_str(text);
        rest = &rest[at + place.len()..];
    }
    page + rest
}

fn advice(advice: &Advice) -> String {
    let weight = advice.weight.as_str();
    let (about, evidence) = (escape(&advice.about), escape(&advice.evidence));
    let mut html = format!("<li class=\"{weight}\"><strong>{weight}</strong> <b>{about}</b>: {evidence}");
    if let Some(setting) = advice.setting() {
        let now = advice.now.as_ref().map_or_else(String::new, |now| format!(" <small>now {}</small>", escape(now)));
        let _ = write!(html, "<br>&rarr; <code>{}</code>{now}", escape(&setting));
    }
    if let Some(command) = &advice.command {
        let _ = write!(html, "<br><small>at once, {UNTIL}:</small> <code>{}</code>", escape(command));
    }
    html + "</li>\n"
}

fn charts(report: &Report) -> String {
    let mut html = String::new();
    for series in report.history.pools.iter().filter(|series| series.acquires.iter().any(|count| *count > 0)) {
        let name = escape(&series.pool);
        let _ = write!(html, "<h3>{name}</h3>\n<div class=\"charts\">\n{}</div>\n", of_pool(series, report));
    }
    let slow: Vec<String> = slow(report).iter().map(|slow| format!("{} {}", slow.name, slow.count)).collect();
    if !slow.is_empty() {
        let figures: String = report
            .history
            .slow
            .iter()
            .map(|series| {
                let count = series.count.iter().sum::<u64>();
                let curves = [Curve::counts("a step", &series.count)];
                chart(&series.name, &format!("{count} requests."), &curves, report.seconds, None)
            })
            .collect();
        let _ = write!(
            html,
            "<h3>Slow or failed requests by where most of their time went</h3>\n<p>{}</p>\n<div class=\"charts\">\n{figures}</div>\n",
            escape(&slow.join(", "))
        );
    }
    html
}

fn of_pool(series: &PoolSeries, report: &Report) -> String {
    let (step, seconds) = (report.history.step, report.seconds);
    let ratio = series.acquires.iter().zip(&series.reused).map(|(acquires, reused)| match acquires {
        0 => 0.0,
        acquires => 100.0 * *reused as f64 / *acquires as f64,
    });
    let ratio = Curve { name: "reused", points: ratio.collect() };
    let each = format!("Steps of {step} s.");
    [
        chart("Reuse ratio", "% of acquires; 0 also where there were none.", &[ratio], seconds, Some(100.0)),
        chart(
            "Handshakes",
            &each,
            &[Curve::counts("opened", &series.opened), Curve::counts("failed dials", &series.dial_errors)],
            seconds,
            None,
        ),
        chart(
            "Connections",
            &each,
            &[Curve::counts("open", &series.open), Curve::counts("in use", &series.in_use)],
            seconds,
            None,
        ),
        chart(
            "Waits",
            "Who waits at the end of a step, and for how many seconds of it the pool was full.",
            &[Curve::counts("waiting", &series.waiting), Curve::counts("full", &series.full)],
            seconds,
            None,
        ),
        chart(
            "Wait times",
            "ms of those that waited.",
            &[Curve::millis("p50", &series.wait_p50), Curve::millis("p99", &series.wait_p99)],
            seconds,
            None,
        ),
        chart(
            "Dial times",
            "ms, TLS included.",
            &[Curve::millis("p50", &series.dial_p50), Curve::millis("p99", &series.dial_p99)],
            seconds,
            None,
        ),
    ]
    .concat()
}

fn table<R>(fields: &[Field<R>], rows: &[R]) -> String {
    let cell = |field: &Field<R>, tag: &str, text: &str| {
        let class = if field.alignment == comfy_table::CellAlignment::Right { " class=\"figure\"" } else { "" };
        format!("<{tag}{class}>{}</{tag}>", escape(text))
    };
    let headings: String = fields.iter().map(|field| cell(field, "th", field.heading)).collect();
    let mut html = format!("<thead><tr>{headings}</tr></thead>\n<tbody>\n");
    for row in rows {
        let cells: String = fields.iter().map(|field| cell(field, "td", &(field.value)(row).text())).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    html + "</tbody>\n"
}

/// Text that stands for itself in HTML, also within an attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const UPSTREAMS: [Field<UpstreamRow>; 9] = [
    Field::words("NAME", 0, |row| (&row.name).into()),
    Field::words("JOB", 0, |row| row.job.as_str().into()),
    Field::words("TRANSPORT", 0, |row| (&row.transport).into()),
    Field::words("HEALTH", 0, |row| row.health.as_str().into()),
    Field::figures("P50", 0, |row| row.latency_p50.into()),
    Field::figures("P95", 0, |row| row.latency_p95.into()),
    Field::figures("REQUESTS", 0, |row| row.requests.into()),
    Field::figures("FAILURES", 0, |row| row.failures.into()),
    Field::words("REASON", 0, |row| row.reason.as_ref().into()),
];

const RECENT: [Field<RecentRow>; 6] = [
    Field::figures("AGE", 0, |row| Value::Age(row.age)),
    Field::words("JOB", 0, |row| row.job.as_str().into()),
    Field::words("WHAT", 0, |row| (&row.what).into()),
    Field::words("UPSTREAM", 0, |row| row.upstream.as_ref().into()),
    Field::figures("TOTAL", 0, |row| row.total.into()),
    Field::words("WHY", 0, |row| (&row.why).into()),
];

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let page = page(&report());
        assert!(!page.contains("{{") && !page.contains("}}}"), "every place is filled");
        assert_eq!(page.matches("<svg").count(), 13);
        assert_eq!(page.matches("</svg>").count(), 13);
        for outside in ["src=", "href=", "url(", "@import", "<script", "https://", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // The one address is the name of the SVG language, which nobody fetches.
        assert_eq!(page.matches("http://").count(), page.matches("http://www.w3.org/2000/svg").count());
        for figure in ["dns.pool.max_per_host = ", "full in 3.1 % of looks", "the last 1 h."] {
            assert!(page.contains(figure), "{figure}");
        }
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let mut report = report();
        report.recent[0].why = "<script>alert(\"x\")</script> {{json}} {{style}}".into();
        let page = page(&report);
        assert!(!page.contains("<script") && page.contains("quad9 &lt;b&gt;"));
        assert!(page.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; {{json}} {{style}}"));
    }
}
