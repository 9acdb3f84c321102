//! What is wrong with a config, where, and what would be accepted; shown in place, all faults at once.
//!
//! Faults only gather and render here; what counts as one is decided by the readers and checks beside this file.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::{
    layers::{Part, Text},
    secret,
};

/// Whether a fault stops the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, but something in it may do what its author does not expect.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it stops the start.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub title: String,
    /// Where, as byte offsets into the text of the file, which the variables and flags follow.
    pub span: Range<usize>,
    /// Said beside the marked text; may be empty.
    pub label: String,
    /// What would be accepted, or the remedy.
    pub help: Option<String>,
    /// A second place that matters, and what is there.
    pub also: Option<(Range<usize>, String)>,
}

impl Fault {
    /// An error at `span`.
    pub fn error(span: Range<usize>, title: impl Into<String>) -> Fault {
        Fault { severity: Severity::Error, title: title.into(), span, label: String::new(), help: None, also: None }
    }

    /// A warning at `span`.
    pub fn warning(span: Range<usize>, title: impl Into<String>) -> Fault {
        Fault { severity: Severity::Warning, ..Fault::error(span, title) }
    }

    /// Adds the words beside the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Fault {
        self.label = label.into();
        self
    }

    /// Adds what would be accepted, or the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Fault {
        self.also = Some((span, label.into()));
        self
    }
}

/// A fault for programs: editors, CI. No field holds a secret, for no title, label or remedy does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, `environment:VARIABLE` or `flag:--FLAG`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Where the marked text ends: the line.
    pub end_line: usize,
    /// The column behind the last character.
    pub end_column: usize,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Said beside the marked text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What would be accepted, or the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Place {
    /// An error that is about a file as a whole.
    pub fn of_file(file: String, message: String) -> Place {
        let (line, column) = (1, 1);
        let severity = Severity::Error.as_str();
        Place { file, line, column, end_line: line, end_column: column, severity, message, label: None, help: None }
    }
}

/// All faults of one config, with the text that they point into: the file's, and that of variables and flags.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    text: Text,
    list: Vec<Fault>,
    /// Parts of the text that are not shown.
    secrets: Vec<Range<usize>>,
}

/// Without the text, which may hold passwords.
impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("file", &self.text.file()).field("list", &self.list).finish_non_exhaustive()
    }
}

impl Faults {
    /// No faults yet in `source`, which was read from `file`.
    pub fn new(file: impl Into<String>, source: impl Into<String>) -> Faults {
        Faults::in_text(Text::of_file(file, source))
    }

    /// No faults yet in a file and what stands over it.
    pub(super) fn in_text(text: Text) -> Faults {
        Faults { secrets: secret::in_urls(text.as_str()), text, list: Vec::new() }
    }

    /// Adds one.
    pub fn push(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    /// Takes a part of the text out of what is shown.
    pub(super) fn conceal(&mut self, secret: Range<usize>) {
        self.secrets.push(secret);
    }

    /// Takes out of what is shown all that looks as if it may be a password: for a text that could not be read.
    pub(super) fn conceal_suspects(&mut self) {
        self.secrets.extend(secret::in_lines(self.text.as_str()));
    }

    /// The text, and what of it is not shown.
    pub(super) fn text(&self) -> (&Text, &[Range<usize>]) {
        (&self.text, &self.secrets)
    }

    /// Every fault, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// The number of faults of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|fault| fault.severity == severity).count()
    }

    /// Whether any fault refuses the file.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Line and column of a fault within its file, variable or flag, both from 1; the column counts characters.
    pub fn place(&self, fault: &Fault) -> (usize, usize) {
        self.text.place(fault.span.start)
    }

    /// Every fault for programs.
    pub fn places(&self) -> Vec<Place> {
        self.list.iter().map(|fault| self.place_of(fault)).collect()
    }

