//! Limits for clients.

use keepwarm_dns::config::ClientLimits;

use super::{Check, HOUR, MILLISECOND, count};
use crate::config::{read::Section as _, spec::ClientsSpec};

impl Check<'_> {
    pub(super) fn clients(&mut self, spec: &ClientsSpec) -> ClientLimits {
        let default = ClientLimits::default();
        let tcp_max = count(spec.tcp_max.as_ref(), default.tcp_max);
        let tcp_max_per_client = count(spec.tcp_max_per_client.as_ref(), default.tcp_max_per_client.min(tcp_max));
        if tcp_max_per_client > tcp_max && !spec.refused("tcp_max", spec.tcp_max.as_ref()) {
            let (at, other) = (spec.tcp_max_per_client.as_ref(), spec.tcp_max.as_ref());
            self.order(at, other, "dns.clients.tcp_max_per_client", "dns.clients.tcp_max", &tcp_max.to_string());
        }
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
            max_in_flight: count(spec.max_in_flight.as_ref(), default.max_in_flight),
            udp_payload_size: count(spec.udp_payload_size.as_ref(), default.udp_payload_size),
            ..default
        }
    }
}
