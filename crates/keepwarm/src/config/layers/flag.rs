//! `--set KEY=VALUE`: the key as TOML writes it, `dns.pool.max_per_host`; an entry of a list by its name, `dns.upstream.quad9.weight`,
//! in quotes where that has other characters, `https.origin."tiles.example.com".warm`.

use toml::de::{DeTable, DeValue};

use super::{Aim, Miss, put::Step};
use crate::config::{
    elsewhere,
    read::nearest,
    shape::{Kind, Shape, identity},
};

/// Finds what a key means in a config.
pub(super) fn aim(key: &str, has_value: bool, tree: &DeTable<'_>) -> Result<Aim, Miss> {
    let words = words(key).filter(|_| has_value).ok_or_else(|| Miss {
        problem: "this sets nothing".into(),
        label: String::new(),
        help: "accepted: KEY=VALUE, such as dns.timeout=2s or 'https.origin.\"tiles.example.com\".warm=5'".into(),
    })?;
    let mut aim = Aim { steps: Vec::new(), shape: Shape::root() };
    let mut at = Some(tree);
    let mut path: Vec<&str> = Vec::new();
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match aim.shape.kind() {
            Kind::Entries => return Err(no_entry(key, &[])),
            Kind::Section | Kind::Switch | Kind::Free => {}
            _ => return Err(no_section(key, &path)),
        }
        let below = aim.shape.key(word).ok_or_else(|| unknown(&path, word, aim.shape))?;
        path.push(word);
        aim.steps.push(Step::Key(word.to_owned()));
        aim.shape = below;
        let found = at.and_then(|table| table.get(word)).map(toml::Spanned::get_ref);
        at = found.and_then(DeValue::as_table);
        if aim.shape.kind() != Kind::Entries {
            continue;
        }
        let Some(name) = rest.next() else { break };
        let entries = tables(found);
        let index = entries.iter().position(|entry| identity(entry).is_some_and(|(_, id)| id == name));
        let index = index.ok_or_else(|| {
            let names: Vec<String> = entries.iter().filter_map(|entry| Some(identity(entry)?.1)).collect();
            no_entry(name, &names)
        })?;
        if rest.len() == 0 {
            return Err(Miss {
                problem: format!("`{key}` is an entry of a list, and a key of it is wanted"),
                label: String::new(),
                help: format!("known in [{}]: {}", path.join("."), aim.shape.entry().keys(&path).join(", ")),
            });
        }
        aim.steps.push(Step::Entry(index));
        aim.shape = aim.shape.entry();
        at = entries.get(index).copied();
    }
    Ok(aim)
}

/// The entries of a list; what is none of the right shape counts as an empty one, which keeps the places of the others.
pub(super) fn tables<'t, 'i>(list: Option<&'t DeValue<'i>>) -> Vec<&'t DeTable<'i>> {
    let entries = list.and_then(DeValue::as_array).into_iter().flatten();
    entries.map_while(|entry| entry.get_ref().as_table()).collect()
}

fn words(key: &str) -> Option<Vec<String>> {
    let line = format!("{key}=0");
    let mut value = DeTable::parse(&line).ok()?.into_inner();
    let mut words = Vec::new();
    loop {
        let (word, below) = value.into_iter().next()?;
        words.push(word.get_ref().to_string());
        match below.into_inner() {
            DeValue::Table(table) => value = table,
            _ => return Some(words),
        }
    }
}

pub(super) fn no_section(key: &str, path: &[&str]) -> Miss {
    Miss {
        problem: format!("`{key}` leads below `{}`, which is no section", path.join(".")),
        label: String::new(),
        help: format!("write `{}` alone", path.join(".")),
    }
}

fn unknown(path: &[&str], word: &str, shape: Shape) -> Miss {
    let known = shape.keys(path);
    let section = path.join(".");
    let place = if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
    let full = if section.is_empty() { word.to_owned() } else { format!("{section}.{word}") };
    let label = match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match elsewhere::sections_with(word, &section).as_slice() {
            [] => String::new(),
            sections => format!("belongs in [{}]", sections.join("] or [")),
        },
    };
    Miss { problem: format!("unknown key `{full}`"), label, help: format!("known {place}: {}", known.join(", ")) }
}

pub(super) fn no_entry(name: &str, known: &[String]) -> Miss {
    let label = nearest(name, known.iter().map(String::as_str));
    Miss {
        problem: format!("no entry of the list is named \"{name}\""),
        label: label.map_or_else(String::new, |near| format!("did you mean `{near}`?")),
        help: match known {
            [] => "the list has no entry with a name: entries are added in the file, or all at once as '[{ KEY = VALUE, ... }]'".to_owned(),
            names => format!("known: {}", names.join(", ")),
        },
    }
}
