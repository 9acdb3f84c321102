//! What Prometheus gets of a daemon, over real loopback connections; the daemon is made up, its pools are real.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "metrics/exposition.rs"]
mod exposition;
#[path = "metrics/fake.rs"]
mod fake;
#[path = "metrics/figures.rs"]
mod figures;
#[path = "metrics/promtool.rs"]
mod promtool;
#[path = "metrics/scrape.rs"]
mod scrape;
