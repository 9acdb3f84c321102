//! What a config is made of: defaults, under a file, under the environment, under flags.
//!
//! A [`Source`] knows all of them and can be loaded again and again, which is what a reload does. Variables and flags are put into
//! the parsed file before anything is read from it, each with the place that it is from; so they are checked as the file is, and
//! a fault is shown in the variable or flag that has it.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    Config, ConfigError, DEFAULT, Loaded,
    fault::{Fault, Faults},
    read_file,
    shape::{Kind, Shape},
};
use crate::logging::LogFilter;

mod environment;
mod flag;
mod put;
mod text;

pub use environment::Environment;
pub(super) use text::{Part, Text, Whose};

use put::Step;

/// Where a config is from: all that is needed to read it, and to read it again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    base: Base,
    environment: Environment,
    flags: Vec<Flag>,
}

/// What variables and flags stand over.
#[derive(Clone, Default)]
enum Base {
    /// The config for when there is no file.
    #[default]
    BuiltIn,
    /// A file, read at each load.
    File(PathBuf),
    /// A text that was read already, and what it is called.
    Text(String, String),
}

/// Without the text, which may hold passwords.
impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::BuiltIn => f.write_str("BuiltIn"),
            Base::File(path) => f.debug_tuple("File").field(path).finish(),
            Base::Text(name, _) => f.debug_tuple("Text").field(name).finish_non_exhaustive(),
        }
    }
}

/// A flag that sets a key.
#[derive(Clone)]
struct Flag {
    /// Its name, such as `--set`.
    name: &'static str,
    /// `KEY=VALUE`.
    text: String,
}

/// Without the value, which may be a password.
impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Source {
    /// The config for when there is no file; nothing stands over it yet.
    pub fn built_in() -> Source {
        Source::default()
    }

    /// A file; relative paths in it start at its folder.
    pub fn file(path: impl Into<PathBuf>) -> Source {
        Source { base: Base::File(path.into()), ..Source::default() }
    }

    /// A text; `name` stands for it in messages, relative paths start where the program runs.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source { base: Base::Text(name.into(), text.into()), ..Source::default() }
    }

    /// What a command is given: the file, else that of the variable `KEEPWARM_CONFIG`, else the built-in config; over it the
    /// variables of this process, and over them the `KEY=VALUE` of `--set`.
    pub fn of_command(file: Option<&Path>, sets: &[String]) -> Source {
        let environment = Environment::capture();
        let source = match file.map(Path::to_owned).or_else(|| environment.config_file()) {
            Some(file) => Source::file(file),
            None => Source::built_in(),
        };
        source.with_environment(environment).with_sets(sets)
    }

    /// Puts variables over the file.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Source {
        self.environment = environment;
        self
    }

    /// Puts the `KEY=VALUE` of `--set` over the variables, a later one over an earlier one.
    #[must_use]
    pub fn with_sets(mut self, sets: &[String]) -> Source {
        self.flags.extend(sets.iter().map(|text| Flag { name: "--set", text: text.clone() }));
        self
    }

    /// Puts the value of a flag of its own over all that came before, such as `--log` for `log.level`.
    #[must_use]
    pub fn with_flag(mut self, name: &'static str, key: &str, value: impl fmt::Display) -> Source {
        self.flags.push(Flag { name, text: format!("{key}={value}") });
        self
    }

    /// Puts the level or filter of `--log` over all that came before.
    #[must_use]
    pub fn with_log(self, filter: Option<&LogFilter>) -> Source {
        match filter {
            Some(filter) => self.with_flag("--log", "log.level", filter),
            None => self,
        }
    }

    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.base {
            Base::File(path) => Some(path),
            _ => None,
        }
    }

    /// What the config is called in messages.
    pub fn name(&self) -> String {
        match &self.base {
            Base::BuiltIn => BUILT_IN.to_owned(),
            Base::File(path) => path.display().to_string(),
            Base::Text(name, _) => name.clone(),
        }
    }

    /// Reads and checks all of it. Files are read anew each time, variables and flags are as they were.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than 1 MiB or not UTF-8, or when anything is refused: then with all faults.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (text, base) = match &self.base {
            Base::BuiltIn => (DEFAULT.to_owned(), Path::new("")),
            Base::File(path) => {
                let unread = |error: io::Error| ConfigError::Read { path: path.clone(), error };
                (read_file(path).map_err(unread)?, path.parent().unwrap_or(Path::new("")))
            }
            Base::Text(_, text) => (text.clone(), Path::new("")),
        };
        let mut text = Text::of_file(self.name(), text);
        let overlays = self.overlays(&mut text);
        Config::layered(&text, &overlays, base)
    }

    /// Adds the variables and flags to the text.
    fn overlays(&self, text: &mut Text) -> Vec<Overlay> {
        let mut overlays = self.environment.overlays(text);
        overlays.extend(self.flags.iter().map(|flag| {
            let range = text.push(Whose::Flag(flag.name.to_owned()), &flag.text);
            Overlay::of(text, range)
        }));
        overlays
    }
}

/// A variable or flag within the whole text.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    /// The variable's name or the flag's key.
    name: Range<usize>,
    /// The value; `None` where there is no equals sign, or where the value is of no use.
    value: Option<Range<usize>>,
}

impl Overlay {
    /// `NAME=VALUE` at this place.
    fn of(text: &Text, range: Range<usize>) -> Overlay {
        match text.as_str()[range.clone()].find('=') {
            Some(equals) => {
                Overlay { name: range.start..range.start + equals, value: Some(range.start + equals + 1..range.end) }
            }
            None => Overlay { name: range, value: None },
        }
    }

    /// Sets its value in the tree of the file, over which earlier overlays stand already. What keeps it from being set is a fault: an
    /// unknown key, an entry that is not there, a list that is none.
    pub(super) fn apply<'t>(&self, text: &'t Text, tree: &mut DeTable<'t>, faults: &mut Faults) {
        let name = &text.as_str()[self.name.clone()];
        let aim = match text.whose(self.name.start) {
            Whose::Environment(_) => environment::aim(name, tree),
            _ => flag::aim(name, self.value.is_some(), tree),
        };
        // What leads nowhere may have been meant for a key that holds a password.
        let mut may_be_secret = true;
        let set = aim.map_err(|miss| Box::new(miss.fault(self.name.clone()))).and_then(|Aim { steps, shape }| {
            let unreadable = || Box::new(Fault::error(self.name.clone(), "the value is not UTF-8"));
            let value = self.value.clone().ok_or_else(unreadable)?;
            may_be_secret = !matches!(shape.kind(), Kind::Texts | Kind::Several);
            let value = put::interpret(&text.as_str()[value.clone()], value.start, shape.kind())?;
            put::put(tree, &steps, value, &self.name);
            Ok(())
        });
        if let Err(fault) = set {
            faults.push(*fault);
            self.value.clone().filter(|_| may_be_secret).into_iter().for_each(|value| faults.conceal(value));
        }
    }
}

/// Where a variable or flag leads.
#[derive(Debug)]
struct Aim {
    steps: Vec<Step>,
    shape: Shape,
}

/// Why a variable or flag leads nowhere.
#[derive(Debug)]
struct Miss {
    problem: String,
    label: String,
    help: String,
}

impl Miss {
    fn fault(self, span: Range<usize>) -> Fault {
        Fault::error(span, self.problem).label(self.label).help(self.help)
    }
}

/// What the config without a file is called.
pub(super) const BUILT_IN: &str = "built-in default";

#[cfg(test)]
mod tests;
