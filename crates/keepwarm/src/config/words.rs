//! Durations and sizes as words: `"250ms"`, `"1h30m"`, `"64MiB"`.
//!
//! Pure text in, values out. A number without a unit is refused, because a file that says `timeout = 4` cannot be
//! reviewed; only zero needs none.

use std::{fmt::Write as _, time::Duration};

/// Units of a duration, largest first, in microseconds.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Units of a size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Longest duration that is accepted: ten years. Nothing here waits longer, and sums of deadlines cannot overflow.
const DURATION_MAX: u64 = 3650 * 86_400_000_000;

/// Why a text is not a duration or size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordsError {
    /// What is wrong with the text, as the end of "`key` ...".
    pub problem: String,
    /// What would be accepted; begins with "write" where the remedy is plain.
    pub accepted: String,
}

/// Reads `"250ms"`, `"5m"`, `"1h30m"`; units `d h m s ms us`, larger ones first, each at most once.
///
/// # Errors
/// Says what is wrong and what would be accepted; the longest duration is 3650 days.
pub fn parse_duration(text: &str) -> Result<Duration, WordsError> {
    let micros = parse(text, &TIME_UNITS, || {
        let mut accepted =
            String::from("a whole number and a unit (d, h, m, s, ms, us), such as \"250ms\", \"5m\" or \"1h30m\"");
        if let Some(better) = guess_duration(text) {
            accepted = format!("write \"{better}\"; accepted: {accepted}");
        }
        accepted
    })?;
    if micros > DURATION_MAX {
        return Err(WordsError { problem: "is too long".into(), accepted: "at most \"3650d\"".into() });
    }
    Ok(Duration::from_micros(micros))
}

/// Reads `"64MiB"`; units `GiB MiB KiB B`, in powers of 1024.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn parse_size(text: &str) -> Result<u64, WordsError> {
    parse(text, &SIZE_UNITS, || {
        let mut accepted =
            String::from("a whole number and a unit (B, KiB, MiB, GiB), such as \"64MiB\"; \"0\" turns it off");
        let trimmed = text.trim();
        for (loose, exact) in [("kb", "KiB"), ("mb", "MiB"), ("gb", "GiB"), ("k", "KiB"), ("m", "MiB"), ("g", "GiB")] {
            let Some(digits) = trimmed.to_ascii_lowercase().strip_suffix(loose).map(|rest| rest.trim().to_owned())
            else {
                continue;
            };
            if is_number(&digits) {
                accepted = format!("write \"{digits}{exact}\"; accepted: {accepted}");
                break;
            }
        }
        accepted
    })
}

/// Writes a duration the way that [`parse_duration`] reads it: `1h30m`, `250ms`, `0s`.
pub fn duration_words(duration: Duration) -> String {
    match u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) {
        0 => "0s".into(),
        micros => words(micros, &TIME_UNITS),
    }
}

/// Writes a number of bytes the way that [`parse_size`] reads it: `64MiB`, `1MiB512KiB`, `0`.
pub fn size_words(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        bytes => words(bytes, &SIZE_UNITS),
    }
}

fn words(mut rest: u64, units: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (unit, worth) in units {
        let count = rest / worth;
        rest %= worth;
        if count > 0 {
            write!(text, "{count}{unit}").expect("writing to a string cannot fail");
        }
    }
    text
}

fn parse(text: &str, units: &[(&str, u64)], accepted: impl Fn() -> String) -> Result<u64, WordsError> {
    let fail = |problem: String| WordsError { problem, accepted: accepted() };
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(fail("is empty".into()));
    }
    if is_number(text) {
        return Err(fail("needs a unit".into()));
    }
    let mut rest = text;
    let mut total = 0u64;
    let mut allowed = units;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(digits_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if digits.is_empty() || unit.is_empty() {
            return Err(fail("is not a number and a unit".into()));
        }
        let Some(position) = allowed.iter().position(|(name, _)| *name == unit) else {
            let known = units.iter().any(|(name, _)| *name == unit);
            return Err(fail(match known {
                true => format!("has the unit `{unit}` out of order"),
                false => format!("has the unknown unit `{unit}`"),
            }));
        };
        let number: u64 = digits.parse().map_err(|_| fail("is too large".into()))?;
        total = number
            .checked_mul(allowed[position].1)
            .and_then(|value| total.checked_add(value))
            .ok_or_else(|| fail("is too large".into()))?;
        allowed = &allowed[position + 1..];
        rest = after;
    }
    Ok(total)
}

/// The duration that somebody probably meant: another way to write the unit, or a space before it.
fn guess_duration(text: &str) -> Option<String> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "us" | "µs" | "usec" => "us",
        _ => return None,
    };
    is_number(digits).then(|| format!("{digits}{unit}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the system says, in lower case and without its number: `permission denied`.
pub fn io_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, micros) in [
            ("250ms", 250_000),
            ("4s", 4_000_000),
            ("5m", 300_000_000),
            ("1h30m", 5_400_000_000),
            ("1d", 86_400_000_000),
            ("10us", 10),
            ("0", 0),
            ("0s", 0),
            ("1s500ms", 1_500_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn durations_are_refused_with_the_remedy() {
        for (text, problem, accepted) in [
            ("4", "needs a unit", "write \"4s\""),
            ("", "is empty", "such as"),
            ("4 s", "unknown unit", "write \"4s\""),
            ("4sec", "unknown unit", "write \"4s\""),
            ("30m1h", "out of order", "1h30m"),
            ("1s1s", "out of order", "1h30m"),
            ("1.5s", "unknown unit", "whole number"),
            ("-1s", "is not a number", "whole number"),
            ("99999999999999999999s", "too large", "whole number"),
            ("3651d", "too long", "3650d"),
            ("5M", "unknown unit", "write \"5m\""),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.problem.contains(problem), "{text}: {error:?}");
            assert!(error.accepted.contains(accepted), "{text}: {error:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_refused() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("512B"), Ok(512));
        for (text, problem, accepted) in [
            ("64", "needs a unit", "MiB"),
            ("64MB", "unknown unit", "write \"64MiB\""),
            ("99999999999GiB", "too large", "MiB"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.problem.contains(problem) && error.accepted.contains(accepted), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn near_misses_do_not_panic(text in "[0-9µ ]{0,22}(d|h|m|s|ms|us|KiB|B|kb)?[0-9]{0,3}(m|s|ms)?") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn what_is_written_is_read_back(micros in 0u64..=DURATION_MAX) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&duration_words(duration)), Ok(duration));
        }

        #[test]
        fn a_size_that_is_written_is_read_back(bytes: u64) {
            prop_assert_eq!(parse_size(&size_words(bytes)), Ok(bytes));
        }
    }
}
