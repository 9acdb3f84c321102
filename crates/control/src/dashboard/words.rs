//! How figures are written. The script writes them the same way (`show` in `dashboard.js`), which a test in a browser compares.

use serde_json::Value;

/// How a value of the API is shown. Its word is what the script finds in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// 1234567 as `1,234,567`.
    Count,
    /// As a count, and nothing to see where it is 0.
    Some,
    /// Seconds, in the unit that suits.
    Time,
    /// 0.5 as `50.0 %`.
    Percent,
}

impl Form {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Form::Count => "count",
            Form::Some => "some",
            Form::Time => "time",
            Form::Percent => "percent",
        }
    }
}

/// The value at a path such as `limits.max_total`; null where there is none.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| &value[key])
}

/// A value as people read it.
pub(super) fn show(value: &Value, form: Form) -> String {
    match (form, value.as_f64()) {
        (_, None) | (Form::Some | Form::Time, Some(0.0)) => NONE.to_owned(),
        (Form::Count | Form::Some, Some(_)) => count(value.as_u64().unwrap_or_default()),
        (Form::Time, Some(seconds)) => time(seconds),
        (Form::Percent, ratio) => percent(ratio),
    }
}

/// With a comma between thousands.
pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds with three figures, from microseconds to days.
pub(super) fn time(seconds: f64) -> String {
    let whole = |seconds: f64, large: (f64, &str), small: (f64, &str)| {
        let (first, rest) = ((seconds / large.0).floor(), seconds % large.0);
        format!("{first} {} {} {}", large.1, (rest / small.0).floor(), small.1)
    };
    match seconds {
        ..1e-3 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{} ms", three(seconds * 1e3)),
        ..60.0 => format!("{} s", three(seconds)),
        ..3600.0 => whole(seconds, (60.0, "min"), (1.0, "s")),
        ..86400.0 => whole(seconds, (3600.0, "h"), (60.0, "min")),
        _ => whole(seconds, (86400.0, "d"), (3600.0, "h")),
    }
}

fn three(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A ratio; none where nothing was counted yet.
pub(super) fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| NONE.to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

/// With three figures, in the unit that suits.
pub(super) fn bytes(amount: f64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (amount, "B");
    for larger in units {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if unit == "B" { format!("{amount:.0} B") } else { format!("{} {unit}", three(amount)) }
}

/// Events a second.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => NONE.to_owned(),
        Some(rate) if rate >= 100.0 => grouped(&format!("{rate:.0}")),
        Some(rate) => format!("{rate:.1}"),
    }
}

/// The time of day of seconds since 1970, in UTC.
pub(super) fn clock(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    format!("{:02}:{:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A name as one part of a path (RFC 3986 section 2.3): what is not unreserved as `%XX`.
pub(super) fn segment(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// What stands where there is no value.
pub(super) const NONE: &str = "–";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        for (seconds, text) in [
            (0.000_042, "42 µs"),
            (0.001_5, "1.50 ms"),
            (0.0123, "12.3 ms"),
            (0.5, "500 ms"),
            (2.345, "2.35 s"),
            (61.0, "1 min 1 s"),
            (7_500.0, "2 h 5 min"),
            (180_000.0, "2 d 2 h"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            ["512 B", "1.50 KiB", "2.00 MiB"],
            [512.0, 1536.0, 2_097_152.0].map(bytes).each_ref().map(|text| &**text)
        );
        assert_eq!((rate(None), rate(Some(0.25)), rate(Some(1234.4))), (NONE.into(), "0.2".into(), "1,234".into()));
        assert_eq!(clock(1_700_000_000), "22:13:20 UTC");
    }

    #[test]
    fn values_are_found_by_their_path_and_shown_in_their_form() {
        let row = json!({"limits": {"max_total": 1024}, "state": "in_use", "reuse_ratio": null, "oldest_wait": 0.0});
        assert_eq!(show(at(&row, "limits.max_total"), Form::Count), "1,024");
        assert_eq!(show(at(&row, "reuse_ratio"), Form::Percent), NONE);
        assert_eq!(show(at(&row, "oldest_wait"), Form::Time), NONE);
        assert_eq!(show(at(&row, "no.such.key"), Form::Count), NONE);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(segment("tunnel.exit-a"), "tunnel.exit-a");
        assert_eq!(segment("a/b?c#<é"), "a%2Fb%3Fc%23%3C%C3%A9");
    }
}
