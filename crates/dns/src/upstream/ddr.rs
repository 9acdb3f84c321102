//! The encrypted face that a plain upstream designates (RFC 9462): which one it is, since when, and whether queries may go
//! out in plain.
//!
//! Who asks for it, and when, is `server::discovery`'s business. Workers read an atomic; faces are only ever added, so what
//! they refer to stays.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind, Phase},
    resolve::{Resolve, Resolving},
    tls::{EchKeys, RootsError},
};
use parking_lot::Mutex;

use super::{endpoint::Endpoint, svcb::Service};
use crate::config::{Ddr, DnsConfig, Ech, Transport, UpstreamConfig};

/// What is known of an upstream's encrypted face.
pub(crate) struct Designation {
    pub(crate) is_required: bool,
    standing: AtomicU8,
    faces: [OnceLock<Designated>; FACES_MAX],
    told: Mutex<Told>,
}

/// How far the discovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has answered yet. -> `Face`, -> `Absent`.
    Pending,
    /// There is no face that can be verified. -> `Face` when a later question finds one.
    Absent,
    /// This face is used. -> `Absent` when the upstream no longer designates it, -> another `Face`.
    Face(Slot),
}

/// The place of a face. An enum, so that there is no number without a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    S0,
    S1,
    S2,
    S3,
    S4,
    S5,
    S6,
    S7,
}

impl Slot {
    const ALL: [Slot; 8] = [Slot::S0, Slot::S1, Slot::S2, Slot::S3, Slot::S4, Slot::S5, Slot::S6, Slot::S7];
}

/// A face, and where it is.
struct Designated {
    endpoint: Arc<Endpoint>,
    addresses: Arc<Addresses>,
}

/// What an operator is told.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    why: Option<Arc<str>>,
}

/// A face as a record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) transport: Transport,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    /// Empty where they have to be asked for.
    pub(crate) hints: Vec<IpAddr>,
    pub(crate) ech: Option<Vec<u8>>,
}

impl Designation {
    /// `None` where nothing is to be discovered: it is off, or the upstream is encrypted as it is.
    pub(crate) fn of(config: &UpstreamConfig) -> Option<Arc<Designation>> {
        let wanted = config.ddr != Ddr::Off && !config.transport.is_encrypted();
        wanted.then(|| {
            Arc::new(Designation {
                is_required: config.ddr == Ddr::Require,
                standing: AtomicU8::new(PENDING),
                faces: Default::default(),
                told: Mutex::default(),
            })
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            PENDING => Standing::Pending,
            number => Slot::ALL.get(usize::from(number)).map_or(Standing::Absent, |slot| Standing::Face(*slot)),
        }
    }

    pub(crate) fn face(&self, slot: Slot) -> Option<&Arc<Endpoint>> {
        self.faces[slot as usize].get().map(|face| &face.endpoint)
    }

    /// Every face that was ever used.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.faces.iter().filter_map(OnceLock::get).map(|face| &face.endpoint)
    }

    /// The number of a face, which is remembered if it is new. `by` is the plain resolver that designates it.
    ///
    /// # Errors
    /// `None` when as many different ones were designated as can be remembered.
    pub(crate) fn remember(
        &self,
        described: &Described,
        addresses: Vec<IpAddr>,
        by: IpAddr,
        config: &UpstreamConfig,
        dns: &DnsConfig,
    ) -> Result<Option<Slot>, RootsError> {
        for (slot, face) in Slot::ALL.into_iter().zip(&self.faces) {
            let Some(known) = face.get() else {
                let addresses = Arc::new(Addresses(Mutex::new(addresses)));
                let resolver: Arc<dyn Resolve> = addresses.clone();
                let endpoint = Arc::new(Endpoint::designated(config, described, by, dns, &resolver)?);
                keys(&endpoint, described);
                // One task alone remembers the faces of an upstream.
                let _ = face.set(Designated { endpoint, addresses });
                return Ok(Some(slot));
            };
            if known.endpoint.is_designated_as(described, by) {
                *known.addresses.0.lock() = addresses;
                keys(&known.endpoint, described);
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// This face is used from now on. `true` when that is news.
    pub(crate) fn turn_to(&self, slot: Slot, now: Instant) -> bool {
        let news = self.standing.swap(slot as u8, Ordering::AcqRel) != slot as u8;
        if news {
            *self.told.lock() = Told { since: Some(now), why: None };
        }
        news
    }

    /// There is no face that can be used, for this reason. `true` when that is news.
    pub(crate) fn turn_away(&self, why: &str) -> bool {
        self.told.lock().why = Some(why.into());
        let news = self.standing.swap(ABSENT, Ordering::AcqRel) != ABSENT;
        if news {
            self.told.lock().since = None;
        }
        news
    }

    /// Since when the face is used.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.told.lock().since
    }

    /// Why there is none.
    pub(crate) fn why(&self) -> Option<Arc<str>> {
        self.told.lock().why.clone()
    }
}

/// The keys that stand in the record itself.
fn keys(endpoint: &Endpoint, described: &Described) {
    let Some(client) = endpoint.tls.as_ref().filter(|_| endpoint.ech.mode() != Ech::Off) else { return };
    match described.ech.as_deref().and_then(|list| EchKeys::from_list(list).ok()) {
        Some(keys) => {
            endpoint.ech.publish(client, keys, None);
        }
        None => endpoint.ech.none_published(),
    }
}

/// Addresses that come with the designation.
#[derive(Debug)]
struct Addresses(Mutex<Vec<IpAddr>>);

impl Resolve for Addresses {
    fn resolve(&self, host: &str) -> Resolving {
        let addresses = self.0.lock().clone();
        let result = match addresses.is_empty() {
            true => {
                let tried = format!("resolve {host}");
                Err(TransportError::new(ErrorKind::Resolve, Phase::Resolve, tried, "the name has no address"))
            }
            false => Ok(addresses),
        };
        Box::pin(std::future::ready(result))
    }
}

/// The faces that records describe and that can be spoken to, the preferred one first.
pub(crate) fn faces(services: &[Service]) -> Vec<Described> {
    let mut faces = Vec::new();
    for service in services {
        for alpn in &service.alpn {
            let (transport, path) = match &alpn[..] {
                b"dot" => (Transport::Tls, Some(String::new())),
                b"h2" => (Transport::Https, service.doh_path()),
                _ => continue,
            };
            // "." would be a name under resolver.arpa, for which nobody has a certificate.
            let (Some(path), false) = (path, service.at_owner || service.target.is_empty()) else { continue };
            faces.push(Described {
                transport,
                host: service.target.clone(),
                port: service.port.unwrap_or(transport.default_port()),
                path,
                hints: service.hints.clone(),
                ech: service.ech.clone(),
            });
        }
    }
    faces.truncate(TRIED_MAX);
    faces
}

/// The name that is asked for (RFC 9462 section 4).
pub(crate) const NAME: &str = "_dns.resolver.arpa";

/// Different faces of one upstream that are remembered until the server ends.
pub(crate) const FACES_MAX: usize = Slot::ALL.len();

/// Faces that are tried one after the other.
const TRIED_MAX: usize = 4;

const PENDING: u8 = u8::MAX;
const ABSENT: u8 = u8::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, alpn: &[&str]) -> Service {
        Service {
            priority,
            target: "dns.example".into(),
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            dohpath: Some("/dns-query{?dns}".into()),
            ..Service::default()
        }
    }

