//! `local-zone` and `local-data`: records of unbound's own.

use std::net::IpAddr;

use crate::{config::name::parse_record, import::draft::Draft};

/// Zones and records, which only make sense together.
#[derive(Default)]
pub(super) struct Local {
    /// Zones whose names all have the zone's own data.
    redirected: Vec<String>,
    /// Zones that unbound would answer by itself, and is told not to.
    forwarded: Vec<(String, String)>,
    data: Vec<(String, String)>,
}

impl Local {
    /// Reads `NAME TYPE`.
    pub(super) fn zone(&mut self, draft: &mut Draft, place: &str, value: &str) {
        let (name, kind) = value.split_once(' ').unwrap_or((value, ""));
        match kind.trim() {
            "redirect" => self.redirected.push(absolute(name)),
            "transparent" | "typetransparent" | "inform" => {}
            "static" => draft
                .changed(place, "names of the zone without data are unknown there; here they are asked for upstream"),
            "nodefault" => self.forwarded.push((place.to_owned(), name.to_owned())),
            _ => draft
                .lost(place, "refuses or empties the names of a zone; keepwarm is no blocker: ask an upstream that is"),
        }
    }

    /// Keeps a record.
    pub(super) fn data(&mut self, place: &str, value: &str) {
        self.data.push((place.to_owned(), value.to_owned()));
    }

    /// Reads `IP [TTL] NAME` as the PTR record that it stands for.
    pub(super) fn pointer(&mut self, draft: &mut Draft, place: &str, value: &str) {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let (ip, ttl, name) = match words[..] {
            [ip, name] => (ip, None, name),
            [ip, ttl, name] => (ip, Some(ttl), name),
            _ => {
                return draft
                    .lost(place, "is no address with a name; write the PTR record in `records` of [dns.local]");
            }
        };
        let Ok(ip) = ip.parse::<IpAddr>() else {
            return draft.lost(place, "has no IP address; write the PTR record in `records` of [dns.local]");
        };
        let ttl = ttl.map_or_else(String::new, |ttl| format!(" {ttl}"));
        self.data(place, &format!("{}{ttl} PTR {}", reverse(ip), absolute(name)));
    }

    /// Writes the records; a redirected zone's also for all names below it.
    pub(super) fn finish(self, draft: &mut Draft) {
        for (place, name) in &self.forwarded {
            if !draft.has_route(name) {
                draft.lost(
                    place,
                    "a [[dns.route]] for the zone sends it to an upstream; `special_names` in [dns.local] turns all such zones off",
                );
            }
        }
        for (place, text) in &self.data {
            let (owner, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
            let owner = absolute(owner);
            let rest = rest.trim();
            let record = format!("{owner} {rest}");
            if let Err(error) = parse_record(&record) {
                draft.lost(place, format!("{}; accepted: {}", error.problem, error.accepted));
                continue;
            }
            if self.redirected.contains(&owner) {
                draft.push("dns.local", "records", format!("*.{record}"));
            }
            draft.push("dns.local", "records", record);
        }
    }
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// The name that has the PTR record of an address.
fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_name_in_the_reverse_zone() {
        assert_eq!(reverse("192.0.2.3".parse().unwrap()), "3.2.0.192.in-addr.arpa.");
        let name = reverse("2001:db8::1".parse().unwrap());
        assert!(name.starts_with("1.0.0.0.0.0.0.0.") && name.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa."), "{name}");
    }
}
