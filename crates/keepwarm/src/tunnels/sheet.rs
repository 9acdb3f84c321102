//! A table that leaves out what matters least where the terminal is too narrow for all of it.

use crate::table::{self, Column};

/// A column and how soon it is left out.
pub(super) struct Field {
    pub(super) column: Column,
    /// `None`: never. Else the one with the highest number goes first.
    pub(super) expendable: Option<u8>,
}

/// The rows under these fields, no wider than `width` where leaving fields out helps; `None`: as wide as it is. A cell a field in each
/// row.
pub(super) fn render(fields: &[Field], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut kept: Vec<usize> = (0..fields.len()).collect();
    loop {
        let columns: Vec<Column> = kept.iter().map(|&index| fields[index].column).collect();
        let cells = rows.iter().map(|row| kept.iter().map(|&index| row[index].as_str()).collect::<Vec<_>>());
        let text = table::render(&columns, cells);
        if width.is_none_or(|width| text.lines().all(|line| line.chars().count() <= width)) {
            return text;
        }
        let least = kept.iter().copied().filter(|&index| fields[index].expendable.is_some());
        match least.max_by_key(|&index| fields[index].expendable) {
            Some(least) => kept.retain(|&index| index != least),
            None => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    use comfy_table::CellAlignment::Left;

    use super::*;

    #[test]
    fn what_matters_least_goes_first_and_what_must_stay_stays() {
        let field = |name, expendable| Field { column: (name, Left), expendable };
        let fields = [field("NAME", None), field("ADDRESS", Some(2)), field("LIVE", Some(1))];
        let rows = [vec!["exit".to_owned(), "exit.example".to_owned(), "3".to_owned()]];
        let shown = |width| render(&fields, &rows, width);
        assert_eq!(shown(None), "NAME  ADDRESS       LIVE\nexit  exit.example  3\n");
        assert_eq!(shown(Some(24)), shown(None));
        assert_eq!(shown(Some(23)), "NAME  LIVE\nexit  3\n");
        assert_eq!(shown(Some(9)), "NAME\nexit\n");
        assert_eq!(shown(Some(1)), "NAME\nexit\n");
    }
}
