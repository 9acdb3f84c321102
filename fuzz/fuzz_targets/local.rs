//! Record lines and hosts files of any content, and any query asked of what they say.
#![no_main]

use keepwarm_dns::{
    config::LocalSettings,
    local::{Local, Record, Table, Verdict, join, parse_hosts},
    message::{Query, render, verify_answer},
};
use libfuzzer_sys::fuzz_target;

// Records, one a line; behind a line of two dashes a hosts file; behind another one a byte with the length of a query, the
// query, and an upstream's answer to what it leads to.
fuzz_target!(|data: &[u8]| {
    let Some((records, rest)) = split(data) else { return };
    let Some((hosts, messages)) = split(rest) else { return };
    let Some((length, messages)) = messages.split_first() else { return };
    let (query, upstream) = messages.split_at(usize::from(*length).min(messages.len()));
    let lines = String::from_utf8_lossy(records);
    let records: Vec<Record> = lines.lines().filter_map(|line| Record::parse(line).ok()).collect();
    let Ok(table) = Table::new(&records, &[parse_hosts(hosts, 60)]) else { return };
    let settings = LocalSettings { filter_aaaa: true, ..LocalSettings::default() };
    let local = Local::new(&settings, &[], table);
    let Ok(parsed) = Query::parse(query) else { return };
    let mut answer = Vec::new();
    match local.answer(query, &parsed, &mut answer) {
        Verdict::Pass => {}
        Verdict::Answered => {
            assert!(verify_answer(&answer).is_ok());
            assert!(render(&answer).is_ok());
            assert!(answer.len() <= 65_535);
        }
        Verdict::Alias { place, .. } => {
            assert!(verify_answer(&answer).is_ok());
            let mut joined = Vec::new();
            if join(&answer, place, upstream, &mut joined) && verify_answer(upstream).is_ok() {
                assert!(verify_answer(&joined).is_ok());
            }
        }
    }
});

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.windows(4).position(|window| window == b"\n--\n")?;
    Some((&data[..at], &data[at + 4..]))
}
