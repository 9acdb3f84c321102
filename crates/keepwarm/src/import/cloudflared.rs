//! `cloudflared proxy-dns`: its flags, and the `proxy-dns-*` keys of its config.yml.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use keepwarm_dns::config::{Listen, Transport};

use super::{
    draft::Draft,
    setting::{Flags, Setting},
    upstream,
};

/// Its command line, with what `cloudflared tunnel` takes for the same.
pub(super) const FLAGS: Flags = Flags {
    short: &[],
    switches: &["proxy-dns", "no-autoupdate", "version", "help"],
    valued: &[
        "address",
        "port",
        "upstream",
        "bootstrap",
        "max-upstream-conns",
        "metrics",
        "proxy-dns-address",
        "proxy-dns-port",
        "proxy-dns-upstream",
        "proxy-dns-bootstrap",
        "proxy-dns-max-upstream-conns",
        "config",
        "logfile",
        "loglevel",
    ],
};

/// Carries the options over.
pub(super) fn apply(settings: &[Setting], draft: &mut Draft) {
    let mut ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut port = 53;
    let is_file = settings.iter().any(|setting| setting.name == "proxy-dns" && setting.value == "true");
    for setting in settings {
        let Setting { place, name, value } = setting;
        // In the file and with `tunnel` the keys have this before them, so that others of the same name are something else.
        let name = match name.strip_prefix("proxy-dns-") {
            Some(own) => own,
            None if is_file
                && ["address", "port", "upstream", "bootstrap", "max-upstream-conns"].contains(&&**name) =>
            {
                ""
            }
            None => name,
        };
        match name {
            "address" => match value.as_str() {
                "localhost" => {}
                text => match text.parse() {
                    Ok(address) => ip = address,
                    Err(_) => draft.lost(place, "keepwarm listens on IP addresses; add one to `listen` in [dns]"),
                },
            },
            "port" => match value.parse() {
                Ok(number) => port = number,
                Err(_) => draft.lost(place, "is no port; 53 is kept"),
            },
            "upstream" => {
                if let Some(upstream) = upstream::read(draft, place, value) {
                    draft.upstream(upstream);
                }
            }
            "bootstrap" => upstream::bootstrap(draft, place, value),
            "max-upstream-conns" => max_connections(draft, place, value),
            "metrics" => metrics(draft, place, value),
            "proxy-dns" if !setting.is_on() => draft.lost(place, "the proxy is off there; it is imported all the same"),
            "" | "proxy-dns" if matches!(&**value, "proxy-dns" | "tunnel" | "cloudflared" | "true" | "") => {}
            "" if value.ends_with("/cloudflared") => {}
            "loglevel" if matches!(&**value, "debug" | "info" | "warn" | "error") => {
                draft.set("log", "level", value.clone());
            }
            "loglevel" => draft.lost(place, "no such level here; set `level` in [log]"),
            "logfile" | "log-directory" => {
                draft.lost(place, "keepwarm logs to standard error; let the service manager write it");
            }
            "no-autoupdate" | "autoupdate-freq" => {
                draft.lost(place, "keepwarm does not update itself, so there is nothing to turn off");
            }
            "config" => draft.lost(place, "give that file to `keepwarm import` as well"),
            _ => draft.lost(place, "not an option of proxy-dns; keepwarm has no tunnels"),
        }
    }
    draft.listen(Listen::plain(SocketAddr::new(ip, port)));
    if draft.upstreams().is_empty() {
        for url in ["https://1.1.1.1/dns-query", "https://1.0.0.1/dns-query"] {
            if let Some(upstream) = upstream::read(draft, "upstreams", url) {
                draft.upstream(upstream);
            }
        }
        draft.changed(
            "upstreams",
            "none is named, so these are cloudflared's own default, 1.1.1.1 and 1.0.0.1 over HTTPS",
        );
    }
    if draft.upstreams().iter().any(|upstream| upstream.address.transport != Transport::Https) {
        draft.changed("upstreams", "those that are not https:// are asked over their own transport here");
    }
    draft.changed(
        "cache",
        "cloudflared keeps few answers; keepwarm's cache is on, and `size` in [dns.cache] is its limit",
    );
}

fn max_connections(draft: &mut Draft, place: &str, value: &str) {
    match value.parse::<u16>() {
        Ok(0) => {
            draft.lost(place, "connections are always limited here; `max_per_host` in [dns.pool] keeps its default");
        }
        Ok(number) => {
            draft.set("dns.pool", "max_per_host", i64::from(number));
            draft.changed(place, "counts the connections to each upstream here");
        }
        Err(_) => draft.lost(place, "is no count; `max_per_host` in [dns.pool] keeps its default"),
    }
}

fn metrics(draft: &mut Draft, place: &str, value: &str) {
    let value = value.replacen("localhost:", "127.0.0.1:", 1);
    match value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => {
            draft.set("control", "listen", address.to_string());
            draft.changed(
                place,
                "the status endpoint is there, which answers JSON at /api/v1/stats and not Prometheus text",
            );
        }
        _ => draft.lost(
            place,
            "the status endpoint stays on loopback, at 127.0.0.1:9180: it has no token to keep others out",
        ),
    }
}
