//! The connections of hot HTTPS as a table: one row for each address of an origin.

use comfy_table::{Cell, CellAlignment};

use crate::{pools::short, table};
use keepwarm_control::https::HttpsPoolRow;

pub(super) fn table(rows: &[HttpsPoolRow]) -> String {
    if rows.is_empty() {
        return "no https connections yet: no origin was asked, or the config has none\n".into();
    }
    let mut text = table::render(&COLUMNS, rows.iter().map(cells));
    let notes: Vec<String> = rows.iter().filter_map(notes).collect();
    if !notes.is_empty() {
        text += &format!("\n{}\n", notes.join("\n"));
    }
    text
}

const COLUMNS: [table::Column; 9] = [
    ("ORIGIN", CellAlignment::Left),
    ("ADDRESS", CellAlignment::Left),
    ("PROFILE", CellAlignment::Left),
    ("OPEN", CellAlignment::Right),
    ("IN USE", CellAlignment::Right),
    ("IN FLIGHT", CellAlignment::Right),
    ("REUSE", CellAlignment::Right),
    ("DIAL P50", CellAlignment::Right),
    ("P95", CellAlignment::Right),
];

fn cells(row: &HttpsPoolRow) -> [Cell; COLUMNS.len()] {
    [
        Cell::new(&row.origin),
        Cell::new(&row.ip),
        Cell::new(&row.profile),
        Cell::new(format!("{}/{}", row.open, row.max)),
        Cell::new(row.in_use),
        Cell::new(row.in_flight),
        Cell::new(row.reuse_ratio.map_or_else(|| NONE.to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))),
        Cell::new(row.dial_p50.map_or_else(|| NONE.to_owned(), short)),
        Cell::new(row.dial_p95.map_or_else(|| NONE.to_owned(), short)),
    ]
}

/// What most have nothing of, in one line; `None` where there is nothing to say.
fn notes(row: &HttpsPoolRow) -> Option<String> {
    let mut notes = Vec::new();
    for (name, count) in [("dialing", row.dialing), ("waiting", row.waiting), ("stale connections", row.reuse_failures)]
    {
        if count > 0 {
            notes.push(format!("{count} {name}"));
        }
    }
    if !row.dial_errors.is_empty() {
        let errors: Vec<String> = row.dial_errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        notes.push(format!("dial errors: {}", errors.join(", ")));
    }
    (!notes.is_empty()).then(|| format!("{} at {}: {}", row.origin, row.ip, notes.join("; ")))
}

const NONE: &str = "-";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_address() {
        let good = HttpsPoolRow {
            origin: "tiles.example.com".into(),
            ip: "192.0.2.1".into(),
            profile: "chrome@156".into(),
            open: 3,
            max: 10,
            in_use: 1,
            in_flight: 17,
            reuse_ratio: Some(0.996),
            dial_p50: Some(Duration::from_micros(20_400)),
            dial_p95: Some(Duration::from_micros(31_000)),
            ..HttpsPoolRow::default()
        };
        let bad = HttpsPoolRow {
            origin: "api.example.com:8443".into(),
            ip: "2001:db8::1".into(),
            profile: "plain".into(),
            max: 10,
            waiting: 2,
            dial_errors: [("refused".to_owned(), 3)].into(),
            ..HttpsPoolRow::default()
        };
        let text = table(&[good, bad]);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        insta::assert_snapshot!(text);
        assert!(table(&[]).contains("no https connections yet"));
    }
}
