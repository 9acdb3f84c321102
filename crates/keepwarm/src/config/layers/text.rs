//! One text of a file and of what stands over it, so that a place anywhere is one byte offset.
//!
//! The file comes first and starts at 0; each variable and flag follows on lines of its own. What is between them belongs to the
//! one before.

use std::ops::Range;

use super::super::effective::Origin;

/// The text of a whole config.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Text {
    all: String,
    /// Never empty; in the order of their starts.
    parts: Vec<(Range<usize>, Whose)>,
}

/// Where a part of the text is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Whose {
    /// The file of this name.
    File(String),
    /// The variable of this name.
    Environment(String),
    /// The flag of this name, such as `--set`.
    Flag(String),
}

/// A file, a variable or a flag within the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Part<'t> {
    name: String,
    text: &'t str,
    range: Range<usize>,
}

impl Text {
    /// A file, over which nothing stands yet.
    pub(in crate::config) fn of_file(name: impl Into<String>, text: impl Into<String>) -> Text {
        let (name, all) = (name.into(), text.into());
        Text { parts: vec![(0..all.len(), Whose::File(name))], all }
    }

    /// Adds what a variable or flag says, and returns where that is.
    pub(in crate::config) fn push(&mut self, whose: Whose, text: &str) -> Range<usize> {
        self.all.push('\n');
        let start = self.all.len();
        self.all.push_str(text);
        self.parts.push((start..self.all.len(), whose));
        start..self.all.len()
    }

    pub(in crate::config) fn as_str(&self) -> &str {
        &self.all
    }

    /// The file's name.
    pub(in crate::config) fn file(&self) -> String {
        self.parts[0].1.name()
    }

    /// The text of the file alone.
    pub(in crate::config) fn file_text(&self) -> &str {
        &self.all[self.parts[0].0.clone()]
    }

    /// The file, variable or flag that a place is in; the last one for places behind the end.
    pub(in crate::config) fn part(&self, at: usize) -> Part<'_> {
        let (range, whose) = self.at(at);
        Part { name: whose.name(), text: &self.all[range.clone()], range: range.clone() }
    }

    /// Line and column of a place within its part, both from 1; the column counts characters.
    pub(in crate::config) fn place(&self, at: usize) -> (usize, usize) {
        let (range, _) = self.at(at);
        let at = self.all.floor_char_boundary(at.min(self.all.len()));
        let before = &self.all[range.start..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Where a value is from.
    pub(in crate::config) fn origin(&self, at: usize) -> Origin {
        match &self.at(at).1 {
            Whose::File(name) => Origin::File { name: name.as_str().into(), line: self.place(at).0 },
            Whose::Environment(name) => Origin::Environment(name.as_str().into()),
            Whose::Flag(name) => Origin::Flag(name.as_str().into()),
        }
    }

    /// Whether a place is in the file, a variable or a flag.
    pub(in crate::config) fn whose(&self, at: usize) -> &Whose {
        &self.at(at).1
    }

    fn at(&self, at: usize) -> &(Range<usize>, Whose) {
        let next = self.parts.partition_point(|(range, _)| range.start <= at);
        &self.parts[next.saturating_sub(1)]
    }
}

impl Whose {
    fn name(&self) -> String {
        match self {
            Whose::File(name) => name.clone(),
            Whose::Environment(name) => format!("environment:{name}"),
            Whose::Flag(name) => format!("flag:{name}"),
        }
    }
}

impl Part<'_> {
    /// The file's name, `environment:VARIABLE` or `flag:--FLAG`.
    pub(in crate::config) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::config) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// A span of the whole text as one of this part: only the first line of what it covers (tables span many), never outside
    /// the text or inside a character.
    pub(in crate::config) fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start.saturating_sub(self.range.start));
        let end = self.text.ceil_char_boundary(span.end.saturating_sub(self.range.start).max(start));
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        start..end.min(line_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_within_its_file_variable_or_flag() {
        let mut text = Text::of_file("a.toml", "ä = 1\nb = 2");
        let variable = text.push(Whose::Environment("KEEPWARM_C".into()), "x\ny");
        let flag = text.push(Whose::Flag("--set".into()), "d=1");
        for (at, name, place) in [
            (0, "a.toml", (1, 1)),
            (3, "a.toml", (1, 3)),
            (7, "a.toml", (2, 1)),
            (variable.start - 1, "a.toml", (2, 6)),
            (variable.start + 2, "environment:KEEPWARM_C", (2, 1)),
            (flag.start, "flag:--set", (1, 1)),
            (flag.end + 99, "flag:--set", (1, 4)),
        ] {
            assert_eq!((text.part(at).name(), text.place(at)), (name, place), "{at}");
        }
        assert_eq!(text.file_text(), "ä = 1\nb = 2");
        assert_eq!(text.part(flag.start).clamp(&(flag.start + 2..flag.end + 9)), 2..3);
        assert_eq!(text.origin(8), Origin::File { name: "a.toml".into(), line: 2 });
        assert_eq!(text.origin(flag.start), Origin::Flag("--set".into()));
    }
}
