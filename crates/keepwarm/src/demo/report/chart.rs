//! The charts of the report page, as SVG that stands in the page.
//!
//! Bars lie on their sides so that names and figures fit on a phone. The colours drawn here are placeholders that the page's
//! style replaces, and so one drawing serves light, dark and paper.

use keepwarm_dns::config::Transport;
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{Circle, PathElement, Rectangle, Text},
    style::{
        Color as _, IntoFont as _, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    super::{
        latency::Latency,
        plan::label,
        result::{DemoResult, RunResult},
        words::{brief, millis, whole},
    },
    escape,
};

/// Four charts: sockets, handshakes, latency, CPU time.
pub(super) fn all(result: &DemoResult) -> String {
    let sockets = |run: &RunResult| Mark::bar(Some(run.total.seen.sockets as f64), whole);
    let handshakes = |run: &RunResult| Mark::bar(Some(run.total.seen.handshakes() as f64), whole);
    let cpu = |run: &RunResult| Mark::bar(run.total.cpu.map(|cpu| cpu.as_secs_f64()), |value| format!("{value:.2} s"));
    let encrypted: Vec<RunResult> =
        result.runs.iter().filter(|run| matches!(run.transport, Transport::Tls | Transport::Https)).cloned().collect();
    let latency = |run: &RunResult| Mark::range(run.paced.warm);
    let paced = format!(
        "Paced load without its start: p50, p95 and p99 in ms. The upstreams take {}. Logarithmic.",
        brief(result.load.delay)
    );
    [
        chart("Sockets to the upstreams", "Both loads. Logarithmic.", &result.runs, Scale::Log, sockets),
        chart("TLS handshakes", "Both loads, full and resumed. Logarithmic.", &encrypted, Scale::Log, handshakes),
        chart("Latency", &paced, &result.runs, Scale::Log, latency),
        chart("CPU time of the server", "Both loads.", &result.runs, Scale::Linear, cpu),
    ]
    .concat()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    /// Powers of ten; what is below 1 stands at the left edge.
    Log,
}

/// What is drawn of a run.
struct Mark {
    /// Up to where: one value is a bar, several are points on a line.
    values: Vec<f64>,
    words: String,
}

impl Mark {
    fn bar(value: Option<f64>, words: impl Fn(f64) -> String) -> Mark {
        Mark { words: value.map_or_else(|| "n/a".into(), words), values: value.into_iter().collect() }
    }

    fn range(latency: Option<Latency>) -> Mark {
        let Some(Latency { p50, p95, p99, .. }) = latency else { return Mark::bar(None, |_| String::new()) };
        let values = [p50, p95, p99].map(|value| value.as_secs_f64() * 1e3);
        Mark { values: values.to_vec(), words: [p50, p95, p99].map(millis).join(" / ") }
    }
}

fn chart(title: &str, subtitle: &str, runs: &[RunResult], scale: Scale, mark: impl Fn(&RunResult) -> Mark) -> String {
    let marks: Vec<(&RunResult, Mark)> = runs.iter().map(|run| (run, mark(run))).collect();
    let spoken: Vec<String> = marks.iter().map(|(run, mark)| format!("{}: {}", run.name(), mark.words)).collect();
    let svg = draw(&marks, scale).unwrap_or_else(|error| format!("<p>no chart: {}</p>", escape(&error.to_string())));
    format!(
        "<figure><figcaption>{}<small>{}</small></figcaption><div role=\"img\" aria-label=\"{}\">\n{svg}</div></figure>\n",
        escape(title),
        escape(subtitle),
        escape(&spoken.join("; ")),
    )
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(marks: &[(&RunResult, Mark)], scale: Scale) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let mut svg = String::new();
    let groups = i32::try_from(marks.len() / 2).unwrap_or(i32::MAX);
    let height = TOP + groups * GROUP + BOTTOM;
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
        let axis = Axis::over(marks, scale);
        let mut labelled = LEFT - TICK_WORDS;
        for tick in &axis.ticks {
            let x = axis.x(*tick);
            area.draw(&PathElement::new(vec![(x, TOP), (x, height - BOTTOM)], LINE.stroke_width(1)))?;
            if x - labelled >= TICK_WORDS {
                labelled = x;
                let words = if tick.fract() == 0.0 { whole(*tick) } else { tick.to_string() };
                text(&area, &words, (x, height - BOTTOM + 14), HPos::Center, (11, SOFT))?;
            }
        }
        for ((run, mark), row) in marks.iter().zip(0..) {
            let (group, second) = (row / 2, row % 2);
            let top = TOP + group * GROUP + GAP / 2 + second * BAR;
            let middle = top + BAR / 2;
            if second == 0 {
                text(&area, label(run.transport), (LEFT - 12, top + BAR), HPos::Right, (15, INK))?;
            }
            let color = if run.reuse { POOLED } else { OFF };
            let end = match mark.values.as_slice() {
                [] => LEFT,
                [value] => {
                    // A bar of nothing is still to be seen where there was something to count.
                    let end = axis.x(*value).max(LEFT + 2);
                    area.draw(&Rectangle::new([(LEFT, top + 2), (end, top + BAR - 2)], color.filled()))?;
                    end
                }
                [first, .., last] => {
                    let (first, last) = (axis.x(*first), axis.x(*last));
                    area.draw(&PathElement::new(vec![(first, middle), (last, middle)], color.stroke_width(3)))?;
                    for value in &mark.values {
                        area.draw(&Circle::new((axis.x(*value), middle), 4, color.filled()))?;
                    }
                    last + 4
                }
            };
            text(&area, &mark.words, (end + 8, middle), HPos::Left, (13, INK))?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), side: HPos, (size, color): (i32, RGBColor)) -> Drawn {
    // The backend draws letters at 1/1.24 of the size that it is given.
    let font = ("sans-serif", f64::from(size) * 1.24).into_font();
    let style = TextStyle::from(font).color(&color).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style))
}

