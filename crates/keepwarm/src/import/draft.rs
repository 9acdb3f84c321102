//! The keepwarm config that an import makes, and what is said about it.
//!
//! Keys come in any order and are written in the order of the documentation. What is refused or unused in the result is found
//! by the config's own checks, not guessed here.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use ipnet::IpNet;
use keepwarm_dns::config::{DEFAULT_GROUP, DOH_PATH, Listen, ListenTransport};
use toml::Value;

use crate::config::{
    address::UpstreamAddress,
    name,
    words::{duration_words, size_words},
};

/// A config in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    listen: Vec<Listen>,
    keys: Vec<(&'static str, &'static str, Value)>,
    upstreams: Vec<Upstream>,
    routes: Vec<Route>,
    case_randomization: bool,
    /// What could not be carried over.
    pub(super) lost: Vec<Note>,
    /// What was carried over and means something else now.
    pub(super) changed: Vec<Note>,
}

/// Something that the user has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Line or flag.
    pub(super) place: String,
    /// Why, and what to do instead.
    pub(super) text: String,
}

/// An upstream without a name; that is made of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) address: UpstreamAddress,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) group: Arc<str>,
}

impl Upstream {
    /// An upstream of the default group.
    pub(super) fn new(address: UpstreamAddress) -> Upstream {
        Upstream { address, addresses: Vec::new(), server_name: None, group: DEFAULT_GROUP.into() }
    }

    /// The same in another group.
    pub(super) fn in_group(&self, group: &str) -> Upstream {
        Upstream { group: group.into(), ..self.clone() }
    }
}

#[derive(Debug)]
struct Route {
    place: String,
    suffix: Arc<str>,
    group: String,
}

impl Draft {
    /// Notes what could not be carried over.
    pub(super) fn lost(&mut self, place: &str, text: impl Into<String>) {
        self.lost.push(Note { place: place.to_owned(), text: text.into() });
    }

    /// Notes what means something else now.
    pub(super) fn changed(&mut self, place: &str, text: impl Into<String>) {
        self.changed.push(Note { place: place.to_owned(), text: text.into() });
    }

    /// Sets a key; a later value takes the place of an earlier one.
    pub(super) fn set(&mut self, section: &'static str, key: &'static str, value: impl Into<Value>) {
        self.keys.retain(|(other, name, _)| (*other, *name) != (section, key));
        self.keys.push((section, key, value.into()));
    }

    /// Adds to a list.
    pub(super) fn push(&mut self, section: &'static str, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        let place = self.keys.iter().position(|(other, name, _)| (*other, *name) == (section, key));
        match place.map(|at| &mut self.keys[at].2) {
            Some(Value::Array(list)) if list.contains(&value) => {}
            Some(Value::Array(list)) => list.push(value),
            _ => self.set(section, key, vec![value]),
        }
    }

    pub(super) fn set_duration(&mut self, section: &'static str, key: &'static str, duration: Duration) {
        self.set(section, key, duration_words(duration));
    }

