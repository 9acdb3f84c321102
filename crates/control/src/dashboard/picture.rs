//! Small pictures, as SVG that needs neither script nor style: what a policy without inline style lets through.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::words;
use crate::rows::PhaseRow;

/// A line of what a latency was; 0 is a gap. Its text says the same.
pub(super) fn spark(points: &[f64]) -> Markup {
    let mut known = points.iter().copied().filter(|point| *point > 0.0);
    let (low, high) =
        known.clone().fold((f64::INFINITY, 0.0_f64), |(low, high), point| (low.min(point), high.max(point)));
    let Some(last) = known.next_back() else { return html! { span.quiet { (words::NONE) } } };
    let (low_text, high_text, last_text) = (words::time(low), words::time(high), words::time(last));
    let text = format!("{low_text} to {high_text}, last {last_text}");
    html! {
        svg.spark role="img" aria-label=(text) viewBox="0 0 100 20" preserveAspectRatio="none" {
            title { (text) }
            path d=(line(points, high, 100.0, 20.0)) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// The path of a series, broken where it is 0.
fn line(points: &[f64], high: f64, width: f64, height: f64) -> String {
    let step = width / (points.len().max(2) - 1) as f64;
    let mut path = String::new();
    let mut pen = 'M';
    for (at, point) in points.iter().enumerate() {
        if *point <= 0.0 {
            pen = 'M';
            continue;
        }
        let y = (height - 2.0) * (1.0 - point / high) + 1.0;
        let _ = write!(path, "{pen}{:.1} {y:.1}", step * at as f64);
        if pen == 'M' {
            // A single point is to be seen too.
            path.push_str("h.1");
        }
        pen = 'L';
    }
    path
}

/// Lines over each other on one scale, each with a class: the chart for who has no script.
pub(super) fn chart(series: &[(&str, Vec<u64>)], text: &str) -> Markup {
    let high = series.iter().flat_map(|(_, points)| points).copied().max().unwrap_or(0).max(1) as f64;
    // Here 0 is no gap, but nothing.
    let drawn = |point: &u64| (*point as f64).max(f64::MIN_POSITIVE);
    let floats = |points: &[u64]| points.iter().map(drawn).collect::<Vec<f64>>();
    html! {
        svg.plain role="img" aria-label=(text) viewBox="0 0 600 100" preserveAspectRatio="none" {
            @for (class, points) in series {
                path class=(class) d=(line(&floats(points), high, 600.0, 100.0)) vector-effect="non-scaling-stroke" {}
            }
        }
    }
}

/// What a request's time went to, as a bar.
pub(super) fn bar(phases: &[PhaseRow]) -> Markup {
    let total: f64 = phases.iter().map(|phase| phase.took.as_secs_f64()).sum();
    let mut from = 0.0;
    html! {
        svg.bar aria-hidden="true" viewBox="0 0 100 8" preserveAspectRatio="none" {
            @for phase in phases.iter().filter(|_| total > 0.0) {
                @let width = 100.0 * phase.took.as_secs_f64() / total;
                @let x = from;
                rect class=(phase_class(&phase.phase)) x=(format!("{x:.2}")) y="0" width=(format!("{width:.2}")) height="8" {}
                ({ from += width; "" })
            }
        }
    }
}

/// The same in words.
pub(super) fn phases(phases: &[PhaseRow]) -> String {
    let words =
        |phase: &PhaseRow| format!("{} {}", phase.phase.replace('_', " "), words::time(phase.took.as_secs_f64()));
    phases.iter().map(words).collect::<Vec<_>>().join(" · ")
}

/// A class of the style sheet: phases that it does not know look alike.
fn phase_class(phase: &str) -> &'static str {
    match phase {
        "wait" => "p-wait",
        "resolve" => "p-resolve",
        "connect" => "p-connect",
        "tls" => "p-tls",
        "exchange" => "p-exchange",
        _ => "p-other",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spark_says_what_it_shows() {
        let shown = spark(&[0.0, 0.010, 0.020, 0.0, 0.015]).into_string();
        assert!(shown.contains("10.0 ms to 20.0 ms, last 15.0 ms"), "{shown}");
        assert_eq!(shown.matches('M').count(), 2, "a gap: {shown}");
        assert!(!spark(&[0.0, 0.0]).into_string().contains("<svg"));
        assert!(!spark(&[]).into_string().contains("<svg"));
    }

    #[test]
    fn the_parts_of_a_bar_fill_it() {
        let phase = |name: &str, ms| PhaseRow { phase: name.into(), took: Duration::from_millis(ms) };
        let some = [phase("wait", 30), phase("tls", 10)];
        let shown = bar(&some).into_string();
        assert!(
            shown.contains(r#"x="0.00" y="0" width="75.00""#) && shown.contains(r#"x="75.00" y="0" width="25.00""#),
            "{shown}"
        );
        assert_eq!(phases(&some), "wait 30.0 ms · tls 10.0 ms");
        assert!(!bar(&[phase("wait", 0)]).into_string().contains("NaN"));
    }
}
