//! The chart: CPU time per query, a group of bars for each path, the cheapest on top.

use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{PathElement, Rectangle, Text},
    style::{
        Color as _, IntoFont as _, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::super::figures::Line;
use crate::figures::tenths;

/// The servers of a path.
pub(super) struct Group<'a> {
    pub(super) title: &'a str,
    pub(super) lines: Vec<&'a Line>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Draws the chart as SVG. A server without a figure has no bar.
pub(super) fn draw(groups: &[Group<'_>]) -> anyhow::Result<String> {
    let measured = || groups.iter().flat_map(|group| &group.lines).filter_map(|line| line.cpu());
    let most = measured().map(|cpu| cpu.most).fold(1.0, f64::max);
    let bars: usize = groups.iter().map(|group| group.lines.len()).sum();
    let height =
        i32::try_from(bars).unwrap_or(0) * BAR + i32::try_from(groups.len()).unwrap_or(0) * TITLE + TOP + BOTTOM;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
        area.fill(&PAPER)?;
        text(
            &area,
            "CPU time per query, in microseconds, at the highest rate: less is better",
            (16, TOP / 2),
            (15, INK),
        )?;
        let mut top = TOP;
        for group in groups {
            text(&area, group.title, (16, top + TITLE / 2), (14, INK))?;
            top += TITLE;
            for line in &group.lines {
                bar(&area, line, top, most)?;
                top += BAR;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

fn bar(area: &Area<'_>, line: &Line, top: i32, most: f64) -> Drawn {
    let middle = top + BAR / 2;
    let name = line.name.replace('*', "");
    let color = if name.starts_with("keepwarm") {
        OURS
    } else if name.ends_with("(floor)") {
        FLOOR
    } else {
        PEER
    };
    text(area, &name, (28, middle), (13, INK))?;
    let Some(cpu) = line.cpu() else { return text(area, "not measured", (LEFT, middle), (12, SOFT)) };
    let x = |value: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a share of the width")]
        let offset = (value / most * f64::from(RIGHT - LEFT)).round() as i32;
        LEFT + offset
    };
    area.draw(&Rectangle::new([(LEFT, top + 3), (x(cpu.median), top + BAR - 3)], color.filled()))?;
    // From the lowest to the highest repetition.
    area.draw(&PathElement::new(vec![(x(cpu.least), middle), (x(cpu.most), middle)], INK.stroke_width(1)))?;
    text(area, &tenths(cpu.median), (x(cpu.most) + 8, middle), (13, INK))
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), (size, color): (i32, RGBColor)) -> Drawn {
    // The backend draws letters at 1/1.24 of the size that it is given.
    let font = ("sans-serif", f64::from(size) * 1.24).into_font();
    let style = TextStyle::from(font).color(&color).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style))
}

const WIDTH: i32 = 720;
const LEFT: i32 = 170;
/// Figures stand between here and the edge.
const RIGHT: i32 = 650;
const TOP: i32 = 36;
const TITLE: i32 = 30;
const BAR: i32 = 20;
const BOTTOM: i32 = 14;

const PAPER: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(32, 33, 36);
const SOFT: RGBColor = RGBColor(110, 113, 118);
const OURS: RGBColor = RGBColor(217, 95, 2);
const PEER: RGBColor = RGBColor(117, 137, 170);
const FLOOR: RGBColor = RGBColor(200, 202, 206);
