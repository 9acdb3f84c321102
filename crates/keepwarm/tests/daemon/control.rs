//! The control plane of a running daemon: what it shows is what the lab counted, and what it changes fails nobody.

mod counts;
mod hostile;
mod limits;
mod load;
mod metrics;
mod reload;
mod support;
