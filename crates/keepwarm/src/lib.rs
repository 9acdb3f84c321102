//! The `keepwarm` daemon and its commands; a library so that tests can call what the binary does.
//!
//! [`cli`] is the way in. [`config`] turns a file into typed settings, [`check`] says what they come to, [`import`] writes one, [`run`] starts the daemon with them, `keepwarm-control` is
//! what it tells about itself, [`status`], [`top`], [`pools`], [`upstreams`], [`report`], [`reload`], [`log_level`], [`cache`], [`query`], [`addresses`], [`warm`] and [`tunnels`] ask for that from outside, [`profile`] shows and records how browsers connect, [`pac`] leads them to the tunnels, [`lab`] and [`demo`] need no network.
//! What a query goes through is not here but in `keepwarm-dns`.

pub mod addresses;
pub mod ask;
pub mod bench;
pub mod cache;
pub mod check;
pub mod cli;
pub mod completions;
pub mod config;
pub mod config_command;
pub mod demo;
pub mod diag;
pub mod import;
pub mod lab;
pub mod log_level;
pub mod logging;
pub mod man;
mod origin;
pub mod pac;
pub mod pools;
pub mod probe;
pub mod profile;
pub mod query;
pub mod reload;
pub mod report;
pub mod run;
mod runtime;
pub mod service;
pub mod status;
mod table;
pub mod top;
pub mod tunnels;
pub mod upstreams;
pub mod warm;
