//! Encrypted client hello towards one upstream (RFC 9849): which keys are known, what a dial does with them, and what to do
//! when the server rejects them.
//!
//! Who asks for the keys, and when, is `server::discovery`'s business; dials only wait for it, and not for long.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_transport::{
    resolve::literal,
    tcp::{self, TcpOptions},
    tls::{EchKeys, EchRejection, EchStatus, TlsClient, TlsInfo, TlsStream, TlsVersion},
};
use tokio::{net::TcpStream, sync::watch, time::timeout_at};

use super::{endpoint::Endpoint, svcb::Service};
use crate::{
    config::{Ech, Transport},
    error::{Error, ErrorKind},
    message::{TYPE_HTTPS, TYPE_SVCB},
};

/// What an endpoint knows of encrypted client hello.
pub(crate) struct EchState {
    mode: Ech,
    known: watch::Sender<Known>,
    /// What the last handshake came to, as an index of [`STATUSES`].
    status: AtomicU8,
    /// The upstream has spoken TLS 1.3, which all that is done here demands.
    is_tls13: AtomicBool,
}

/// The keys, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// -> `Known` or `Absent` with the first answer, -> `Failed` without one.
    pub(crate) progress: Progress,
    offer: Option<Offer>,
    grease: Option<TlsClient>,
}

/// How far the search for keys is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No keys are looked for: it is off, or there is no name that records could stand at.
    #[default]
    Idle,
    /// They are asked for. Dials wait so long for the answer.
    Asking(Duration),
    /// The upstream publishes keys, or has sent some.
    Known,
    /// The upstream publishes none.
    Absent,
    /// The upstream has said, provably, that it has none (any more).
    Withdrawn,
    /// Nobody could say; with the reason.
    Failed(Arc<str>),
}

/// Keys, and where the server that has them is.
#[derive(Debug, Clone)]
struct Offer {
    keys: EchKeys,
    client: TlsClient,
    /// The host that the record names, where it is not the upstream's.
    target: Option<Arc<str>>,
}

impl EchState {
    pub(crate) fn new(mode: Ech, transport: Transport, host: &str) -> EchState {
        let possible = matches!(transport, Transport::Tls | Transport::Https) && mode != Ech::Off;
        let named = literal(host).is_none();
        let progress = match (possible, named) {
            (true, true) => Progress::Asking(Duration::ZERO),
            (true, false) => Progress::Failed("its host is an address, and keys are published at names".into()),
            (false, _) => Progress::Idle,
        };
        let status = if possible { UNAVAILABLE } else { OFF };
        EchState {
            mode,
            known: watch::Sender::new(Known { progress, ..Known::default() }),
            status: AtomicU8::new(status),
            is_tls13: AtomicBool::new(false),
        }
    }

    /// What the config wants.
    pub(crate) fn mode(&self) -> Ech {
        self.mode
    }

    /// Whether keys are to be asked for.
    pub(crate) fn wants_keys(&self) -> bool {
        matches!(self.known.borrow().progress, Progress::Asking(_))
    }

