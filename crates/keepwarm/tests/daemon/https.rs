//! Hot HTTPS as its operator and its users see it.

mod addresses;
mod life;
pub mod support;
mod warm;
