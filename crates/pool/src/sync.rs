//! The locks and atomics of the shell, in one place so that the tests under `src/shuttle.rs` can put others there.
//!
//! Not here: tokio's channels, which carry no decision of the pool.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};

pub(crate) use parking_lot::{Mutex, RwLock};
