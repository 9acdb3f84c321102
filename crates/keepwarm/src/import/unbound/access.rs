//! `access-control` lines, of which the longest network counts; keepwarm has a list of those who may ask.

use ipnet::IpNet;

use crate::{config::address::parse_network, import::draft::Draft};

/// Networks and what is to be done with them.
#[derive(Default)]
pub(super) struct Access {
    rules: Vec<(String, IpNet, bool)>,
}

impl Access {
    /// Reads `NETWORK ACTION`.
    pub(super) fn add(&mut self, draft: &mut Draft, place: &str, value: &str) {
        let (network, action) = value.split_once(' ').unwrap_or((value, ""));
        let network = match parse_network(network) {
            Ok(network) => network,
            Err(error) => {
                return draft.lost(place, format!("\"{network}\" {}; accepted: {}", error.problem, error.accepted));
            }
        };
        let is_allowed = match action.trim() {
            "allow" => true,
            "allow_snoop" | "allow_setrd" | "allow_cookie" => {
                draft.changed(place, "is `allow` here: no more and no less than others may");
                true
            }
            "deny" | "deny_non_local" => {
                draft.changed(place, "clients that may not ask are answered REFUSED here, not left without an answer");
                false
            }
            "refuse" | "refuse_non_local" => false,
            other => return draft.lost(place, format!("\"{other}\" is no action that is known here")),
        };
        self.rules.push((place.to_owned(), network, is_allowed));
    }

    /// Writes the list. unbound without any rule answers loopback alone, as keepwarm does.
    pub(super) fn finish(self, draft: &mut Draft) {
        if self.rules.is_empty() {
            return;
        }
        // unbound answers loopback unless a rule says otherwise.
        for loopback in ["127.0.0.0/8", "::1/128"] {
            draft.push("dns", "allow", loopback);
        }
        for (_, network, _) in self.rules.iter().filter(|(.., is_allowed)| *is_allowed) {
            draft.push("dns", "allow", network.to_string());
        }
        for (place, network, _) in self.rules.iter().filter(|(.., is_allowed)| !is_allowed) {
            let wider = self.rules.iter().find(|(_, other, is_allowed)| *is_allowed && other.contains(network));
            if let Some((_, wider, _)) = wider {
                draft.lost(
                    place,
                    format!("nobody can be taken out of {wider}, which is allowed; list in `allow` what remains of it"),
                );
            } else if network.addr().is_loopback() {
                draft.lost(place, "loopback may ask here; take it out of `allow` in [dns]");
            }
        }
    }
}
