//! The values of `[tunnel]`.

use std::{fmt, sync::Arc, time::Duration};

use keepwarm_transport::proxy::Proxy;
use keepwarm_tunnel::config::{Listen, Match, Strategy};
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Value, WordsError, refusal, text, unknown_word};
use crate::config::{
    fault::Faults,
    name,
    read::{Read, Refusal},
    secret,
    tunnel::{self, Address},
    words,
};

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct TunnelListen(pub(in crate::config) Listen);

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct TunnelAddress(pub(in crate::config) Address);

/// A proxy on the way to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Through {
    /// An upstream's name.
    Name(Arc<str>),
    /// A proxy of its own.
    Url(Arc<Proxy>),
}

/// A host, and its port where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Destination {
    /// Name, or IP address without brackets.
    pub(in crate::config) host: String,
    /// The port behind it.
    pub(in crate::config) port: Option<u16>,
}

/// Hosts and ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Pattern(pub(in crate::config) Match);

/// For how long an upstream must be well; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct SwitchBack(pub(in crate::config) Option<Duration>);

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Secret(pub(in crate::config) String);

/// Never shows the password.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

word_value! {
    Strategy: "strategy", [
        (Strategy::Ordered.as_str(), Strategy::Ordered),
        (Strategy::RoundRobin.as_str(), Strategy::RoundRobin),
        (Strategy::LeastLoaded.as_str(), Strategy::LeastLoaded),
        (Strategy::Fastest.as_str(), Strategy::Fastest),
    ];
}

/// Values that are one text with an own parser, in which somebody may have put a password, right or wrong.
macro_rules! guarded_value {
    ($($kind:ty: $wanted:literal, $example:literal, $parse:expr;)*) => {$(
        impl Read for $kind {
            fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
                if value.get_ref().as_str().is_none_or(may_hold_a_password) {
                    secret::conceal_within(faults, value);
                }
                let parse = $parse;
                let accepted = concat!($wanted, " in quotes, such as \"", $example, "\"");
                let read = text(value.get_ref(), $wanted, accepted)
                    .and_then(|text| parse(text).map_err(|error| refusal(text, error)));
                read.map_err(|refusal| faults.push(refusal.fault(path, value.span()))).ok()
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    )*};
}

guarded_value! {
    TunnelListen: "an address to listen on", "127.0.0.1:1080", |text| tunnel::parse_listen(text).map(TunnelListen);
    TunnelAddress: "an upstream's address", "socks5://proxy.example.com:1080",
        |text| tunnel::parse_address(text).map(TunnelAddress);
    Through: "an upstream's name or a proxy's URL", "exit-a", parse_through;
    Destination: "a host and port", "www.example.com:80",
        |text| tunnel::parse_target(text).map(|(host, port)| Destination { host, port });
    Pattern: "a host or network", "*.example.com:443", |text| tunnel::parse_pattern(text).map(Pattern);
}

/// A user alone, as in `ssh://ann@host`, is no secret.
fn may_hold_a_password(text: &str) -> bool {
    match text.rsplit_once('@') {
        None => false,
        Some((user, _)) => user.strip_prefix("ssh://").is_none_or(|user| user.contains(':')),
    }
}

fn parse_through(text: &str) -> Result<Through, WordsError> {
    if text.contains(['@', '/', ':']) {
        return tunnel::parse_through(text).map(|proxy| Through::Url(Arc::new(proxy)));
    }
    name::parse_name(text).map(Through::Name)
}

impl Value for SwitchBack {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(text) if text == "never" => Ok(SwitchBack(None)),
            DeValue::String(text) => match words::parse_duration(text) {
                Ok(time) => Ok(SwitchBack(Some(time))),
                Err(error) => {
                    Err(refusal(text, WordsError { accepted: format!("{}; or \"never\"", error.accepted), ..error }))
                }
            },
            // A bare number gets the words for what it lacks.
            _ => Duration::from_toml(value).map(|time| SwitchBack(Some(time))),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(never|0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?)$", "examples": ["10s", "never"] })
    }
}

impl Read for Secret {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        secret::conceal_within(faults, value);
        let accepted = "a password in quotes; or `password_file` with the file that it is in";
        let read = text(value.get_ref(), "a password", accepted).map(|text| Secret(text.to_owned()));
        read.map_err(|refusal| faults.push(refusal.fault(path, value.span()))).ok()
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
