//! Names as text: of upstreams and groups, the suffixes of routes, and local records.
//!
//! Pure text in, values out. A record is looked at as far as its parts go; what its data means is read by the server.

use std::{net::IpAddr, sync::Arc};

use super::words::WordsError;

/// Longest name in logs, status and metrics.
const NAME_MAX: usize = 64;

/// Longest local record: a TXT record of 4 KiB and its name.
const RECORD_MAX: usize = 5000;

/// Reads a name that logs, status and metrics can hold.
///
/// # Errors
/// Says what would be accepted.
pub fn parse_name(text: &str) -> Result<Arc<str>, WordsError> {
    let usable = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    match usable && (1..=NAME_MAX).contains(&text.len()) {
        true => Ok(text.into()),
        false => Err(refuse(
            "cannot be used in logs and metrics",
            format!("up to {NAME_MAX} of the characters A-Z a-z 0-9 . _ -"),
        )),
    }
}

/// Reads a suffix such as `corp.example`, which stands for itself and all names below it. It comes back in lower case and
/// without a dot at its end.
///
/// # Errors
/// Says what is wrong and what would be accepted; patterns are refused with the suffix that means the same.
pub fn parse_suffix(text: &str) -> Result<Arc<str>, WordsError> {
    const FORMS: &str = "a name such as \"corp.example\", which stands for itself and all names below it";
    if text.parse::<IpAddr>().is_ok() {
        return Err(refuse(
            "is an IP address; routes go by name",
            "a name, or its reverse zone such as \"10.in-addr.arpa\"",
        ));
    }
    if text == "." {
        return Err(refuse(
            "is the root, below which every name is",
            "the upstreams of the group \"default\" for that",
        ));
    }
    let bare = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
    if let Some(suffix) = bare.and_then(|bare| parse_suffix(bare).ok()) {
        return Err(refuse("is a pattern", format!("write \"{suffix}\": it stands for itself and all names below it")));
    }
    if !text.is_ascii() {
        return Err(refuse("has letters beyond ASCII", "the name as DNS has it, such as \"xn--bcher-kva.example\""));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_usable = |label: &str| {
        // A slash is in the reverse zones of RFC 2317.
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
        (1..=63).contains(&label.len()) && label.bytes().all(usable)
    };
    match name.len() <= 253 && name.split('.').all(label_is_usable) {
        true => Ok(name.to_ascii_lowercase().into()),
        false => Err(refuse("is not a name that DNS can hold", FORMS)),
    }
}

/// Reads a record in zone-file form: an absolute name, an optional TTL, an optional class IN, a type and its data.
///
/// # Errors
/// Says which part is missing and what would be accepted. Whether the data fits the type is not checked here.
pub fn parse_record(text: &str) -> Result<Arc<str>, WordsError> {
    const FORMS: &str = "an absolute name, an optional TTL in seconds, a type and its data, such as \"nas.home.arpa. 60 A 192.168.1.5\"";
    if text.len() > RECORD_MAX || text.contains(['\n', '\r']) {
        return Err(refuse(format!("is not one record of up to {RECORD_MAX} bytes"), FORMS));
    }
    let mut words = text.split_ascii_whitespace().peekable();
    let owner = words.next().unwrap_or_default();
    if owner.is_empty() || owner.starts_with(['$', ';', '@', '(']) {
        return Err(refuse("has no name", FORMS));
    }
    if !owner.ends_with('.') {
        let better = text.trim_start().replacen(owner, &format!("{owner}."), 1);
        return Err(refuse(
            "has a name without a dot at its end, which a zone file would complete",
            format!("write \"{}\"", better.escape_default()),
        ));
    }
    // TTL and class may come in either order (RFC 1035 section 5.1).
    while words
        .peek()
        .is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()) || word.eq_ignore_ascii_case("IN"))
    {
        words.next();
    }
    let kind = words.next().unwrap_or_default();
    if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(refuse("has no record type", FORMS));
    }
    match words.next() {
        Some(_) => Ok(text.into()),
        None => Err(refuse(format!("has no data after `{kind}`"), FORMS)),
    }
}

fn refuse(problem: impl Into<String>, accepted: impl Into<String>) -> WordsError {
    WordsError { problem: problem.into(), accepted: accepted.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_suffix_is_read_without_case_and_final_dot() {
        for text in ["corp.example", "Corp.EXAMPLE.", "corp.example."] {
            assert_eq!(&*parse_suffix(text).unwrap(), "corp.example", "{text}");
        }
        assert_eq!(&*parse_suffix("0/25.2.0.192.in-addr.arpa").unwrap(), "0/25.2.0.192.in-addr.arpa");
        assert_eq!(&*parse_suffix("lan").unwrap(), "lan");
    }

    #[test]
    fn a_pattern_is_refused_with_the_suffix_that_means_the_same() {
        for (text, problem, accepted) in [
            ("*.corp.example", "is a pattern", "write \"corp.example\""),
            (".corp.example", "is a pattern", "write \"corp.example\""),
            ("*", "not a name", "corp.example"),
            (".", "is the root", "default"),
            ("", "not a name", "corp.example"),
            ("a..b", "not a name", "corp.example"),
            ("a b", "not a name", "corp.example"),
            ("bücher.example", "beyond ASCII", "xn--"),
            ("10.0.0.1", "is an IP address", "in-addr.arpa"),
        ] {
            let error = parse_suffix(text).unwrap_err();
            assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
        }
        assert!(parse_suffix(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_record_needs_an_absolute_name_a_type_and_data() {
        for text in [
            "nas.home.arpa. 60 A 192.168.1.5",
            "nas.home.arpa. IN 60 A 192.168.1.5",
            "*.home.arpa. AAAA ::1",
            "a. TXT \"two words\"",
        ] {
            assert!(parse_record(text).is_ok(), "{text}");
        }
        for (text, problem) in [
            ("nas.home.arpa 60 A 192.168.1.5", "without a dot"),
            ("nas.home.arpa.", "no record type"),
            ("nas.home.arpa. 60 IN", "no record type"),
            ("nas.home.arpa. A", "no data after `A`"),
            ("$ORIGIN example.", "has no name"),
            ("", "has no name"),
            ("a. A 1.2.3.4\nb. A 1.2.3.4", "not one record"),
        ] {
            assert!(parse_record(text).unwrap_err().problem.contains(problem), "{text}");
        }
        assert!(parse_record("nas A 1.2.3.4").unwrap_err().accepted.contains("write \"nas. A 1.2.3.4\""));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*", name in "[*.a-zA-Z0-9/_-]{0,20}") {
            for text in [&text, &name] {
                let _ = (parse_name(text), parse_suffix(text), parse_record(text));
            }
        }
    }
}
