//! Limits for clients.

use ipnet::IpNet;
use keepwarm_dns::config::ClientLimits;

use super::{Check, HOUR, MILLISECOND, count};
use crate::config::{
    fault::Fault,
    read::{At, Section as _},
    spec::ClientsSpec,
    value::Count,
};

/// Networks of proxies; each connection is held against all of them.
const PROXIES_MAX: usize = 1000;

impl Check<'_> {
    pub(super) fn clients(&mut self, spec: &ClientsSpec, rate_limit: Option<&At<Count<0, 1_000_000>>>) -> ClientLimits {
        let default = ClientLimits::default();
        let tcp_max = count(spec.tcp_max.as_ref(), default.tcp_max);
        let tcp_max_per_client = count(spec.tcp_max_per_client.as_ref(), default.tcp_max_per_client.min(tcp_max));
        if tcp_max_per_client > tcp_max && !spec.refused("tcp_max", spec.tcp_max.as_ref()) {
            let (at, other) = (spec.tcp_max_per_client.as_ref(), spec.tcp_max.as_ref());
            self.order(at, other, "dns.clients.tcp_max_per_client", "dns.clients.tcp_max", &tcp_max.to_string());
        }
        let max_in_flight = count(spec.max_in_flight.as_ref(), default.max_in_flight);
        let per_client = count(spec.max_in_flight_per_client.as_ref(), default.max_in_flight_per_client);
        if per_client > max_in_flight && !spec.refused("max_in_flight", spec.max_in_flight.as_ref()) {
            let (at, other) = (spec.max_in_flight_per_client.as_ref(), spec.max_in_flight.as_ref());
            let (key, limit) = ("dns.clients.max_in_flight_per_client", "dns.clients.max_in_flight");
            self.order(at, other, key, limit, &max_in_flight.to_string());
        }
        if let Some(list) = &spec.proxy_protocol {
            self.not_too_many("dns.clients.proxy_protocol", list, PROXIES_MAX);
        }
        let proxy_protocol = spec.proxy_protocol.iter().flat_map(|list| &list.value);
        ClientLimits {
            tcp_max,
            tcp_max_per_client,
            tcp_idle_timeout: self.duration(
                "dns.clients.tcp_idle_timeout",
                spec.tcp_idle_timeout.as_ref(),
                100 * MILLISECOND..=HOUR,
                default.tcp_idle_timeout,
            ),
            tcp_max_in_flight: count(spec.tcp_max_in_flight.as_ref(), default.tcp_max_in_flight),
            max_in_flight,
            max_in_flight_per_client: per_client,
            rate_limit: count(rate_limit, default.rate_limit),
            udp_payload_size: count(spec.udp_payload_size.as_ref(), default.udp_payload_size),
            proxy_protocol: proxy_protocol.map(|network| self.proxy(network)).collect(),
        }
    }

    /// A header from a listed peer is believed, so a list of everybody lets anybody pass for anybody.
    fn proxy(&mut self, network: &At<IpNet>) -> IpNet {
        if network.value.prefix_len() == 0 {
            self.faults.push(
                Fault::error(network.span.clone(), "`dns.clients.proxy_protocol` believes everybody")
                    .label("any client could name another address as its own")
                    .help("accepted: the addresses of the proxies, such as \"10.0.0.5\""),
            );
        }
        network.value
    }
}