    fn place_of(&self, fault: &Fault) -> Place {
        let part = self.text.part(fault.span.start);
        let span = part.clamp(&fault.span);
        let ((line, column), (end_line, end_column)) =
            (self.text.place(fault.span.start), self.text.place(part.range().start + span.end));
        Place {
            file: part.name().to_owned(),
            line,
            column,
            end_line,
            end_column,
            severity: fault.severity.as_str(),
            message: fault.title.clone(),
            label: non_empty(&fault.label).map(str::to_owned),
            help: fault.help.clone(),
        }
    }

    /// Puts the faults in the order of the file.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|fault| (fault.span.start, fault.span.end));
    }

    /// Adds `help` to the last fault, where it is read last.
    pub(super) fn conclude(&mut self, help: &str) {
        if let Some(last) = self.list.last_mut() {
            last.help = Some(help.to_owned());
        }
    }

    /// The faults as text for people: excerpt, marks and remedy, one after the other; the first hundred.
    pub fn render(&self, colour: bool) -> String {
        // The width is fixed and wide: excerpts are cut by the terminal rather than by us, and logs look like terminals.
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(200);
        let shown = secret::masked(self.text.as_str(), &self.secrets);
        let mut rendered: Vec<String> =
            self.list.iter().take(RENDERED_MAX).map(|fault| self.render_one(&renderer, &shown, fault)).collect();
        if self.list.len() > RENDERED_MAX {
            rendered.push(format!("... and {} more", self.list.len() - RENDERED_MAX));
        }
        rendered.join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, shown: &str, fault: &Fault) -> String {
        let level = match fault.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let part = self.text.part(fault.span.start);
        let mark = AnnotationKind::Primary.span(part.clamp(&fault.span)).label(non_empty(&fault.label));
        let mut snippet = snippet(&part, shown).annotation(mark);
        let mut elsewhere = None;
        if let Some((span, label)) = &fault.also {
            let other = self.text.part(span.start);
            let mark = AnnotationKind::Context.span(other.clamp(span)).label(non_empty(label));
            match other.range() == part.range() {
                true => snippet = snippet.annotation(mark),
                // The limit is in the file and the value in a variable, or the other way round.
                false => elsewhere = Some(self::snippet(&other, shown).annotation(mark)),
            }
        }
        let mut group: Group<'_> = level.primary_title(&*fault.title).element(snippet);
        if let Some(elsewhere) = elsewhere {
            group = group.element(elsewhere);
        }
        if let Some(help) = &fault.help {
            group = group.element(Level::HELP.message(&**help));
        }
        renderer.render(&[group])
    }
}

fn snippet<'t>(part: &Part<'_>, shown: &'t str) -> Snippet<'t, annotate_snippets::Annotation<'t>> {
    Snippet::source(&shown[part.range()]).path(part.name().to_owned())
}

/// One line a fault, `file:line:column: words`, for logs.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            let (line, column) = self.place(fault);
            write!(f, "{}:{line}:{column}: {}", self.text.part(fault.span.start).name(), fault.title)?;
        }
        Ok(())
    }
}

/// A file of another kind can have a fault on every line.
const RENDERED_MAX: usize = 100;

fn non_empty(label: &str) -> Option<&str> {
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_shown_with_file_line_column_and_remedy() {
        let mut faults = Faults::new("a.toml", "ä = 1\nb = 22\n");
        faults.push(Fault::error(11..13, "b is wrong").label("22").help("write 23"));
        let text = faults.render(false);
        for part in ["error: b is wrong", "a.toml:2:5", "2 | b = 22", "help: write 23"] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn spans_outside_the_text_do_not_panic() {
        let mut faults = Faults::new("a.toml", "ä");
        for span in [0..0, 1..1, 1..99, 99..120] {
            faults.push(Fault::error(span, "odd"));
        }
        assert_eq!(faults.render(false).matches("error: odd").count(), 4);
        Faults::new("empty.toml", "").render(true);
    }
}
