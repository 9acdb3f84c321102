//! Where clients of tunnels come in: that the listeners are free, and that beyond this machine only users come in.

use std::path::Path;

use keepwarm_tunnel::config::{Listen, ListenKind, User};

use super::{Check, Taken};
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, Section as _, Several},
    spec::TunnelSpec,
    value::{Password, TunnelListen, Users},
};

const LISTEN_MAX: usize = 64;
/// RFC 1929 section 2 has one byte for the length.
const PASSWORD_MAX: usize = 255;

impl Check<'_> {
    pub(super) fn tunnel_listen(&mut self, spec: &TunnelSpec, taken: &Taken) -> Vec<Listen> {
        let Some(listen) = &spec.listen else {
            if spec.has("listen") {
                return Vec::new();
            }
            self.default_is_free(taken);
            return vec![defaults::tunnel_listen()];
        };
        let At { value: Several(list), span } = listen;
        if list.len() > LISTEN_MAX {
            self.faults.push(
                Fault::error(span.clone(), format!("`tunnel.listen` has {} entries", list.len()))
                    .help(format!("accepted: at most {LISTEN_MAX}")),
            );
        }
        let was_refused = self.faults.iter().any(|fault| super::super::section_of(span, fault));
        if list.is_empty() && !was_refused {
            self.nobody_comes_in(spec, listen);
        }
        for (index, item) in list.iter().enumerate() {
            self.listener_is_free(&list[..index], item, taken);
        }
        self.beyond_loopback(spec, list);
        list.iter().map(|item| item.value.0.clone()).collect()
    }

    fn nobody_comes_in(&mut self, spec: &TunnelSpec, listen: &At<Several<TunnelListen>>) {
        self.faults.push(
            Fault::warning(listen.span.clone(), "`tunnel.listen` is empty: nobody can use the tunnels")
                .help("remove it for 127.0.0.1:1080, or name an address"),
        );
        if let Some(users) = spec.users.as_ref().filter(|at| !at.value.0.is_empty()) {
            self.faults.push(
                Fault::warning(users.span.clone(), "`tunnel.users` is not used: there is no listener")
                    .also(listen.span.clone(), "empty")
                    .help("name an address in `tunnel.listen`, or remove the users"),
            );
        }
    }

    fn default_is_free(&mut self, taken: &Taken) {
        let address = defaults::tunnel_listen().address;
        if let Some((key, place)) = taken.who(address) {
            let span = place.cloned().unwrap_or(0..0);
            self.faults.push(
                Fault::error(span, format!("`{key}` is {address}, which is the default of `tunnel.listen`"))
                    .help("give it another port, or write listen = \"127.0.0.1:1081\" in [tunnel]"),
            );
        }
    }

    fn listener_is_free(&mut self, earlier: &[At<TunnelListen>], item: &At<TunnelListen>, taken: &Taken) {
        let address = item.value.0.address;
        if address.port() == 0 {
            return;
        }
        if let Some(first) = earlier.iter().find(|earlier| earlier.value.0.address == address) {
            self.faults.push(
                Fault::error(item.span.clone(), format!("`tunnel.listen` has {address} twice"))
                    .also(first.span.clone(), "first here")
                    .help("remove one of them, or give it another port; a plain address speaks SOCKS and HTTP"),
            );
        }
        if let Some((key, place)) = taken.who(address) {
            let title = format!("`tunnel.listen` is {address}, where `{key}` takes TCP");
            let fault = Fault::error(item.span.clone(), title).help("give one of them another port");
            self.faults.push(match place {
                Some(span) => fault.also(span.clone(), "the listener"),
                None => fault.label(format!("the default of `{key}`")),
            });
        }
    }

    /// Beyond loopback a password is asked for. A forward has no place for one, so that it stays on loopback, users or not.
    fn beyond_loopback(&mut self, spec: &TunnelSpec, list: &[At<TunnelListen>]) {
        let nobody_is_named = spec.users.as_ref().map_or(!spec.has("users"), |at| at.value.0.is_empty());
        // A user that was refused is a fault of its own, and was meant as one.
        let open = nobody_is_named && !self.faults.iter().any(|fault| fault.title.starts_with("`tunnel.users"));
        let beyond: Vec<_> =
            list.iter().filter(|item| !item.value.0.address.ip().to_canonical().is_loopback()).collect();
        for item in &beyond {
            if let Listen { address, kind: ListenKind::Forward(target) } = &item.value.0 {
                self.faults.push(
                    Fault::error(
                        item.span.clone(),
                        format!("`tunnel.listen` leads everybody who reaches {address} to {target}"),
                    )
                    .label("a forward asks for no password")
                    .help(format!(
                        "write a loopback address, such as \"forward://127.0.0.1:{}->{target}\"",
                        address.port()
                    )),
                );
            }
        }
        let proxy = beyond.iter().find(|item| !matches!(item.value.0.kind, ListenKind::Forward(_)));
        if let Some(item) = proxy.filter(|_| open) {
            let address = item.value.0.address;
            self.faults.push(
                Fault::error(
                    item.span.clone(),
                    format!("`tunnel.listen` is {address}, which other machines can reach, and there are no users"),
                )
                .label("anybody could connect through it")
                .help(format!(
                    "write a loopback address, such as \"127.0.0.1:{}\", or add users:\n[tunnel.users]\nann = {{ password_file = \"ann.password\" }}",
                    address.port()
                )),
            );
        }
    }

    pub(super) fn tunnel_users(&mut self, users: &At<Users>, base: &Path) -> Vec<User> {
        self.not_too_many_users("tunnel.users", users);
        let mut read = Vec::new();
        for (name, password) in &users.value.0 {
            let key = format!("tunnel.users.{}", name.value);
            let (password, span) = match password {
                Password::Inline(at) => (Some(at.value.clone()), &at.span),
                Password::File(at) => {
                    let key = format!("{key}.password_file");
                    self.is_private(&key, at, base);
                    (self.password(&key, at, base), &at.span)
                }
            };
            let Some(password) = password else { continue };
            if password.len() > PASSWORD_MAX {
                self.faults.push(
                    Fault::error(span.clone(), format!("`{key}` is too long")).help(format!(
                        "accepted: a password of 1 to {PASSWORD_MAX} bytes, which is what SOCKS5 can tell"
                    )),
                );
                continue;
            }
            read.push(User { name: name.value.clone(), password });
        }
        read
    }
}
