//! DNS upstreams, an HTTPS origin and proxies on loopback that misbehave on request, with counters and a test CA.
//!
//! A [`Lab`] speaks DNS over UDP, TCP, TLS, HTTPS (h2, h1 and h3) and QUIC. Every name exists, and every answer encodes its question,
//! so that a client can prove that it got its own: see [`answer_matches`]. [`Faults`] says how the lab misbehaves.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use keepwarm_lab::{CloseKind, Faults, Lab, LabSpec};
//! use std::time::Duration;
//!
//! let faults = Faults { idle_close: Some((Duration::from_secs(4), CloseKind::Fin)), ..Faults::default() };
//! let lab = Lab::start(LabSpec { faults, ..LabSpec::default() }).await?;
//! println!("DNS over TLS on {}", lab.tls_addr());
//! lab.update_faults(|faults| faults.silent = true);
//! assert_eq!(lab.counters().tls.open, 0);
//! lab.stop().await;
//! # Ok(()) }
//! ```
//!
//! An [`OriginLab`] is an HTTPS origin with many addresses, each with faults and counters of its own.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use keepwarm_lab::{OriginLab, OriginSpec, loopback_addresses};
//!
//! let lab = OriginLab::start(OriginSpec { addresses: loopback_addresses(50), ..OriginSpec::default() }).await?;
//! let first = lab.addresses()[0];
//! lab.update_faults(first, |faults| faults.status = Some(403));
//! lab.set_max_streams(first, 0);
//! assert_eq!(lab.total().handshakes_full, 0);
//! lab.stop().await;
//! # Ok(()) }
//! ```
//!
//! A [`ProxyLab`] is an upstream proxy: SOCKS5, or HTTP CONNECT with or without TLS. An [`EchoLab`] is what lies behind it,
//! destinations whose bytes prove that none has crossed from one client to another: see [`Tagged`]. A [`DelayRelay`] puts a round trip
//! before any server.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use keepwarm_lab::{EchoLab, ProxyLab, ProxySpec};
//! use std::time::Duration;
//!
//! let echo = EchoLab::start(2).await?;
//! let proxy = ProxyLab::start(ProxySpec { delay: Duration::from_millis(50), ..ProxySpec::default() }).await?;
//! proxy.pin("echo.test", echo.addr(0));
//! proxy.update_faults(|faults| faults.reply_for = [("echo.test".to_owned(), 5)].into());
//! assert_eq!((proxy.counters().idle, echo.foreign()), (0, 0));
//! proxy.stop().await;
//! # Ok(()) }
//! ```

mod accept;
mod answer;
mod ca;
mod core;
mod counters;
mod https;
mod lab;
mod oracle;
mod origin;
mod proxy;
mod quic;
mod socket;
mod spec;
mod stream;
mod timer;
mod tls;
mod udp;
mod wire;

pub use answer::{expected_a, expected_aaaa};
pub use ca::Ca;
pub use counters::{Counters, TransportCounters};
pub use lab::Lab;
pub use oracle::answer_matches;
pub use origin::{
    Echo, OriginCounters, OriginFaults, OriginLab, OriginSpec, Upload, expected_body, loopback_addresses, sha256_hex,
};
pub use proxy::{
    DelayCounters, DelayRelay, EchoCounters, EchoLab, EchoMode, IdleFrom, LabProxyProtocol, Live, Mismatch, Pipelining,
    ProxyClose, ProxyCounters, ProxyFaults, ProxyLab, ProxyPhase, ProxySpec, ReplyAddress, Tagged,
};
pub use spec::{CloseKind, Faults, LabSpec, TlsVersions};
pub use wire::build_query;