    /// `off`, `unavailable`, `grease`, `accepted` or `rejected`: what the last handshake came to.
    pub(crate) fn status(&self) -> &'static str {
        STATUSES[usize::from(self.status.load(Ordering::Relaxed))]
    }

    /// Has dials wait for the first answer, but no longer than this.
    pub(crate) fn asking(&self, patience: Duration) {
        self.known.send_modify(|known| known.progress = Progress::Asking(patience));
    }

    /// These are the keys now, for the server at `target`, which is the upstream's host where it is `None`. Keys that did
    /// not change leave everything as it is. `true` when there were none before.
    pub(crate) fn publish(&self, base: &TlsClient, keys: EchKeys, target: Option<Arc<str>>) -> bool {
        let mut first = false;
        self.known.send_if_modified(|known| {
            let same = |offer: &Offer| offer.keys == keys && offer.target == target;
            if known.progress == Progress::Known && known.offer.as_ref().is_some_and(same) {
                return false;
            }
            first = known.offer.is_none();
            known.offer = Some(Offer { client: base.with_keys(&keys), keys, target });
            known.progress = Progress::Known;
            true
        });
        first
    }

    /// The upstream publishes no keys.
    pub(crate) fn none_published(&self) {
        self.known.send_modify(|known| (known.progress, known.offer) = (Progress::Absent, None));
    }

    /// Nobody could say whether there are keys. Those that are known stay.
    pub(crate) fn failed(&self, why: &str) {
        self.known.send_modify(|known| {
            if known.offer.is_none() {
                known.progress = Progress::Failed(why.into());
            }
        });
    }

    /// The server has said that it has no keys: the next dials go without until the record is read again.
    fn withdrawn(&self) {
        self.known.send_modify(|known| (known.progress, known.offer) = (Progress::Withdrawn, None));
    }

    /// The host to dial in the place of the upstream's own, as its record says (RFC 9460 section 3).
    pub(crate) fn target(&self) -> Option<Arc<str>> {
        self.known.borrow().offer.as_ref()?.target.clone()
    }

    /// Waits for the first answer about keys, as long as it is worth it.
    pub(crate) async fn settle(&self, now: Instant) {
        let mut news = self.known.subscribe();
        let Progress::Asking(patience) = news.borrow_and_update().progress else { return };
        if !patience.is_zero() {
            let answered = news.wait_for(|known| !matches!(known.progress, Progress::Asking(_)));
            let _ = timeout_at((now + patience).into(), answered).await;
        }
    }

    /// The client for the next handshake.
    fn client(&self, endpoint: &Endpoint, base: &TlsClient) -> Result<TlsClient, Error> {
        let known = self.known.borrow();
        if let Some(offer) = &known.offer {
            return Ok(offer.client.clone());
        }
        let reason = match &known.progress {
            Progress::Idle | Progress::Known | Progress::Absent => "it publishes none",
            Progress::Asking(_) => "they are not known yet",
            Progress::Withdrawn => "it no longer has any",
            Progress::Failed(why) => why,
        };
        if self.mode == Ech::Require {
            return Err(refuse(endpoint, &format!("its keys are missing: {reason}")));
        }
        // RFC 9849 section 6.2: without a key, something that looks like one; not while the server may be about to get one.
        let wanted = known.progress == Progress::Absent && self.is_tls13.load(Ordering::Relaxed);
        if !wanted {
            return Ok(base.clone());
        }
        if let Some(grease) = &known.grease {
            return Ok(grease.clone());
        }
        drop(known);
        let grease = base.with_grease();
        self.known.send_if_modified(|known| {
            known.grease = Some(grease.clone());
            false
        });
        Ok(grease)
    }

    fn succeeded(&self, info: &TlsInfo) {
        self.is_tls13.store(info.version == TlsVersion::Tls13, Ordering::Relaxed);
        let withdrawn = self.known.borrow().progress == Progress::Withdrawn;
        let status = match info.ech {
            EchStatus::Accepted => ACCEPTED,
            EchStatus::Grease => GREASE,
            EchStatus::Off if withdrawn => REJECTED,
            EchStatus::Off if self.status.load(Ordering::Relaxed) == OFF => OFF,
            EchStatus::Off => UNAVAILABLE,
        };
        self.status.store(status, Ordering::Relaxed);
    }
}

