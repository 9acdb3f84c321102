//! The upstreams: names that are unique, and keys that mean something with the address beside them.

use std::{collections::HashMap, ops::Range, sync::Arc};

use keepwarm_dns::config::{Ddr, Ech, Transport, UpstreamConfig};

use super::{Check, count};
use crate::config::{
    address::UpstreamAddress,
    fault::Fault,
    read::{At, List, Section as _},
    spec::UpstreamSpec,
};

const UPSTREAMS_MAX: usize = 64;
/// How an upstream is written.
pub(super) const UPSTREAM_FORM: &str =
    "[[dns.upstream]]\nname = \"quad9\"\naddress = \"tls://dns.quad9.net\"\naddresses = [\"9.9.9.9\", \"2620:fe::fe\"]";

impl Check<'_> {
    pub(super) fn no_upstream(&mut self, span: Range<usize>) {
        let help = format!("add one, such as:\n{UPSTREAM_FORM}");
        self.faults.push(Fault::error(span, "there is no upstream to ask").help(help));
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
        let mut names = HashMap::new();
        upstreams.value.into_iter().filter_map(|upstream| self.upstream(upstream, &mut names)).collect()
    }

    fn upstream(
        &mut self,
        upstream: At<UpstreamSpec>,
        names: &mut HashMap<Arc<str>, Range<usize>>,
    ) -> Option<UpstreamConfig> {
        let At { value: spec, span } = upstream;
        self.required("name", &spec, &span, "a name of your choice, such as name = \"quad9\"");
        self.required("address", &spec, &span, "where it is, such as address = \"tls://dns.quad9.net\"");
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
        let address = spec.address.as_ref()?;
        self.addresses_fit(&spec, address);
        self.encryption_fits(&spec, address);
        self.ech_fits(&spec, address);
        self.ddr_fits(&spec, address);
        let UpstreamAddress { transport, host, port, path } = &address.value;
        let default = UpstreamConfig::new(&spec.name?.value.0, *transport, host, *port);
        Some(UpstreamConfig {
            path: path.clone(),
            addresses: spec.addresses.iter().flat_map(|list| &list.value).map(|item| item.value.0).collect(),
            server_name: spec.server_name.map(|at| at.value.0),
            group: spec.group.map_or(default.group, |at| at.value.0),
            weight: count(spec.weight.as_ref(), default.weight),
            case_randomization: spec.case_randomization.map_or(default.case_randomization, |at| at.value),
            cookies: spec.cookies.map_or(default.cookies, |at| at.value),
            padding: spec.padding.map_or(default.padding, |at| at.value),
            ech: spec.ech.map_or(default.ech, |at| at.value),
            ddr: spec.ddr.map_or(default.ddr, |at| at.value),
            ..default
        })
    }

    fn addresses_fit(&mut self, spec: &UpstreamSpec, address: &At<UpstreamAddress>) {
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
    }

    /// What asks for encryption where there is none. A plain upstream with `ddr` may turn out to be encrypted.
    fn encryption_fits(&mut self, spec: &UpstreamSpec, address: &At<UpstreamAddress>) {
        if address.value.transport.is_encrypted() {
            return;
        }
        let no_meaning = |key: &str, span: &Range<usize>, label: &str| {
            let scheme = address.value.transport.as_str();
            Fault::error(span.clone(), format!("`dns.upstream.{key}` has no meaning with {scheme}://"))
                .also(address.span.clone(), label)
                .help("remove it, or use an encrypted transport such as tls:// or https://")
        };
        if let Some(at) = &spec.server_name {
            self.faults.push(no_meaning("server_name", &at.span, "not encrypted, so there is no certificate"));
        }
        if spec.ddr.as_ref().is_some_and(|at| at.value != Ddr::Off) || spec.refused("ddr", spec.ddr.as_ref()) {
            return;
        }
        if let Some(at) = spec.padding.as_ref().filter(|at| at.value) {
            self.faults.push(no_meaning("padding", &at.span, "not encrypted, so there is nothing to hide the size of"));
        }
        if let Some(at) = spec.ech.as_ref().filter(|at| at.value != Ech::Off) {
            self.faults.push(no_meaning("ech", &at.span, "not encrypted, so there is no client hello"));
        }
    }

    /// The keys for ECH are in a record of the host's name, and need a TLS connection to be used on.
    fn ech_fits(&mut self, spec: &UpstreamSpec, address: &At<UpstreamAddress>) {
        let Some(ech) = spec.ech.as_ref().filter(|at| at.value != Ech::Off) else {
            return;
        };
        let transport = address.value.transport;
        if ech.value == Ech::Auto {
            if matches!(transport, Transport::H3 | Transport::Quic) {
                let scheme = transport.as_str();
                self.faults.push(
                    Fault::error(ech.span.clone(), format!("`dns.upstream.ech` has no meaning with {scheme}://"))
                        .also(address.span.clone(), "the client hello is encrypted over TCP only")
                        .help("remove it, or use tls:// or https://"),
                );
            }
            return;
        }
        let reason = match (transport, address.value.ip()) {
            (Transport::H3 | Transport::Quic, _) => format!("not used with {}://", transport.as_str()),
            (Transport::Tls | Transport::Https, Some(_)) => "an IP has no record with the keys".to_owned(),
            _ => return,
        };
        self.faults.push(
            Fault::error(ech.span.clone(), "`dns.upstream.ech` is required and cannot be had: no connection would be made")
                .also(address.span.clone(), reason)
                .help("accepted: \"auto\" or \"off\" here; \"require\" with tls:// or https:// and a host name, whose IPs may stand in `addresses`"),
        );
    }

    fn ddr_fits(&mut self, spec: &UpstreamSpec, address: &At<UpstreamAddress>) {
        let Some(ddr) = spec.ddr.as_ref().filter(|at| at.value != Ddr::Off) else {
            return;
        };
        let (problem, remedy) = match (address.value.transport.is_encrypted(), address.value.ip()) {
            (true, _) => {
                ("is encrypted already", "remove it, or write udp://IP or tcp://IP for what is to be upgraded")
            }
            // The certificate is held against the IP (RFC 9462 section 4.2), so a name cannot vouch for itself.
            (false, None) => ("a name", "write the resolver's IP in `address`: the certificate is checked for it"),
            (false, Some(_)) => return,
        };
        self.faults.push(
            Fault::error(ddr.span.clone(), "`dns.upstream.ddr` has a meaning for udp:// and tcp:// with an IP only")
                .also(address.span.clone(), problem)
                .help(remedy),
        );
    }

    fn required(&mut self, key: &str, spec: &UpstreamSpec, section: &Range<usize>, what: &str) {
        if !spec.has(key) {
            let title = format!("`dns.upstream.{key}` is missing");
            self.faults.push(Fault::error(section.clone(), title).help(format!("add {what}")));
        }
    }
}
