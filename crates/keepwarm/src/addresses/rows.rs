//! Addresses as a table and as comma-separated values.

use std::{cmp::Reverse, time::Duration};

use comfy_table::{Cell, CellAlignment, Color};

use super::Sort;
use crate::{pools::short, table};
use keepwarm_control::https::{AddressRow, AddressState};

pub(super) fn sort(rows: &mut [AddressRow], by: Sort) {
    rows.sort_by_key(|row| row.ip);
    match by {
        Sort::Ip => {}
        Sort::State => rows.sort_by_key(|row| (row.banned, row.state, row.resting.is_some())),
        Sort::Latency => rows.sort_by_key(|row| row.latency.unwrap_or(Duration::MAX)),
        Sort::Failures => rows.sort_by_key(|row| Reverse(row.failures)),
        Sort::Requests => rows.sort_by_key(|row| Reverse(row.successes + row.failures)),
    }
}

/// The addresses for people; with colours where that is a terminal.
pub(super) fn table(rows: &[AddressRow]) -> String {
    match rows.is_empty() {
        true => "no addresses yet: none were looked for, or none found\n".into(),
        false => table::render(&COLUMNS, rows.iter().map(cells)),
    }
}

const COLUMNS: [table::Column; 9] = [
    ("ADDRESS", CellAlignment::Left),
    ("STATE", CellAlignment::Left),
    ("LATENCY", CellAlignment::Right),
    ("ANSWERS", CellAlignment::Right),
    ("FAILURES", CellAlignment::Right),
    ("IN FLIGHT", CellAlignment::Right),
    ("STATUS", CellAlignment::Right),
    ("SOURCE", CellAlignment::Left),
    ("LAST ERROR", CellAlignment::Left),
];

fn cells(row: &AddressRow) -> [Cell; COLUMNS.len()] {
    let (state, color) = state(row);
    [
        Cell::new(row.ip),
        color.into_iter().fold(Cell::new(state), Cell::fg),
        Cell::new(row.latency.map_or_else(|| NONE.to_owned(), short)),
        Cell::new(row.successes),
        Cell::new(row.failures),
        Cell::new(row.in_flight),
        Cell::new(row.last_status.map_or_else(|| NONE.to_owned(), |status| status.to_string())),
        Cell::new(&row.source),
        Cell::new(row.last_error.as_deref().map_or_else(|| NONE.to_owned(), bounded)),
    ]
}

/// Where an address stands in a word or two, and in which colour.
fn state(row: &AddressRow) -> (String, Option<Color>) {
    match row {
        AddressRow { banned: true, .. } => ("banned".into(), Some(Color::DarkGrey)),
        AddressRow { quarantined: Some(left), .. } if left.is_zero() => {
            ("quarantined, probe due".into(), Some(Color::Red))
        }
        AddressRow { quarantined: Some(left), .. } => (format!("quarantined for {}", rough(*left)), Some(Color::Red)),
        AddressRow { resting: Some(left), .. } => (format!("resting for {}", rough(*left)), Some(Color::Yellow)),
        AddressRow { state, .. } => (
            state.as_str().into(),
            match state {
                AddressState::Validated => Some(Color::Green),
                AddressState::Probing => Some(Color::Yellow),
                AddressState::Quarantined => Some(Color::Red),
                AddressState::Candidate => None,
            },
        ),
    }
}

/// A time to wait, in whole seconds or minutes.
fn rough(left: Duration) -> String {
    match left.as_secs_f64().ceil() {
        seconds if seconds < 120.0 => format!("{seconds:.0}s"),
        seconds => format!("{:.0}m", (seconds / 60.0).ceil()),
    }
}

