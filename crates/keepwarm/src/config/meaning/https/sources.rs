//! What a key only names: profiles, files of addresses, files with a password.

use std::{
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use keepwarm_https::{inventory::AddressFile, profile::Profile};

use super::Check;
use crate::config::{
    fault::Fault,
    read::{At, nearest},
    value::Text,
    words::io_words,
};

/// A file that a key names is read up to this: 4 MiB.
const FILE_MAX: u64 = 4 << 20;

impl Check<'_> {
    /// The profile of a name or file.
    pub(super) fn profile(&mut self, key: &str, at: &At<Text>, base: &Path) -> Option<Arc<Profile>> {
        let name = &*at.value.0;
        let profile = match name.strip_prefix('@') {
            Some(file) => {
                let text = self.text_file(key, file, &at.span, base, "a profile in JSON")?;
                Profile::from_json(&text).map(Arc::new).map_err(|error| {
                    let title = format!("`{key}`: {} is not a profile: {error}", base.join(file).display());
                    Fault::error(at.span.clone(), title)
                        .help("accepted: a file as `keepwarm profile capture` writes it")
                })
            }
            None => Profile::named(name).map_err(|error| {
                let kind = name.split('@').next().unwrap_or_default();
                let known = Profile::builtins().iter().map(|profile| &*profile.name);
                let near = nearest(kind, known).filter(|near| *near != kind);
                Fault::error(at.span.clone(), format!("`{key}`: {error}"))
                    .label(near.map_or_else(String::new, |near| format!("did you mean \"{near}\"?")))
                    .help("accepted: one of these, or \"@FILE\" with a profile of your own")
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
        let fault = match AddressFile::parse(&text) {
            Ok(networks) if networks.is_empty() => {
                Fault::warning(span.clone(), format!("`{key}`: {} has no address", shown.display()))
                    .help("put an address or a network in each line; the file is read again at each refresh")
            }
            Ok(_) => return,
            Err(error) => {
                Fault::error(span.clone(), format!("`{key}`: {}, {error}", shown.display()))
                    .help("accepted: an address or a network in each line, such as 192.0.2.1 or 2001:db8::/64; # starts a comment")
            }
        };
        self.faults.push(fault);
    }

    /// The text of a file, or a fault.
    pub(in crate::config::meaning) fn text_file(
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
