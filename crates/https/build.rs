//! Says at build time that profiles of browsers are left out.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_BROWSER").is_none() {
        println!(
            "cargo::warning=built without profiles of browsers (chrome, firefox, safari), which take cmake and libclang: `cargo xtask build` \
             makes a build with them; `plain` works as it is"
        );
    }
}
