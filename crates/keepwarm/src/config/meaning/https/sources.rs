//! What a key only names: profiles, files of addresses, files with a password.

use std::{
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use keepwarm_https::profile::Profile;

use super::Check;
use crate::config::{
    address::parse_network,
    fault::Fault,
    read::{At, nearest},
    value::Text,
    words::io_words,
};

/// A file that a key names is read up to this: 4 MiB.
const FILE_MAX: u64 = 4 << 20;
/// Lines of a file of addresses.
const LINES_MAX: usize = 65_536;
/// The profiles that come with the program.
const PROFILES: [&str; 4] = ["chrome", "firefox", "safari", "plain"];

impl Check<'_> {
    /// The profile of a name or file.
    pub(super) fn profile(&mut self, key: &str, at: &At<Text>, base: &Path) -> Option<Arc<Profile>> {
        let name = &*at.value.0;
        let profile = match name.strip_prefix('@') {
            Some(file) => {
                let text = self.text_file(key, file, &at.span, base, "a profile in JSON")?;
                own_profile(&text).map_err(|error| {
                    let title = format!("`{key}`: {} is not a profile: {error}", base.join(file).display());
                    Fault::error(at.span.clone(), title)
                        .help("accepted: a file as `keepwarm profile capture` writes it")
                })
            }
            None => known_profile(name).map_err(|accepted| {
                let kind = name.split('@').next().unwrap_or_default();
                let near = nearest(kind, PROFILES.into_iter()).filter(|near| *near != kind);
                Fault::error(at.span.clone(), format!("`{key}` has the unknown profile \"{name}\""))
                    .label(near.map_or_else(String::new, |near| format!("did you mean \"{near}\"?")))
                    .help(format!("accepted: {accepted}"))
            }),
        };
        let fault = match profile {
            Ok(profile) if cfg!(feature = "browser") || (profile.tls.is_none() && profile.http2.is_none()) => {
                return Some(profile);
            }
            Ok(profile) => {
                let title = format!("`{key}` is {}, and this build has no profiles of browsers", profile.label());
                Fault::error(at.span.clone(), title)
                    .help("build with `--features browser` (needs cmake, a C++ compiler and libclang), or write profile = \"plain\"")
            }
            Err(fault) => fault,
        };
        self.faults.push(fault);
        None
    }

    /// Reads a file of addresses as it is read at each refresh.
    pub(super) fn address_file(&mut self, key: &str, file: &Path, span: &Range<usize>, base: &Path) {
        let what = "a file with an address or a network a line";
        let Some(text) = self.text_file(key, &file.to_string_lossy(), span, base, what) else {
            return;
        };
        let shown = base.join(file);
        let fault = match address_file(&text) {
            Ok(networks) if networks.is_empty() => {
                Fault::warning(span.clone(), format!("`{key}`: {} has no address", shown.display()))
                    .help("put an address or a network in each line; the file is read again at each refresh")
            }
            Ok(_) => return,
            Err((line, problem)) => {
                Fault::error(span.clone(), format!("`{key}`: line {line} of {} {problem}", shown.display()))
                    .help("accepted: an address or a network in each line, such as 192.0.2.1 or 2001:db8::/64; # starts a comment")
            }
        };
        self.faults.push(fault);
    }

    /// The text of a file, or a fault.
    pub(super) fn text_file(
        &mut self,
        key: &str,
        file: &str,
        span: &Range<usize>,
        base: &Path,
        what: &str,
    ) -> Option<String> {
        let path = base.join(file);
        let problem = match read_text(&path) {
            Ok(text) => return Some(text),
            Err(error) => io_words(&error),
        };
        self.faults.push(
            Fault::error(span.clone(), format!("`{key}`: {} cannot be read: {problem}", path.display()))
                .help(format!("accepted: the path of {what}; a relative path starts at this file's folder")),
        );
        None
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    match read as u64 > FILE_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB")),
        false => Ok(text),
    }
}

/// A profile by name, or what would be accepted.
fn known_profile(name: &str) -> Result<Arc<Profile>, String> {
    match name {
        "plain" => Ok(Profile::plain()),
        _ => Err("\"plain\", or \"@FILE\" with a profile of your own".to_owned()),
    }
}

/// The profile in a file's text.
fn own_profile(text: &str) -> Result<Arc<Profile>, String> {
    serde_json::from_str(text).map(Arc::new).map_err(|error| error.to_string())
}

/// The networks in a file's text, or the line that is none and why.
fn address_file(text: &str) -> Result<Vec<IpNet>, (usize, String)> {
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if line_number > LINES_MAX {
            return Err((line_number, format!("is beyond the {LINES_MAX} that are read")));
        }
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            networks.push(parse_network(entry).map_err(|error| (line_number, error.problem))?);
        }
    }
    Ok(networks)
}
