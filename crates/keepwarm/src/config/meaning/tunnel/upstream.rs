//! The upstreams: names that are unique, keys that mean something with the address beside them, and chains of two at most.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use keepwarm_transport::proxy::{Credential, Proxy, ProxyProtocol, Target};
use keepwarm_tunnel::config::{HostKey, SshConfig, UpstreamConfig, UpstreamKind};

use super::{Check, count, credential::Login};
use crate::config::{
    fault::Fault,
    read::{At, List, Section as _, nearest},
    spec::TunnelUpstreamSpec,
    tunnel::{Address, target_of},
    value::{Destination, Text, Through, TunnelAddress},
};

const UPSTREAMS_MAX: usize = 256;
/// Of a SHA-256 digest.
const DIGEST_LENGTH: usize = 32;
/// Where HTTP is spoken.
const CHECK_PORT: u16 = 80;

impl Check<'_> {
    pub(super) fn tunnel_upstreams(&mut self, list: &At<List<TunnelUpstreamSpec>>, base: &Path) -> Vec<UpstreamConfig> {
        self.not_too_many("tunnel.upstream", list, UPSTREAMS_MAX);
        let mut names = HashMap::new();
        let mut read: Vec<(&At<TunnelUpstreamSpec>, UpstreamConfig)> = Vec::new();
        for upstream in &list.value {
            read.extend(self.tunnel_upstream(upstream, &mut names, base).map(|config| (upstream, config)));
        }
        let by_name: BTreeMap<&str, &TunnelUpstreamSpec> = list
            .value
            .iter()
            .filter_map(|upstream| Some((&*upstream.value.name.as_ref()?.value.0, &upstream.value)))
            .collect();
        let proxies: BTreeMap<Arc<str>, Arc<Proxy>> = read
            .iter()
            .filter_map(|(_, config)| match &config.kind {
                UpstreamKind::Proxy(proxy) => Some((config.name.clone(), proxy.clone())),
                _ => None,
            })
            .collect();
        read.into_iter()
            .map(|(spec, config)| {
                let through = self.through(&spec.value, &by_name, &proxies);
                UpstreamConfig { through, ..config }
            })
            .collect()
    }

    /// An upstream, but for what it is reached through.
    fn tunnel_upstream(
        &mut self,
        upstream: &At<TunnelUpstreamSpec>,
        names: &mut HashMap<Arc<str>, Range<usize>>,
        base: &Path,
    ) -> Option<UpstreamConfig> {
        let At { value: spec, span } = upstream;
        for (key, what) in [
            ("name", "a name of your choice, such as name = \"exit-a\""),
            ("address", "where it is, such as address = \"socks5://proxy.example.com:1080\""),
        ] {
            if !spec.has(key) {
                let title = format!("`tunnel.upstream.{key}` is missing");
                self.faults.push(Fault::error(span.clone(), title).help(format!("add {what}")));
            }
        }
        if let Some(name) = &spec.name {
            if let Some(first) = names.get(&name.value.0) {
                self.faults.push(
                    Fault::error(name.span.clone(), format!("two upstreams are named \"{}\"", name.value.0))
                        .also(first.clone(), "the first")
                        .help("give each upstream a name of its own"),
                );
            } else {
                names.insert(name.value.0.clone(), name.span.clone());
            }
        }
        let kind = self.upstream_kind(spec, spec.address.as_ref()?, base);
        let check = spec.check.as_ref().and_then(|at| self.check_target(at));
        let default = UpstreamConfig::new(&spec.name.as_ref()?.value.0, kind?);
        Some(UpstreamConfig {
            group: spec.group.as_ref().map_or(default.group, |at| at.value.0.clone()),
            priority: count(spec.priority.as_ref(), default.priority),
            check,
            pipeline: spec.pipeline.as_ref().map_or(default.pipeline, |at| at.value),
            ..default
        })
    }

    fn upstream_kind(
        &mut self,
        spec: &TunnelUpstreamSpec,
        address: &At<TunnelAddress>,
        base: &Path,
    ) -> Option<UpstreamKind> {
        match &address.value.0 {
            Address::Direct => {
                let keys = ["username", "password", "password_file", "through", "key", "host_key", "channels"];
                self.no_meaning(spec, &keys, address, "this machine itself", "remove it, or name a proxy in `address`");
                Some(UpstreamKind::Direct)
            }
            Address::Proxy(proxy) => {
                self.no_meaning(spec, &["key", "host_key", "channels"], address, "not an SSH server", "remove it");
                let login = if proxy.protocol == ProxyProtocol::Socks5 { Login::Socks } else { Login::Basic };
                let credential = self.credential(spec, address, proxy.credential.as_ref(), login, base);
                Some(UpstreamKind::Proxy(Arc::new(Proxy { credential, ..proxy.clone() })))
            }
            Address::Ssh { host, port, credential } => {
                let known = self.credential(spec, address, credential.as_ref(), Login::Ssh, base);
                let (key, host_key) = (self.ssh_key(spec, base), self.host_key(spec, address, base));
                self.ssh_login(spec, address, known.as_ref());
                self.has_ssh(address);
                let Credential { user, password } = known?;
                // Where there is a key, there is no password, not an empty one.
                let password = Some(password).filter(|password| !password.is_empty());
                let host_key = host_key?;
                let (host, port) = (host.clone(), *port);
                let channels = count(spec.channels.as_ref(), SshConfig::CHANNELS);
                Some(UpstreamKind::Ssh(Arc::new(SshConfig { host, port, user, key, password, host_key, channels })))
            }
        }
    }

    fn has_ssh(&mut self, address: &At<TunnelAddress>) {
        if !cfg!(feature = "ssh") {
            let title = "`tunnel.upstream.address` is an SSH server, and this build has no SSH";
            let help = "build with `--features ssh`, or name a SOCKS5 or HTTP proxy";
            self.faults.push(Fault::error(address.span.clone(), title).help(help));
        }
    }

    /// Notes each of these keys that the file has.
    fn no_meaning(
        &mut self,
        spec: &TunnelUpstreamSpec,
        keys: &[&str],
        address: &At<TunnelAddress>,
        label: &str,
        remedy: &str,
    ) {
        let spans = [
            ("username", spec.username.as_ref().map(|at| &at.span)),
            ("password", spec.password.as_ref().map(|at| &at.span)),
            ("password_file", spec.password_file.as_ref().map(|at| &at.span)),
            ("through", spec.through.as_ref().map(|at| &at.span)),
            ("key", spec.key.as_ref().map(|at| &at.span)),
            ("host_key", spec.host_key.as_ref().map(|at| &at.span)),
            ("channels", spec.channels.as_ref().map(|at| &at.span)),
        ];
        for (key, span) in spans.iter().filter(|(key, _)| keys.contains(key)) {
            if let Some(span) = span {
                self.faults.push(
                    Fault::error((*span).clone(), format!("`tunnel.upstream.{key}` has no meaning here"))
                        .also(address.span.clone(), label)
                        .help(remedy),
                );
            }
        }
    }

    fn ssh_key(&mut self, spec: &TunnelUpstreamSpec, base: &Path) -> Option<std::path::PathBuf> {
        let at = spec.key.as_ref()?;
        let (key, path) = ("tunnel.upstream.key", base.join(&at.value.0));
        self.is_private(key, at, base);
        self.readable(key, at, &path, "a private key in OpenSSH's format").then_some(path)
    }

    fn ssh_login(&mut self, spec: &TunnelUpstreamSpec, address: &At<TunnelAddress>, known: Option<&Credential>) {
        if known.is_none() && !spec.has("username") {
            self.faults.push(
                Fault::error(address.span.clone(), "`tunnel.upstream.address` names no user")
                    .help("write \"ssh://USER@HOST:PORT\", or add username = \"USER\""),
            );
        }
        let has_password = spec.has("password")
            || spec.has("password_file")
            || known.is_some_and(|credential| !credential.password.is_empty());
        match &spec.key {
            Some(at) if has_password => self.faults.push(
                Fault::error(at.span.clone(), "`tunnel.upstream.key` is beside a password")
                    .help("remove one of them; keys with a passphrase are not read"),
            ),
            None if !has_password && !spec.has("key") => self.faults.push(
                Fault::error(address.span.clone(), "`tunnel.upstream` has neither a `key` nor a password for SSH")
                    .help("add key = \"FILE\" or password_file = \"FILE\""),
            ),
            _ => {}
        }
    }

    fn host_key(&mut self, spec: &TunnelUpstreamSpec, address: &At<TunnelAddress>, base: &Path) -> Option<HostKey> {
        const HELP: &str = "add host_key = \"SHA256:...\", as `ssh-keygen -lf` shows it of the server's key, or host_key = \"known_hosts\" with the path of such a file";
        let Some(at) = &spec.host_key else {
            if !spec.has("host_key") {
                let title = "`tunnel.upstream.host_key` is missing: the server could be anybody";
                self.faults.push(Fault::error(address.span.clone(), title).help(HELP));
            }
            return None;
        };
        self.host_key_of(at, base)
    }

    fn host_key_of(&mut self, at: &At<Text>, base: &Path) -> Option<HostKey> {
        let text = &at.value.0;
        if let Some(digest) = text.strip_prefix("SHA256:") {
            let digest = digest.trim_end_matches('=');
            let usable = STANDARD_NO_PAD.decode(digest).is_ok_and(|bytes| bytes.len() == DIGEST_LENGTH);
            if !usable {
                self.faults.push(
                    Fault::error(at.span.clone(), "`tunnel.upstream.host_key` is not a SHA-256 fingerprint")
                        .help("accepted: \"SHA256:\" and the 43 characters that `ssh-keygen -lf` shows"),
                );
            }
            return usable.then(|| HostKey::Fingerprint(format!("SHA256:{digest}")));
        }
        let path = base.join(text);
        let what = "a file in the format of OpenSSH's known_hosts, or \"SHA256:\" and a fingerprint";
        self.readable("tunnel.upstream.host_key", at, &path, what).then_some(HostKey::KnownHosts(path))
    }

    fn check_target(&mut self, at: &At<Destination>) -> Option<Target> {
        let Destination { host, port } = &at.value;
        if port.is_none() {
            self.faults.push(
                Fault::warning(at.span.clone(), format!("`tunnel.upstream.check` has no port: {CHECK_PORT} is taken"))
                    .help(format!("write \"{host}:{CHECK_PORT}\"")),
            );
        }
        match target_of(host, port.unwrap_or(CHECK_PORT)) {
            Ok(target) => Some(target),
            Err(error) => {
                let title = format!("`tunnel.upstream.check` {}", error.problem);
                let help = format!("accepted: {}", error.accepted);
                self.faults.push(Fault::error(at.span.clone(), title).help(help));
                None
            }
        }
    }

    /// The proxy before an upstream. `proxies` has those upstreams that are one.
    fn through(
        &mut self,
        spec: &TunnelUpstreamSpec,
        by_name: &BTreeMap<&str, &TunnelUpstreamSpec>,
        proxies: &BTreeMap<Arc<str>, Arc<Proxy>>,
    ) -> Option<Arc<Proxy>> {
        let At { value, span } = spec.through.as_ref()?;
        let name = match value {
            Through::Url(proxy) => return Some(proxy.clone()),
            Through::Name(name) => name,
        };
        let Some(other) = by_name.get(&**name) else {
            let near = nearest(name, by_name.keys().copied());
            let known = by_name.keys().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            self.faults.push(
                Fault::error(span.clone(), format!("`tunnel.upstream.through` names \"{name}\", which is no upstream"))
                    .label(near.map_or_else(String::new, |near| format!("did you mean \"{near}\"?")))
                    .help(format!("accepted: {known}, where that is a proxy; or a proxy's URL")),
            );
            return None;
        };
        let problem = if spec.name.as_ref().is_some_and(|at| at.value.0 == *name) {
            "is the upstream itself"
        } else if other.has("through") {
            "has a `through` of its own; chains are of two"
        } else if let Some(proxy) = proxies.get(name) {
            return Some(proxy.clone());
        } else if matches!(&other.address, Some(at) if !matches!(at.value.0, Address::Proxy(_))) {
            "is not a proxy"
        } else {
            // Its own address is a fault.
            return None;
        };
        let fault = Fault::error(span.clone(), format!("`tunnel.upstream.through` names \"{name}\", which {problem}"));
        let fault =
            fault.help("name an upstream that is a SOCKS5 or HTTP proxy reached directly, or write a proxy's URL");
        self.faults.push(match other.through.as_ref().map(|at| &at.span).filter(|place| *place != span) {
            Some(place) => fault.also(place.clone(), "its own"),
            None => fault,
        });
        None
    }
}
