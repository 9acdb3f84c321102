//! The keys of the config that decide over a pool.

/// The key of a limit or time of a pool; none where the config has none for it.
pub(super) fn key(pool: &str, setting: &str) -> Option<String> {
    let section = match pool.split_once('.').map_or(pool, |(job, _)| job) {
        "dns" => "dns.pool",
        "https" => "https.pool",
        "tunnel" => "tunnel.pool",
        _ => return None,
    };
    Some(match (section, setting) {
        ("dns.pool", "max_total") => "limits.max_connections".into(),
        // All that may be open may stay idle there.
        ("dns.pool", "max_idle" | "max_idle_per_host") => "dns.pool.max_per_host".into(),
        ("https.pool", "max_idle_per_host") => "https.pool.max_per_host".into(),
        ("https.pool", "min_idle") => "https.origin.min_idle".into(),
        ("tunnel.pool", "max_total" | "max_per_host") => "tunnel.pool.spares_max".into(),
        ("tunnel.pool", "min_idle") => "tunnel.pool.spares".into(),
        ("tunnel.pool", "max_waiters" | "max_lifetime" | "max_idle" | "max_idle_per_host") => return None,
        (section, setting) => format!("{section}.{setting}"),
    })
}

/// Whether connections of a pool serve once, so that reuse says nothing of it.
pub(super) fn serves_once(pool: &str) -> bool {
    pool.starts_with("tunnel")
}

/// Whether connections of a pool are sockets without a handshake, which are retired on purpose.
pub(super) fn is_udp(pool: &str) -> bool {
    pool == "dns.udp"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_advised_is_one_of_the_config() {
        let example: toml::Table = crate::config::EXAMPLE.parse().unwrap();
        let settings = [
            "max_total",
            "max_per_host",
            "max_idle",
            "max_idle_per_host",
            "min_idle",
            "max_waiters",
            "idle_timeout",
            "max_lifetime",
            "check_interval",
        ];
        for (pool, setting) in ["dns", "dns.udp", "https", "tunnel.exit-a"]
            .into_iter()
            .flat_map(|pool| settings.map(|setting| (pool, setting)))
        {
            let Some(key) = key(pool, setting) else { continue };
            let mut value = toml::Value::Table(example.clone());
            for part in key.split('.') {
                let inner = match &value {
                    toml::Value::Array(list) => list[0].get(part),
                    value => value.get(part),
                };
                value = inner.unwrap_or_else(|| panic!("{pool} {setting}: no key {key}")).clone();
            }
        }
        assert_eq!(key("another", "max_total"), None);
        assert_eq!(key("tunnel.exit-a", "max_waiters"), None);
    }
}
