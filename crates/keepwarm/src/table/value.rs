//! What stands in a cell: as words for people, and in an order for who sorts.

use std::{cmp::Ordering, time::Duration};

use crate::pools::{age, short};

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing is known, or there is none.
    None,
    /// A name or words.
    Text(String),
    /// A word that says whether all is well.
    Word(&'static str, Tone),
    /// How many.
    Count(u64),
    /// How many of the most there may be.
    OutOf(u64, u64),
    /// A part of the whole, 0 to 1.
    Share(f64),
    /// How many a second.
    Rate(f64),
    /// How long.
    Time(Duration),
    /// How long ago, which may be days.
    Age(Duration),
}

/// How well something is. Never shown by its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// It does nothing.
    Quiet,
    /// It is well.
    Good,
    /// It wants attention.
    Warn,
    /// It fails.
    Bad,
}

impl Value {
    /// For people, without anything that a terminal would obey.
    pub(crate) fn text(&self) -> String {
        match self {
            Value::None => "-".into(),
            Value::Text(text) => visible(text),
            Value::Word(word, _) => (*word).into(),
            Value::Count(count) => count.to_string(),
            Value::OutOf(count, most) => format!("{count}/{most}"),
            Value::Share(share) => format!("{:.1} %", share * 100.0),
            Value::Rate(rate) if *rate >= 99.95 => format!("{rate:.0}"),
            Value::Rate(rate) => format!("{rate:.1}"),
            Value::Time(time) => short(*time),
            Value::Age(time) => age(*time),
        }
    }

    /// How well it is, where it says so.
    pub(crate) fn tone(&self) -> Option<Tone> {
        match self {
            Value::Word(_, tone) => Some(*tone),
            _ => None,
        }
    }

    /// The order of a sorted column: what is not there comes first, words by their letters, states from quiet to bad.
    pub(crate) fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Word(left, tone), Value::Word(right, other)) => tone.cmp(other).then_with(|| left.cmp(right)),
            _ => self.number().total_cmp(&other.number()),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Value::None => -1.0,
            Value::Text(_) | Value::Word(..) => 0.0,
            Value::Count(count) | Value::OutOf(count, _) => *count as f64,
            Value::Share(number) | Value::Rate(number) => *number,
            Value::Time(time) | Value::Age(time) => time.as_secs_f64(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Count(count)
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Value {
        Value::Time(time)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::None, Into::into)
    }
}

/// The text without control characters: what an upstream wrote must not steer a terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_short_and_cannot_steer_a_terminal() {
        for (value, text) in [
            (Value::None, "-"),
            ("a\x1b[31mb\n".into(), "a\u{fffd}[31mb\u{fffd}"),
            (Value::OutOf(3, 10), "3/10"),
            (Value::Share(0.9987), "99.9 %"),
            (Value::Rate(3.04), "3.0"),
            (Value::Rate(1234.4), "1234"),
            (Duration::from_millis(20).into(), "20.0 ms"),
            (Value::from(None::<u64>), "-"),
        ] {
            assert_eq!(value.text(), text);
        }
    }

    #[test]
    fn what_is_not_there_comes_first_and_what_fails_last() {
        let sorted = [
            Value::None,
            Value::Count(0),
            Value::Time(Duration::from_millis(500)),
            Value::Share(0.9),
            Value::Rate(2.5),
            Value::OutOf(3, 10),
        ];
        assert!(sorted.is_sorted_by(|left, right| left.order(right).is_lt()));
        let words =
            [Value::Word("unknown", Tone::Quiet), Value::Word("up", Tone::Good), Value::Word("down", Tone::Bad)];
        assert!(words.is_sorted_by(|left, right| left.order(right).is_lt()));
    }
}
