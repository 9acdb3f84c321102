//! Curves over the time of the report, as SVG that stands in the page.
//!
//! The colours drawn here are placeholders that the page's style replaces, and so one drawing serves light, dark and paper.

use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{PathElement, Text},
    style::{
        Color as _, IntoFont as _, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::page::escape;
use crate::pools::age;

/// A curve and what it is called.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<f64>,
}

impl Curve {
    /// Of counts.
    pub(super) fn counts(name: &'static str, points: &[u64]) -> Curve {
        Curve { name, points: points.iter().map(|count| *count as f64).collect() }
    }

    /// Of seconds, as milliseconds.
    pub(super) fn millis(name: &'static str, points: &[f64]) -> Curve {
        Curve { name, points: points.iter().map(|seconds| seconds * 1e3).collect() }
    }
}

/// A chart of up to two curves over so many seconds; `most` is the upper end where it is not the largest point.
pub(super) fn chart(title: &str, subtitle: &str, curves: &[Curve], seconds: u64, most: Option<f64>) -> String {
    let svg =
        draw(curves, seconds, most).unwrap_or_else(|error| format!("<p>no chart: {}</p>", escape(&error.to_string())));
    let largest = |curve: &Curve| format!("{} at most {}", curve.name, words(peak(&curve.points)));
    let spoken: Vec<String> = curves.iter().map(largest).collect();
    let keys = curves.iter().zip(["first", "second"]);
    let keys: String = keys
        .map(|(curve, class)| {
            format!("<span class=\"curve\"><span class=\"key {class}\"></span>{}</span> ", escape(curve.name))
        })
        .collect();
    format!(
        "<figure><figcaption>{}<small>{} {keys}</small></figcaption><div role=\"img\" aria-label=\"{}\">\n{svg}</div></figure>\n",
        escape(title),
        escape(subtitle),
        escape(&spoken.join("; ")),
    )
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed = DrawingAreaErrorKind<std::io::Error>;

fn draw(curves: &[Curve], seconds: u64, most: Option<f64>) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH.unsigned_abs(), HEIGHT.unsigned_abs())).into_drawing_area();
        let most = most.unwrap_or_else(|| nice(curves.iter().map(|curve| peak(&curve.points)).fold(0.0, f64::max)));
        for share in [0.0, 0.5, 1.0] {
            let y = y(share);
            area.draw(&PathElement::new(vec![(LEFT, y), (RIGHT, y)], LINE.stroke_width(1)))?;
            text(&area, &words(most * share), (LEFT - 8, y), HPos::Right)?;
        }
        let ago = age(std::time::Duration::from_secs(seconds));
        text(&area, &format!("{ago} ago"), (LEFT, HEIGHT - 10), HPos::Left)?;
        text(&area, "now", (RIGHT, HEIGHT - 10), HPos::Right)?;
        for (curve, color) in curves.iter().zip([FIRST, SECOND]) {
            area.draw(&PathElement::new(path(&curve.points, most), color.stroke_width(2)))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Where a curve goes: at most a corner every two pixels, each the largest of its points.
fn path(points: &[f64], most: f64) -> Vec<(i32, i32)> {
    let corners = usize::try_from((RIGHT - LEFT) / 2).unwrap_or(1).min(points.len());
    let place = |corner: usize| {
        let (from, to) = (corner * points.len() / corners, (corner + 1) * points.len() / corners);
        let along = if corners > 1 { corner as f64 / (corners - 1) as f64 } else { 1.0 };
        (LEFT + scaled(along, RIGHT - LEFT), y(peak(&points[from..to]) / most.max(f64::MIN_POSITIVE)))
    };
    (0..corners).map(place).collect()
}

fn y(share: f64) -> i32 {
    BOTTOM - scaled(share.clamp(0.0, 1.0), BOTTOM - TOP)
}

fn scaled(share: f64, length: i32) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "a share of a length of some hundred pixels")]
    let scaled = (share * f64::from(length)).round() as i32;
    scaled
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), side: HPos) -> Result<(), Failed> {
    // The backend draws letters at 1/1.24 of the size that it is given.
    let style = TextStyle::from(("sans-serif", 11.0 * 1.24).into_font()).color(&SOFT).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style))
}

fn peak(points: &[f64]) -> f64 {
    points.iter().copied().fold(0.0, f64::max)
}

/// The next larger of 1, 2, 5, 10, 20 ..., so that the axis has round figures; 1 for nothing.
fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let decade = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade).find(|step| *step >= most).unwrap_or(most)
}

/// A figure with as many digits as it needs.
fn words(value: f64) -> String {
    let digits = match value {
        _ if value.fract() == 0.0 => 0,
        1.0.. => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

const WIDTH: i32 = 480;
const HEIGHT: i32 = 170;
const LEFT: i32 = 52;
const RIGHT: i32 = 470;
const TOP: i32 = 12;
const BOTTOM: i32 = 140;

// Placeholders: `style.css` maps each to a colour of the page.
const SOFT: RGBColor = RGBColor(2, 2, 2);
const LINE: RGBColor = RGBColor(3, 3, 3);
const FIRST: RGBColor = RGBColor(4, 4, 4);
const SECOND: RGBColor = RGBColor(5, 5, 5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_value_is_higher_and_peaks_are_kept() {
        let mut points = vec![1.0; 8640];
        points[4000] = 10.0;
        let path = path(&points, 10.0);
        assert!(path.len() <= 210 && path.iter().any(|(_, height)| *height == TOP), "{path:?}");
        assert_eq!((path[0].0, path[path.len() - 1].0), (LEFT, RIGHT));
        assert!(path.is_sorted_by_key(|(x, _)| *x));
        assert_eq!(super::path(&[3.0], 3.0), [(RIGHT, TOP)]);
        assert_eq!(super::path(&[], 3.0), []);
    }

    #[test]
    fn an_axis_ends_with_a_round_figure() {
        for (most, end) in [(0.0, 1.0), (0.7, 1.0), (3.0, 5.0), (10.0, 10.0), (11.0, 20.0), (730.0, 1000.0)] {
            assert!((nice(most) - end).abs() < 1e-9, "{most}");
        }
        assert_eq!((words(2.5), words(20.0), words(0.125)), ("2.5".into(), "20".into(), "0.125".into()));
    }

    #[test]
    fn every_colour_drawn_is_one_that_the_page_replaces() {
        let curves = [Curve::counts("in use", &[1, 2]), Curve::millis("wait", &[0.1, 0.0])];
        let chart = chart("a", "b", &curves, 20, None);
        let style = include_str!("style.css");
        assert!(chart.contains("=\"#"));
        for color in chart.match_indices("=\"#").map(|(at, _)| &chart[at..at + 10]) {
            assert!(style.contains(color), "{color}");
        }
        assert!(!super::chart("a", "b", &[Curve::counts("x", &[])], 0, Some(1.0)).contains("NaN"));
    }
}