    pub(super) fn set_size(&mut self, section: &'static str, key: &'static str, bytes: u64) {
        self.set(section, key, size_words(bytes));
    }

    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.keys.iter().any(|(other, name, _)| (*other, *name) == (section, key))
    }

    /// Adds a listener, once. UDP and TCP on one address become one plain listener.
    pub(super) fn listen(&mut self, listen: Listen) {
        if self.listen.contains(&listen) {
            return;
        }
        let plain = [ListenTransport::Plain, ListenTransport::Udp, ListenTransport::Tcp];
        let is_plain = |one: &Listen| plain.contains(&one.transport) && one.address == listen.address;
        match self.listen.iter_mut().find(|other| is_plain(other)) {
            Some(other) if is_plain(&listen) => other.transport = ListenTransport::Plain,
            _ => self.listen.push(listen),
        }
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.listen.is_empty()
    }

    /// Adds an upstream, once.
    pub(super) fn upstream(&mut self, upstream: Upstream) {
        if !self.upstreams.contains(&upstream) {
            self.upstreams.push(upstream);
        }
    }

    pub(super) fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Has all upstreams asked in random case (0x20).
    pub(super) fn randomize_case(&mut self) {
        self.case_randomization = true;
    }

    /// Sends a name and all below it to a group; says so when the name cannot be a suffix or has a group already.
    pub(super) fn route(&mut self, place: &str, suffix: &str, group: &str) {
        let suffix = match name::parse_suffix(suffix) {
            Ok(suffix) => suffix,
            Err(error) => {
                return self.lost(place, format!("\"{suffix}\" {}; accepted: {}", error.problem, error.accepted));
            }
        };
        match self.routes.iter().find(|route| route.suffix == suffix) {
            Some(route) if route.group == group => {}
            Some(route) => {
                let text = format!(
                    "\"{suffix}\" goes to the group \"{}\" already ({}), and a name has one group here",
                    route.group, route.place
                );
                self.lost(place, text);
            }
            None => self.routes.push(Route { place: place.to_owned(), suffix, group: group.to_owned() }),
        }
    }

    /// What only shows when everything was read: routes without upstreams, and clients that would be shut out.
    pub(super) fn finish(&mut self, program: &str) {
        let (routes, dangling) = std::mem::take(&mut self.routes)
            .into_iter()
            .partition(|route| self.upstreams.iter().any(|upstream| *upstream.group == *route.group));
        self.routes = routes;
        for Route { place, suffix, group } in dangling {
            self.lost(
                &place,
                format!("\"{suffix}\" goes to \"{group}\", where no upstream is left; it is asked as all other names"),
            );
        }
        self.idle_groups();
        self.relative_files();
        let reaches_out = |listen: &Listen| !listen.address.ip().to_canonical().is_loopback();
        if self.listen.iter().any(reaches_out) && !self.has("dns", "allow") {
            self.set("dns", "allow", HOME_NETWORKS.map(Value::from).to_vec());
            self.changed("clients", format!("{program} answers whoever reaches it; here loopback and private networks may ask: add yours to `allow` in [dns]"));
        }
    }

    /// Leaves out upstreams that nothing leads to.
    fn idle_groups(&mut self) {
        let fallback = if self.has("dns", "fallback") { "fallback" } else { DEFAULT_GROUP };
        let routes = &self.routes;
        let is_led_to =
            |group: &str| [DEFAULT_GROUP, fallback].contains(&group) || routes.iter().any(|route| route.group == group);
        let (kept, idle): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.upstreams).into_iter().partition(|upstream| is_led_to(&upstream.group));
        self.upstreams = kept;
        for upstream in idle {
            let text = format!("no name leads to its group \"{}\", so it is left out", upstream.group);
            self.lost(&url(&upstream.address), text);
        }
    }

    /// A relative path starts elsewhere now.
    fn relative_files(&mut self) {
        const KEYS: [(&str, &str); 4] =
            [("dns.tls", "certificate"), ("dns.tls", "key"), ("dns.local", "hosts"), ("tls", "extra_roots")];
        let mut relative = Vec::new();
        for (_, _, value) in self.keys.iter().filter(|(section, key, _)| KEYS.contains(&(*section, *key))) {
            let list = std::slice::from_ref(value);
            let paths = value.as_array().map_or(list, Vec::as_slice).iter().filter_map(Value::as_str);
            relative.extend(paths.filter(|path| !Path::new(path).is_absolute()).map(str::to_owned));
        }
        if !relative.is_empty() {
            let text = "a relative path starts at the folder of the config file here: put the config beside them, or write where they are";
            self.changed(&relative.join(", "), text);
        }
    }

    /// Whether the name has a route of its own.
    pub(super) fn has_route(&self, suffix: &str) -> bool {
        self.routes.iter().any(|route| *route.suffix == *suffix.trim_end_matches('.'))
    }

    /// The config as a file.
    pub(super) fn to_toml(&self, program: &str) -> String {
        let mut text = format!(
            "# Imported from {program}. What could not be carried over was said on standard error.\nversion = 1\n"
        );
        for section in SECTIONS {
            let listen = (section == "dns" && !self.listen.is_empty())
                .then(|| ("listen", Value::from(self.listen.iter().map(listener).collect::<Vec<_>>())));
            let keys =
                self.keys.iter().filter(|(other, ..)| *other == section).map(|(_, key, value)| (*key, value.clone()));
            let keys: Vec<_> = listen.into_iter().chain(keys).collect();
            if !keys.is_empty() {
                text += &format!("\n[{section}]\n");
                keys.iter().for_each(|(key, value)| text += &line(key, value));
            }
        }
        let mut names = Vec::new();
        for upstream in &self.upstreams {
            let name = unique_name(&upstream.address.host, &names);
            text += &section_of(upstream, &name);
            if self.case_randomization {
                text += &line("case_randomization", &true.into());
            }
            names.push(name);
        }
        let mut groups: Vec<&str> = Vec::new();
        for Route { group, .. } in &self.routes {
            if !groups.contains(&group.as_str()) {
                groups.push(group);
            }
        }
        for group in groups {
            let suffixes: Vec<Value> = self
                .routes
                .iter()
                .filter(|route| route.group == group)
                .map(|route| Value::from(&*route.suffix))
                .collect();
            text += &format!("\n[[dns.route]]\n{}{}", line("match", &suffixes.into()), line("via", &group.into()));
        }
        text
    }
}

