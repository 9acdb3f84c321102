use clap::Parser as _;
use keepwarm_https::profile::capture::Captures;

use super::*;
use crate::cli::{Cli, Command};

fn parse(words: &str) -> Result<ProfileCommand, clap::Error> {
    match Cli::try_parse_from(words.split(' '))?.command {
        Command::Profile(args) => Ok(args.what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn recording_is_for_this_machine_alone_and_bounded() {
    assert!(parse("keepwarm profile capture --listen [::1]:0 --count 512").is_ok());
    for words in
        ["--listen 0.0.0.0:8443", "--listen 127.0.0.1", "--count 0", "--count 513", "--wait never", "--key a.pem"]
    {
        assert!(parse(&format!("keepwarm profile capture {words}")).is_err(), "{words}");
    }
}

#[test]
fn what_is_built_in_is_found_by_its_name() {
    for (name, source) in source::built_in() {
        let found = source::find(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.origin(), source.origin());
        assert_eq!(source.summary(&name)["name"], name.as_str());
    }
    assert!(source::built_in().iter().any(|(name, _)| name == "plain"));
    let error = source::find("netscape").unwrap_err().to_string();
    assert!(error.starts_with("netscape: neither a file nor one of plain"), "{error}");
}

#[test]
fn files_of_profiles_and_of_captures_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let [captures_file, profile_file, other] =
        ["captures.json", "profile.json", "other.json"].map(|name| folder.path().join(name));
    let captures = Captures::reference("firefox@153").unwrap().unwrap();
    let profile = keepwarm_https::profile::Profile::from_captures("mine", "", "", &captures.captures).unwrap();
    std::fs::write(&captures_file, captures.to_json().unwrap()).unwrap();
    std::fs::write(&profile_file, serde_json::to_string(&profile).unwrap()).unwrap();
    std::fs::write(&other, "[]").unwrap();
    let find = |path: &Path| source::find(path.to_str().unwrap());
    assert!(matches!(find(&captures_file).unwrap(), Source::Captures(_)));
    assert!(matches!(find(&profile_file).unwrap(), Source::Profile(_)));
    let at = format!("@{}", profile_file.display());
    assert!(matches!(source::find(&at).unwrap(), Source::Profile(_)), "as a config writes it");
    assert!(find(&other).is_err());
    let diffs = source::diff(&find(&captures_file).unwrap(), &find(&profile_file).unwrap()).unwrap();
    assert!(diffs.len() > 30 && diffs.iter().all(|diff| diff.equal), "{diffs:#?}");
}

#[test]
fn cells_hold_no_more_than_a_line() {
    assert_eq!(shown(&[]), "-");
    assert_eq!(shown(&[json!(null)]), "-");
    assert_eq!(shown(&[json!(["h2", "http/1.1"])]), "h2 http/1.1");
    assert_eq!(shown(&[json!([[1, 65536], [2, 0]])]), "1:65536 2:0");
    assert_eq!(shown(&[json!(144), json!(176), json!(208), json!(240)]), "144 | 176 | 208 | 1 more");
    assert_eq!(shown(&[json!({ "weight": 256, "exclusive": true })]), "exclusive true, weight 256");
    assert_eq!(shown(&[json!("a".repeat(200))]).len(), SHOWN_MAX + 3);
}
