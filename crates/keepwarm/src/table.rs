//! Plain tables for a terminal: a heading a column, no lines, two spaces between columns; and the same rows as CSV.
//!
//! The demo's tables, which have colours and parts, are its own.

mod csv;
mod value;

use comfy_table::{CellAlignment, ContentArrangement, Row, Table, presets::NOTHING};

pub(crate) use self::csv::csv;
pub(crate) use value::{Tone, Value, visible};

/// A heading and how the cells below it stand.
pub(crate) type Column = (&'static str, CellAlignment);

/// The table as text, each line with its end and without trailing spaces. Never narrower than its cells.
pub(crate) fn render<R: Into<Row>>(columns: &[Column], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(name, _)| *name));
    table.add_rows(rows);
    for (index, (_, alignment)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2)).set_cell_alignment(*alignment);
        }
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A column of rows of a kind: what stands in it, and how soon it is left out where there is no room.
pub(crate) struct Field<R> {
    /// Its heading.
    pub(crate) heading: &'static str,
    /// Left for words, right for figures.
    pub(crate) alignment: CellAlignment,
    /// 0: never left out. Else the one with the highest number goes first.
    pub(crate) expendable: u8,
    /// What a row has there.
    pub(crate) value: fn(&R) -> Value,
}

impl<R> Field<R> {
    /// A column of words; `expendable` is 0 for one that is never left out.
    pub(crate) const fn words(heading: &'static str, expendable: u8, value: fn(&R) -> Value) -> Field<R> {
        Field { heading, alignment: CellAlignment::Left, expendable, value }
    }

    /// A column of figures.
    pub(crate) const fn figures(heading: &'static str, expendable: u8, value: fn(&R) -> Value) -> Field<R> {
        Field { heading, alignment: CellAlignment::Right, expendable, value }
    }
}

/// The rows under these fields, no wider than `width` where leaving fields out and cutting the last one short helps; `None`: as wide as
/// it is.
pub(crate) fn fitted<R>(fields: &[Field<R>], rows: &[R], width: Option<usize>) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| fields.iter().map(|field| (field.value)(row).text()).collect()).collect();
    let widths = widths(fields, &cells);
    let kept = kept(fields, &widths, width.unwrap_or(usize::MAX));
    let columns: Vec<Column> = kept.iter().map(|&index| (fields[index].heading, fields[index].alignment)).collect();
    let text =
        render(&columns, cells.iter().map(|row| kept.iter().map(|&index| row[index].as_str()).collect::<Vec<_>>()));
    match width {
        Some(width) => text.lines().map(|line| format!("{}\n", shortened(line, width))).collect(),
        None => text,
    }
}

/// How wide each field's longest cell is, its heading included.
pub(crate) fn widths<R>(fields: &[Field<R>], rows: &[Vec<String>]) -> Vec<usize> {
    let of = |index: usize| rows.iter().map(move |row| row[index].chars().count());
    fields.iter().enumerate().map(|(index, field)| of(index).max().unwrap_or(0).max(field.heading.len())).collect()
}

/// The fields that stay where there is room for `width` columns. A last field of words may be cut short: it takes what is left.
pub(crate) fn kept<R>(fields: &[Field<R>], widths: &[usize], width: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..fields.len()).collect();
    loop {
        let needed = |index: usize| match fields[index].alignment {
            CellAlignment::Left if index + 1 == fields.len() => widths[index].min(LAST_MIN),
            _ => widths[index],
        };
        let total = kept.iter().map(|&index| needed(index)).sum::<usize>() + GAP * kept.len().saturating_sub(1);
        let least = kept.iter().copied().filter(|&index| fields[index].expendable > 0);
        match least.max_by_key(|&index| fields[index].expendable) {
            Some(least) if total > width => kept.retain(|&index| index != least),
            _ => return kept,
        }
    }
}

/// The text, cut to `width` with an ellipsis where it is longer.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// Columns of the terminal; none where standard output is not one.
pub(crate) fn terminal_width() -> Option<usize> {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal().then(|| Table::new().width()).flatten().map(usize::from)
}

/// Spaces between two columns.
pub(crate) const GAP: usize = 2;

/// A last field of words is worth having with so many columns.
const LAST_MIN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    struct Exit(&'static str, &'static str, u64);

    const FIELDS: [Field<Exit>; 4] = [
        Field::words("NAME", 0, |row| row.0.into()),
        Field::words("ADDRESS", 2, |row| row.1.into()),
        Field::figures("LIVE", 1, |row| row.2.into()),
        Field::words("WHY", 0, |_| "a reason that is longer than all the rest".into()),
    ];

    #[test]
    fn what_matters_least_goes_first_and_the_last_words_are_cut() {
        let rows = [Exit("exit", "exit.example", 3)];
        let shown = |width| fitted(&FIELDS, &rows, width);
        assert_eq!(
            shown(None),
            "NAME  ADDRESS       LIVE  WHY\nexit  exit.example     3  a reason that is longer than all the rest\n"
        );
        assert_eq!(
            shown(Some(50)),
            "NAME  ADDRESS       LIVE  WHY\nexit  exit.example     3  a reason that is longer…\n"
        );
        assert_eq!(shown(Some(45)), "NAME  LIVE  WHY\nexit     3  a reason that is longer than all…\n");
        assert_eq!(shown(Some(26)), "NAME  WHY\nexit  a reason that is lo…\n");
        assert_eq!(shown(Some(1)), "…\n…\n");
    }
}
