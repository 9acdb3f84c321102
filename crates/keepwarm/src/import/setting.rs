//! Options as a command line or a YAML file gives them: a name, a value and the place.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser};

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// For messages: the flag as given, or file, line and key.
    pub(super) place: String,
    /// The long name, without dashes.
    pub(super) name: String,
    /// The value; empty for a flag without one.
    pub(super) value: String,
}

impl Setting {
    /// Whether it turns something on.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.value.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
    }
}

/// How a program's command line is read.
pub(super) struct Flags {
    /// Single letters and the names that they stand for.
    pub(super) short: &'static [(char, &'static str)],
    /// Names that take no value.
    pub(super) switches: &'static [&'static str],
    /// Names that take one.
    pub(super) valued: &'static [&'static str],
}

impl Flags {
    /// Reads a command line. Words that belong to no flag come with an empty name. An unknown flag has the next word as its
    /// value when that is no flag itself, which its place shows.
    pub(super) fn read(&self, words: &[String]) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some((name, mut value)) = self.split(word) else {
                settings.push(Setting { place: format!("`{word}`"), name: String::new(), value: word.clone() });
                continue;
            };
            let mut place = word.clone();
            let is_switch = self.switches.contains(&&*name);
            let wants_value = value.is_none() && !is_switch;
            let is_known = self.valued.contains(&&*name);
            if let Some(next) = words.next_if(|next| wants_value && (is_known || !next.starts_with('-'))) {
                place = format!("{word} {next}");
                value = Some(next.clone());
            }
            settings.push(Setting {
                place: format!("`{place}`"),
                name: name.into_owned(),
                value: value.unwrap_or_default(),
            });
        }
        settings
    }

    fn split<'w>(&self, word: &'w str) -> Option<(Cow<'w, str>, Option<String>)> {
        if let Some(long) = word.strip_prefix("--") {
            return Some(match long.split_once('=') {
                Some((name, value)) => (name.into(), Some(value.to_owned())),
                None => (long.into(), None),
            });
        }
        let short = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
        let letter = short.chars().next()?;
        let rest = &short[letter.len_utf8()..];
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        match self.short.iter().find(|(known, _)| *known == letter) {
            Some((_, name)) => Some(((*name).into(), (!rest.is_empty()).then(|| rest.to_owned()))),
            None => Some((short.into(), None)),
        }
    }
}

/// Reads a YAML file that is one mapping from names to values or lists of values. A list becomes one option an item; what is
/// nested deeper, and aliases, come as one option whose value is `...`.
///
/// # Errors
/// What is wrong with it as YAML, with the line.
pub(super) fn read_yaml(file: &str, text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    // The key of the top mapping whose value is being read, and how deep in that value we are.
    let mut key: Option<(String, usize)> = None;
    let mut depth = 0;
    let mut is_opaque = false;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("{file}: not YAML: {error}"))?;
        let mut add = |(name, line): &(String, usize), value: &str| {
            let place = format!("{file}:{line} `{name}: {value}`");
            settings.push(Setting { place, name: name.clone(), value: value.to_owned() });
        };
        let opens = matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                if depth == 0 && !matches!(event, Event::MappingStart(..)) {
                    return Err(format!("{file}: a list, where keys with values were expected"));
                }
                // A list of values is at depth 1; anything below is not for us.
                if depth >= 2 || (depth == 1 && matches!(event, Event::MappingStart(..))) {
                    if let (Some(key), false) = (&key, is_opaque) {
                        add(key, "...");
                    }
                    is_opaque = true;
                }
                depth += 1;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depth -= 1;
                if depth == 1 {
                    key = None;
                    is_opaque = false;
                }
            }
            Event::Scalar(value, ..) => match (&key, depth) {
                (_, 0) => return Err(format!("{file}: one value, where keys with values were expected")),
                (None, 1) => key = Some((value.into_owned(), span.start.line())),
                (Some((name, _)), _) if !is_opaque => {
                    add(&(name.clone(), span.start.line()), &value);
                    if depth == 1 {
                        key = None;
                    }
                }
                _ => {}
            },
            Event::Alias(_) => {
                if let Some(known) = key.clone().filter(|_| !is_opaque) {
                    add(&known, "...");
                }
                if depth == 1 {
                    key = None;
                }
            }
            _ => {}
        }
        if opens && depth > DEPTH_MAX {
            return Err(format!("{file}: nested more than {DEPTH_MAX} deep"));
        }
    }
    Ok(settings)
}

/// No config of these programs is nested as deep.
const DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLAGS: Flags = Flags { short: &[('u', "upstream")], switches: &["cache"], valued: &["upstream", "port"] };

    fn pairs(settings: &[Setting]) -> Vec<(&str, &str)> {
        settings.iter().map(|setting| (&*setting.name, &*setting.value)).collect()
    }

    #[test]
    fn flags_are_read_in_every_form() {
        let words: Vec<String> = "serve -u 1.1.1.1 -u=9.9.9.9 --port=53 --cache --upstream -x --new value --other"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let settings = FLAGS.read(&words);
        assert_eq!(
            pairs(&settings),
            [
                ("", "serve"),
                ("upstream", "1.1.1.1"),
                ("upstream", "9.9.9.9"),
                ("port", "53"),
                ("cache", ""),
                ("upstream", "-x"),
                ("new", "value"),
                ("other", "")
            ]
        );
        assert_eq!(settings[1].place, "`-u 1.1.1.1`");
    }

    #[test]
    fn yaml_becomes_one_option_a_value_with_its_line() {
        let text = "# x\n---\ntimeout: '10s'\nupstream:\n  - \"1.1.1.1:53\" # one\n  - tls://dns.example\ncache: true\ningress:\n  - host: a\n    port: 1\n  - host: b\nempty:\nport: 53\n";
        let settings = read_yaml("c.yaml", text).unwrap();
        assert_eq!(
            pairs(&settings),
            [
                ("timeout", "10s"),
                ("upstream", "1.1.1.1:53"),
                ("upstream", "tls://dns.example"),
                ("cache", "true"),
                ("ingress", "..."),
                ("empty", ""),
                ("port", "53")
            ]
        );
        assert_eq!(settings[2].place, "c.yaml:6 `upstream: tls://dns.example`");
        assert!(read_yaml("c.yaml", "- a\n").unwrap_err().contains("a list"));
        assert!(read_yaml("c.yaml", "a: [").unwrap_err().contains("not YAML"));
        assert!(read_yaml("c.yaml", &"[".repeat(200)).is_err());
    }

    proptest! {
        #[test]
        fn any_yaml_is_read_or_refused_without_a_panic(text in "\\PC*", bits in "[-:a\\[\\]{}&*, \n'\"#|>]{0,40}") {
            let _ = (read_yaml("c", &text), read_yaml("c", &bits));
        }
    }
}
