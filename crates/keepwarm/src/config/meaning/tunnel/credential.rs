//! Who we are at an upstream: the user and password of its URL, of its keys, or of a file.

use std::{ops::Range, path::Path};

use keepwarm_transport::proxy::Credential;

use super::Check;
use crate::config::{
    fault::Fault,
    read::{At, Section as _},
    spec::TunnelUpstreamSpec,
    value::TunnelAddress,
};

/// RFC 1929 section 2 has one byte for each length.
const CREDENTIAL_MAX: usize = 255;

/// What an upstream does with user and password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// SOCKS5: any text.
    Socks,
    /// HTTP: a user without a colon (RFC 7617 section 2).
    Basic,
    /// SSH: a key may take the place of the password.
    Ssh,
}

impl Check<'_> {
    /// User and password, each from one place; none where the file has no user, or a faulty one.
    pub(super) fn credential(
        &mut self,
        spec: &TunnelUpstreamSpec,
        address: &At<TunnelAddress>,
        in_url: Option<&Credential>,
        login: Login,
        base: &Path,
    ) -> Option<Credential> {
        let user = self.user(spec, address, in_url, login);
        let password = self.upstream_password(spec, address, in_url, base);
        let Some(user) = user else {
            self.password_without_user(spec);
            return None;
        };
        let has_password = spec.has("password") || spec.has("password_file");
        if password.is_none() && !has_password && login != Login::Ssh {
            // A user of the URL may do without, as everywhere else.
            if let Some(at) = &spec.username {
                self.faults.push(
                    Fault::error(at.span.clone(), "`tunnel.upstream.username` is without a password").help(
                        "add password_file = \"FILE\" or password = \"PASSWORD\"; password = \"\" is an empty one",
                    ),
                );
            }
        }
        Some(Credential { user, password: password.unwrap_or_default() })
    }

    fn user(
        &mut self,
        spec: &TunnelUpstreamSpec,
        address: &At<TunnelAddress>,
        in_url: Option<&Credential>,
        login: Login,
    ) -> Option<String> {
        let Some(at) = &spec.username else {
            return in_url.map(|credential| credential.user.clone());
        };
        if in_url.is_some() {
            self.told_twice("username", &at.span, address, "has a user already");
        }
        let name = &at.value.0;
        let no_colon = login == Login::Basic && name.contains(':');
        if name.len() > CREDENTIAL_MAX || no_colon || name.contains(char::is_control) {
            let colon = if login == Login::Basic { ", and without a colon" } else { "" };
            self.faults.push(
                Fault::error(at.span.clone(), "`tunnel.upstream.username` cannot be told to the upstream")
                    .help(format!("accepted: 1 to {CREDENTIAL_MAX} bytes without control characters{colon}")),
            );
        }
        Some(name.clone())
    }

    fn upstream_password(
        &mut self,
        spec: &TunnelUpstreamSpec,
        address: &At<TunnelAddress>,
        in_url: Option<&Credential>,
        base: &Path,
    ) -> Option<String> {
        if let (Some(password), Some(file)) = (&spec.password, &spec.password_file) {
            self.faults.push(
                Fault::error(file.span.clone(), "`tunnel.upstream.password_file` is beside `password`")
                    .also(password.span.clone(), "the password")
                    .help("remove one of them"),
            );
        }
        let in_url = in_url.map(|credential| &*credential.password).filter(|password| !password.is_empty());
        let password = spec.password.as_ref().map(|at| ("password", &at.span));
        let file = spec.password_file.as_ref().map(|at| ("password_file", &at.span));
        if let (Some((key, span)), Some(_)) = (password.or(file), in_url) {
            self.told_twice(key, span, address, "has a password already");
        }
        let (key, read, span) = match (&spec.password, &spec.password_file) {
            (Some(at), _) => ("password", Some(at.value.0.clone()), &at.span),
            (None, Some(at)) => {
                let key = "tunnel.upstream.password_file";
                self.is_private(key, at, base);
                ("password_file", self.password(key, at, base), &at.span)
            }
            (None, None) => return in_url.map(str::to_owned),
        };
        let read = read?;
        if read.len() > CREDENTIAL_MAX || read.contains(char::is_control) {
            self.faults.push(
                Fault::error(span.clone(), format!("`tunnel.upstream.{key}` cannot be told to the upstream"))
                    .help(format!("accepted: a password of up to {CREDENTIAL_MAX} bytes without control characters")),
            );
        }
        Some(read)
    }

    fn told_twice(&mut self, key: &str, span: &Range<usize>, address: &At<TunnelAddress>, label: &str) {
        self.faults.push(
            Fault::error(span.clone(), format!("`tunnel.upstream.{key}` is beside a credential in `address`"))
                .also(address.span.clone(), label)
                .help("remove one of them"),
        );
    }

    fn password_without_user(&mut self, spec: &TunnelUpstreamSpec) {
        let password = spec.password.as_ref().map(|at| ("password", &at.span));
        let file = spec.password_file.as_ref().map(|at| ("password_file", &at.span));
        if let Some((key, span)) = password.or(file).filter(|_| !spec.has("username")) {
            self.faults.push(
                Fault::error(span.clone(), format!("`tunnel.upstream.{key}` is without a user"))
                    .help("add username = \"USER\""),
            );
        }
    }
}
