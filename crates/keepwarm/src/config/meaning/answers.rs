//! Local names, the client's network and the query log: keys that need one another.

use std::{
    collections::HashMap,
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use keepwarm_dns::{
    config::{ClientSubnet, LocalSettings, QueryLogPrivacy, QueryLogSettings},
    local::{Record as LocalRecord, Table},
};

use super::{Check, DAY, count};
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, Section as _},
    spec::{ClientSubnetSpec, LocalSpec, QueryLogSpec},
    value::{Record, Size, SubnetPolicy},
    words::size_words,
};

/// Each hosts file is looked at every few seconds.
const HOSTS_MAX: usize = 64;
/// More belong into a hosts file.
const RECORDS_MAX: usize = 10_000;
/// What is accepted as a record.
const RECORD_FORM: &str = "accepted: a record as in a zone file, such as \"nas.home.arpa. 300 IN A 192.168.1.10\"";
/// Less is rotated away before anybody reads it.
const LOG_SIZE: RangeInclusive<u64> = 64 << 10..=1 << 40;

impl Check<'_> {
    pub(super) fn local(&mut self, spec: &LocalSpec, base: &Path) -> LocalSettings {
        let default = LocalSettings::default();
        if let Some(list) = &spec.hosts {
            self.not_too_many("dns.local.hosts", list, HOSTS_MAX);
        }
        if let Some(list) = &spec.records {
            self.not_too_many("dns.local.records", list, RECORDS_MAX);
        }
        let mut hosts = Vec::new();
        for file in spec.hosts.iter().flat_map(|list| &list.value) {
            let path = base.join(&file.value.0);
            self.readable("dns.local.hosts", file, &path, "a hosts file");
            hosts.push(path);
        }
        let records: Vec<_> = spec.records.iter().flat_map(|list| &list.value).collect();
        self.records(&records);
        LocalSettings {
            hosts,
            hosts_ttl: self.duration(
                "dns.local.hosts_ttl",
                spec.hosts_ttl.as_ref(),
                Duration::ZERO..=7 * DAY,
                default.hosts_ttl,
            ),
            records: records.into_iter().map(|record| record.value.0.clone()).collect(),
            filter_aaaa: spec.filter_aaaa.as_ref().map_or(default.filter_aaaa, |at| at.value),
            special_names: spec.special_names.as_ref().map_or(default.special_names, |at| at.value),
        }
    }

    /// Reads each record as the server will, and holds those of one name against each other.
    fn records(&mut self, written: &[&At<Record>]) {
        let mut names: HashMap<Vec<u8>, Vec<(LocalRecord, &Range<usize>)>> = HashMap::new();
        for at in written {
            let record = match LocalRecord::parse(&at.value.0) {
                Ok(record) => record,
                Err(error) => {
                    let title = format!("`dns.local.records` has a line that is no record: {}", error.why());
                    self.faults.push(Fault::error(at.span.clone(), title).help(RECORD_FORM));
                    continue;
                }
            };
            let known = names.entry(record.owner().to_vec()).or_default();
            let clash = known.iter().find(|(first, _)| Table::new(&[first.clone(), record.clone()], &[]).is_err());
            if let Some((_, first)) = clash {
                let title = "`dns.local.records` contradict each other: a name with a CNAME record has no other";
                self.faults.push(
                    Fault::error(at.span.clone(), title)
                        .also((*first).clone(), "of the same name")
                        .help("remove one of them (RFC 1034 section 3.6.2)"),
                );
            } else {
                known.push((record, &at.span));
            }
        }
    }

    pub(super) fn client_subnet(&mut self, spec: &ClientSubnetSpec) -> ClientSubnet {
        let policy = spec.policy.as_ref();
        let v4 = count(spec.v4_prefix.as_ref(), defaults::SUBNET_V4);
        let v6 = count(spec.v6_prefix.as_ref(), defaults::SUBNET_V6);
        let keys = [
            ("v4_prefix", spec.v4_prefix.as_ref().map(|at| &at.span)),
            ("v6_prefix", spec.v6_prefix.as_ref().map(|at| &at.span)),
            ("address", spec.address.as_ref().map(|at| &at.span)),
        ];
        if policy.map(|at| at.value) == Some(SubnetPolicy::Set) {
            if let Some(address) = &spec.address {
                for (key, span) in &keys[..2] {
                    if let Some(span) = span {
                        self.faults.push(
                            Fault::error(
                                (*span).clone(),
                                format!("`dns.client_subnet.{key}` has no meaning beside `address`"),
                            )
                            .also(address.span.clone(), "this network is told for every client, whatever its own")
                            .help("remove one of them"),
                        );
                    }
                }
                return ClientSubnet::Fixed(address.value);
            }
            return ClientSubnet::Set { v4, v6 };
        }
        // A policy that was refused may have been meant as "set".
        if !spec.refused("policy", policy) {
            for (key, span) in keys {
                let Some(span) = span else { continue };
                let fault = Fault::error(
                    span.clone(),
                    format!("`dns.client_subnet.{key}` has no meaning without `policy = \"set\"`"),
                );
                self.faults.push(
                    match policy {
                        Some(at) => fault.also(at.span.clone(), "with this policy no network is told"),
                        None => fault,
                    }
                    .help("remove it, or write policy = \"set\""),
                );
            }
        }
        match policy.map(|at| at.value) {
            Some(SubnetPolicy::Strip) => ClientSubnet::Strip,
            Some(SubnetPolicy::Pass) => ClientSubnet::Pass,
            _ => ClientSubnet::default(),
        }
    }

    pub(super) fn query_log(&mut self, spec: &QueryLogSpec, base: &Path) -> QueryLogSettings {
        let default = QueryLogSettings::default();
        let privacy = spec.privacy.as_ref().map_or(default.privacy, |at| at.value);
        match (&spec.privacy, &spec.file) {
            (Some(at), None) if privacy != QueryLogPrivacy::Off && !spec.has("file") => self.faults.push(
                Fault::error(
                    at.span.clone(),
                    "`dns.query_log.privacy` asks for a log, and `dns.query_log.file` is missing",
                )
                .help("add the file, such as file = \"queries.jsonl\", or write privacy = \"off\""),
            ),
            (privacy_at, Some(file))
                if privacy == QueryLogPrivacy::Off && !spec.refused("privacy", privacy_at.as_ref()) =>
            {
                let fault = Fault::warning(file.span.clone(), "`dns.query_log.file` is not written: `privacy` is off")
                    .help("write privacy = \"hashed\" or privacy = \"full\", or remove the file");
                self.faults.push(match privacy_at {
                    Some(at) => fault.also(at.span.clone(), "off"),
                    None => fault.label("the default of `privacy` is off"),
                });
            }
            _ => {}
        }
        QueryLogSettings {
            privacy,
            file: spec.file.as_ref().map(|at| base.join(&at.value.0)),
            max_size: self.log_size(spec.max_size.as_ref(), default.max_size),
            queue: count(spec.queue.as_ref(), default.queue),
        }
    }

    fn log_size(&mut self, size: Option<&At<Size>>, default: u64) -> u64 {
        match size {
            Some(At { value: Size(size), span }) if !LOG_SIZE.contains(size) => {
                let (min, max) = (size_words(*LOG_SIZE.start()), size_words(*LOG_SIZE.end()));
                self.out_of_range("dns.query_log.max_size", span.clone(), &format!("{min} to {max}"));
                default
            }
            size => size.map_or(default, |at| at.value.0),
        }
    }
}