/// The beginning of an error, on one line.
fn bounded(error: &str) -> String {
    let line = one_line(error);
    match line.char_indices().nth(ERROR_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Without what would steer a terminal.
fn one_line(error: &str) -> String {
    error.replace(char::is_control, " ")
}

/// The addresses as RFC 4180 has it, but with the line ends of the system's other tools.
pub(super) fn csv(rows: &[AddressRow]) -> String {
    let mut text = String::from(
        "ip,state,resting,quarantined,banned,source,successes,failures,refusals,probes,in_flight,latency,last_status,last_error\n",
    );
    for row in rows {
        let seconds =
            |time: Option<Duration>| time.map_or_else(String::new, |time| format!("{:.6}", time.as_secs_f64()));
        let fields = [
            row.ip.to_string(),
            row.state.as_str().into(),
            seconds(row.resting),
            seconds(row.quarantined),
            row.banned.to_string(),
            quoted(&row.source),
            row.successes.to_string(),
            row.failures.to_string(),
            row.refusals.to_string(),
            row.probes.to_string(),
            row.in_flight.to_string(),
            seconds(row.latency),
            row.last_status.map_or_else(String::new, |status| status.to_string()),
            quoted(&one_line(row.last_error.as_deref().unwrap_or_default())),
        ];
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

fn quoted(field: &str) -> String {
    match field.contains([',', '"']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

const NONE: &str = "-";

/// Characters of an error in the table.
const ERROR_MAX: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ip: &str) -> AddressRow {
        AddressRow {
            ip: ip.parse().unwrap(),
            state: AddressState::Validated,
            resting: None,
            quarantined: None,
            banned: false,
            source: "dns".into(),
            successes: 0,
            failures: 0,
            refusals: 0,
            probes: 0,
            in_flight: 0,
            latency: None,
            last_status: None,
            last_error: None,
        }
    }

    fn rows() -> Vec<AddressRow> {
        let good = AddressRow {
            successes: 991,
            in_flight: 3,
            latency: Some(Duration::from_micros(20_400)),
            last_status: Some(200),
            ..row("192.0.2.10")
        };
        let resting = AddressRow {
            resting: Some(Duration::from_millis(58_200)),
            successes: 5,
            refusals: 1,
            latency: Some(Duration::from_micros(9_400)),
            last_status: Some(403),
            source: "config,dns".into(),
            ..row("192.0.2.9")
        };
        let bad = AddressRow {
            state: AddressState::Quarantined,
            quarantined: Some(Duration::from_secs(299)),
            failures: 2,
            probes: 1,
            last_error: Some(format!("connect to 192.0.2.2:443: \"{}\"\nrefused", "x".repeat(80))),
            ..row("192.0.2.2")
        };
        let due =
            AddressRow { quarantined: Some(Duration::ZERO), state: AddressState::Quarantined, ..row("2001:db8::1") };
        let banned = AddressRow { banned: true, ..row("192.0.2.3") };
        let new = AddressRow { state: AddressState::Candidate, ..row("192.0.2.4") };
        vec![good, resting, bad, due, banned, new]
    }

    #[test]
    fn a_table_says_of_each_address_where_it_stands() {
        let mut rows = rows();
        sort(&mut rows, Sort::Ip);
        insta::assert_snapshot!(table(&rows));
        assert!(table(&[]).contains("no addresses yet"));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        insta::assert_snapshot!(csv(&rows()));
    }

    #[test]
    fn rows_are_sorted_by_what_is_asked_for_and_then_by_address() {
        let mut rows = rows();
        let mut order = |by| {
            sort(&mut rows, by);
            rows.iter().map(|row| row.ip.to_string().rsplit(['.', ':']).next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order(Sort::Ip), ["2", "3", "4", "9", "10", "1"]);
        assert_eq!(order(Sort::State), ["10", "9", "4", "2", "1", "3"]);
        assert_eq!(order(Sort::Latency), ["9", "10", "2", "3", "4", "1"]);
        assert_eq!(order(Sort::Failures), ["2", "3", "4", "9", "10", "1"]);
        assert_eq!(order(Sort::Requests), ["10", "9", "2", "3", "4", "1"]);
    }
}
