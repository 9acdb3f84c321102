//! The captures of browsers that come with this crate: what profiles and connections are compared with.

use super::capture::{Captures, CapturesError};

impl Captures {
    /// References by name, such as `chrome@156`.
    pub fn references() -> impl Iterator<Item = (&'static str, Captures)> {
        FILES.iter().filter_map(|(name, json)| Some((*name, Captures::from_json(json).ok()?)))
    }

    /// A reference by its name; `None` where there is none of that name.
    pub fn reference(name: &str) -> Option<Result<Captures, CapturesError>> {
        FILES.iter().find(|(known, _)| *known == name).map(|(_, json)| Captures::from_json(json))
    }
}

const FILES: [(&str, &str); 2] = [
    ("chrome@156", include_str!("../../tests/references/chromium-156.json")),
    ("firefox@153", include_str!("../../tests/references/firefox-153.json")),
];
