//! The single values of a config file: how each is read from TOML and what a JSON Schema says of it.
//!
//! Text forms are parsed in `words.rs` and `address.rs`; here they meet TOML's types.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use keepwarm_dns::config::{Ddr, Ech, Listen, QueryLogPrivacy, Strategy};
use schemars::{Schema, json_schema};
use toml::de::DeValue;

use super::{
    address::{self, UpstreamAddress},
    name,
    read::{Refusal, Value, nearest},
    words::{self, WordsError},
};
use crate::logging::{LogFilter, LogFormat};

/// Any text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// The path of a file; an empty one is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileOrNone(pub(super) Option<Text>);

/// A whole number within a range, ends included. The type has the range, so that the reader and the schema share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count<const MIN: u64, const MAX: u64>(pub(super) u64);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A resolver for host names of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bootstrap(pub(super) SocketAddr);

/// A fixed IP of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ip(pub(super) IpAddr);

/// A host name or IP on a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host(pub(super) Arc<str>);

/// Where the status endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ControlAddress(pub(super) SocketAddr);

/// What upstreams are told of the client's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubnetPolicy {
    /// Nothing.
    Strip,
    /// What the client says.
    Pass,
    /// The client's network, or a fixed one.
    Set,
}

/// A name in logs, status and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) Arc<str>);

/// A name that stands for itself and all names below it: lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suffix(pub(super) Arc<str>);

/// A record in zone-file form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record(pub(super) Arc<str>);

impl Value for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::Boolean(read) => Ok(*read),
            _ => Err(Refusal::kind(value, "true or false", "true or false, without quotes")),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl Value for u64 {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        const ACCEPTED: &str = "a whole number, 0 or more, without quotes";
        let DeValue::Integer(integer) = value else {
            return Err(Refusal::kind(value, "a whole number", ACCEPTED));
        };
        u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Refusal {
            problem: "is out of range".into(),
            label: String::new(),
            accepted: ACCEPTED.into(),
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

impl<const MIN: u64, const MAX: u64> Value for Count<MIN, MAX> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let DeValue::Integer(integer) = value else {
            let accepted = format!("a whole number, {MIN} to {MAX}, without quotes");
            return Err(Refusal::kind(value, "a whole number", accepted));
        };
        let read = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        read.filter(|number| (MIN..=MAX).contains(number)).map(Count).ok_or_else(|| Refusal {
            problem: "is out of range".into(),
            label: String::new(),
            accepted: format!("{MIN} to {MAX}"),
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

impl Value for f64 {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        const ACCEPTED: &str = "a number, such as 0.5, without quotes";
        let text = match value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return Err(Refusal::kind(value, "a number", ACCEPTED)),
        };
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| Refusal {
            problem: "is not a finite number".into(),
            label: String::new(),
            accepted: ACCEPTED.into(),
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number" })
    }
}

impl Value for Duration {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        words_value(value, "a duration", words::parse_duration)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?)$", "examples": ["250ms", "4s", "1h30m"] })
    }
}

impl Value for Size {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        words_value(value, "a size", words::parse_size).map(Size)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(0|([0-9]+GiB)?([0-9]+MiB)?([0-9]+KiB)?([0-9]+B)?)$", "examples": ["64MiB"] })
    }
}

