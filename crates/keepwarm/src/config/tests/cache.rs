//! `[dns.cache]`: its size, and times to live held against each other.

use super::*;

/// What is said about a file with these keys in [dns.cache], and the settings where it is accepted.
fn with_cache(keys: &str) -> Result<(CacheSettings, Vec<String>), Vec<String>> {
    match parse(&format!("{MINIMAL}[dns.cache]\n{keys}\n")) {
        Ok(loaded) => Ok((loaded.config.dns.unwrap().cache, places(&loaded.warnings))),
        Err(ConfigError::Faults(faults)) => Err(places(&faults)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_cache_has_a_size_within_bounds_or_none() {
    for (size, bytes) in [("0", 0), ("0B", 0), ("64KiB", 64 << 10), ("1GiB", 1 << 30)] {
        let settings = CacheSettings { size: bytes, ..CacheSettings::default() };
        assert_eq!(with_cache(&format!("size = \"{size}\"")), Ok((settings, vec![])), "{size}");
    }
    assert_eq!(with_cache("size = \"64GiB\"").is_ok(), usize::BITS == 64);
    for size in ["1B", "63KiB1023B", "64GiB1B"] {
        let words = "6:8: `dns.cache.size` is out of range".to_owned();
        assert_eq!(with_cache(&format!("size = \"{size}\"")), Err(vec![words]), "{size}");
    }
}

#[test]
fn ttls_of_the_cache_are_held_against_the_longest() {
    let larger =
        |place: &str, key: &str| Err(vec![format!("{place}: `dns.cache.{key}` is larger than `dns.cache.max_ttl`")]);
    assert_eq!(with_cache("max_ttl = \"1m\"\nmin_ttl = \"2m\""), larger("7:11", "min_ttl"));
    assert_eq!(with_cache("negative_ttl = \"2d\""), larger("6:16", "negative_ttl"));
    assert_eq!(with_cache("min_ttl = \"30d\""), larger("6:11", "min_ttl"));
    // Whoever shortens the longest TTL does not have to think of the ceiling for negative answers.
    let (settings, _) = with_cache("max_ttl = \"1m\"").unwrap();
    assert_eq!((settings.max_ttl, settings.negative_ttl), (Duration::from_secs(60), Duration::from_secs(60)));
    // A limit that is refused itself says nothing about the others.
    for refused in ["max_ttl = \"8d\"", "max_ttl = 9"] {
        assert_eq!(with_cache(&format!("{refused}\nmin_ttl = \"2d\"")).unwrap_err().len(), 1, "{refused}");
    }
}

#[test]
fn a_ttl_raised_far_is_accepted_with_a_warning() {
    let words = "6:11: `dns.cache.min_ttl` keeps answers up to 1h longer than their owner allows".to_owned();
    assert_eq!(with_cache("min_ttl = \"1h\"").unwrap().1, [words]);
    assert_eq!(with_cache("min_ttl = \"5m\"").unwrap().1, [""; 0]);
    assert_eq!(with_cache("min_ttl = \"2d\"").unwrap_err().len(), 1, "what is refused needs no warning");
}
