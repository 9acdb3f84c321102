//! dnsproxy's upstreams, of which some are for certain domains: `[/corp.example/lan/]10.0.0.1`.

use std::path::Path;

use keepwarm_dns::config::DEFAULT_GROUP;

use crate::import::{
    draft::{Draft, Upstream, group_name},
    read_file,
    upstream::{read, suffix},
};

/// Domains, each with its upstreams, in the order in which they were named.
#[derive(Default)]
pub(super) struct Split {
    domains: Vec<Domain>,
    /// Those for the reverse zones of private networks, which go before the domains.
    private: Vec<(String, Upstream)>,
    private_is_on: bool,
}

struct Domain {
    place: String,
    suffix: String,
    /// Empty: as all other names.
    upstreams: Vec<Upstream>,
}

impl Split {
    /// Reads an upstream, or a file with one a line.
    pub(super) fn add(&mut self, draft: &mut Draft, place: &str, text: &str, base: &Path) {
        let is_file = text.starts_with(['/', '.']) || (!text.contains(['[', ':']) && base.join(text).is_file());
        if !is_file {
            return self.one(draft, place, text);
        }
        match read_file(&base.join(text)) {
            Ok(content) => {
                for (number, line) in content.lines().map(str::trim).enumerate() {
                    if !line.is_empty() && !line.starts_with('#') {
                        self.one(draft, &format!("{text}:{} `{line}`", number + 1), line);
                    }
                }
            }
            Err(problem) => draft.lost(place, problem),
        }
    }

    fn one(&mut self, draft: &mut Draft, place: &str, text: &str) {
        let Some((domains, upstreams)) = text.strip_prefix("[/").and_then(|rest| rest.split_once("/]")) else {
            for word in text.split_ascii_whitespace() {
                if let Some(upstream) = read(draft, place, word) {
                    draft.upstream(upstream);
                }
            }
            return;
        };
        let upstreams: Vec<&str> = upstreams.split_ascii_whitespace().collect();
        if upstreams == ["!"] {
            return draft.lost(
                place,
                "keepwarm refuses no names; have an upstream that does, or leave the name to its own servers",
            );
        }
        let read: Vec<Upstream> =
            upstreams.iter().filter(|word| **word != "#").filter_map(|word| read(draft, place, word)).collect();
        if read.is_empty() && upstreams != ["#"] {
            return;
        }
        for domain in domains.split('/') {
            if domain.is_empty() {
                draft.lost(place, "names without a dot have no route of their own; name them in a [[dns.route]]");
                continue;
            }
            let suffix = suffix(draft, place, domain).to_ascii_lowercase();
            match self.domains.iter_mut().find(|known| known.suffix == suffix) {
                Some(known) => known.upstreams.extend(read.iter().cloned()),
                None => self.domains.push(Domain { place: place.to_owned(), suffix, upstreams: read.clone() }),
            }
        }
    }

    /// Reads an upstream that is asked when the others failed.
    pub(super) fn fallback(&mut self, draft: &mut Draft, place: &str, text: &str, base: &Path) {
        let mut fallback = Split::default();
        let mut inner = Draft::default();
        fallback.add(&mut inner, place, text, base);
        if !fallback.domains.is_empty() {
            draft.lost(place, "the fallback is one group for all names here; name the upstream without a domain");
        }
        draft.lost.append(&mut inner.lost);
        draft.changed.append(&mut inner.changed);
        for upstream in inner.upstreams() {
            draft.upstream(upstream.in_group("fallback"));
            draft.set("dns", "fallback", "fallback");
        }
    }

    /// Reads an upstream for the reverse zones of private networks.
    pub(super) fn private(&mut self, draft: &mut Draft, place: &str, text: &str) {
        if text.starts_with("[/") {
            return draft
                .lost(place, "one group is asked for all private reverse zones; add a [[dns.route]] for this one");
        }
        if let Some(upstream) = read(draft, place, text) {
            self.private.push((place.to_owned(), upstream));
        }
    }

    /// Private reverse zones have upstreams of their own.
    pub(super) fn use_private(&mut self) {
        self.private_is_on = true;
    }

    /// Makes a group of each set of upstreams and routes of the domains.
    pub(super) fn finish(self, draft: &mut Draft) {
        if let Some((place, _)) = self.private.first() {
            if !self.private_is_on {
                draft.changed(place, "is used here, though use-private-rdns is not on");
            }
            self.private.iter().for_each(|(_, upstream)| draft.upstream(upstream.in_group(PRIVATE)));
            private_zones().iter().for_each(|zone| draft.route(place, zone, PRIVATE));
        }
        let mut groups: Vec<(String, Vec<Upstream>)> = Vec::new();
        for Domain { place, suffix, upstreams } in self.domains {
            let group = match groups.iter().find(|(_, known)| *known == upstreams) {
                _ if upstreams.is_empty() => DEFAULT_GROUP.to_owned(),
                Some((group, _)) => group.clone(),
                None => {
                    let group = group_name(&suffix);
                    upstreams.iter().for_each(|upstream| draft.upstream(upstream.in_group(&group)));
                    groups.push((group.clone(), upstreams));
                    group
                }
            };
            draft.route(&place, &suffix, &group);
        }
    }
}

/// The group for private reverse zones.
const PRIVATE: &str = "private-rdns";

/// The reverse zones of private and link-local networks (RFC 6303 sections 4.2 to 4.5).
fn private_zones() -> Vec<String> {
    let mut zones = vec!["10.in-addr.arpa".to_owned()];
    zones.extend((16..32).map(|second| format!("{second}.172.in-addr.arpa")));
    zones.extend(["168.192.in-addr.arpa", "254.169.in-addr.arpa", "d.f.ip6.arpa"].map(str::to_owned));
    zones.extend(["8", "9", "a", "b"].map(|nibble| format!("{nibble}.e.f.ip6.arpa")));
    zones
}
