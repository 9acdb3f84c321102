//! The values of `[https]`.

use std::{fmt, net::SocketAddr, sync::Arc};

use hyper::http;
use keepwarm_https::config::{AddressSource, HttpVersions, StatusSet};
use keepwarm_transport::proxy::{Proxy, ProxyParseError};
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Text, Value, WordsError, refusal, text, unknown_word};
use crate::config::{
    fault::{Fault, Faults},
    origin,
    read::{At, Read, Refusal, Section as _},
    secret,
    spec::UserSpec,
};

/// Where the gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct GatewayAddress(pub(in crate::config) SocketAddr);

/// An origin's host, lower case, and its port where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct OriginHost {
    /// Name, or IP address without brackets.
    pub(in crate::config) host: String,
    /// The port behind it.
    pub(in crate::config) port: Option<u16>,
}

/// The method of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Method(pub(in crate::config) http::Method);

/// Path and query of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct UrlPath(pub(in crate::config) String);

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct ProxyUrl(pub(in crate::config) Arc<Proxy>);

/// The gateway's users: name and how the password is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::config) struct Users(pub(in crate::config) Vec<(At<String>, Password)>);

/// How a password is told.
#[derive(Clone, PartialEq)]
pub(in crate::config) enum Password {
    /// In this file.
    Inline(At<String>),
    /// In a file of its own.
    File(At<Text>),
}

/// Never shows the password.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Inline(at) => f.debug_struct("Inline").field("span", &at.span).finish_non_exhaustive(),
            Password::File(at) => f.debug_tuple("File").field(at).finish(),
        }
    }
}

text_value! {
    GatewayAddress: "an address to listen on", "127.0.0.1:8180", |text| origin::parse_gateway(text).map(GatewayAddress);
    AddressSource: "an address, a network, a file or \"dns\"", "192.0.2.1", origin::parse_source;
    UrlPath: "a path", "/", |text| origin::parse_path(text).map(UrlPath);
    StatusSet: "a set of statuses", "200-399", |text: &str| text.parse::<StatusSet>().map_err(|error| WordsError {
        problem: format!("is not a set of statuses: {error}"),
        accepted: "statuses and ranges of them, such as \"200-399\" or \"403,429\"".into(),
    });
}

word_value! {
    HttpVersions: "protocol", [
        ("both", HttpVersions::Both),
        ("http1", HttpVersions::Http1),
        ("http2", HttpVersions::Http2),
    ];
    Method: "method", [
        // A validation is sent again and again, so only what changes nothing is accepted (RFC 9110 section 9.2.1).
        ("HEAD", Method(http::Method::HEAD)),
        ("GET", Method(http::Method::GET)),
        ("OPTIONS", Method(http::Method::OPTIONS)),
    ];
}

impl Read for OriginHost {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        if value.get_ref().as_str().is_some_and(|text| text.contains('@')) {
            secret::conceal_within(faults, value);
        }
        let read = text(value.get_ref(), "a host", "a host in quotes, such as \"tiles.example.com\"")
            .and_then(|text| origin::parse_origin(text).map_err(|error| refusal(text, error)));
        match read {
            Ok((host, port)) => Some(OriginHost { host, port }),
            Err(refusal) => {
                faults.push(refusal.fault(path, value.span()));
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["tiles.example.com"] })
    }
}

impl Read for ProxyUrl {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        if value.get_ref().as_str().is_none_or(|text| text.contains('@')) {
            secret::conceal_within(faults, value);
        }
        let accepted = "a proxy's URL in quotes, such as \"socks5://proxy.example.com:1080\"";
        let unread = |error: ProxyParseError| WordsError {
            problem: format!("is not a proxy: {error}"),
            accepted: PROXY_FORMS.to_owned(),
        };
        let read = text(value.get_ref(), "a proxy's URL", accepted)
            .and_then(|text| Proxy::parse_plain(text).map_err(|error| refusal(text, unread(error))));
        match read {
            Ok(proxy) => Some(ProxyUrl(Arc::new(proxy))),
            Err(refusal) => {
                faults.push(refusal.fault(path, value.span()));
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["socks5://proxy.example.com:1080"] })
    }
}

const PROXY_FORMS: &str = "\"socks5://HOST:PORT\" or \"http://HOST:PORT\", with \"USER:PASSWORD@\" before the host where the proxy asks for them (special characters as %40)";

impl Read for Users {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        secret::conceal_within(faults, value);
        let DeValue::Table(table) = value.get_ref() else {
            let accepted = format!("[{path}] with lines such as ann = \"PASSWORD\"");
            faults.push(Refusal::kind(value.get_ref(), "a section", accepted).fault(path, value.span()));
            return None;
        };
        let mut users = Vec::new();
        for (name, value) in table {
            let name = At { value: name.get_ref().to_string(), span: name.span() };
            let Err(WordsError { problem, accepted }) = origin::check_user(&name.value) else {
                users.extend(Password::read(faults, path, &name.value, value).map(|password| (name, password)));
                continue;
            };
            let fault = Fault::error(name.span, format!("`{path}` has a name that {problem}"));
            faults.push(fault.help(format!("accepted: {accepted}")));
        }
        Some(Users(users))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let password = json_schema!({ "type": "string", "minLength": 1 });
        let mut file = <UserSpec as Read>::schema(generator);
        file.insert("required".into(), serde_json::json!(["password_file"]));
        json_schema!({ "type": "object", "additionalProperties": { "anyOf": [password, file] } })
    }
}

impl Password {
    fn read(faults: &mut Faults, path: &str, user: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Password> {
        let path = format!("{path}.{user}");
        let span = value.span();
        let refusal = match value.get_ref() {
            DeValue::Table(table) => {
                let spec = UserSpec::from_table(faults, &path, table);
                if !spec.has("password_file") {
                    let title = format!("`{path}.password_file` is missing");
                    let help = "add the file, such as password_file = \"gateway.password\"";
                    faults.push(Fault::error(span, title).help(help));
                }
                return spec.password_file.map(Password::File);
            }
            DeValue::String(password) => match origin::check_password(password) {
                Ok(()) => return Some(Password::Inline(At { value: password.to_string(), span })),
                Err(WordsError { problem, accepted }) => Refusal { problem, label: String::new(), accepted },
            },
            other => Refusal::kind(other, "a password", "a password in quotes, or { password_file = \"FILE\" }"),
        };
        faults.push(refusal.fault(&path, span));
        None
    }
}
