//! The gateway: that its listeners are free, and that beyond this machine only its users come in.

use std::{net::SocketAddr, ops::Range, path::Path};

use keepwarm_https::config::{GatewayConfig, User};

use super::{Check, count};
use crate::config::{
    ControlConfig, defaults,
    fault::Fault,
    origin::check_password,
    read::{At, Section as _, Several},
    spec::{ControlSpec, DnsSpec, HttpsSpec},
    value::{GatewayAddress, Password, Text, Users},
};

const LISTEN_MAX: usize = 64;
const USERS_MAX: usize = 1000;

/// Where TCP is taken already: address, key, and the place where the file says it.
pub(in crate::config::meaning) struct Taken(Vec<(SocketAddr, &'static str, Option<Range<usize>>)>);

impl Taken {
    /// By the status endpoint and, where there is one, the DNS gateway.
    pub(in crate::config::meaning) fn by(control: &ControlSpec, dns: Option<&DnsSpec>) -> Taken {
        let mut taken = vec![match &control.listen {
            Some(at) => (at.value.0, "control.listen", Some(at.span.clone())),
            None => (ControlConfig::default().listen, "control.listen", None),
        }];
        if let Some(list) = dns.and_then(|dns| dns.listen.as_ref()) {
            let listeners = list.value.iter().filter(|item| item.value.transport.over_tcp());
            taken.extend(listeners.map(|item| (item.value.address, "dns.listen", Some(item.span.clone()))));
        } else if dns.is_some_and(|dns| !dns.has("listen")) {
            taken.push((defaults::listen().address, "dns.listen", None));
        }
        Taken(taken)
    }

    /// And by the gateway of `[https]`.
    pub(in crate::config::meaning) fn and_gateway(mut self, https: Option<&HttpsSpec>) -> Taken {
        let listeners = https.and_then(|https| https.gateway.as_ref()).into_iter().flat_map(|at| &at.value.0);
        self.0.extend(listeners.map(|item| (item.value.0, "https.gateway", Some(item.span.clone()))));
        self
    }

    /// The key of who takes an address, and the place where the file says so.
    pub(in crate::config::meaning) fn who(&self, address: SocketAddr) -> Option<(&'static str, Option<&Range<usize>>)> {
        let (_, key, place) = self.0.iter().find(|(taken, _, _)| *taken == address)?;
        Some((*key, place.as_ref()))
    }
}

impl Check<'_> {
    pub(super) fn gateway(&mut self, spec: &HttpsSpec, taken: &Taken, base: &Path) -> Option<GatewayConfig> {
        let default = GatewayConfig::default();
        let users = spec.users.as_ref().map(|at| self.users(at, base)).unwrap_or_default();
        let Some(gateway) = &spec.gateway else {
            if !spec.has("gateway") {
                self.gateway_is_missing(spec);
            }
            return None;
        };
        self.listeners_fit(gateway, taken);
        let nobody_is_named = spec.users.as_ref().map_or(!spec.has("users"), |at| at.value.0.is_empty());
        let beyond = gateway.value.0.iter().find(|item| !item.value.0.ip().to_canonical().is_loopback());
        // A user that was refused is a fault of its own, and was meant as one.
        if let Some(item) = beyond.filter(|_| nobody_is_named && !self.faults.iter().any(is_about_users)) {
            let address = item.value.0;
            self.faults.push(
                Fault::error(
                    item.span.clone(),
                    format!("`https.gateway` is {address}, which other machines can reach, and there are no users"),
                )
                .label("anybody could send requests through it")
                .help(format!(
                    "write a loopback address, such as \"127.0.0.1:{}\", or add users:\n[https.users]\nann = {{ password_file = \"ann.password\" }}",
                    address.port()
                )),
            );
        }
        Some(GatewayConfig {
            listen: gateway.value.0.iter().map(|item| item.value.0).collect(),
            users,
            upgrade: spec.upgrade.as_ref().map_or(default.upgrade, |at| at.value),
            max_clients: count(spec.max_clients.as_ref(), default.max_clients),
        })
    }

    /// Keys of a gateway without one: users may think that they are asked for a password.
    fn gateway_is_missing(&mut self, spec: &HttpsSpec) {
        let default = GatewayConfig::default();
        let users = spec.users.as_ref().filter(|at| !at.value.0.is_empty()).map(|at| ("users", &at.span));
        let upgrade = spec.upgrade.as_ref().filter(|at| at.value != default.upgrade).map(|at| ("upgrade", &at.span));
        let max_clients = spec
            .max_clients
            .as_ref()
            .filter(|at| at.value.0 != default.max_clients as u64)
            .map(|at| ("max_clients", &at.span));
        for (key, span) in [users, upgrade, max_clients].into_iter().flatten() {
            self.faults.push(
                Fault::warning(span.clone(), format!("`https.{key}` is not used: there is no `gateway`"))
                    .help("add gateway = \"127.0.0.1:8180\" to [https], or remove it"),
            );
        }
    }

    fn listeners_fit(&mut self, gateway: &At<Several<GatewayAddress>>, taken: &Taken) {
        let At { value: Several(list), span } = gateway;
        if list.is_empty() && !self.faults.iter().any(|fault| super::super::section_of(span, fault)) {
            self.faults.push(
                Fault::error(span.clone(), "`https.gateway` is empty")
                    .help("accepted: at least one address, such as \"127.0.0.1:8180\"; or remove it"),
            );
        }
        if list.len() > LISTEN_MAX {
            self.faults.push(
                Fault::error(span.clone(), format!("`https.gateway` has {} entries", list.len()))
                    .help(format!("accepted: at most {LISTEN_MAX}")),
            );
        }
        for (index, item) in list.iter().enumerate().filter(|(_, item)| item.value.0.port() != 0) {
            let address = item.value.0;
            if let Some(first) = list[..index].iter().find(|earlier| earlier.value == item.value) {
                self.faults.push(
                    Fault::error(item.span.clone(), format!("`https.gateway` has {address} twice"))
                        .also(first.span.clone(), "first here")
                        .help("remove one of them, or give it another port"),
                );
            }
            if let Some((key, place)) = taken.who(address) {
                let title = format!("`https.gateway` is {address}, where `{key}` takes TCP");
                let fault = Fault::error(item.span.clone(), title).help("give one of them another port");
                self.faults.push(match place {
                    Some(span) => fault.also(span.clone(), "the listener"),
                    None => fault.label(format!("the default of `{key}`")),
                });
            }
        }
    }

    fn users(&mut self, users: &At<Users>, base: &Path) -> Vec<User> {
        self.not_too_many_users("https.users", users);
        let user = |(name, password): &(At<String>, Password)| {
            let password = match password {
                Password::Inline(at) => at.value.clone(),
                Password::File(at) => self.password(&format!("https.users.{}.password_file", name.value), at, base)?,
            };
            Some(User { name: name.value.clone(), password })
        };
        users.value.0.iter().filter_map(user).collect()
    }

    pub(in crate::config::meaning) fn not_too_many_users(&mut self, key: &str, users: &At<Users>) {
        let count = users.value.0.len();
        if count > USERS_MAX {
            self.faults.push(
                Fault::error(users.span.clone(), format!("`{key}` has {count} entries"))
                    .help(format!("accepted: at most {USERS_MAX}")),
            );
        }
    }

    /// The password in a file, or a fault.
    pub(in crate::config::meaning) fn password(&mut self, key: &str, at: &At<Text>, base: &Path) -> Option<String> {
        let what = "a file with the password as its only line";
        let text = self.text_file(key, &at.value.0, &at.span, base, what)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        match check_password(password) {
            Ok(()) => Some(password.to_owned()),
            Err(error) => {
                let title = format!("`{key}`: the password in {} {}", base.join(&at.value.0).display(), error.problem);
                let help = format!("accepted: {}, as the file's only line", error.accepted);
                self.faults.push(Fault::error(at.span.clone(), title).help(help));
                None
            }
        }
    }
}

fn is_about_users(fault: &Fault) -> bool {
    fault.title.starts_with("`https.users")
}
