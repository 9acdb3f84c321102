//! The upstreams: names that are unique, and keys that mean something with the address beside them.

use std::{collections::HashMap, net::IpAddr, ops::Range};

use keepwarm_dns::config::{Transport, UpstreamConfig};

use super::Check;
use crate::config::{
    address::UpstreamAddress,
    fault::Fault,
    read::{At, List, Section as _},
    spec::UpstreamSpec,
    value::Text,
};

const UPSTREAMS_MAX: usize = 64;
const NAME_MAX: usize = 64;

impl Check<'_> {
    pub(super) fn no_upstream(&mut self, span: Range<usize>) {
        const REMEDY: &str = "add one, such as:\n[[dns.upstream]]\nname = \"quad9\"\naddress = \"tls://dns.quad9.net\"\naddresses = [\"9.9.9.9\", \"2620:fe::fe\"]";
        self.faults.push(Fault::error(span, "there is no upstream to ask").help(REMEDY));
    }

    pub(super) fn upstreams(&mut self, upstreams: At<List<UpstreamSpec>>) -> Vec<UpstreamConfig> {
        if upstreams.value.is_empty() {
            self.no_upstream(upstreams.span.clone());
        }
        if let Some(first_over) = upstreams.value.get(UPSTREAMS_MAX) {
            self.faults.push(
                Fault::error(first_over.span.clone(), format!("`dns.upstream` has {} entries", upstreams.value.len()))
                    .help(format!("accepted: at most {UPSTREAMS_MAX}")),
            );
        }
        let mut names: HashMap<String, Range<usize>> = HashMap::new();
        upstreams.value.into_iter().filter_map(|upstream| self.upstream(upstream, &mut names)).collect()
    }

    fn upstream(
        &mut self,
        upstream: At<UpstreamSpec>,
        names: &mut HashMap<String, Range<usize>>,
    ) -> Option<UpstreamConfig> {
        let At { value: spec, span } = upstream;
        self.required("name", &spec, &span, "a name of your choice, such as name = \"quad9\"");
        self.required("address", &spec, &span, "where it is, such as address = \"tls://dns.quad9.net\"");
        if let Some(name) = &spec.name {
            self.name(name);
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
        let address = spec.address?;
        let encrypted = matches!(address.value.transport, Transport::Tls | Transport::Https);
        if let Some(server_name) = spec.server_name.as_ref().filter(|_| !encrypted) {
            let scheme = address.value.transport.as_str();
            self.faults.push(
                Fault::error(
                    server_name.span.clone(),
                    format!("`dns.upstream.server_name` has no meaning with {scheme}://"),
                )
                .also(address.span.clone(), "not encrypted, so there is no certificate")
                .help("remove it, or use tls:// or https://"),
            );
        }
        if let Some(addresses) = spec.addresses.as_ref().filter(|list| !list.value.is_empty())
            && let Some(ip) = address.value.ip()
        {
            self.faults.push(
                Fault::error(
                    addresses.span.clone(),
                    "`dns.upstream.addresses` has no meaning where `address` is an IP",
                )
                .also(address.span.clone(), format!("already {ip}"))
                .help("remove it, or name the host in `address`"),
            );
        }
        let addresses: Vec<IpAddr> =
            spec.addresses.map(|list| list.value.into_iter().map(|item| item.value.0).collect()).unwrap_or_default();
        let UpstreamAddress { transport, host, port, path } = address.value;
        Some(UpstreamConfig {
            path,
            addresses,
            server_name: spec.server_name.map(|at| at.value.0),
            case_randomization: spec.case_randomization.is_some_and(|at| at.value),
            ..UpstreamConfig::new(&spec.name?.value.0, transport, &host, port)
        })
    }

    fn name(&mut self, name: &At<Text>) {
        let text = &name.value.0;
        let usable = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !usable || text.len() > NAME_MAX {
            self.faults.push(
                Fault::error(name.span.clone(), "`dns.upstream.name` cannot be used in logs and metrics")
                    .help(format!("accepted: up to {NAME_MAX} of the characters A-Z a-z 0-9 . _ -")),
            );
        }
    }

    fn required(&mut self, key: &str, spec: &UpstreamSpec, section: &Range<usize>, what: &str) {
        if !spec.has(key) {
            let title = format!("`dns.upstream.{key}` is missing");
            self.faults.push(Fault::error(section.clone(), title).help(format!("add {what}")));
        }
    }
}
