use std::{path::Path, time::UNIX_EPOCH};

use serde_json::Value;

use super::{line::Lines, *};
use crate::message::name_from_text;

fn entry_of(client: &str, name: &str, at: Duration) -> Entry {
    Entry {
        at: UNIX_EPOCH + at,
        client: client.parse().unwrap(),
        transport: ListenTransport::Tls,
        name: SmallVec::from_vec(name_from_text(name).unwrap()),
        qtype: 28,
        rcode: 3,
        source: Source::Upstream("quad9".into()),
        took: Duration::from_micros(12_500),
    }
}

fn lines_of(lines: &mut Lines, entries: &[Entry]) -> Vec<Value> {
    let mut out = Vec::new();
    entries.iter().for_each(|entry| lines.push(entry, &mut out));
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_full_line_says_who_asked_what_and_how_it_was_answered() {
    let mut out = Vec::new();
    let entry = entry_of("192.0.2.7", "wWw.ex\\.ample", Duration::from_millis(1_700_000_000_250));
    Lines::new(QueryLogPrivacy::Full).push(&entry, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.250000Z","client":"192.0.2.7","transport":"tls","name":"wWw.ex\\.ample.","#,
            r#""type":"AAAA","rcode":"NXDOMAIN","source":"upstream","upstream":"quad9","duration":0.0125}"#,
            "\n"
        )
    );
}

#[test]
fn each_source_is_told_and_a_failure_with_its_kind() {
    let mut entries = Vec::new();
    for source in [Source::Cache, Source::Stale, Source::Local, Source::Error("timeout")] {
        entries.push(Entry { source, ..entry_of("::1", "a.example", Duration::ZERO) });
    }
    let lines = lines_of(&mut Lines::new(QueryLogPrivacy::Full), &entries);
    let sources: Vec<_> = lines.iter().map(|line| line["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["cache", "stale", "local", "error"]);
    assert_eq!(lines[3]["error"], "timeout");
    assert!(lines.iter().all(|line| line.get("upstream").is_none()));
}

#[test]
fn hashes_are_equal_within_a_day_whatever_the_case_and_differ_on_the_next() {
    let day = Duration::from_secs(86_400);
    let mut lines = Lines::new(QueryLogPrivacy::Hashed);
    let told = lines_of(
        &mut lines,
        &[
            entry_of("192.0.2.7", "www.example", day),
            entry_of("192.0.2.7", "WWW.example", day * 2 - Duration::from_secs(1)),
            entry_of("192.0.2.8", "other.example", day),
            entry_of("192.0.2.7", "www.example", day * 2),
        ],
    );
    for field in ["client", "name"] {
        assert_eq!(told[0][field], told[1][field]);
        assert_ne!(told[0][field], told[2][field]);
        assert_ne!(told[0][field], told[3][field], "the key is another one");
        assert!(told[0][field].as_str().unwrap().len() == 32);
    }
    let again = lines_of(&mut Lines::new(QueryLogPrivacy::Hashed), &[entry_of("192.0.2.7", "www.example", day)]);
    assert_ne!(again[0]["name"], told[0]["name"], "and so has every process");
    let text = told[0].to_string();
    assert!(!text.contains("example") && !text.contains("192"), "{text}");
}

fn settings(path: &Path, max_size: u64) -> QueryLogSettings {
    QueryLogSettings { privacy: QueryLogPrivacy::Full, file: Some(path.to_owned()), max_size, queue: 4 }
}

/// Writes one entry.
fn write(writer: &mut Writer, name: &str) {
    writer.take(Mail::Entry(entry_of("192.0.2.7", name, Duration::ZERO)));
    writer.flush();
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_file_that_is_full_gives_way_and_one_old_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("queries"), folder.path().join("queries.1"));
    let mut writer = Writer::open(&path, &settings(&path, 400), Arc::default()).unwrap();
    for number in 0..7 {
        write(&mut writer, &format!("q{number}.example"));
        assert!(std::fs::metadata(&path).unwrap().len() <= 400);
    }
    let names =
        |path: &Path| read(path).iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&old), ["q4.example.", "q5.example."]);
    assert_eq!(names(&path), ["q6.example."]);
    drop(writer);
    let mut writer = Writer::open(&path, &settings(&path, 400), Arc::default()).unwrap();
    write(&mut writer, "q7.example");
    write(&mut writer, "q8.example");
    assert_eq!(names(&old), ["q6.example.", "q7.example."], "what was there counts");
}

#[cfg(unix)]
#[test]
fn nobody_but_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    drop(Writer::open(&path, &settings(&path, 400), Arc::default()).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn entries_are_dropped_and_counted_while_the_disk_fails_and_the_file_tells_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("queries"), folder.path().join("queries.1"));
    let counters = Arc::<Counters>::default();
    let mut writer = Writer::open(&path, &settings(&path, 200), counters.clone()).unwrap();
    write(&mut writer, "first.example");
    // A folder that is not empty cannot be replaced, so the full file can neither grow nor give way.
    std::fs::create_dir_all(old.join("in-the-way")).unwrap();
    for _ in 0..3 {
        write(&mut writer, "lost.example");
    }
    assert_eq!(counters.dropped.load(Relaxed), 3);
    assert_eq!(read(&path).len(), 1);
    std::fs::remove_dir_all(&old).unwrap();
    writer.retry_now();
    write(&mut writer, "after.example");
    let lines = read(&path);
    assert_eq!((lines[0]["dropped"].as_u64(), lines[1]["name"].as_str()), (Some(3), Some("after.example.")));
    write(&mut writer, "last.example");
    assert_eq!(read(&old).len(), 2);
    assert_eq!(read(&path)[0]["name"], "last.example.", "what was told is not told again");
}

#[test]
fn what_a_failed_attempt_left_does_not_stay_between_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    let mut writer = Writer::open(&path, &settings(&path, 4000), Arc::default()).unwrap();
    write(&mut writer, "first.example");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    io::Write::write_all(&mut file, b"{\"time\":\"20").unwrap();
    writer.retry_now();
    write(&mut writer, "second.example");
    assert_eq!(read(&path).len(), 2);
}

#[test]
fn a_full_queue_drops_and_counts_instead_of_waiting() {
    let counters = Arc::<Counters>::default();
    let (queue, entries) = mpsc::sync_channel(2);
    let log = QueryLog { queue, counters };
    for _ in 0..5 {
        log.push(entry_of("192.0.2.7", "www.example", Duration::ZERO));
    }
    let counters = &log.counters;
    let dropped = (counters.dropped.load(Relaxed), counters.unlogged.load(Relaxed));
    assert_eq!((dropped, entries.try_iter().count()), ((3, 3), 2));
}
