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
        ("https.pool", "min_idle") => "https.origin.min_idle".into(),
        ("tunnel.pool", "max_total" | "max_per_host") => "tunnel.pool.spares_max".into(),
        ("tunnel.pool", "min_idle") => "tunnel.pool.spares".into(),
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
