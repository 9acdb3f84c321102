//! `dns-bench dns`: keepwarm beside other DNS forwarders, on one machine and in one run; `dns-bench faults`: keepwarm before
//! upstreams that misbehave; `dns-bench https`: its HTTPS client beside others; `dns-bench tunnel`: its SOCKS5 proxy beside others;
//! `dns-bench control`: what scrapes and live views cost.
//!
//! The upstream, the load generator and the floors are commands of the same program, so that each is a process of its own on
//! a core of its own. Nothing here is part of the daemon.
#![expect(clippy::print_stderr, reason = "a command for a terminal")]
#![cfg_attr(target_os = "linux", expect(clippy::print_stdout, reason = "a command for a terminal"))]
#![cfg_attr(
    target_os = "linux",
    expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock and waits for real time")
)]

#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod cpu;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod histogram;
#[cfg(target_os = "linux")]
mod https;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod pin;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod tunnel;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    dns::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("error: dns-bench needs Linux: it counts CPU time from /proc and sends datagrams in batches");
    std::process::ExitCode::FAILURE
}
