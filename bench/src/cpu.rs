//! CPU time and memory of processes, from /proc.

use std::{fs, time::Duration};

use nix::{time::ClockId, unistd::Pid};

/// What a process and its children used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Resident octets, shared pages included.
    pub(crate) rss: u64,
}

/// Reads a process and all below it. What has ended meanwhile counts as nothing.
pub(crate) fn usage(pid: u32) -> Usage {
    family(pid).into_iter().fold(Usage::default(), |sum, pid| {
        let one = of_process(pid).unwrap_or_default();
        Usage { cpu: sum.cpu + one.cpu, rss: sum.rss + one.rss }
    })
}

/// User and system time of a process and all below it, threads and children that have ended included. To the nanosecond, but for
/// ended children.
pub(crate) fn spent(pid: u32) -> Duration {
    family(pid).into_iter().map(|pid| clock(pid) + ended_children(pid)).sum()
}

/// A process and all below it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Busy time of all cores since the machine started, of everybody.
pub(crate) fn machine_busy() -> Duration {
    fs::read_to_string("/proc/stat").ok().and_then(|stat| busy_ticks(&stat)).map_or(Duration::ZERO, from_ticks)
}

/// The CPU time clock of a process, which goes on counting what its ended threads used.
fn clock(pid: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).and_then(ClockId::now);
    clock.map_or(Duration::ZERO, Duration::from)
}

fn ended_children(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks_after(&stat, 13).map_or(Duration::ZERO, from_ticks)
}

fn of_process(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = rss(&status).unwrap_or(0);
    // To the nanosecond where the kernel keeps that, to the tick where it does not.
    let fine: Option<Duration> = tasks(pid)
        .map(|task| fs::read_to_string(format!("{task}/schedstat")).ok().as_deref().and_then(schedstat))
        .sum::<Option<Duration>>()
        .filter(|time| !time.is_zero());
    let coarse = || stat_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(from_ticks);
    Some(Usage { cpu: fine.or_else(coarse)?, rss })
}

fn tasks(pid: u32) -> impl Iterator<Item = String> {
    let directory = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    directory.filter_map(|task| task.path().into_os_string().into_string().ok())
}

/// `<time on a core, ns> <time waiting> <slices>`.
fn schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// User and system time of `/proc/PID/stat`. The name before may hold spaces and brackets.
fn stat_ticks(text: &str) -> Option<u64> {
    ticks_after(text, 11)
}

/// The sum of two times that stand together in `/proc/PID/stat`, so many fields after the name: 11 those of the process itself, 13
/// those of its children that have ended.
fn ticks_after(text: &str, skipped: usize) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(skipped).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// `VmRSS` of `/proc/PID/status`; a kernel thread has none.
fn rss(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

/// All but idle and waiting for disks, of the line for all cores.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq
    [0, 1, 2, 5, 6].into_iter().map(|index| fields.get(index).copied()).sum()
}

/// Linux shows all of them in hundredths of a second, whatever it counts in.
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_nanoseconds_first() {
        assert_eq!(schedstat("1500000000 77 12\n"), Some(Duration::from_millis(1500)));
        assert_eq!(schedstat(""), None);
        assert_eq!(schedstat("x 1 2"), None);
    }

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 161 0 0 0 250 75 9 9 20 0 3 0 100 1000 10 0";
        assert_eq!(stat_ticks(stat), Some(325));
        assert_eq!(ticks_after(stat, 13), Some(18));
        assert_eq!(stat_ticks("42 (a) S 1 2"), None);
        assert_eq!(from_ticks(325), Duration::from_millis(3250));
    }

    #[test]
    fn resident_memory_is_in_octets() {
        assert_eq!(rss("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(rss("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        assert_eq!(busy_ticks("cpu  10 20 30 4000 500 6 7 800 0 0\ncpu0 1 2 3 4 5 6 7\n"), Some(73));
        assert_eq!(busy_ticks("intr 1 2 3"), None);
    }

    #[test]
    fn what_an_ended_thread_used_stays_counted() {
        let me = std::process::id();
        let before = spent(me);
        let worker = std::thread::spawn(|| (0..20_000_000_u64).fold(0, |sum, one| std::hint::black_box(sum ^ one)));
        assert_eq!(worker.join().unwrap(), (0..20_000_000).fold(0, |sum, one| sum ^ one));
        assert!(spent(me) > before, "{before:?}");
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = usage(std::process::id());
        assert!(usage.cpu > Duration::ZERO && usage.rss > 1 << 16, "{usage:?}");
    }
}
