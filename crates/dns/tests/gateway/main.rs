//! The proxy between real clients and the lab's upstreams, on loopback.

mod answers;
mod clients;
mod crossed;
mod faults;
mod health;
mod pooling;
mod shortage;
mod support;