/// Where a value stands.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn over(marks: &[(&RunResult, Mark)], scale: Scale) -> Axis {
        let values = || marks.iter().flat_map(|(_, mark)| mark.values.iter().copied());
        let most = values().fold(0.0, f64::max);
        match scale {
            Scale::Log => {
                // Points need no zero; bars begin where a single one is.
                let are_points = marks.iter().any(|(_, mark)| mark.values.len() > 1);
                let least = if are_points { values().fold(most, f64::min) } else { 1.0 };
                let low = 10f64.powf(least.max(1.0).log10().floor());
                let high = most.max(10.0 * low);
                let between: &[f64] = if high / low < 1_000.0 && are_points { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let decades =
                    std::iter::successors(Some(low), |tick| Some(tick * 10.0)).take_while(|tick| *tick <= high);
                let ticks = decades.flat_map(|decade| between.iter().map(move |step| decade * step));
                let ticks = ticks.take_while(|tick| *tick <= high);
                Axis { scale, low, high, ticks: ticks.collect() }
            }
            Scale::Linear => {
                let high = if most > 0.0 { most } else { 1.0 };
                let step = [1.0, 2.0, 5.0, 10.0, 20.0].map(|step| step * 10f64.powf(high.log10().floor() - 1.0));
                let step = step.into_iter().find(|step| high / step <= 5.0).unwrap_or(high);
                // Counted rather than added up, for ticks without the errors of adding.
                let ticks = (0..=5).map(|number| (f64::from(number) * step * 1e6).round() / 1e6);
                Axis { scale, low: 0.0, high, ticks: ticks.take_while(|tick| *tick <= high).collect() }
            }
        }
    }

    fn x(&self, value: f64) -> i32 {
        let share = match self.scale {
            Scale::Linear => value / self.high,
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        #[expect(clippy::cast_possible_truncation, reason = "a share of the width, clamped")]
        let offset = (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32;
        LEFT + offset
    }
}

const WIDTH: i32 = 480;
const LEFT: i32 = 52;
/// The words beside the longest mark stand between here and the edge.
const RIGHT: i32 = 310;
/// Words under the axis need so much from one to the next.
const TICK_WORDS: i32 = 40;
const TOP: i32 = 4;
const BOTTOM: i32 = 26;
const BAR: i32 = 20;
const GAP: i32 = 14;
const GROUP: i32 = 2 * BAR + GAP;

// Placeholders: `style.css` maps each to a colour of the page.
const INK: RGBColor = RGBColor(1, 1, 1);
const SOFT: RGBColor = RGBColor(2, 2, 2);
const LINE: RGBColor = RGBColor(3, 3, 3);
const OFF: RGBColor = RGBColor(4, 4, 4);
const POOLED: RGBColor = RGBColor(5, 5, 5);

#[cfg(test)]
mod tests {
    use super::{super::super::result::tests::demo, *};

    #[test]
    fn a_longer_bar_is_a_larger_value() {
        let marks =
            |values: &[f64]| values.iter().map(|value| Mark::bar(Some(*value), |v| v.to_string())).collect::<Vec<_>>();
        let runs = demo().runs;
        for scale in [Scale::Linear, Scale::Log] {
            let marks: Vec<_> = runs.iter().zip(marks(&[0.0, 3.0, 27.0, 11_000.0])).collect();
            let axis = Axis::over(&marks, scale);
            let ends: Vec<i32> = [0.0, 30.0, 11_000.0].map(|value| axis.x(value)).to_vec();
            assert!(ends.is_sorted() && ends[0] == LEFT && ends[2] == RIGHT, "{ends:?}");
            assert!(axis.ticks.len() >= 2 && axis.ticks.len() <= 6, "{:?}", axis.ticks);
        }
        for high in [0.0123, 0.717_859, 1.0, 9.99, 10.0, 55.0] {
            let mark = [(&runs[0], Mark::bar(Some(high), |value| value.to_string()))];
            let ticks = Axis::over(&mark, Scale::Linear).ticks;
            assert!((3..=6).contains(&ticks.len()) && ticks.iter().all(|tick| tick.to_string().len() < 6), "{ticks:?}");
        }
    }

    #[test]
    fn nothing_measured_is_no_bar_and_no_panic() {
        let mut demo = demo();
        for run in &mut demo.runs {
            (run.total.cpu, run.paced.warm, run.total.seen.sockets) = (None, None, 0);
        }
        let charts = all(&demo);
        assert!(charts.contains("n/a") && !charts.contains("NaN"));
    }

    #[test]
    fn every_colour_drawn_is_one_that_the_page_replaces() {
        let charts = all(&demo());
        let style = include_str!("style.css");
        for color in charts.match_indices("=\"#").map(|(at, _)| &charts[at..at + 10]) {
            assert!(style.contains(color), "{color}");
        }
    }
}
