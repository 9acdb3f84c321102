//! Where and when figures were taken.

use std::{fs, time::SystemTime};

use crate::pin;

/// The machine and the moment.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Load average of the last minute, before the run.
    pub(crate) load: String,
    /// UTC.
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Machine {
            processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(|| "unknown processor".to_owned()),
            cores: pin::cores().len(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            date: date(now.as_secs() / 86_400),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { processor, cores, kernel, load, date } = self;
        write!(f, "{cores} cores of {processor}, {kernel}, load {load} before the run, {date}")
    }
}

fn processor(cpuinfo: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()))
}

/// Year, month and day of a day since 1970. Whole Gregorian years from March on, so that a leap day comes last.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        let dates = [0, 59, 11_016, 11_017, 20_454, 20_513].map(date);
        assert_eq!(dates, ["1970-01-01", "1970-03-01", "2000-02-29", "2000-03-01", "2026-01-01", "2026-03-01"]);
    }

    #[test]
    fn the_processor_is_named() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), Some("Some CPU @ 2 GHz".to_owned()));
        assert_eq!(processor("Hardware: x"), None);
    }
}
