//! What the demo found, for a terminal: a table of two rows a transport, then in plain words what that means.
//!
//! A terminal that is too narrow for the table gets it in two parts. Words and figures are those of `words`; here is the layout.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::{
    result::{DemoResult, RunResult},
    words::{self, ANSWERS, COSTS, Column, NAMES, Promise},
};

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Columns of the terminal; none when it is not one.
    pub(super) width: Option<u16>,
    /// With colours and bold letters.
    pub(super) colored: bool,
}

/// All that is printed to standard output.
pub(super) fn render(result: &DemoResult, style: Style) -> String {
    let lines = |lines: &[String]| lines.iter().fold(String::new(), |text, line| text + line + "\n");
    let notes: Vec<String> = words::notes(result).iter().map(|note| format!("note: {note}")).collect();
    let parts = [
        tables(result, style),
        lines(&notes),
        lines(&words::load(result)),
        lines(&words::savings(result)),
        verdicts(result, style),
        lines(&[words::ending(result)]),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn tables(result: &DemoResult, style: Style) -> String {
    let whole: Vec<Column> = NAMES.iter().chain(&ANSWERS).chain(&COSTS).copied().collect();
    let one = table(&result.runs, &whole, style);
    let width = plain_width(&table(&result.runs, &whole, Style { colored: false, ..style }));
    if style.width.is_none_or(|columns| width <= usize::from(columns)) {
        return one;
    }
    let part = |columns: &[Column]| {
        let columns: Vec<Column> = NAMES.iter().chain(columns).copied().collect();
        table(&result.runs, &columns, style)
    };
    format!("{}\n{}", part(&ANSWERS), part(&COSTS))
}

fn table(runs: &[RunResult], columns: &[Column], style: Style) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    match style.colored {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.set_header(columns.iter().map(|(heading, _)| Cell::new(heading).add_attribute(Attribute::Bold)));
    for run in runs {
        let cells = columns.iter().map(|(_, text)| Cell::new(text(run)));
        table.add_row(match run.reuse {
            true => cells.map(|cell| cell.add_attribute(Attribute::Bold)).collect::<Vec<_>>(),
            false => cells.collect(),
        });
    }
    for (index, _) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            let alignment = if index < NAMES.len() { CellAlignment::Left } else { CellAlignment::Right };
            column.set_padding((0, 2)).set_cell_alignment(alignment);
        }
    }
    let mut text = String::new();
    for (number, line) in table.lines().enumerate() {
        // A gap between transports: their two rows are what is to be compared.
        if number > HEADER_LINES && (number - HEADER_LINES).is_multiple_of(2) {
            text += "\n";
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

fn plain_width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

fn verdicts(result: &DemoResult, style: Style) -> String {
    let promises = words::promises(result);
    let width = promises.iter().map(|promise| promise.words.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Promise { ok, words, figures } in promises {
        let verdict = match (ok, style.colored) {
            (true, true) => "\u{1b}[1;32myes\u{1b}[0m",
            (false, true) => "\u{1b}[1;31mNO \u{1b}[0m",
            (true, false) => "yes",
            (false, false) => "NO ",
        };
        let _ = writeln!(text, "{verdict}  {words:width$}  {figures}");
    }
    text
}

/// A heading and its unit.
const HEADER_LINES: usize = 2;

#[cfg(test)]
mod tests;
