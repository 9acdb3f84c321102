//! Service bindings of any content.
#![no_main]

use keepwarm_dns::fuzzing::{name, services};
use libfuzzer_sys::fuzz_target;

// An answer, asked for what its own question says.
fuzz_target!(|answer: &[u8]| {
    let Some(name) = name(answer, 12) else { return };
    for rtype in [64, 65] {
        let Some(found) = services(answer, &name, rtype) else { continue };
        assert!(found.is_sorted_by_key(|service| service.0), "the preferred one comes first");
        for (priority, target, _, path) in &found {
            assert!(*priority > 0 || found.len() == 1, "an alias stands alone");
            assert!(!target.bytes().any(|byte| byte.is_ascii_uppercase()));
            assert!(
                path.as_deref()
                    .is_none_or(|path| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
            );
        }
        // Names are compared without regard to case.
        assert_eq!(services(answer, &name.to_ascii_uppercase(), rtype), Some(found));
    }
});