/// Makes the TLS handshake with an upstream, its name encrypted where that is possible and wanted.
///
/// A server that rejects our keys and proves itself is asked again over a new connection to the same address: once with the
/// keys that it sent, and without when it has none (RFC 9849 section 6.1.6). Any other failure is final: to go on without
/// would let whoever cuts the connection learn the name.
pub(super) async fn connect(
    endpoint: &Endpoint,
    base: &TlsClient,
    mut tcp: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Result<(TlsStream, TlsInfo), Error> {
    let state = &endpoint.ech;
    let mut client = state.client(endpoint, base)?;
    let mut retried = false;
    loop {
        let error = match client.connect(tcp, &endpoint.server_name, deadline).await {
            Ok((stream, info)) => {
                state.succeeded(&info);
                return Ok((stream, info));
            }
            Err(error) => error,
        };
        let Some(rejection) = EchRejection::of(&error) else {
            // A server that has lost TLS 1.3 is met without grease next time.
            state.is_tls13.store(false, Ordering::Relaxed);
            return Err(error.into());
        };
        state.status.store(REJECTED, Ordering::Relaxed);
        tracing::info!(upstream = &*endpoint.name, retry = rejection.retry.is_some(), "{error}");
        client = match rejection.retry {
            Some(keys) if !retried => {
                state.publish(base, keys, state.target());
                state.client(endpoint, base)?
            }
            // Keys in answer to a server's own keys are a sign that it is broken.
            Some(_) => return Err(error.into()),
            None if state.mode == Ech::Require => {
                state.withdrawn();
                return Err(refuse(endpoint, "the server rejected it and has no keys"));
            }
            None => {
                state.withdrawn();
                base.clone()
            }
        };
        retried = true;
        (tcp, _) = tcp::connect(&[peer], &TcpOptions::default(), deadline).await?;
    }
}

fn refuse(endpoint: &Endpoint, why: &str) -> Error {
    let text = format!("connect to {}: encrypted client hello is required, and {why}", endpoint.url());
    Error::new(ErrorKind::Ech, text)
}

/// The name and type of the record that the keys of an upstream stand in.
///
/// DNS over HTTPS: the HTTPS record of the host, with the port before it unless that is 443 (RFC 9460 section 9.1). DNS over
/// TLS: the SVCB record of the resolver's name (RFC 9461 section 3), whose own port is that of plain DNS and left out.
pub(crate) fn question(transport: Transport, host: &str, port: u16) -> (String, u16) {
    match transport {
        Transport::Https | Transport::H3 if port == 443 => (host.to_owned(), TYPE_HTTPS),
        Transport::Https | Transport::H3 => (format!("_{port}._https.{host}"), TYPE_HTTPS),
        Transport::Udp | Transport::Tcp | Transport::Tls | Transport::Quic => (format!("_dns.{host}"), TYPE_SVCB),
    }
}

/// The first of the services that an upstream is reached by, if it has keys; with the host where it is not the upstream's.
pub(crate) fn published(
    services: &[Service],
    transport: Transport,
    host: &str,
    port: u16,
) -> Option<(EchKeys, Option<Arc<str>>)> {
    let reaches = |service: &&Service| {
        let (spoken, default_port) = match transport {
            Transport::Https => {
                let http = service.speaks(b"h2") || service.speaks(b"http/1.1") || !service.no_default_alpn;
                (http, port)
            }
            _ => (service.speaks(b"dot"), transport.default_port()),
        };
        spoken && service.port.unwrap_or(default_port) == port
    };
    let service = services.iter().find(reaches)?;
    let keys = EchKeys::from_list(service.ech.as_deref()?).ok()?;
    let host = host.strip_suffix('.').unwrap_or(host);
    // A prefixed name has no address of its own: a service that is "here" is at the host.
    let elsewhere = !service.target.eq_ignore_ascii_case(host) && !service.target.starts_with('_');
    Some((keys, elsewhere.then(|| service.target.as_str().into())))
}

const STATUSES: [&str; 5] = ["off", "unavailable", "grease", "accepted", "rejected"];
const OFF: u8 = 0;
const UNAVAILABLE: u8 = 1;
const GREASE: u8 = 2;
const ACCEPTED: u8 = 3;
const REJECTED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_at_the_name_that_the_transport_says() {
        assert_eq!(question(Transport::Https, "dns.example", 443), ("dns.example".into(), TYPE_HTTPS));
        assert_eq!(question(Transport::Https, "dns.example", 8443), ("_8443._https.dns.example".into(), TYPE_HTTPS));
        assert_eq!(question(Transport::Tls, "dns.example", 853), ("_dns.dns.example".into(), TYPE_SVCB));
        assert_eq!(question(Transport::Tls, "dns.example", 8853), ("_dns.dns.example".into(), TYPE_SVCB));
    }

    #[test]
    fn nothing_is_asked_for_an_address_for_plain_dns_or_when_it_is_off() {
        assert!(EchState::new(Ech::Auto, Transport::Tls, "dns.example").wants_keys());
        for (mode, transport, host, status) in [
            (Ech::Off, Transport::Tls, "dns.example", "off"),
            (Ech::Auto, Transport::Udp, "dns.example", "off"),
            (Ech::Require, Transport::Https, "192.0.2.1", "unavailable"),
            (Ech::Auto, Transport::Tls, "2001:db8::1", "unavailable"),
        ] {
            let state = EchState::new(mode, transport, host);
            assert_eq!((state.wants_keys(), state.status()), (false, status), "{host}");
        }
    }

    /// A usable `ECHConfigList`: version, length, id, X25519, a key, one suite, no name length, a public name, no extension.
    fn list() -> Vec<u8> {
        let mut contents = vec![7, 0, 0x20, 0, 32];
        contents.extend([9; 32]);
        contents.extend([0, 4, 0, 1, 0, 1, 0, 10]);
        contents.extend(b"public.lab");
        contents.extend([0, 0]);
        let length = u8::try_from(contents.len()).unwrap();
        let mut list = vec![0, length + 4, 0xfe, 0x0d, 0, length];
        list.extend(contents);
        list
    }

    #[test]
    fn keys_come_from_the_first_service_that_the_upstream_is_reached_by() {
        let service = |alpn: &str, port, ech: Option<Vec<u8>>, target: &str| Service {
            alpn: vec![alpn.as_bytes().to_vec()],
            port,
            ech,
            target: target.into(),
            ..Service::default()
        };
        let dot = |services: &[Service], port| published(services, Transport::Tls, "Dns.example.", port);
        let here = service("dot", None, Some(list()), "dns.example");
        let (keys, target) = dot(&[service("h2", None, None, "dns.example"), here.clone()], 853).unwrap();
        assert_eq!((keys, target), (EchKeys::from_list(&list()).unwrap(), None));
        assert!(dot(std::slice::from_ref(&here), 8853).is_none(), "another port");
        assert!(dot(&[service("dot", Some(8853), Some(list()), "dns.example")], 8853).is_some());
        assert!(dot(&[service("dot", None, None, "dns.example"), here.clone()], 853).is_none(), "the first counts");
        assert!(dot(&[service("dot", None, Some(b"nonsense".to_vec()), "dns.example")], 853).is_none());
        let (_, target) = dot(&[service("dot", None, Some(list()), "other.example")], 853).unwrap();
        assert_eq!(target.as_deref(), Some("other.example"));
        let https =
            |service: &Service, port| published(std::slice::from_ref(service), Transport::Https, "dns.example", port);
        assert!(https(&service("h3", None, Some(list()), "dns.example"), 8443).is_some(), "http/1.1 is the default");
        let h3 = Service { no_default_alpn: true, ..service("h3", None, Some(list()), "dns.example") };
        assert!(https(&h3, 443).is_none());
    }
}
