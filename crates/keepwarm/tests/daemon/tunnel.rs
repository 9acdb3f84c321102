//! Tunnels as their operator and their users see them.

mod bench;
mod browser;
mod clients;
mod life;
mod shown;
pub mod support;
