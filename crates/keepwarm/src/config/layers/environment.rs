//! The environment: `KEEPWARM_DNS__TIMEOUT=2s` is `dns.timeout`.
//!
//! Levels are parted by two underscores, letters have no case, and what is neither letter nor digit in the name of an entry is an
//! underscore: `KEEPWARM_HTTPS__ORIGIN__TILES_EXAMPLE_COM__WARM`. Every variable that begins like ours and means nothing is a fault,
//! because a misspelt one would be ignored otherwise; but those that container platforms set for a service of our name are theirs.

use std::{env, fmt, ops::Range, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Aim, Miss, Overlay, Text, Whose, flag, put::Step};
use crate::config::{
    read::nearest,
    shape::{IDENTITIES, Kind, NAMES, Shape, identity},
    spec,
};

/// The variables of a process that begin with `KEEPWARM_`.
#[derive(Clone, Default)]
pub struct Environment {
    /// Name and value, by name. The value is `None` where it is not UTF-8.
    variables: Vec<(String, Option<String>)>,
}

/// Names only: values may be passwords.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.iter().map(|(name, _)| name)).finish()
    }
}

impl Environment {
    /// Those of this process, as they are now.
    pub fn capture() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.to_str()?.to_owned(), value.into_string().ok()))
        };
        Environment::of(env::vars_os().filter_map(text))
    }

    /// Those of a list that begin with `KEEPWARM_`.
    pub fn of(variables: impl IntoIterator<Item = (String, Option<String>)>) -> Environment {
        let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        // A section comes before its keys, which stand over it.
        variables.sort();
        Environment { variables }
    }

    /// The value of `KEEPWARM_CONFIG`: the file where no flag names one.
    pub fn config_file(&self) -> Option<PathBuf> {
        let (_, value) = self.variables.iter().find(|(name, _)| name == CONFIG)?;
        value.as_deref().filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Adds those that set keys to the text.
    pub(super) fn overlays(&self, text: &mut Text) -> Vec<Overlay> {
        let ours = self.variables.iter().filter(|(name, value)| !is_elsewhere(name, value.as_deref()));
        let overlay = |(name, value): &(String, Option<String>)| {
            let line = value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}"));
            let range: Range<usize> = text.push(Whose::Environment(name.clone()), &line);
            Overlay::of(text, range)
        };
        ours.map(overlay).collect()
    }
}

/// Finds what a variable means in a config.
pub(super) fn aim(name: &str, tree: &DeTable<'_>) -> Result<Aim, Miss> {
    let mut aim = Aim { steps: Vec::new(), shape: Shape::root() };
    let mut at = Some(tree);
    let mut path: Vec<&str> = Vec::new();
    let mut rest = name.strip_prefix(PREFIX).unwrap_or(name);
    while !rest.is_empty() {
        let found;
        match aim.shape.kind() {
            Kind::Section | Kind::Switch => {
                let (word, below) = rest.split_once(LEVEL).unwrap_or((rest, ""));
                let keys = aim.shape.keys(&path);
                let key = keys.into_iter().find(|key| variable_word(key) == word).ok_or_else(|| unknown(name))?;
                found = at.and_then(|table| table.get(key)).map(toml::Spanned::get_ref);
                path.push(key);
                aim.shape = aim.shape.key(key).ok_or_else(|| unknown(name))?;
                aim.steps.push(Step::Key(key.to_owned()));
                rest = below;
            }
            Kind::Free => {
                let users: Vec<String> = at.into_iter().flatten().map(|(user, _)| user.get_ref().to_string()).collect();
                let user =
                    users.iter().find(|user| variable_word(user) == rest).ok_or_else(|| no_user(rest, &users))?;
                aim.shape = aim.shape.key(user).ok_or_else(|| unknown(name))?;
                aim.steps.push(Step::Key(user.clone()));
                return Ok(aim);
            }
            _ => return Err(unknown(name)),
        }
        at = found.and_then(DeValue::as_table);
        if aim.shape.kind() == Kind::Entries && !rest.is_empty() {
            let entries = flag::tables(found);
            let (index, below) = entry(&entries, rest, aim.shape)?;
            aim.steps.push(Step::Entry(index));
            aim.shape = aim.shape.entry();
            at = entries.get(index).copied();
            rest = below;
        }
    }
    match aim.steps.is_empty() {
        true => Err(unknown(name)),
        false => Ok(aim),
    }
}

/// The entry that a variable begins with, and what follows. Names may contain what parts the levels, so the longest one counts.
fn entry<'r>(entries: &[&DeTable<'_>], rest: &'r str, shape: Shape) -> Result<(usize, &'r str), Miss> {
    let of_list = shape.entry();
    if IDENTITIES.iter().find(|key| of_list.key(key).is_some()).is_none_or(|key| !NAMES.contains(key)) {
        return Err(Miss {
            problem: "the entries of this list have no names that a variable could tell".into(),
            label: String::new(),
            help: "set them in the file, with --set, or all at once as '[{ KEY = VALUE, ... }]'".into(),
        });
    }
    let names: Vec<Option<String>> = entries.iter().map(|entry| Some(identity(entry)?.1)).collect();
    let below = |name: &str| rest.strip_prefix(&variable_word(name))?.strip_prefix(LEVEL).filter(|key| !key.is_empty());
    let fitting = |(index, name): (usize, &Option<String>)| Some((index, below(name.as_deref()?)?));
    let mut fitting: Vec<(usize, &str)> = names.iter().enumerate().filter_map(fitting).collect();
    fitting.sort_by_key(|(_, below)| below.len());
    let known: Vec<String> = names.iter().flatten().cloned().collect();
    match fitting.as_slice() {
        [(_, one), (_, other), ..] if one.len() == other.len() => Err(Miss {
            problem: "two entries of the list have this name for variables".into(),
            label: String::new(),
            help: format!("use --set for them; known: {}", known.join(", ")),
        }),
        [found, ..] => Ok(*found),
        [] => {
            let word = rest.rsplit_once(LEVEL).map_or(rest, |(name, _)| name);
            Err(flag::no_entry(&word.to_ascii_lowercase(), &known))
        }
    }
}

