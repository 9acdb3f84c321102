//! The daemon as a process: started, asked by programs that others wrote, stopped.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "test code shared by modules: a failure is a panic, a skip is said"
)]

mod activation;
mod cache;
mod control;
mod https;
mod interop;
mod life;
mod service;
mod support;
mod tunnel;
mod units;
