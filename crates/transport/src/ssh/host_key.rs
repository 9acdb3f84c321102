//! How a server is known: one fingerprint, or what a `known_hosts` file has of it.

use std::{io::Read as _, path::Path};

use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PublicKey,
    known_hosts::known_host_keys_path,
    ssh_key::{
        Fingerprint,
        known_hosts::{KnownHosts, Marker},
    },
};

use super::HostKey;

/// The keys that a server may have.
#[derive(Debug)]
pub(super) enum Known {
    Fingerprint(Fingerprint),
    Keys { good: Vec<PublicKey>, revoked: Vec<PublicKey> },
}

impl Known {
    /// Reads what is known of the server at `host` and `port`.
    pub(super) fn load(host_key: &HostKey, host: &str, port: u16) -> Result<Known, String> {
        match host_key {
            HostKey::Fingerprint(text) => match text.parse() {
                Ok(fingerprint @ Fingerprint::Sha256(_)) => Ok(Known::Fingerprint(fingerprint)),
                _ => Err("a fingerprint is SHA256: and 43 characters, as ssh-keygen -l writes it".to_owned()),
            },
            HostKey::KnownHosts(path) => from_file(path, host, port),
        }
    }

    /// The types of keys to ask the server for, most wanted first.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = supported().to_vec();
        if let Known::Keys { good, .. } = self {
            algorithms.retain(|algorithm| good.iter().any(|key| key.algorithm() == *algorithm));
        }
        algorithms
    }

    /// Whether a server may have `key`; else what is wrong with it.
    pub(super) fn check(&self, key: &PublicKey) -> Result<(), String> {
        let shown = format!("the server shows the {} key {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        match self {
            Known::Fingerprint(expected) if key.fingerprint(HashAlg::Sha256) == *expected => Ok(()),
            Known::Fingerprint(expected) => Err(format!("{shown}, expected is {expected}")),
            Known::Keys { revoked, .. } if has(revoked, key) => Err(format!("{shown}, which is revoked")),
            Known::Keys { good, .. } if has(good, key) => Ok(()),
            Known::Keys { good, .. } => {
                let expected: Vec<_> = good.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string()).collect();
                Err(format!("{shown}, expected is {}", expected.join(" or ")))
            }
        }
    }
}

fn from_file(path: &Path, host: &str, port: u16) -> Result<Known, String> {
    let unread = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
    let mut text = String::new();
    // The library takes a file that it cannot open for an empty one.
    let opened = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    opened.map_err(|error| unread(&error))?;
    let revoked = KnownHosts::new(&text)
        .filter_map(Result::ok)
        .filter(|entry| entry.marker() == Some(&Marker::Revoked))
        .map(|entry| entry.public_key().clone())
        .collect();
    let found = known_host_keys_path(host, port, path).map_err(|error| unread(&error))?;
    let place = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    if found.is_empty() {
        return Err(format!("{} has no key of {place}", path.display()));
    }
    let good: Vec<_> =
        found.into_iter().map(|(_, key)| key).filter(|key| supported().contains(&key.algorithm())).collect();
    if good.is_empty() {
        return Err(format!("{} has no ed25519 or ecdsa key of {place}", path.display()));
    }
    Ok(Known::Keys { good, revoked })
}

/// Whether `keys` has `key`; comments are not looked at.
fn has(keys: &[PublicKey], key: &PublicKey) -> bool {
    keys.iter().any(|one| one.key_data() == key.key_data())
}

/// What can be verified, most wanted first.
fn supported() -> [Algorithm; 4] {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    [Algorithm::Ed25519, ecdsa(EcdsaCurve::NistP256), ecdsa(EcdsaCurve::NistP384), ecdsa(EcdsaCurve::NistP521)]
}

/// Bytes of a `known_hosts` file that are looked at.
const FILE_MAX: u64 = 4 << 20;
