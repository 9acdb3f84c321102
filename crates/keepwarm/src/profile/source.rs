//! What `keepwarm profile` works on: profiles and captures, by name or from files.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use keepwarm_https::profile::{
    Fields, Profile,
    capture::Captures,
    diff::{self, FieldDiff},
    hello::Hello,
    preface::Preface,
};
use serde_json::{Map, Value, json};

use super::Prints;

/// A profile or captures.
#[derive(Debug)]
pub(super) enum Source {
    /// How connections are to look.
    Profile(Arc<Profile>),
    /// How connections looked.
    Captures(Captures),
}

/// All that have a name.
pub(super) fn built_in() -> Vec<(String, Source)> {
    let profiles = Profile::builtins().iter().map(|profile| (profile.label(), Source::Profile(profile.clone())));
    let references =
        Captures::references().map(|(name, captures)| (format!("{REFERENCE}{name}"), Source::Captures(captures)));
    profiles.chain(references).collect()
}

/// A source by its name, or from a file.
///
/// # Errors
/// When there is neither, or the file holds neither a profile nor captures.
pub(super) fn find(name: &str) -> anyhow::Result<Source> {
    if let Some((_, source)) = built_in().into_iter().find(|(known, _)| known == name) {
        return Ok(source);
    }
    if let Some(profile) = Profile::builtin(name) {
        return Ok(Source::Profile(profile));
    }
    let path = Path::new(name.strip_prefix('@').unwrap_or(name));
    if !path.exists() {
        let names: Vec<String> = built_in().into_iter().map(|(name, _)| name).collect();
        bail!("{name}: neither a file nor one of {}", names.join(", "));
    }
    read(path).with_context(|| format!("read {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_MAX {
        bail!("it has {length} bytes; accepted: no more than {FILE_MAX}");
    }
    let text = std::fs::read_to_string(path)?;
    let value: Map<String, Value> = serde_json::from_str(&text)?;
    if value.contains_key("captures") {
        return Ok(Source::Captures(Captures::from_json(&text)?));
    }
    Ok(Source::Profile(Arc::new(Profile::from_json(&text)?)))
}

/// Compares two sources.
///
/// # Errors
/// When one of them decides nothing of a hello.
pub(super) fn diff(reference: &Source, candidate: &Source) -> anyhow::Result<Vec<FieldDiff>> {
    if let (Source::Captures(reference), Source::Captures(candidate)) = (reference, candidate) {
        return Ok(diff::diff(reference, candidate));
    }
    let [reference, candidate] = [reference, candidate].map(|source| {
        source.rule().with_context(|| format!("{}: nothing of a full hello is known to compare", source.origin()))
    });
    Ok(diff::diff_fields(&reference?, &candidate?))
}

impl Source {
    /// What it was made from.
    pub(super) fn origin(&self) -> &str {
        match self {
            Source::Profile(profile) => &profile.source,
            Source::Captures(captures) => &captures.label,
        }
    }

    /// What connections are known to differ in from the browser.
    pub(super) fn differs(&self) -> &[String] {
        match self {
            Source::Profile(profile) => &profile.differs,
            Source::Captures(_) => &[],
        }
    }

    pub(super) fn prints(&self) -> Prints {
        match self {
            Source::Profile(profile) => Prints {
                ja3: profile.ja3_hash(),
                ja3n: profile.ja3n_hash(),
                ja4: profile.ja4(),
                ja4_r: profile.ja4_r(),
                ja4_resumed: None,
                akamai: profile.akamai(),
            },
            Source::Captures(captures) => {
                let full = captures.full().next().map(|capture| &capture.hello);
                let mut prefaces = captures.captures.iter().filter_map(|capture| capture.preface.as_ref());
                let is_permuted = captures.fields().is_some_and(|fields| fields.permutes == Some(true));
                Prints {
                    ja3: full.filter(|_| !is_permuted).map(Hello::ja3_hash),
                    ja3n: full.map(Hello::ja3n_hash),
                    ja4: full.map(Hello::ja4),
                    ja4_r: full.map(Hello::ja4_r),
                    ja4_resumed: captures.resuming().next().map(|capture| capture.hello.ja4()),
                    akamai: prefaces.next().map(Preface::akamai),
                }
            }
        }
    }

    /// Its fields, each with its values.
    pub(super) fn fields(&self) -> Vec<(String, Vec<Value>)> {
        let listed = |prefix: &str, fields: Option<Fields>| -> Vec<(String, Vec<Value>)> {
            let Some(fields) = fields else { return Vec::new() };
            fields.names().map(|name| (format!("{prefix}{name}"), fields.values(name))).collect()
        };
        let mut all = listed("", self.rule());
        if let Source::Captures(captures) = self {
            all.extend(listed("resumed:", captures.resuming_fields()));
        }
        all
    }

    /// For programs: all of it.
    pub(super) fn json(&self) -> Value {
        let fields: Map<String, Value> =
            self.fields().into_iter().map(|(name, values)| (name, Value::Array(values))).collect();
        let mut shown = self.summary("");
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("name");
            shown.insert("fields".into(), fields.into());
            if let Source::Profile(profile) = self {
                shown.insert("profile".into(), json!(**profile));
            }
        }
        shown
    }

    /// For programs: a line of the list.
    pub(super) fn summary(&self, name: &str) -> Value {
        let Prints { ja3, ja3n, ja4, ja4_r, ja4_resumed, akamai } = self.prints();
        json!({
            "name": name,
            "kind": match self { Source::Profile(_) => "profile", Source::Captures(_) => "captures" },
            "from": self.origin(),
            "ja3": ja3,
            "ja3n": ja3n,
            "ja4": ja4,
            "ja4_r": ja4_r,
            "ja4_resumed": ja4_resumed,
            "akamai": akamai,
            "differs": self.differs(),
        })
    }

    /// The fields of its full hellos.
    fn rule(&self) -> Option<Fields> {
        match self {
            Source::Profile(profile) => Fields::of_profile(profile),
            Source::Captures(captures) => captures.fields(),
        }
    }
}

/// Before the names of references.
const REFERENCE: &str = "reference:";

/// Bytes of the largest file that is read.
const FILE_MAX: u64 = 16 << 20;
