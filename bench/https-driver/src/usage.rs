//! What this process used.

use std::{fs, time::Duration};

use anyhow::Context as _;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// User and system time of all threads.
pub(crate) fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("read the used CPU time")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// Resident octets, shared pages included.
pub(crate) fn rss() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = kibibytes.and_then(|line| line.split_whitespace().next()).context("/proc has no VmRSS")?;
    Ok(kibibytes.parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_used_something() {
        assert!(super::cpu().unwrap().as_nanos() > 0);
        assert!(super::rss().unwrap() > 1 << 16);
    }
}
