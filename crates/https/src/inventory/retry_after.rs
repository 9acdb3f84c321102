//! The Retry-After header.

use std::time::{Duration, SystemTime};

/// For how long a Retry-After header asks to be left alone: a number of seconds, or a date, of which `now_unix` (seconds since 1970-01-01
/// UTC) is taken. Zero for a date that is past; 2^31 s at most. `None` when it is neither (RFC 9110 section 10.2.3).
pub fn retry_after(text: &str, now_unix: u64) -> Option<Duration> {
    let text = text.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // RFC 9111 section 1.2.2: what is too large to be held counts as 2^31.
        let seconds = text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let unix = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(unix.saturating_sub(Duration::from_secs(now_unix)).min(Duration::from_secs(SECONDS_MAX)))
}

const SECONDS_MAX: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_the_three_forms_of_dates_are_read() {
        // 1994-11-06 08:49:37 UTC, the example of RFC 9110 section 5.6.7.
        let example = 784_111_777;
        for (text, seconds) in [
            ("120", 120),
            (" 0\t", 0),
            ("99999999999999999999999", 1 << 31),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 37),
            ("Sun Nov  6 08:49:37 1994", 37),
            ("Sun, 06 Nov 1994 08:48:00 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 1 << 31),
        ] {
            assert_eq!(retry_after(text, example - 37), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_no_time() {
        for text in ["", " ", "-1", "+5", "1.5", "5s", "soon", "Sun, 32 Nov 1994 08:49:37 GMT", "\u{661}"] {
            assert_eq!(retry_after(text, 0), None, "{text:?}");
        }
    }
}
