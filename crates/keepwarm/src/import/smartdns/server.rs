//! A `server` line: where it is, which name it has, which groups it is in.

use std::net::IpAddr;

use keepwarm_dns::config::DEFAULT_GROUP;

use crate::{
    config::address::{UpstreamAddress, parse_host, parse_upstream},
    import::draft::{Draft, Upstream, group_name},
};

/// The options of one server.
#[derive(Default)]
struct Options {
    groups: Vec<String>,
    not_default: bool,
    is_fallback: bool,
    is_bootstrap: bool,
    host_name: Option<String>,
    verify_name: Option<String>,
    host_ip: Option<IpAddr>,
}

/// Carries a server over, into each of its groups.
pub(super) fn add(draft: &mut Draft, place: &str, key: &str, arguments: &[String]) {
    let scheme = match key {
        "server-tcp" => "tcp",
        "server-tls" => "tls",
        "server-https" => "https",
        "server-quic" => "quic",
        "server-h3" | "server-http3" => "h3",
        _ => "udp",
    };
    let Some((text, words)) = arguments.split_first() else {
        return draft.lost(place, "names no server");
    };
    let text = text.trim_start_matches("http3://");
    let bare = match scheme {
        // These lines have URLs of their own.
        "h3" => text.trim_start_matches("https://").trim_start_matches("h3://"),
        _ => text,
    };
    let url = match (bare.contains("://"), bare.parse::<IpAddr>()) {
        (true, _) => bare.to_owned(),
        (false, Ok(IpAddr::V6(ip))) => format!("{scheme}://[{ip}]"),
        (false, _) => format!("{scheme}://{bare}"),
    };
    let address = match parse_upstream(&url) {
        Ok(address) => address,
        Err(error) => return draft.lost(place, format!("\"{text}\" {}; accepted: {}", error.problem, error.accepted)),
    };
    let options = read(draft, place, words);
    if options.is_bootstrap {
        match address.ip() {
            Some(ip) if !address.transport.is_encrypted() => draft.push("dns", "bootstrap", ip.to_string()),
            _ => draft.lost(place, "bootstrap resolvers are plain DNS at an IP here; name one in `bootstrap` of [dns]"),
        }
        return;
    }
    let upstream = named(draft, place, address, &options);
    for group in groups(&options) {
        draft.upstream(upstream.in_group(&group));
    }
    if options.is_fallback {
        draft.set("dns", "fallback", FALLBACK);
    }
}

const FALLBACK: &str = "fallback";

/// All servers are in the default group as well, unless they say otherwise.
fn groups(options: &Options) -> Vec<String> {
    let mut groups = Vec::new();
    if options.is_fallback {
        groups.push(FALLBACK.to_owned());
    } else if !options.not_default {
        groups.push(DEFAULT_GROUP.to_owned());
    }
    groups.extend(options.groups.iter().map(|group| group_name(group)));
    groups
}

fn read(draft: &mut Draft, place: &str, words: &[String]) -> Options {
    let mut options = Options::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let mut value = || words.next_if(|next| *next == "-" || !next.starts_with('-')).cloned().unwrap_or_default();
        match word.as_str() {
            "-group" | "-g" => options.groups.push(value()),
            "-exclude-default-group" | "-e" => options.not_default = true,
            "-fallback" => options.is_fallback = true,
            "-bootstrap-dns" | "-b" => options.is_bootstrap = true,
            "-host-name" => options.host_name = Some(value()),
            "-tls-host-verify" => options.verify_name = Some(value()),
            "-host-ip" => options.host_ip = value().parse().ok(),
            "-no-check-certificate" | "-k" => draft.lost(
                place,
                format!(
                    "{word}: keepwarm always verifies certificates; trust a private CA with `extra_roots` in [tls]"
                ),
            ),
            "-spki-pin" => {
                value();
                draft.lost(place, "-spki-pin: keepwarm verifies certificates against the trusted roots instead");
            }
            "-http-host" => {
                value();
                draft.lost(place, "-http-host: the host of the URL is sent; write it in `address`");
            }
            "-tcp-keepalive" => {
                value();
                draft.lost(place, "-tcp-keepalive: how long a server keeps connections is learned; `idle_timeout` in [dns.pool] is the ceiling");
            }
            "-subnet" => {
                value();
                draft.lost(place, "-subnet: one network is told to all upstreams here: [dns.client_subnet]");
            }
            "-interface" | "-set-mark" | "-proxy" | "-p" => {
                value();
                draft.lost(place, format!("{word}: keepwarm asks upstreams the way that the system routes them"));
            }
            "-blacklist-ip" | "-whitelist-ip" | "-check-edns" | "-subnet-all-query-types" => {
                draft.lost(place, format!("{word}: keepwarm does not judge answers by the addresses in them"));
            }
            other => draft.lost(place, format!("{other}: not known to this importer")),
        }
    }
    options
}

/// Gives the server the one name that keepwarm has for the host, the TLS name and the certificate.
fn named(draft: &mut Draft, place: &str, address: UpstreamAddress, options: &Options) -> Upstream {
    let mut upstream = Upstream::new(address);
    if let Some(ip) = options.host_ip.filter(|_| upstream.address.ip().is_none()) {
        upstream.addresses.push(ip);
    }
    let name = |name: &Option<String>| name.clone().filter(|name| name != "-" && !name.is_empty());
    if options.host_name.as_deref() == Some("-") {
        draft.lost(
            place,
            "-host-name -: the TLS name is always sent; `ech` hides it where the server has keys for that",
        );
    }
    let (host_name, verify_name) = (name(&options.host_name), name(&options.verify_name));
    if let (Some(sent), Some(verified)) = (&host_name, &verify_name)
        && sent != verified
    {
        draft.changed(
            place,
            format!("sends {sent} and expects a certificate for {verified} there; here {verified} is both"),
        );
    }
    let Some(server_name) = verify_name.or(host_name) else { return upstream };
    if !upstream.address.transport.is_encrypted() {
        draft.lost(place, "a TLS name has no meaning without TLS");
    } else if let Err(error) = parse_host(&server_name) {
        draft.lost(place, format!("\"{server_name}\" {}", error.problem));
    } else if *server_name != *upstream.address.host {
        upstream.server_name = Some(server_name.into());
    }
    upstream
}
