//! Config files that are lines of words, with other files included: unbound.conf and smartdns.conf.

use std::path::{Path, PathBuf};

use super::{draft::Draft, read_file};

/// A line with something on it.
#[derive(Debug)]
pub(super) struct Line {
    /// File and line number.
    pub(super) place: String,
    /// Without comment and space around it.
    pub(super) text: String,
}

/// Includes within includes.
const DEPTH_MAX: usize = 8;
/// Files of one config.
const FILES_MAX: usize = 200;
/// Lines of one config; a blocklist has more, and has no place here.
const LINES_MAX: usize = 100_000;

/// Reads the lines of a text and of the files that `include` finds named in a line. What cannot be included is noted.
pub(super) fn read(
    name: &str,
    text: &str,
    base: &Path,
    include: fn(&str) -> Option<&str>,
    draft: &mut Draft,
) -> Vec<Line> {
    let mut reader = Reader { include, lines: Vec::new(), files: 0, draft };
    reader.file(name, text, base, 0);
    reader.lines
}

struct Reader<'d> {
    include: fn(&str) -> Option<&str>,
    lines: Vec<Line>,
    files: usize,
    draft: &'d mut Draft,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, text: &str, base: &Path, depth: usize) {
        for (number, line) in text.lines().enumerate() {
            let text = uncommented(line).trim();
            let place = format!("{name}:{}", number + 1);
            if text.is_empty() {
            } else if let Some(pattern) = (self.include)(text) {
                self.included(&format!("{place} `{text}`"), pattern, base, depth);
            } else if self.lines.len() == LINES_MAX {
                return self
                    .draft
                    .lost(&place, format!("only {LINES_MAX} lines are read, this and what follows is not"));
            } else {
                self.lines.push(Line { place, text: text.to_owned() });
            }
        }
    }

    fn included(&mut self, place: &str, pattern: &str, base: &Path, depth: usize) {
        let pattern = base.join(pattern);
        let files = matching(&pattern);
        if files.is_empty() {
            return self.draft.lost(place, format!("no file {} to include", pattern.display()));
        }
        for file in files {
            self.files += 1;
            if depth == DEPTH_MAX || self.files > FILES_MAX {
                return self
                    .draft
                    .lost(place, format!("includes go {DEPTH_MAX} deep and to {FILES_MAX} files, this is beyond"));
            }
            match read_file(&file) {
                Ok(text) => {
                    let base = file.parent().unwrap_or(Path::new("")).to_owned();
                    self.file(&file.display().to_string(), &text, &base, depth + 1);
                }
                Err(problem) => self.draft.lost(place, problem),
            }
        }
    }
}

/// The files that a path stands for, in order of their names; `*` and `?` count in its last part.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() };
    }
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| fits(name.as_bytes(), entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        (Some((wanted, rest)), Some((found, more))) => (*wanted == b'?' || wanted == found) && fits(rest, more),
        _ => false,
    }
}

/// The line up to a `#` that begins a word outside of quotes.
fn uncommented(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        match quote {
            Some(open) if open == letter => quote = None,
            None if letter == '#' && before.is_ascii_whitespace() => return &line[..at],
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            Some(_) | None => {}
        }
        before = letter;
    }
    line
}

/// The words of a line; quotes keep a word together and go.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match quote {
            Some(open) if open == letter => quote = None,
            None if matches!(letter, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_ascii_whitespace() => words.extend(word.take()),
            Some(_) | None => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Bytes from `4m`, `64k`, `1g` or a plain number, as both programs write them.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['k', 'm', 'g', 'b']);
    let worth: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(worth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_begin_a_word_and_quotes_hold_one_together() {
        assert_eq!(
            uncommented("forward-addr: 9.9.9.9@853#dns.quad9.net # quad9"),
            "forward-addr: 9.9.9.9@853#dns.quad9.net "
        );
        assert_eq!(uncommented("# all of it"), "");
        assert_eq!(words("local-data: \"a. TXT 'x # y'\" b"), ["local-data:", "a. TXT 'x # y'", "b"]);
        assert_eq!(words("a \"\" b"), ["a", "", "b"]);
    }

    #[test]
    fn sizes_are_read_with_their_letters() {
        for (text, bytes) in
            [("4096", Some(4096)), ("64k", Some(65_536)), ("4M", Some(4 << 20)), ("1gb", Some(1 << 30)), ("x", None)]
        {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn includes_are_followed_from_their_folder_and_end_where_they_circle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/b.conf"), "two\n").unwrap();
        std::fs::write(folder.path().join("d/a.conf"), "one\n").unwrap();
        std::fs::write(folder.path().join("d/c.txt"), "three\n").unwrap();
        std::fs::write(folder.path().join("self.conf"), "again\ninclude self.conf\n").unwrap();
        fn include(line: &str) -> Option<&str> {
            line.strip_prefix("include ")
        }
        let mut draft = Draft::default();
        let lines = read("main", "include d/*.conf\nlast\n", folder.path(), include, &mut draft);
        assert_eq!(lines.iter().map(|line| &*line.text).collect::<Vec<_>>(), ["one", "two", "last"]);
        assert_eq!((lines[2].place.as_str(), draft.lost.len()), ("main:2", 0));
        let lines = read("main", "include self.conf\ninclude none.conf\n", folder.path(), include, &mut draft);
        assert_eq!(lines.len(), DEPTH_MAX);
        assert_eq!(draft.lost.len(), 2, "{:?}", draft.lost);
    }
}
