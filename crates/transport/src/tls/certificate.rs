//! Why a certificate was not accepted, in words that an operator can act on.

use rustls::CertificateError;
use rustls_pki_types::UnixTime;

/// Says what is wrong with the certificate that was presented for `server_name`.
pub(super) fn explain(reason: &CertificateError, server_name: &str) -> String {
    match reason {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!(
                "certificate for {server_name} has expired on {} (or this machine's clock is wrong)",
                date(*not_after)
            )
        }
        CertificateError::Expired => {
            format!("certificate for {server_name} has expired (or this machine's clock is wrong)")
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "certificate for {server_name} is not valid before {} (or this machine's clock is wrong)",
            date(*not_before)
        ),
        CertificateError::NotValidYet => {
            format!("certificate for {server_name} is not valid yet (or this machine's clock is wrong)")
        }
        CertificateError::UnknownIssuer => {
            format!("certificate for {server_name} has an unknown issuer: no trusted authority signed it")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("certificate is not for {server_name} (name mismatch): it is for {}", names(presented))
        }
        CertificateError::NotValidForName => format!("certificate is not for {server_name} (name mismatch)"),
        CertificateError::Revoked => format!("certificate for {server_name} was revoked"),
        CertificateError::BadSignature => format!(
            "certificate for {server_name} has a bad signature: forged, or signed with a new key of an authority of that name"
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("certificate for {server_name} is not meant for servers")
        }
        CertificateError::BadEncoding => format!("certificate for {server_name} is malformed"),
        // The verifier's own error, which is not part of what rustls shows.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            format!("certificate for {server_name} is that of an authority (CA:TRUE), which is none for a server")
        }
        other => format!("certificate for {server_name} was not accepted: {other}"),
    }
}

/// A few of the names in the certificate. They come from the network: shortened, and quoted where they are odd.
fn names(presented: &[String]) -> String {
    const SHOWN_MAX: usize = 4;
    const NAME_MAX: usize = 80;
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let mut shown: Vec<String> = presented
        .iter()
        .take(SHOWN_MAX)
        .map(|name| bare(name).chars().take(NAME_MAX).flat_map(char::escape_default).collect())
        .collect();
    if presented.len() > SHOWN_MAX {
        shown.push(format!("{} more", presented.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

/// rustls gives names as `DnsName("dns.example")` and `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// The UTC date as `2024-02-29`.
pub(super) fn date(time: UnixTime) -> String {
    // Days to civil date, Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"; the years before 1970 cannot occur.
    let days = time.as_secs() / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_709_251_200, "2024-03-01"),
            (4_102_444_799, "2099-12-31"),
        ] {
            assert_eq!(date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), expected);
        }
    }

    #[test]
    fn names_from_the_network_are_tamed() {
        assert_eq!(names(&[]), "no name at all");
        assert_eq!(names(&["a\u{1b}[31m".to_owned()]), "a\\u{1b}[31m");
        assert_eq!(
            names(&["DnsName(\"dns.example\")".to_owned(), "IpAddress(192.0.2.1)".to_owned()]),
            "dns.example, 192.0.2.1"
        );
        let many: Vec<String> = (0..6).map(|index| format!("n{index}")).collect();
        assert_eq!(names(&many), "n0, n1, n2, n3, 2 more");
    }
}