    #[test]
    fn faces_come_by_priority_with_the_ports_and_paths_of_their_protocols() {
        let services = [service(1, &["h2", "h9"]), Service { port: Some(8530), ..service(2, &["dot"]) }];
        let faces = faces(&services);
        let seen: Vec<_> = faces.iter().map(|face| (face.transport, face.port, face.path.as_str())).collect();
        assert_eq!(seen, [(Transport::Https, 443, "/dns-query"), (Transport::Tls, 8530, "")]);
    }

    #[test]
    fn a_face_without_a_path_or_a_name_is_none() {
        let pathless = Service { dohpath: None, ..service(1, &["h2"]) };
        let nameless = Service { at_owner: true, ..service(1, &["dot"]) };
        assert_eq!(faces(&[pathless, nameless, service(1, &[]), service(1, &["h9"])]), []);
    }

    #[test]
    fn faces_are_remembered_once_and_no_more_than_there_is_room_for() {
        let config = UpstreamConfig { ddr: Ddr::Auto, ..UpstreamConfig::new("a", Transport::Udp, "192.0.2.1", 53) };
        let designation = Designation::of(&config).unwrap();
        let dns = DnsConfig {
            roots: keepwarm_transport::tls::TlsRoots::only([keepwarm_lab::Ca::new().root()]),
            ..DnsConfig::default()
        };
        let mut described = faces(&[service(1, &["dot"])]).remove(0);
        let remember = |described: &Described| {
            let by = "192.0.2.1".parse().unwrap();
            designation.remember(described, vec![by], by, &config, &dns).unwrap()
        };
        assert_eq!([remember(&described), remember(&described)], [Some(Slot::S0), Some(Slot::S0)]);
        for slot in Slot::ALL.into_iter().skip(1) {
            described.port += 1;
            assert_eq!(remember(&described), Some(slot));
        }
        described.port += 1;
        assert_eq!(remember(&described), None);
        assert_eq!(designation.endpoints().count(), FACES_MAX);
    }

    #[test]
    fn only_a_change_is_news() {
        let config = UpstreamConfig { ddr: Ddr::Require, ..UpstreamConfig::new("a", Transport::Udp, "192.0.2.1", 53) };
        let designation = Designation::of(&config).unwrap();
        let now = tokio::time::Instant::now().into_std();
        assert_eq!((designation.standing(), designation.since()), (Standing::Pending, None));
        assert_eq!([designation.turn_away("nobody"), designation.turn_away("still")], [true, false]);
        assert_eq!((designation.standing(), designation.why().as_deref()), (Standing::Absent, Some("still")));
        assert_eq!([designation.turn_to(Slot::S1, now), designation.turn_to(Slot::S1, now)], [true, false]);
        assert_eq!((designation.standing(), designation.since()), (Standing::Face(Slot::S1), Some(now)));
        assert!(Designation::of(&UpstreamConfig::new("a", Transport::Udp, "192.0.2.1", 53)).is_none());
        let encrypted = UpstreamConfig { ddr: Ddr::Auto, ..UpstreamConfig::new("a", Transport::Tls, "192.0.2.1", 53) };
        assert!(Designation::of(&encrypted).is_none());
    }
}
