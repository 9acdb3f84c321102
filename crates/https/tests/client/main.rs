//! The client before origins that behave, and before those that do not.

mod bodies;
#[cfg(feature = "browser")]
mod coded;
mod faults;
mod fifty;
mod keeping;
mod raw;
mod recent;
mod reload;
mod requests;
mod setup;
