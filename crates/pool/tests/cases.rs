//! The pool's behaviour, case by case, on a paused clock; each test owns every dial. The numbers are those of the list of cases that
//! the project gathered from the suites and bug reports of other pools.

#[path = "cases/checkout.rs"]
mod checkout;
#[path = "cases/dialling.rs"]
mod dialling;
#[path = "cases/global.rs"]
mod global;
#[path = "cases/idle.rs"]
mod idle;
#[path = "cases/lab.rs"]
mod lab;
#[path = "cases/multiplexed.rs"]
mod multiplexed;
#[path = "cases/resize.rs"]
mod resize;
#[path = "cases/spares.rs"]
mod spares;
#[path = "cases/waiters.rs"]
mod waiters;
