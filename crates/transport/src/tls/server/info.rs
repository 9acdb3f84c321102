//! What an operator wants to know of the certificate that is shown.

use std::{net::IpAddr, path::Path, time::SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
};

use super::{date, since_epoch};

/// The server's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Subject, such as `CN=dns.example`; may be empty.
    pub subject: String,
    /// Issuer, in the same form.
    pub issuer: String,
    /// DNS names and IP addresses that it is for (subject alternative names).
    pub alternative_names: Vec<String>,
    /// Not valid before this time.
    pub not_before: SystemTime,
    /// Not valid after this time.
    pub not_after: SystemTime,
    /// Certificates in the chain, this one included.
    pub chain_length: usize,
    /// When it was read from its file.
    pub loaded: SystemTime,
}

impl CertificateInfo {
    /// Reads what is shown; the text of the error says what is malformed.
    pub(super) fn read(
        der: &CertificateDer<'_>,
        chain_length: usize,
        loaded: SystemTime,
    ) -> Result<CertificateInfo, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| format!("malformed certificate: {error}"))?;
        let time = |timestamp: i64| since_epoch(u64::try_from(timestamp).unwrap_or(0));
        Ok(CertificateInfo {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            alternative_names: alternative_names(&parsed),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            chain_length,
            loaded,
        })
    }

    /// The names that it is for; the subject where it has none.
    pub fn names(&self) -> Vec<String> {
        if self.alternative_names.is_empty() { vec![self.subject.clone()] } else { self.alternative_names.clone() }
    }

    /// The UTC date of `not_after`, as `2024-02-29`.
    pub fn not_after_date(&self) -> String {
        date(unix(self.not_after))
    }

    /// Whether it is valid at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it is valid today, by this machine's clock.
    pub fn is_valid_now(&self) -> bool {
        self.is_valid_at(since_epoch(UnixTime::now().as_secs()))
    }

    /// Says in the log that clients will refuse the certificate, if they will.
    pub(super) fn warn(&self, now: UnixTime, path: &Path) {
        if self.is_valid_at(since_epoch(now.as_secs())) {
            return;
        }
        let (file, not_before) = (path.display(), date(unix(self.not_before)));
        tracing::warn!(
            %file, not_before, not_after = self.not_after_date(),
            "the certificate is not valid today: clients will refuse it"
        );
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn alternative_names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let extensions = parsed.extensions().iter().map(X509Extension::parsed_extension);
    let names = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten().filter_map(name).collect()
}

/// Names that a TLS client compares; others are left out.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}
