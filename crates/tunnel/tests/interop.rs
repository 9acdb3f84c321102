//! Programs that we did not write, before and behind a tunnel. One that is not installed is left out, and says so.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code: a failure is a panic, a skip is said")]

#[path = "interop/clients.rs"]
mod clients;
#[path = "interop/curl.rs"]
mod curl;
#[path = "interop/gateway.rs"]
mod gateway;
#[path = "interop/modules.rs"]
mod modules;
#[path = "interop/plain.rs"]
mod plain;
#[path = "interop/program.rs"]
mod program;
#[path = "interop/proxies.rs"]
mod proxies;
#[path = "interop/ssh.rs"]
mod ssh;
#[path = "interop/tor.rs"]
mod tor;
#[path = "interop/udp.rs"]
mod udp;
#[path = "interop/upstream.rs"]
mod upstream;

use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + 20 * SECOND;
    while !is_so() {
        assert!(tokio::time::Instant::now() < limit, "{what}");
        tokio::time::sleep(5 * MS).await;
    }
}
