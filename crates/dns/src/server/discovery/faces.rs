//! Encrypted faces of plain upstreams (RFC 9462): asked for over the plain upstream, and used once a connection has proved
//! that the face is the same resolver's.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_transport::error::Error as TransportError;
use tokio::time::Instant as Clock;

use super::{ALIASES_MAX, refresh_after, retry_after};
use crate::{
    config::{Transport, UpstreamConfig},
    message::{NOERROR, NXDOMAIN, TYPE_A, TYPE_AAAA, TYPE_SVCB, rcode_name, verify_answer},
    server::{
        Shared,
        inbox::{Address, Event},
    },
    upstream::{
        Designation, Endpoint, EndpointKey,
        bootstrap::{addresses, exchange, exchange_tcp},
        ddr::{self, Described, Slot, Standing},
        svcb::{self, Binding},
    },
};

/// A plain upstream whose encrypted face is looked for.
pub(super) struct Plainly {
    pub(super) main: Arc<Endpoint>,
    pub(super) designation: Arc<Designation>,
    pub(super) config: UpstreamConfig,
}

/// What one round of questions came to.
enum Found {
    /// A face that proved itself, for so long.
    Face(Slot, Duration),
    /// The upstream designates nothing that can be used.
    Absent(String),
}

/// Keeps the face of one upstream up to date, and tells the workers.
pub(super) async fn keep_face(shared: Arc<Shared>, plain: Plainly, workers: Vec<Address>) {
    let Plainly { main, designation, .. } = &plain;
    let name = &*main.name;
    let mut failures = 0;
    loop {
        let found = discover(&shared, &plain).await;
        let (news, pause) = match found {
            Ok(Found::Face(face, ttl)) => {
                failures = 0;
                let news = designation.turn_to(face, Clock::now().into_std());
                if let Some(endpoint) = designation.face(face).filter(|_| news) {
                    tracing::info!(upstream = name, face = endpoint.url(), "queries go to the designated resolver");
                }
                (news, refresh_after(ttl))
            }
            Ok(Found::Absent(why)) => {
                failures = 0;
                let news = designation.turn_away(&why);
                if news {
                    tracing::info!(upstream = name, "no encrypted face: {why}");
                }
                (news, if designation.is_required { REQUIRED_AGAIN } else { ABSENT_AGAIN })
            }
            Err(why) => {
                failures += 1;
                // Not hearing of a face that works is no reason to leave it: whoever can drop these answers could force
                // plain queries.
                let keep = matches!(designation.standing(), Standing::Face(_));
                let news = !keep && designation.turn_away(&why);
                match news {
                    true => tracing::warn!(upstream = name, "no encrypted face: {why}"),
                    false => tracing::debug!(upstream = name, "encrypted face: {why}"),
                }
                (news, retry_after(failures))
            }
        };
        if news {
            for worker in &workers {
                worker.inbox.push(Event::Designated { upstream: main.clone() });
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks the upstream's addresses in turn until one has said what there is.
async fn discover(shared: &Shared, upstream: &Plainly) -> Result<Found, String> {
    let now = Clock::now().into_std();
    let plain = upstream.main.addresses(now).await.map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in plain {
        let resolver = Plain { address, transport: upstream.main.transport };
        match resolver.services().await {
            Ok((services, ttl)) => {
                let faces = ddr::faces(&services);
                if faces.is_empty() {
                    return Ok(Found::Absent("the upstream designates no resolver that can be spoken to".to_owned()));
                }
                return try_faces(shared, upstream, &resolver, &faces).await.map(|face| Found::Face(face, ttl));
            }
            Err(Silent::Nothing) => return Ok(Found::Absent("the upstream designates no resolver".to_owned())),
            Err(Silent::Failed(why)) => last = why,
        }
    }
    Err(last)
}

/// Connects to the faces in turn; the first that can be connected to has proved itself.
async fn try_faces(
    shared: &Shared,
    Plainly { designation, config, .. }: &Plainly,
    resolver: &Plain,
    faces: &[Described],
) -> Result<Slot, String> {
    let mut last = String::new();
    for described in faces {
        let addresses = match described.hints.is_empty() {
            true => resolver.addresses(&described.host).await.map_err(|error| error.to_string())?,
            false => described.hints.clone(),
        };
        let by = resolver.address.ip();
        let remembered = designation.remember(described, addresses, by, config, &shared.setup().config);
        let Some(face) = remembered.map_err(|error| error.to_string())? else {
            last = format!("more than {} different resolvers were designated", ddr::FACES_MAX);
            continue;
        };
        let Some(endpoint) = designation.face(face) else { continue };
        match shared.pools.streams.warm_up(&EndpointKey::new(endpoint, None), 1).await {
            Ok(_) => return Ok(face),
            Err(error) => last = error.dial_error().map_or_else(|| error.to_string(), ToString::to_string),
        }
    }
    Err(last)
}

/// A plain resolver as it is asked about itself.
struct Plain {
    address: SocketAddr,
    transport: Transport,
}

/// Why there are no services.
enum Silent {
    /// The resolver knows of none.
    Nothing,
    /// It did not say.
    Failed(String),
}

impl Plain {
    async fn ask(&self, name: &str, qtype: u16) -> Result<Vec<u8>, TransportError> {
        match self.transport {
            Transport::Tcp => exchange_tcp(self.address, name, qtype).await,
            _ => exchange(self.address, name, qtype).await,
        }
    }

    async fn services(&self) -> Result<(Vec<svcb::Service>, Duration), Silent> {
        let mut asked = ddr::NAME.to_owned();
        for _ in 0..ALIASES_MAX {
            let answer = self.ask(&asked, TYPE_SVCB).await.map_err(|error| Silent::Failed(error.to_string()))?;
            match verify_answer(&answer).map(|info| info.rcode) {
                Ok(NOERROR | NXDOMAIN) => {}
                Ok(rcode) => return Err(Silent::Failed(format!("resolve {asked}: {}", rcode_name(rcode)))),
                Err(error) => return Err(Silent::Failed(format!("resolve {asked}: {error}"))),
            }
            match svcb::read(&answer, &asked, TYPE_SVCB) {
                Ok(Binding::Services(services, ttl)) => return Ok((services, ttl)),
                Ok(Binding::Alias(next)) => asked = next,
                Ok(Binding::Nothing) => return Err(Silent::Nothing),
                Err(_) => return Err(Silent::Failed(format!("resolve {asked}: malformed record"))),
            }
        }
        Err(Silent::Nothing)
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, TransportError> {
        let (v4, v6) = tokio::join!(self.ask(host, TYPE_A), self.ask(host, TYPE_AAAA));
        let mut found: Vec<IpAddr> = v6.as_deref().map(addresses).unwrap_or_default();
        match v4 {
            Ok(answer) => found.extend(addresses(&answer)),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(found)
    }
}

/// When an upstream that designates nothing is asked again.
const ABSENT_AGAIN: Duration = Duration::from_secs(900);

/// The same, where queries fail for the lack of it.
const REQUIRED_AGAIN: Duration = Duration::from_secs(30);
