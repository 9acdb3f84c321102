//! Plain tables for a terminal: a heading a column, no lines, two spaces between columns.
//!
//! The demo's tables, which have colours and parts, are its own.

use comfy_table::{CellAlignment, ContentArrangement, Row, Table, presets::NOTHING};

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
