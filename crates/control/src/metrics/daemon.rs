//! The daemon itself: build, config, certificate, health, and the process as the system sees it.

use std::{fs, sync::OnceLock};

use super::{Family, Value};
use crate::{
    rows::{DaemonHealth, Stats},
    sample::Sample,
};

pub(super) fn families(sample: &Sample, stats: &Stats) -> Vec<Family> {
    let status = &sample.status;
    let config = &status.config;
    let health = match status.health {
        DaemonHealth::Ok => 0_u64,
        DaemonHealth::Degraded => 1,
        DaemonHealth::Failing => 2,
        DaemonHealth::Stopping => 3,
    };
    let mut certificate = Family::gauge(
        "keepwarm_certificate_not_after_seconds",
        "When the certificate of the listeners ends, in seconds since 1970.",
    );
    if let Some(row) = &stats.certificate {
        certificate.push([], row.not_after);
    }
    vec![
        Family::gauge("keepwarm_build_info", "1; the labels say what runs.").with(
            [("version", &status.version), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)],
            1_u64,
        ),
        Family::gauge(
            "keepwarm_health_state",
            "0: all is well, 1: something is not and clients are served, 2: a job has no upstream that answers, 3: stopping.",
        )
        .with([], health),
        Family::gauge("keepwarm_config_generation", "Times the config was read with success; 1 after the start.")
            .with([], config.generation),
        Family::gauge("keepwarm_config_last_reload_success", "0 when the last reload was refused.")
            .with([], config.last_error.is_none()),
        Family::gauge("keepwarm_config_loaded_timestamp_seconds", "When the config in force was read, since 1970.")
            .with([], config.loaded),
        Family::gauge("keepwarm_config_needs_restart", "Keys that were changed and take effect with the next start.")
            .with([], config.needs_restart.len()),
        certificate,
    ]
}

/// The process, as far as the system tells: on Linux its memory and descriptors, everywhere its start and its CPU time.
#[derive(Debug, Default)]
pub(crate) struct Process {
    started: OnceLock<u64>,
}

impl Process {
    pub(super) fn families(&self, stats: &Stats) -> Vec<Family> {
        let mut all = vec![
            Family::gauge("process_start_time_seconds", "When the process began, in seconds since 1970."),
            Family::counter("process_cpu_seconds_total", "CPU time of the process, user and system."),
            Family::gauge("process_resident_memory_bytes", "Memory that the process has in RAM."),
            Family::gauge("process_virtual_memory_bytes", "Address space of the process."),
            Family::gauge("process_open_fds", "Descriptors that are open."),
            Family::gauge("process_max_fds", "Descriptors that may be open."),
        ];
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = |key| kibibytes(&status, key).map(|size| size * 1024);
        // Told once: a difference of two clocks that are cut to seconds would look like a restart now and then.
        let started = || *self.started.get_or_init(|| stats.now.saturating_sub(stats.uptime.as_secs()));
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let values: [Option<Value>; 6] = [
            (stats.now > 0).then(started).map(Value::from),
            stats.counters.get("cpu_micros").map(|micros| (*micros as f64 / 1e6).into()),
            memory("VmRSS:").map(Value::from),
            memory("VmSize:").map(Value::from),
            open_files().map(Value::from),
            files_max(&limits).map(Value::from),
        ];
        for (family, value) in all.iter_mut().zip(values) {
            value.into_iter().for_each(|value| family.push([], value));
        }
        all
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// A line such as `Max open files            1024                 524288               files`.
fn files_max(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<u64> {
    // Linux 6.2 and later say the number as the size of the folder; before, it is 0 and they have to be counted.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_read_as_it_writes_them() {
        let status = "Name:\tkeepwarm\nVmSize:\t  204800 kB\nVmRSS:\t    5120 kB\n";
        assert_eq!((kibibytes(status, "VmRSS:"), kibibytes(status, "VmSwap:")), (Some(5120), None));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!((files_max(limits), files_max("Max open files            unlimited")), (Some(1024), None));
    }
}
