//! What a lab serves and how it misbehaves: plain data that tests and the command line fill in. Nothing here acts on it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Describes one lab: where it listens, which transports it speaks and how it misbehaves.
///
/// A port of `None` leaves the transport out, `Some(0)` lets the system choose. When UDP and TCP are both `Some(0)` they
/// get the same number, as a client that turns to TCP after a truncated answer expects.
///
/// ```
/// use keepwarm_lab::{Faults, LabSpec};
/// use std::time::Duration;
///
/// let spec = LabSpec { https: None, faults: Faults { delay: Duration::from_millis(20), ..Faults::default() }, ..LabSpec::default() };
/// assert_eq!(spec.udp, Some(0));
/// ```
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// The address that all listeners bind. Default 127.0.0.1; other addresses of 127.0.0.0/8 and `::1` work as well.
    pub address: IpAddr,
    /// Port for DNS over UDP. Default `Some(0)`.
    pub udp: Option<u16>,
    /// Port for DNS over TCP. Default `Some(0)`.
    pub tcp: Option<u16>,
    /// Port for DNS over TLS. Default `Some(0)`.
    pub tls: Option<u16>,
    /// Port for DNS over HTTPS, path `/dns-query`. Default `Some(0)`.
    pub https: Option<u16>,
    /// Port for DNS over QUIC. Default `Some(0)`.
    pub quic: Option<u16>,
    /// Port for DNS over HTTP/3, path `/dns-query`. Default `Some(0)`.
    pub h3: Option<u16>,
    /// Faults from the start. Default none; [`Lab::set_faults`](crate::Lab::set_faults) changes them at run time.
    pub faults: Faults,
    /// Names in the certificate, beside the address. Default `upstream.lab`.
    pub server_names: Vec<String>,
    /// TLS versions that the DoT and DoH listeners speak. Default both.
    pub tls_versions: TlsVersions,
    /// The DoH listener offers HTTP/1.1 alone. Default `false`.
    pub h1_only: bool,
}

impl Default for LabSpec {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            udp: Some(0),
            tcp: Some(0),
            tls: Some(0),
            https: Some(0),
            quic: Some(0),
            h3: Some(0),
            faults: Faults::default(),
            server_names: vec!["upstream.lab".to_owned()],
            tls_versions: TlsVersions::Both,
            h1_only: false,
        }
    }
}

/// TLS versions that a lab's listeners accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// TLS 1.2 alone.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
    /// TLS 1.2 and 1.3.
    #[default]
    Both,
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseKind {
    /// Orderly: GOAWAY where HTTP/2 is spoken, close_notify where TLS is spoken, then FIN. QUIC: GOAWAY where HTTP/3 is
    /// spoken, and CONNECTION_CLOSE once all answers have arrived.
    #[default]
    Notify,
    /// FIN alone: no GOAWAY and no close_notify. QUIC: CONNECTION_CLOSE at once.
    Fin,
    /// RST. QUIC: the connection is forgotten, and what comes for it is answered with a stateless reset.
    Reset,
    /// The socket stays open, and nothing is read or answered any more.
    Silence,
}

/// How a lab misbehaves. The default is no fault at all.
///
/// Shares are probabilities from 0 to 1, drawn for each query. Counts are for each connection. All of it may change at run
/// time and applies from the next query on, to connections already open as well.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Every answer leaves this much after its query arrived. Default 0.
    pub delay: Duration,
    /// Up to this much more delay, uniformly drawn for each answer. Default 0.
    pub jitter: Duration,
    /// Share of UDP queries that are lost.
    pub loss: f64,
    /// Share of queries over TCP, TLS, HTTPS and QUIC that are never answered.
    pub stream_loss: f64,
    /// Share of UDP answers that come back empty with TC set.
    pub truncate: f64,
    /// After this many queries a connection is closed in order ([`CloseKind::Notify`]) once those have been answered; later
    /// ones are not read. Over h2 and h3: GOAWAY that names the last of these streams, later streams are refused.
    pub close_after: Option<u32>,
    /// When one query more than this arrives, the connection is reset; that query and all in flight are lost. 0 resets
    /// each query.
    pub reset_after: Option<u32>,
    /// Over h2, after this many streams, the shutdown of RFC 9113 section 6.8: a GOAWAY with the highest stream id, a
    /// PING, then a GOAWAY with the true last id; what has arrived by then is answered and the connection closes. Over h3
    /// the same without the PING (RFC 9114 section 5.2).
    pub goaway_after: Option<u32>,
    /// A connection without a query or answer for this long, and with none in flight, is ended this way.
    pub idle_close: Option<(Duration, CloseKind)>,
    /// Queries are read and never answered; connections and handshakes still succeed.
    pub silent: bool,
    /// New connections are accepted and reset at once; over QUIC they are refused. UDP queries are dropped.
    pub refuse: bool,
    /// All answers are empty and have this response code, such as 2 for SERVFAIL.
    pub rcode: Option<u8>,
    /// Share of answers that are exchanged with another one of the same transport: each carries its own id with the
    /// question and records of the other. Two meet if both wait within 50 ms and ask different questions; an answer that
    /// meets none leaves unharmed. The exchanged ones are never followed by the true ones.
    pub swap: f64,
    /// Share of answers that leave [`late_by`](Self::late_by) later than the others.
    pub late: f64,
    /// See [`late`](Self::late). Default 0.
    pub late_by: Duration,
    /// Share of answers over UDP, TCP and TLS that are sent twice.
    pub duplicate: f64,
    /// Share of answers that a forged one precedes: another id, or the right id with another question, or both wrong
    /// question and wrong records; never the right id with the right question. On HTTPS and QUIC, where a stream has one
    /// answer alone, the forged one takes the place of the true one.
    pub forge: f64,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of new h2 connections, and streams at a time of new QUIC ones. Default: 1,000.
    pub h2_max_streams: Option<u32>,
    /// The edns-tcp-keepalive option (RFC 7828) in answers over TCP and TLS to queries that had an OPT record. It is only
    /// announced; [`idle_close`](Self::idle_close) acts.
    pub keepalive: Option<Duration>,
    /// TTL of all records, in seconds. Default 60.
    pub ttl: u32,
    /// Content type of DoH answers (h3 as well, here and below) in place of `application/dns-message`.
    pub content_type: Option<String>,
    /// DoH bodies are padded with zeros to this many bytes. More than 65,535 is more than a DNS message may have.
    pub body_size: Option<usize>,
    /// HTTP status of DoH answers, with an empty body unless it is 200.
    pub http_status: Option<u16>,
    /// Id of DoH answers, whatever the query's was.
    pub doh_id: Option<u16>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            stream_loss: 0.0,
            truncate: 0.0,
            close_after: None,
            reset_after: None,
            goaway_after: None,
            idle_close: None,
            silent: false,
            refuse: false,
            rcode: None,
            swap: 0.0,
            late: 0.0,
            late_by: Duration::ZERO,
            duplicate: 0.0,
            forge: 0.0,
            h2_max_streams: None,
            keepalive: None,
            ttl: 60,
            content_type: None,
            body_size: None,
            http_status: None,
            doh_id: None,
        }
    }
}