impl Value for Text {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match text(value, "a text", "a text in quotes")? {
            "" => Err(Refusal {
                problem: "is empty".into(),
                label: String::new(),
                accepted: "a text of at least one character".into(),
            }),
            text => Ok(Text(text.to_owned())),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl Value for FileOrNone {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let path = text(value, "the path of a file", "a path in quotes, or \"\" for none")?;
        Ok(FileOrNone((!path.is_empty()).then(|| Text(path.to_owned()))))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Values that are one text with an own parser.
macro_rules! text_value {
    ($($kind:ty: $wanted:literal, $example:literal, $parse:expr;)*) => {$(
        impl Value for $kind {
            fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
                let text = text(value, $wanted, concat!($wanted, " in quotes, such as \"", $example, "\""))?;
                let parse = $parse;
                parse(text).map_err(|error| refusal(text, error))
            }

            fn schema() -> Schema {
                json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    )*};
}

text_value! {
    Listen: "an address to listen on", "127.0.0.1:5300", address::parse_listen;
    UpstreamAddress: "an upstream's address", "tls://dns.quad9.net", address::parse_upstream;
    IpNet: "a network", "192.168.0.0/16", address::parse_network;
    Bootstrap: "a resolver's IP", "9.9.9.9", |text| address::parse_bootstrap(text).map(Bootstrap);
    Ip: "an IP address", "9.9.9.9", |text| address::parse_ip(text).map(Ip);
    Host: "a host name", "dns.quad9.net", |text| address::parse_host(text).map(Host);
    Name: "a name", "quad9", |text| name::parse_name(text).map(Name);
    Suffix: "a name", "corp.example", |text| name::parse_suffix(text).map(Suffix);
    Record: "a record", "nas.home.arpa. 60 A 192.168.1.5", |text| name::parse_record(text).map(Record);
    ControlAddress: "an address to listen on", "127.0.0.1:9180",
        |text| address::parse_plain_socket(text).map(ControlAddress);
    LogFilter: "a level or filter", "info", |text: &str| text.parse::<LogFilter>()
        .map_err(|error| WordsError { problem: error.problem, accepted: error.accepted });
}

/// Values that are one of a few words.
macro_rules! word_value {
    ($($kind:ty: $what:literal, [$(($word:expr, $value:expr)),* $(,)?];)*) => {$(
        impl Value for $kind {
            fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
                let known = [$($word),*];
                let accepted = known.map(|word| format!("\"{word}\"")).join(", ");
                let article = if $what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
                let text = text(value, &format!("{article} {}", $what), &accepted)?;
                let read = [$(($word, $value)),*].into_iter().find(|(word, _)| *word == text);
                read.map(|(_, value)| value).ok_or_else(|| unknown_word(text, $what, known.into_iter(), accepted))
            }

            fn schema() -> Schema {
                json_schema!({ "type": "string", "enum": [$($word),*] })
            }
        }
    )*};
}

word_value! {
    Strategy: "strategy", [
        (Strategy::Sequential.as_str(), Strategy::Sequential),
        (Strategy::Parallel.as_str(), Strategy::Parallel),
        (Strategy::Racing.as_str(), Strategy::Racing),
        (Strategy::RoundRobin.as_str(), Strategy::RoundRobin),
        (Strategy::Random.as_str(), Strategy::Random),
        (Strategy::LeastLoaded.as_str(), Strategy::LeastLoaded),
        (Strategy::Fastest.as_str(), Strategy::Fastest),
        (Strategy::Hedged.as_str(), Strategy::Hedged),
    ];
    Ech: "mode", [("auto", Ech::Auto), ("require", Ech::Require), ("off", Ech::Off)];
    Ddr: "mode", [("off", Ddr::Off), ("auto", Ddr::Auto), ("require", Ddr::Require)];
    SubnetPolicy: "policy", [("strip", SubnetPolicy::Strip), ("pass", SubnetPolicy::Pass), ("set", SubnetPolicy::Set)];
    QueryLogPrivacy: "privacy level", [
        ("off", QueryLogPrivacy::Off),
        ("hashed", QueryLogPrivacy::Hashed),
        ("full", QueryLogPrivacy::Full),
    ];
    LogFormat: "format", [
        (LogFormat::ALL[0].0, LogFormat::ALL[0].1),
        (LogFormat::ALL[1].0, LogFormat::ALL[1].1),
        (LogFormat::ALL[2].0, LogFormat::ALL[2].1),
    ];
}

mod https;
mod tunnel;

pub(super) use https::{GatewayAddress, Method, OriginHost, Password, ProxyUrl, UrlPath, Users};
pub(super) use tunnel::{Destination, Pattern, Secret, SwitchBack, Through, TunnelAddress, TunnelListen};

fn text<'v>(value: &'v DeValue<'_>, wanted: &str, accepted: &str) -> Result<&'v str, Refusal> {
    match value {
        DeValue::String(text) => Ok(text),
        _ => Err(Refusal::kind(value, wanted, accepted)),
    }
}

fn words_value<T>(value: &DeValue<'_>, wanted: &str, parse: fn(&str) -> Result<T, WordsError>) -> Result<T, Refusal> {
    match value {
        DeValue::String(text) => parse(text).map_err(|error| refusal(text, error)),
        // A bare number gets the words that the same number in quotes would get: it lacks its unit.
        DeValue::Integer(integer) if integer.radix() == 10 => match parse(integer.as_str()) {
            Err(error) => Err(Refusal { label: "a bare number".into(), ..refusal("", error) }),
            Ok(_) => Err(Refusal::kind(value, wanted, "\"0\" in quotes")),
        },
        DeValue::Float(float) => {
            let accepted = parse(float.as_str()).err().map_or_else(String::new, |error| error.accepted);
            Err(Refusal { label: "a bare number".into(), problem: "needs a unit and a whole number".into(), accepted })
        }
        _ => {
            let accepted = parse("").err().map_or_else(String::new, |error| error.accepted);
            Err(Refusal::kind(value, wanted, accepted))
        }
    }
}

fn refusal(text: &str, error: WordsError) -> Refusal {
    let WordsError { problem, accepted } = error;
    let label = if text.is_empty() { "empty".to_owned() } else { String::new() };
    Refusal { problem, label, accepted }
}

fn unknown_word<'a>(text: &str, kind: &str, known: impl Iterator<Item = &'a str>, accepted: String) -> Refusal {
    let label = nearest(text, known).map_or_else(String::new, |near| format!("did you mean \"{near}\"?"));
    Refusal { problem: format!("has the unknown {kind} \"{text}\""), label, accepted }
}