fn section_of(upstream: &Upstream, name: &str) -> String {
    let mut text = format!(
        "\n[[dns.upstream]]\n{}{}",
        line("name", &name.into()),
        line("address", &url(&upstream.address).into())
    );
    if !upstream.addresses.is_empty() {
        let addresses: Vec<Value> = upstream.addresses.iter().map(|ip| ip.to_string().into()).collect();
        text += &line("addresses", &addresses.into());
    }
    if let Some(name) = &upstream.server_name {
        text += &line("server_name", &Value::from(&**name));
    }
    if &*upstream.group != DEFAULT_GROUP {
        text += &line("group", &Value::from(&*upstream.group));
    }
    text
}

/// One key; a long list has an item a line.
fn line(key: &str, value: &Value) -> String {
    let line = format!("{key} = {value}\n");
    match value {
        Value::Array(items) if line.len() > 110 => {
            let items: String = items.iter().map(|item| format!("    {item},\n")).collect();
            format!("{key} = [\n{items}]\n")
        }
        _ => line,
    }
}

fn listener(listen: &Listen) -> Value {
    let path = if &*listen.path == DOH_PATH { "" } else { &listen.path };
    match listen.transport {
        ListenTransport::Plain => listen.address.to_string().into(),
        transport => format!("{}://{}{path}", transport.as_str(), listen.address).into(),
    }
}

/// The URL, without what is the default.
fn url(address: &UpstreamAddress) -> String {
    let UpstreamAddress { transport, host, port, path } = address;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let port = if *port == transport.default_port() { String::new() } else { format!(":{port}") };
    format!("{}://{host}{port}{path}", transport.as_str())
}

/// A name for logs and metrics, made of the host.
fn unique_name(host: &str, taken: &[String]) -> String {
    let usable = |letter: char| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '-' };
    let mut base: String = host.trim_end_matches('.').chars().map(usable).collect();
    base.truncate(56);
    let mut name = base.clone();
    for number in 2.. {
        if !taken.contains(&name) {
            break;
        }
        name = format!("{base}-{number}");
    }
    name
}

/// The name of a group that logs and metrics can hold.
pub(super) fn group_name(text: &str) -> String {
    unique_name(text, &[])
}

/// The network of an address, as RFC 7871 section 11.1 recommends to cut it.
pub(super) fn subnet_of(address: IpAddr) -> IpNet {
    let bits = if address.is_ipv4() { 24 } else { 56 };
    IpNet::new(address, bits).map_or_else(|_| IpNet::from(address), |network| network.trunc())
}

/// In the order of the documentation.
const SECTIONS: [&str; 11] = [
    "log",
    "limits",
    "tls",
    "dns",
    "dns.tls",
    "dns.clients",
    "dns.client_subnet",
    "dns.local",
    "dns.cache",
    "dns.pool",
    "control",
];

/// Loopback, private networks (RFC 1918, RFC 4193) and link-local addresses.
const HOME_NETWORKS: [&str; 8] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];
