//! The profiles that come with the program.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use super::Profile;

impl Profile {
    /// The profile of that name, such as `chrome`, `firefox`, `safari` and `plain`; `chrome@156` pins a version. `None` when there
    /// is none; [`named`](Self::named) says why.
    pub fn builtin(name: &str) -> Option<Arc<Profile>> {
        Profile::named(name).ok()
    }

    /// The profile of that name, as [`builtin`](Self::builtin) has it.
    ///
    /// # Errors
    /// When there is none of that name or version; the text names those that are known.
    pub fn named(name: &str) -> Result<Arc<Profile>, UnknownProfile> {
        let wanted = |profile: &&Arc<Profile>| profile.name == name || profile.label() == name;
        Profile::builtins().iter().find(wanted).cloned().ok_or_else(|| UnknownProfile(name.to_owned()))
    }

    /// Every profile that comes with the program, `plain` first. Where a browser has several versions, the newest comes first.
    pub fn builtins() -> &'static [Arc<Profile>] {
        static BUILTINS: LazyLock<Vec<Arc<Profile>>> = LazyLock::new(|| {
            let read = |json: &str| Profile::from_json(json).expect("a test reads every profile that is built in");
            let mut profiles = vec![Profile::plain()];
            profiles.extend(FILES.iter().map(|json| Arc::new(read(json))));
            profiles
        });
        &BUILTINS
    }
}

/// No profile of that name or version comes with the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProfile(String);

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = Profile::builtins().iter().map(|profile| profile.label()).collect();
        let known = labels.join(", ");
        let of_name: Vec<&str> = match self.0.split_once('@') {
            Some((name, _)) => Profile::builtins()
                .iter()
                .filter(|known| known.name == name)
                .map(|known| known.version.as_str())
                .collect(),
            None => Vec::new(),
        };
        match self.0.split_once('@') {
            Some((name, version)) if !of_name.is_empty() && !of_name.contains(&"") => {
                let versions = of_name.join(", ");
                write!(f, "no version {version:?} of profile {name:?} is built in: known of it is {versions}")
            }
            _ => write!(f, "no profile {:?} is built in: known are {known}", self.0),
        }
    }
}

impl std::error::Error for UnknownProfile {}

const FILES: [&str; 3] = [
    include_str!("../../profiles/chrome-156.json"),
    include_str!("../../profiles/firefox-153.json"),
    include_str!("../../profiles/safari-26.json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_says_what_it_differs_in() {
        for json in FILES {
            let profile = Profile::from_json(json).unwrap();
            let label = profile.label();
            assert_eq!(Profile::builtin(&label).as_deref(), Some(&profile));
            for lack in profile.unsent() {
                assert!(profile.differs.contains(&lack), "{label} does not say: {lack}");
            }
        }
    }

    #[test]
    fn a_name_means_the_newest_version_and_a_pin_means_itself() {
        assert_eq!(Profile::named("chrome").unwrap().label(), "chrome@156");
        assert_eq!(Profile::named("chrome@156"), Profile::named("chrome"));
        assert_eq!(Profile::named("plain").unwrap(), Profile::plain());
        assert_eq!(Profile::builtins().len(), FILES.len() + 1);
    }

    #[test]
    fn what_is_unknown_is_told_with_what_is_known() {
        let text = |name: &str| Profile::named(name).unwrap_err().to_string();
        assert_eq!(text("chrome@99"), "no version \"99\" of profile \"chrome\" is built in: known of it is 156");
        let known = "known are plain, chrome@156, firefox@153, safari@26";
        assert_eq!(text("opera"), format!("no profile \"opera\" is built in: {known}"));
        assert_eq!(text("opera@3"), format!("no profile \"opera@3\" is built in: {known}"));
        assert_eq!(text("plain@1"), format!("no profile \"plain@1\" is built in: {known}"));
    }
}
