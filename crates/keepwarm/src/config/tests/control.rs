//! `[control]`: who may reach it, its token, how long the past is kept.

use super::*;

/// What is said about a file with these keys in [control], in a folder with a token of each kind; and the settings where it is accepted.
fn with_control(keys: &str) -> Result<(ControlConfig, Vec<String>), Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in
        [("good", "0123456789abcdef\n"), ("short", "0123456789\n"), ("two", "0123456789abcdef\n0123456789abcdef\n")]
    {
        std::fs::write(folder.path().join(file), text).unwrap();
        only_for_us(&folder.path().join(file), file != "two");
    }
    std::fs::write(folder.path().join("open"), "0123456789abcdef").unwrap();
    only_for_us(&folder.path().join("open"), false);
    let text = format!("{MINIMAL}[control]\n{keys}\n");
    let tidy = |faults: &Faults| -> Vec<String> {
        let start = format!("{}/", folder.path().display());
        places(faults).iter().map(|fault| fault.replace(&start, "")).collect()
    };
    match Config::parse("test.toml", &text, folder.path()) {
        Ok(loaded) => Ok((loaded.config.control, tidy(&loaded.warnings))),
        Err(ConfigError::Faults(faults)) => {
            assert!(!faults.render(false).contains("0123456789"), "a token is shown");
            Err(tidy(&faults))
        }
        Err(error) => panic!("{error}"),
    }
}

fn only_for_us(file: &Path, is_private: bool) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if is_private { 0o600 } else { 0o644 };
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = (file, is_private);
}

#[test]
fn the_control_listener_leaves_loopback_with_a_token_only() {
    for accepted in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1"] {
        assert!(with_control(&format!("listen = \"{accepted}\"")).is_ok(), "{accepted}");
    }
    for outside in ["0.0.0.0:1", "[::]:1", "192.168.1.1:1"] {
        let without = with_control(&format!("listen = \"{outside}\"\ntoken_file = \"\"")).unwrap_err();
        assert_eq!(without.len(), 1);
        assert!(without[0].contains("other machines can reach, and there is no token"), "{without:?}");
        let (with, warnings) = with_control(&format!("listen = \"{outside}\"\ntoken_file = \"good\"")).unwrap();
        assert_eq!((with.listen.to_string(), with.token.is_some(), warnings.len()), (outside.to_owned(), true, 0));
        assert!(with.token_file.unwrap().is_absolute());
        // One fault is told once: the token was meant.
        assert_eq!(with_control(&format!("listen = \"{outside}\"\ntoken_file = \"none\"")).unwrap_err().len(), 1);
        assert_eq!(with_control(&format!("listen = \"{outside}\"\ntoken_file = 1")).unwrap_err().len(), 1);
    }
}

#[test]
fn a_token_is_long_enough_and_in_a_file_of_its_own() {
    for (file, problem) in [
        ("none", "none cannot be read: no such file"),
        ("short", "the token in short has fewer than 16 characters"),
        ("two", "the token in two has a character that is not visible ASCII"),
    ] {
        let faults = with_control(&format!("token_file = \"{file}\"")).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.starts_with("6:14: `control.token_file`: ") && fault.contains(problem)),
            "{faults:?}"
        );
    }
    #[cfg(unix)]
    assert_eq!(
        with_control("token_file = \"open\"").unwrap().1,
        ["6:14: `control.token_file`: everybody on this machine may read open"]
    );
}

#[test]
fn history_is_kept_for_a_minute_to_a_day() {
    for (text, seconds) in [("1m", 60), ("1h30m", 5400), ("1d", 86_400)] {
        let (control, _) = with_control(&format!("history = \"{text}\"\nwatch = true")).unwrap();
        assert_eq!((control.history, control.watch), (Duration::from_secs(seconds), true), "{text}");
    }
    for text in ["59s", "2d", "0s"] {
        let faults = with_control(&format!("history = \"{text}\"")).unwrap_err();
        assert_eq!(faults, ["6:11: `control.history` is out of range"], "{text}");
    }
}
