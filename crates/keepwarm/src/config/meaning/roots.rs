//! `tls.extra_roots`: whom encrypted connections trust beside the system, and a number that tells one set of roots from another.

use std::{
    fs::File,
    hash::{DefaultHasher, Hasher as _},
    io::Read as _,
    path::Path,
};

use keepwarm_transport::tls::TlsRoots;

use super::Check;
use crate::config::{fault::Fault, read::List, value::Text};

/// Whom connections trust.
pub(super) struct Roots {
    pub(super) roots: TlsRoots,
    /// Follows from what the files hold, so that a reload finds the same number for the same roots; `None` where a file changed while it
    /// was read.
    pub(super) id: Option<u64>,
}

impl Check<'_> {
    pub(super) fn roots(&mut self, files: &List<Text>, base: &Path) -> Roots {
        let mut roots = TlsRoots::system();
        let mut digest = Some(DefaultHasher::new());
        for file in files {
            let path = base.join(&file.value.0);
            let pem = read(&path);
            let read_once = pem.as_ref().and_then(|pem| roots.clone().with_pem(pem).ok());
            if let (Some(more), Some(pem)) = (read_once, pem) {
                roots = more;
                digest.iter_mut().for_each(|digest| {
                    digest.write_usize(pem.len());
                    digest.write(&pem);
                });
                continue;
            }
            match roots.clone().with_pem_file(&path) {
                Ok(more) => (roots, digest) = (more, None),
                Err(error) => self.faults.push(
                    Fault::error(file.span.clone(), format!("`tls.extra_roots`: {error}"))
                        .help("accepted: the path of a PEM file with at least one certificate; a relative path starts at this file's folder"),
                ),
            }
        }
        Roots { roots, id: digest.map(|digest| digest.finish()) }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut pem = Vec::new();
    let length = File::open(path).ok()?.take(FILE_MAX + 1).read_to_end(&mut pem).ok()?;
    (length as u64 <= FILE_MAX).then_some(pem)
}

/// As much as is read of a PEM file: 4 MiB.
const FILE_MAX: u64 = 4 << 20;
