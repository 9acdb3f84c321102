//! Hot HTTPS as its operator and its users see it.

mod addresses;
mod life;
mod support;
mod warm;
