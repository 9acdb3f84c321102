//! Record lines and hosts files of any content, and any query asked of what they say.
#![no_main]

use keepwarm_dns::{
    config::LocalSettings,
    local::{Local, Record, Table, Verdict, join, parse_hosts},
    message::{Query, render, verify_answer},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (Vec<String>, Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (lines, hosts, query, upstream) = data;
    let records: Vec<Record> = lines.iter().filter_map(|line| Record::parse(line).ok()).collect();
    let Ok(table) = Table::new(&records, &[parse_hosts(&hosts, 60)]) else { return };
    let settings = LocalSettings { filter_aaaa: true, ..LocalSettings::default() };
    let local = Local::new(&settings, &[], table);
    let Ok(parsed) = Query::parse(&query) else { return };
    let mut answer = Vec::new();
    match local.answer(&query, &parsed, &mut answer) {
        Verdict::Pass => {}
        Verdict::Answered => {
            assert!(verify_answer(&answer).is_ok());
            assert!(render(&answer).is_ok());
            assert!(answer.len() <= 65_535);
        }
        Verdict::Alias { place, .. } => {
            assert!(verify_answer(&answer).is_ok());
            let mut joined = Vec::new();
            if join(&answer, place, &upstream, &mut joined) && verify_answer(&upstream).is_ok() {
                assert!(verify_answer(&joined).is_ok());
            }
        }
    }
});
