//! The report for a terminal: advice first, then the figures that it is from.

use std::fmt::Write as _;

use super::{
    Report,
    advice::{Advice, Weight},
    summary::Summary,
};
use crate::{
    pools::{UNTIL, share, short},
    table::{Field, Value, fitted, visible},
    upstreams,
};
use keepwarm_control::rows::RecentRow;

/// The report as text.
pub(super) fn text(report: &Report, width: Option<usize>) -> String {
    let status = &report.status;
    let mut text = format!("keepwarm {}, {}: {}\n", visible(&status.version), report.span(), status.health.as_str());
    let columns = width.unwrap_or(WIDTH);
    text.push_str("\nadvice\n");
    if report.advice.is_empty() {
        text.push_str("  none: nothing was asked for\n");
    }
    for advice in &report.advice {
        push_advice(&mut text, advice, columns);
    }
    if !report.pools.is_empty() {
        let _ = write!(text, "\npools\n{}", fitted(&POOLS, &report.pools, width));
    }
    for (name, points) in trends(report) {
        let _ = write!(text, "\n{name}\n{}\n", spark(&points, columns.min(SPARK_MAX)));
    }
    if !report.upstreams.is_empty() {
        let _ = write!(text, "\nupstreams, since the start\n{}", upstreams::table(&report.upstreams, width));
    }
    let slow = slow(report);
    if !slow.is_empty() {
        let _ =
            write!(text, "\nslow or failed requests by where most of their time went\n{}", fitted(&SLOW, &slow, width));
    }
    if !report.recent.is_empty() {
        let shown = &report.recent[..report.recent.len().min(RECENT_MAX)];
        let _ = write!(text, "\nthe last of them\n{}", fitted(&RECENT, shown, width));
    }
    text
}

fn push_advice(text: &mut String, advice: &Advice, columns: usize) {
    let lines =
        wrapped(&visible(&format!("{}: {}", advice.about, advice.evidence)), columns.saturating_sub(10).max(20));
    for (number, line) in lines.iter().enumerate() {
        let weight = if number == 0 { advice.weight.as_str() } else { "" };
        let _ = writeln!(text, "  {weight:<8}{line}");
    }
    let Some(setting) = advice.setting() else { return };
    let now = advice.now.as_ref().map_or_else(String::new, |now| format!("   (now {})", visible(now)));
    let _ = writeln!(text, "          -> {}{now}", visible(&setting));
    if let Some(command) = &advice.command {
        let _ = writeln!(text, "          at once, {UNTIL}: {}", visible(command));
    }
}

/// What is worth a curve: pools with advice, or the first of them.
fn trends(report: &Report) -> Vec<(String, Vec<f64>)> {
    let is_told = |name: &str| report.advice.iter().any(|advice| advice.about == name && advice.weight < Weight::Fine);
    let pools = report
        .history
        .pools
        .iter()
        .filter(|series| is_told(&series.pool) && series.in_use.iter().any(|count| *count > 0));
    let trends = pools.map(|series| {
        let points: Vec<f64> = series.in_use.iter().map(|count| *count as f64).collect();
        let most = series.in_use.iter().max().copied().unwrap_or(0);
        (format!("{}: connections in use, at most {most}", visible(&series.pool)), points)
    });
    trends.take(TRENDS_MAX).collect()
}

/// A curve in one line, the oldest on the left: each letter stands for the largest of its points.
fn spark(points: &[f64], columns: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = points.iter().copied().fold(0.0, f64::max);
    let columns = columns.clamp(1, points.len().max(1));
    (0..columns)
        .map(|column| {
            let (from, to) = (column * points.len() / columns, (column + 1) * points.len() / columns);
            let value = points[from..to].iter().copied().fold(0.0, f64::max);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of eight levels")]
            let level = if most > 0.0 { (value / most * 7.0).round() as usize } else { 0 };
            LEVELS[level.min(7)]
        })
        .collect()
}

/// The text in lines of at most so many letters, where its words allow that.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line from the start on");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// How many were slow or failed, and by what.
pub(super) struct Slow {
    pub(super) name: String,
    pub(super) count: u64,
}

/// By count, the most first.
pub(super) fn slow(report: &Report) -> Vec<Slow> {
    let series = report.history.slow.iter();
    let mut slow: Vec<Slow> =
        series.map(|series| Slow { name: series.name.clone(), count: series.count.iter().sum() }).collect();
    slow.sort_by_key(|slow| std::cmp::Reverse(slow.count));
    slow
}

fn time(seconds: Option<f64>) -> Value {
    seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()).into()
}

/// What a pool's past comes to.
pub(super) const POOLS: [Field<Summary>; 12] = [
    Field::words("POOL", 0, |row| (&row.pool).into()),
    Field::figures("ACQUIRES", 0, |row| row.acquires.into()),
    Field::figures("REUSE", 0, |row| share(row.reuse_ratio)),
    Field::figures("OPENED", 2, |row| row.opened.into()),
    Field::figures("FAILED", 0, |row| row.failed.into()),
    Field::figures("FULL", 0, |row| Value::Share(row.full_share)),
    Field::figures("IN USE P99", 3, |row| row.in_use_p99.into()),
    Field::figures("DEMAND", 1, |row| Value::Rate(row.demand)),
    Field::figures("WAIT P50", 5, |row| time(row.wait_p50)),
    Field::figures("WAIT P99", 0, |row| time(row.wait_p99)),
    Field::figures("DIAL P50", 4, |row| time(row.dial_p50)),
    Field::figures("DIAL P99", 6, |row| time(row.dial_p99)),
];

const SLOW: [Field<Slow>; 2] =
    [Field::words("PHASE", 0, |row| (&row.name).into()), Field::figures("COUNT", 0, |row| row.count.into())];

const RECENT: [Field<RecentRow>; 6] = [
    Field::figures("AGE", 0, |row| Value::Age(row.age)),
    Field::words("JOB", 2, |row| row.job.as_str().into()),
    Field::words("WHAT", 0, |row| (&row.what).into()),
    Field::words("UPSTREAM", 1, |row| row.upstream.as_ref().into()),
    Field::figures("TOTAL", 0, |row| short(row.total).into()),
    Field::words("WHY", 0, |row| (&row.why).into()),
];

/// Of a line where it is not known how wide it may be.
const WIDTH: usize = 120;
const SPARK_MAX: usize = 120;
const TRENDS_MAX: usize = 4;
const RECENT_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn a_report_begins_with_what_to_do() {
        insta::assert_snapshot!(text(&report(), Some(100)));
    }

    #[test]
    fn a_curve_fits_and_keeps_its_peaks() {
        let mut points = vec![0.0; 1000];
        points[501] = 8.0;
        let curve = spark(&points, 10);
        assert_eq!(curve, "▁▁▁▁▁█▁▁▁▁");
        assert_eq!(spark(&[1.0, 2.0], 80).chars().count(), 2);
        assert_eq!(spark(&[0.0; 5], 5), "▁▁▁▁▁");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("a bb ccc dddd", 5), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