/// A key or name as a variable has it.
fn variable_word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn no_user(word: &str, known: &[String]) -> Miss {
    Miss {
        problem: format!("no user is named \"{}\"", word.to_ascii_lowercase()),
        label: nearest(word, known.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("did you mean `{near}`?")),
        help: "users are added in the file, or all at once as '{ NAME = \"PASSWORD\", ... }', for a variable has no small letters".into(),
    }
}

fn unknown(name: &str) -> Miss {
    let known = known();
    let word = name.strip_prefix(PREFIX).unwrap_or(name);
    let near = nearest(word, known.iter().map(String::as_str));
    Miss {
        problem: format!("unknown variable `{name}`"),
        label: near.map_or_else(String::new, |near| format!("did you mean `{PREFIX}{near}`?")),
        help: "accepted: KEEPWARM_ and the path of a key with two underscores between levels, such as KEEPWARM_DNS__TIMEOUT or KEEPWARM_DNS__UPSTREAM__QUAD9__WEIGHT".into(),
    }
}

/// What the variables of every key are called that is in no list, less the prefix.
fn known() -> Vec<String> {
    let is_in_list =
        |section: &str| LISTS.iter().any(|list| section == *list || section.starts_with(&format!("{list}.")));
    let sections = spec::SECTIONS.iter().filter(|(section, _)| !is_in_list(section));
    let names = sections.flat_map(|(section, keys)| {
        keys.iter().map(move |key| match *section {
            "" => variable_word(key),
            section => format!(
                "{}{LEVEL}{}",
                section.split('.').map(variable_word).collect::<Vec<_>>().join(LEVEL),
                variable_word(key)
            ),
        })
    });
    let own = OTHERS.iter().filter_map(|name| name.strip_prefix(PREFIX)).map(str::to_owned);
    names.chain(own).collect()
}

/// Whether a variable is for somebody else: for another end of this program, or from a container platform for a service of our name.
fn is_elsewhere(name: &str, value: Option<&str>) -> bool {
    OTHERS.contains(&name) || is_of_platform(name, value.unwrap_or_default())
}

/// `KEEPWARM_SERVICE_HOST`, `KEEPWARM_DNS_SERVICE_PORT_UDP`, `KEEPWARM_PORT=tcp://...`, `KEEPWARM_PORT_53_UDP_ADDR`: Kubernetes and container links
/// set them for a service called `keepwarm` or `keepwarm-...`.
fn is_of_platform(name: &str, value: &str) -> bool {
    let is_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let is_link = || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = || name.split("_PORT_").skip(1).any(|after| after.starts_with(|first: char| first.is_ascii_digit()));
    !name.contains(LEVEL) && (is_service || name.ends_with("_PORT") && is_link() || of_port())
}

const PREFIX: &str = "KEEPWARM_";

/// Parts the levels of a key.
const LEVEL: &str = "__";

const CONFIG: &str = "KEEPWARM_CONFIG";

/// Variables of the command line, which set no key.
const OTHERS: [&str; 4] = [CONFIG, "KEEPWARM_CONTROL", "KEEPWARM_TOKEN", "KEEPWARM_TOKEN_FILE"];

/// Sections whose keys stand in lists.
const LISTS: [&str; 5] = ["dns.upstream", "dns.route", "https.origin", "tunnel.upstream", "tunnel.rule"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_container_platforms_are_theirs() {
        for (name, value) in [
            ("KEEPWARM_SERVICE_HOST", "10.0.0.1"),
            ("KEEPWARM_DNS_SERVICE_PORT", "53"),
            ("KEEPWARM_SERVICE_PORT_DNS_TCP", "53"),
            ("KEEPWARM_PORT", "tcp://10.0.0.1:53"),
            ("KEEPWARM_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("KEEPWARM_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("KEEPWARM_PORT_53_UDP_PORT", "53"),
            ("KEEPWARM_PORT_53_UDP_PROTO", "udp"),
        ] {
            assert!(is_elsewhere(name, Some(value)), "{name}");
        }
        for name in
            ["KEEPWARM_DNS_TIMEOUT", "KEEPWARM_PORT", "KEEPWARM_DNS__UPSTREAM__A_PORT_53__WEIGHT", "KEEPWARM_LISTEN"]
        {
            assert!(!is_elsewhere(name, Some("1")), "{name}");
        }
    }

    #[test]
    fn values_of_variables_are_not_in_debug_output() {
        let environment = Environment::of([("KEEPWARM_TOKEN".to_owned(), Some("hunter2".to_owned()))]);
        assert_eq!(format!("{environment:?}"), "{\"KEEPWARM_TOKEN\"}");
    }

    #[test]
    fn every_list_of_sections_is_known_here() {
        for (section, _) in spec::SECTIONS {
            let mut shape = Shape::root();
            for key in section.split('.').filter(|key| !key.is_empty()) {
                shape = if shape.kind() == Kind::Entries { shape.entry() } else { shape };
                shape = shape.key(key).unwrap();
            }
            let is_list = shape.kind() == Kind::Entries && section != "https.origin.verdicts";
            assert_eq!(is_list, LISTS.contains(&section), "{section}");
        }
    }
}
