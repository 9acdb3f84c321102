//! The program and the machine that it runs on, without anything that names a person.

use std::{ffi::OsString, fmt::Write as _};

/// Version and what it was built with.
pub(super) fn program() -> String {
    let features: Vec<&str> = [("browser", cfg!(feature = "browser")), ("ssh", cfg!(feature = "ssh"))]
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect();
    let features = if features.is_empty() { "none".into() } else { features.join(", ") };
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("version: {}\nfeatures: {features}\nbuild: {build}\n", env!("CARGO_PKG_VERSION"))
}

/// The system and its limits.
pub(super) fn machine() -> String {
    let mut text = format!("system: {} {}\n", std::env::consts::OS, std::env::consts::ARCH);
    let mut line = |name: &str, value: Option<String>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {}", value.as_deref().unwrap_or("unknown"));
    };
    line("distribution", first_line("/etc/os-release", "PRETTY_NAME="));
    line("cores", std::thread::available_parallelism().ok().map(|cores| cores.to_string()));
    line("memory", first_line("/proc/meminfo", "MemTotal:"));
    line("ephemeral ports", first_line("/proc/sys/net/ipv4/ip_local_port_range", ""));
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile);
        let words = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        line("open files", Some(format!("{} (soft), {} (hard)", words(limit.current), words(limit.maximum))));
        let kernel = rustix::system::uname();
        line("kernel", Some(format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy())));
    }
    text
}

/// Names of the variables that concern us, one a line. The others are nobody's business, and neither are the values.
pub(super) fn environment(names: impl Iterator<Item = OsString>) -> String {
    let mut names: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| {
            let upper = name.to_ascii_uppercase();
            PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) || upper.ends_with("_PROXY")
        })
        .collect();
    names.sort_unstable();
    if names.is_empty() { "none that matters\n".into() } else { names.join("\n") + "\n" }
}

/// The rest of the first line of a file that begins so.
fn first_line(file: &str, start: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    Some(rest.trim().trim_matches('"').replace('\t', " "))
}

const PREFIXES: [&str; 7] = ["KEEPWARM_", "RUST_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "SSL_CERT_", "TOKIO_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_concern_us_are_told() {
        let names = ["HOME", "https_proxy", "KEEPWARM_DNS__TIMEOUT", "AWS_SECRET_ACCESS_KEY", "RUST_LOG"];
        assert_eq!(
            environment(names.map(OsString::from).into_iter()),
            "KEEPWARM_DNS__TIMEOUT\nRUST_LOG\nhttps_proxy\n"
        );
        assert_eq!(environment(std::iter::once("HOME".into())), "none that matters\n");
    }
}
